//! Weir's own tasks.

fn main() {}
