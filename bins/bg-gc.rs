//! bg-gc
fn main() {}
