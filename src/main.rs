//! Hokusai.
fn main() {}
