//! bg-register
fn main() {}
