//! The sample service, on its own.

fn main() {}
