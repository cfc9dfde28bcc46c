//! What the help says about `--format`.

use kiln_build::format::Format;

/// All formats, as one sentence.
pub fn help() -> String {
    let names = Format::ALL.map(|format| format!("`{format}`"));
    let (last, others) = names.split_last().map_or(("", &[][..]), |(last, others)| (last.as_str(), others));
    format!("What to make: {} or {last}; repeatable, or a list with commas [default: kernel+initrd]", others.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_format_is_in_the_help() {
        let help = help();
        assert!(Format::ALL.iter().all(|format| help.contains(&format!("`{format}`"))), "{help}");
        assert!(help.starts_with("What to make: `kernel+initrd`, `tar`"), "{help}");
    }
}
