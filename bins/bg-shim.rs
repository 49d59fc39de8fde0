//! bg-shim
fn main() {}
