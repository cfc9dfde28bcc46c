//! Flags of `kiln run` about the network.

use std::str::FromStr;

use clap::Args;

/// The network of a machine, as typed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
pub struct Networking {
    /// What a network card is connected to: `user` (or `default`), a network in this process that needs no rights, or `none`.
    /// Repeatable, a card each [default: user]
    #[arg(long, value_name = "NETWORK", help_heading = "Network")]
    pub networking: Vec<Attachment>,
}

/// One `-networking`, as typed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Attachment {
    /// No card.
    None,
    /// The user-mode network.
    User,
}

/// What is wrong with a `-networking`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AttachmentError {
    /// No such network.
    #[error("no network is called `{0}`; there are `user` (or `default`) and `none`")]
    Unknown(String),
}

impl FromStr for Attachment {
    type Err = AttachmentError;

    fn from_str(text: &str) -> Result<Self, AttachmentError> {
        match text {
            "user" | "default" => Ok(Self::User),
            "none" => Ok(Self::None),
            other => Err(AttachmentError::Unknown(other.into())),
        }
    }
}
