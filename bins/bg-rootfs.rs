//! bg-rootfs
fn main() {}
