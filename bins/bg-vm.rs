//! bg-vm
fn main() {}
