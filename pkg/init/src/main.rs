//! PID 1 of a kiln machine.

fn main() {}
