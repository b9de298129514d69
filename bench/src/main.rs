//! Larder against its peers.

fn main() {}
