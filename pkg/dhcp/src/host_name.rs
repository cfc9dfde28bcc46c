//! The machine's name: from the lease when nobody gave it one.

/// What an init calls a machine that has no name: `linuxkit-` and the twelve digits of a hardware address, or a word.
pub fn is_placeholder(name: &str) -> bool {
    let is_address = |digits: &str| digits.len() == 12 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    matches!(name, "" | "(none)" | "localhost" | "kiln" | "linuxkit")
        || name.strip_prefix("linuxkit-").is_some_and(is_address)
}

/// The machine's name now.
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
