//! Flags of `kiln build` that are there because LinuxKit has them, or to be like it.

use std::path::PathBuf;

use clap::Args;
use kiln_build::compat::Compat;

/// How much of LinuxKit a build is to be.
#[derive(Debug, Clone, Args)]
pub struct Linuxkit {
    /// Give the result of `linuxkit` also where it is a defect [env: KILN_COMPAT]
    #[arg(long, value_name = "PROGRAM")]
    pub compat: Option<Compat>,
    /// Unpack a packed kernel: one that is gzip, or a bzImage
    #[arg(long)]
    pub decompress_kernel: bool,
    /// Look for images in a running Docker first
    #[arg(long)]
    pub docker: bool,
    /// Size of disk images, with a unit: 512M, 4G; without one it is in GiB
    #[arg(long, value_name = "SIZE", default_value = "1024M", value_parser = disk_bytes)]
    pub size: u64,
    /// The tar of a former build of the same configuration, to take unchanged parts from
    #[arg(long, value_name = "FILE", conflicts_with = "pull")]
    pub input_tar: Option<PathBuf>,
}

/// A disk's size in bytes. `M` is MiB, `G` or nothing GiB.
fn disk_bytes(text: &str) -> Result<u64, String> {
    let refuse = || format!("`{text}` is no size; write it like 512M or 4G");
    let (number, shift) = match text.strip_suffix(['M', 'm']) {
        Some(number) => (number, 20),
        None => (text.strip_suffix(['G', 'g']).unwrap_or(text), 30),
    };
    let number: u64 = number.parse().map_err(|_| refuse())?;
    number.checked_mul(1 << shift).filter(|bytes| *bytes > 0 && *bytes <= 8 << 60).ok_or_else(refuse)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_size_is_refused_by_name() {
        for text in ["big", "", "M", "-1G", "0", "1T", "1.5G", "99999999999G"] {
            assert!(disk_bytes(text).unwrap_err().contains(text), "{text}");
        }
        assert_eq!((disk_bytes("1024M"), disk_bytes("1G"), disk_bytes("1")), (Ok(1 << 30), Ok(1 << 30), Ok(1 << 30)));
    }
}
