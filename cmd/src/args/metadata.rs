//! What a machine is told of itself.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// Flags of `kiln run`.
#[derive(Debug, Clone, Default, Args)]
pub struct Data {
    /// Text that the machine finds on a metadata CD, for cloud-init and LinuxKit's metadata package
    #[arg(long, value_name = "TEXT", conflicts_with = "data_file", allow_hyphen_values = true)]
    pub data: Option<String>,
    /// The same from a file; of a folder all files are on the CD
    #[arg(long, value_name = "FILE")]
    pub data_file: Option<PathBuf>,
    /// A string for the guest in the SMBIOS tables (type 11). systemd takes credentials from them: io.systemd.credential:NAME=VALUE.
    /// Repeatable
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub oem_string: Vec<String>,
    /// What Ignition is to do in the guest, which finds it as opt/com.coreos/config of the firmware's configuration
    #[arg(long, value_name = "FILE")]
    pub ignition: Option<PathBuf>,
}

/// `kiln metadata`.
#[derive(Debug, Clone, Subcommand)]
pub enum Metadata {
    /// Write a metadata CD, as `kiln run -data` attaches it
    Create(MetadataCreate),
}

/// `kiln metadata create`.
#[derive(Debug, Clone, Args)]
pub struct MetadataCreate {
    /// The image to write
    #[arg(value_name = "FILE.iso")]
    pub image: PathBuf,
    /// What is to be on it
    #[arg(value_name = "TEXT", required_unless_present = "file", conflicts_with = "file", allow_hyphen_values = true)]
    pub text: Option<String>,
    /// The same from a file, or all files of a folder
    #[arg(long, value_name = "FILE")]
    pub file: Option<PathBuf>,
}
