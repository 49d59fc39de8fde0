//! Tests with real VMs: a real kernel and a real Debian on the VMM that this host has, or that BG_VMM names. Each has a
//! state directory of its own and ends with an audit that finds nothing. One runs at a time, because each keeps the processors busy.

mod configure;
mod crash;
mod customize;
mod disks;
mod elsewhere;
mod files;
mod guest;
mod image;
mod image_build;
mod interrupted;
mod life;
mod logins;
mod nested;
mod net;
mod paused;
mod readme;
mod repository;
mod semantics;
mod soak;
mod ssh;
mod ssh_strangers;
mod ssh_ways;
mod stages;
mod user;
mod void;
mod void_release;
mod world;
