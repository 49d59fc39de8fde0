//! bg-verify
fn main() {}
