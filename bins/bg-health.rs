//! bg-health
fn main() {}
