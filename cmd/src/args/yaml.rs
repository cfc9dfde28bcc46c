//! Flags of `kiln build` about what its YAML says.

use clap::Args;

/// What a YAML is read with.
#[derive(Debug, Clone, Args)]
pub struct Yaml {
    /// Value for a variable that a YAML names under `variables`; repeatable
    #[arg(long, value_name = "NAME=VALUE", value_parser = assignment)]
    pub set: Vec<(String, String)>,
    /// Print the YAML with everything joined and filled in, and build nothing
    #[arg(long)]
    pub dry_run: bool,
}

fn assignment(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.into(), value.into())),
        _ => Err(format!("`{text}` is no value for a variable; write NAME=VALUE")),
    }
}
