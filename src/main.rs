//! The `lastlayer` program.
fn main() {}
