//! `kiln port` as its user typed it.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::publish::PublishSpec;

/// `kiln port`.
#[derive(Debug, Clone, Subcommand)]
pub enum Port {
    /// Publish more ports of a running machine
    Add(PortAdd),
    /// Close published ports; connections that came through them stay
    Rm(PortRm),
    /// List the published ports
    Ls(PortLs),
}

/// `kiln port add`.
#[derive(Debug, Clone, Args)]
pub struct PortAdd {
    /// What `kiln run` was given, or the machine's state folder
    pub name: PathBuf,
    /// As with `kiln run -publish`
    #[arg(required = true, value_name = "[IP:]HOST:GUEST[/tcp|udp]")]
    pub ports: Vec<PublishSpec>,
}

/// `kiln port rm`.
#[derive(Debug, Clone, Args)]
pub struct PortRm {
    /// What `kiln run` was given, or the machine's state folder
    pub name: PathBuf,
    /// Ports of this machine, or paths of sockets, as `kiln port ls` shows them
    #[arg(required = true, value_name = "[IP:]HOST[/tcp|udp]")]
    pub ports: Vec<String>,
}

/// `kiln port ls`.
#[derive(Debug, Clone, Args)]
pub struct PortLs {
    /// What `kiln run` was given, or the machine's state folder
    pub name: PathBuf,
    /// Print it as JSON
    #[arg(long)]
    pub json: bool,
}
