//! Asks PID 1 to power the machine off after a while.

fn main() {}
