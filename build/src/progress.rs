//! How the rooms of a build tell how far they are, without knowing whether anybody looks.

/// Receives what a build has to say while it works. The command line shows it as bars or lines.
pub trait Progress: Send + Sync {
    /// Starts one piece of work, such as `pull debian:12` or `write minimal-initrd.img`. `total_bytes` is its size when
    /// it is known. The piece ends when the returned meter is dropped.
    fn begin(&self, what: &str, total_bytes: Option<u64>) -> Box<dyn Meter>;

    /// One line worth knowing that is no piece of work, such as a retry and its reason.
    fn note(&self, line: &str);
}

/// Counts one piece of work.
pub trait Meter: Send + Sync {
    /// `bytes` more are done.
    fn advance(&self, bytes: u64);
}

/// Says nothing: for tests and for `-q`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Progress for Silent {
    fn begin(&self, _what: &str, _total_bytes: Option<u64>) -> Box<dyn Meter> {
        Box::new(Silent)
    }

    fn note(&self, _line: &str) {}
}

impl Meter for Silent {
    fn advance(&self, _bytes: u64) {}
}
