//! What host and guest agree on. No I/O.
