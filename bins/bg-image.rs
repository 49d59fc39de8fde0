//! bg-image
fn main() {}
