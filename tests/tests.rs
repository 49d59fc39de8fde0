//! Every test of the suite in one program, which links once. `tests/support` has what they share.

mod audit;
mod bench;
mod boot_stages;
mod bundle;
mod contract;
mod doctor;
mod firecracker;
mod golden;
mod image;
mod invariants;
mod killed;
mod machines;
mod manual;
mod net;
mod pipelines;
mod reflink;
mod register;
mod running;
mod schemas;
mod sets;
mod shim;
mod size;
mod support;
mod vm;
mod xbps;
