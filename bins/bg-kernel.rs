//! bg-kernel
fn main() {}
