//! bg-seed
fn main() {}
