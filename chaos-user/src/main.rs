//! The `kfault` program.
fn main() {}
