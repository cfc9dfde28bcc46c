//! Flags of `kiln build` about Secure Boot.

use std::path::PathBuf;

use clap::Args;

/// Whose signature EFI programs get.
#[derive(Debug, Clone, Args)]
pub struct SecureBoot {
    /// Sign EFI programs for Secure Boot with this RSA key, a PEM file
    #[arg(long, value_name = "KEY.pem", requires = "secure_boot_cert")]
    pub secure_boot_key: Option<PathBuf>,
    /// The key's X.509 certificate, a PEM file; the machine's firmware has to know it
    #[arg(long, value_name = "CERT.pem", requires = "secure_boot_key")]
    pub secure_boot_cert: Option<PathBuf>,
}
