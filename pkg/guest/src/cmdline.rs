//! The kernel's command line as its words.

/// Words of `/proc/cmdline`.
#[derive(Clone, Debug, Default)]
pub struct Cmdline {
    words: Vec<String>,
}

impl Cmdline {
    /// Those of the running kernel; none where `/proc` is not mounted.
    #[must_use]
    pub fn of_kernel() -> Self {
        Self::parse(&std::fs::read_to_string("/proc/cmdline").unwrap_or_default())
    }

    /// Splits the text at white space outside double quotes, as the kernel does.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let mut words = Vec::new();
        let mut word = String::new();
        let mut quoted = false;
        for c in text.chars() {
            match c {
                '"' => quoted = !quoted,
                c if c.is_whitespace() && !quoted => words.push(std::mem::take(&mut word)),
                c => word.push(c),
            }
        }
        words.push(word);
        words.retain(|word| !word.is_empty());
        Self { words }
    }

    /// Whether the bare word is there.
    #[must_use]
    pub fn has(&self, word: &str) -> bool {
        self.words.iter().any(|w| w == word)
    }

    /// The last value of `key=`.
    #[must_use]
    pub fn value(&self, key: &str) -> Option<&str> {
        self.words.iter().rev().find_map(|word| word.strip_prefix(key)?.strip_prefix('='))
    }

    /// All values of `key=`, which may be lists with commas.
    pub fn list<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        self.words.iter().filter_map(move |word| word.strip_prefix(key)?.strip_prefix('=')).flat_map(|v| v.split(','))
    }

    /// `module.parameter=value` words as (module, `parameter=value`).
    pub fn module_parameters(&self) -> impl Iterator<Item = (&str, &str)> {
        self.words.iter().filter_map(|word| {
            let (module, rest) = word.split_once('.')?;
            let name_ok = module.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
            (name_ok && !module.is_empty()).then_some((module, rest))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_whole_and_the_last_value_wins() {
        let cmdline = Cmdline::parse("console=tty0 quietly x=1 console=ttyS0\n");
        assert!(!cmdline.has("quiet"));
        assert_eq!(cmdline.value("console"), Some("ttyS0"));
        assert_eq!(cmdline.value("con"), None);
    }

    #[test]
    fn quotes_keep_white_space() {
        let cmdline = Cmdline::parse("dyndbg=\"file a +p\" quiet");
        assert_eq!(cmdline.value("dyndbg"), Some("file a +p"));
        assert!(cmdline.has("quiet"));
    }

    #[test]
    fn parameters_go_to_their_module() {
        let cmdline =
            Cmdline::parse("virtio_net.napi_tx=0 root=/dev/x.y=1 .a=b modprobe.blacklist=a,b modprobe.blacklist=c");
        let parameters: Vec<_> = cmdline.module_parameters().filter(|(module, _)| *module != "modprobe").collect();
        assert_eq!(parameters, [("virtio_net", "napi_tx=0")]);
        assert_eq!(cmdline.list("modprobe.blacklist").collect::<Vec<_>>(), ["a", "b", "c"]);
    }
}
