//! bg-ssh
fn main() {}
