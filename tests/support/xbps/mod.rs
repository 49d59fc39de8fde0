//! Void's packages and repositories, made for tests: a writer of `.xbps` files ([`package`]), of signed repositories
//! ([`repository`], [`key`]), and a whole small distribution of them ([`full`]): Debian's programs ([`debian`]) in packages
//! as Void's are, with a few packages of our own ([`own`]) that make a system with runit of them.
//!
//! It proves what reads such packages and what configures them. It proves nothing about Void's own packages.
//!
//! Sources: the formats as xbps 0.60 writes them (xbps-create(1), xbps-rindex(1)).

pub mod debian;
pub mod full;
pub mod key;
pub mod own;
pub mod package;
pub mod release;
pub mod repository;
