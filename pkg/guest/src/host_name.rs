//! The machine's name, which others may give it when nobody else has.

/// A name has at most this many bytes (RFC 1035 section 2.3.4), its dots included and the last one not.
pub const NAME_LIMIT_BYTES: usize = 253;
const LABEL_LIMIT_BYTES: usize = 63;

/// What an init calls a machine that has no name: `linuxkit-` and the twelve digits of a hardware address, or a word.
#[must_use]
pub fn is_placeholder(name: &str) -> bool {
    let is_address = |digits: &str| digits.len() == 12 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    matches!(name, "" | "(none)" | "localhost" | "kiln" | "linuxkit")
        || name.strip_prefix("linuxkit-").is_some_and(is_address)
}

/// The machine's name now.
#[must_use]
pub fn current() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// Names the machine, up to its first dot.
///
/// # Errors
/// The kernel's: it takes CAP_SYS_ADMIN, and at most 64 bytes.
pub fn set(name: &str) -> std::io::Result<()> {
    let short = name.split('.').next().unwrap_or(name);
    Ok(rustix::system::sethostname(short.as_bytes())?)
}

/// A host's or domain's name as it comes from elsewhere: letters, digits, hyphens, underscores and dots. NUL at the end is left out.
#[must_use]
pub fn plain(bytes: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(bytes).ok()?.trim_end_matches('\0').trim_end_matches('.');
    let is_label = |label: &str| {
        (1..=LABEL_LIMIT_BYTES).contains(&label.len())
            && !label.starts_with('-')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    (text.len() <= NAME_LIMIT_BYTES && text.split('.').all(is_label)).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_somebody_chose_is_no_placeholder() {
        for name in ["web", "linuxkit-web", "linuxkit-52540012345", "linuxkit-52540012345g"] {
            assert!(!is_placeholder(name), "{name}");
        }
        for name in ["", "(none)", "localhost", "kiln", "linuxkit-525400123456"] {
            assert!(is_placeholder(name), "{name}");
        }
    }
}
