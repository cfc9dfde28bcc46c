//! Signatures for Secure Boot.

/// A key and its certificate, to sign EFI programs with.
#[derive(Debug, Clone)]
pub enum Signer {}
