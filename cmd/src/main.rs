//! The `kiln` program: words to requests, messages, exit codes.

fn main() {}
