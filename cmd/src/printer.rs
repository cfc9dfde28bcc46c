//! The one place that prints. Data goes to standard output, talk to standard error; colour only underlines what the words
//! say already.

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use indicatif::MultiProgress;

use crate::failure::Failure;

/// How much is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Errors only.
    Quiet,
    /// Progress and what one should know.
    Normal,
    /// Details too.
    Detail,
}

/// Prints, at one level, with colour or without. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Printer {
    level: Level,
    color: Arc<AtomicBool>,
    bars: Option<MultiProgress>,
}

impl Printer {
    /// For this process's standard error: colour and bars only on a terminal that wants them.
    pub fn new(level: Level) -> Self {
        let is_set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        let terminal = io::stderr().is_terminal();
        Self {
            level,
            color: Arc::new((terminal && !dumb && !is_set("NO_COLOR")).into()),
            bars: (terminal && !dumb && level > Level::Quiet).then(MultiProgress::new),
        }
    }

    /// Standard error is no terminal any more.
    pub fn lose_terminal(&self) {
        self.color.store(false, Ordering::Relaxed);
    }

    /// How much is said.
    pub fn level(&self) -> Level {
        self.level
    }

    /// Where bars can be shown, if they can.
    pub fn bars(&self) -> Option<&MultiProgress> {
        self.bars.as_ref()
    }

    /// Data: to standard output, all of it. A reader that has gone away has got what it wanted.
    pub fn data(&self, bytes: &[u8]) -> io::Result<()> {
        let write = || {
            let mut stdout = io::stdout().lock();
            stdout.write_all(bytes).and_then(|()| stdout.flush())
        };
        match self.bars.as_ref().map_or_else(write, |bars| bars.suspend(write)) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            result => result,
        }
    }

    /// Something worth knowing.
    pub fn note(&self, text: &str) {
        if self.level >= Level::Normal {
            self.talk(&format!("{}\n", printable(text)));
        }
    }

    /// What was asked for by a flag of its own: said at every level.
    pub fn asked(&self, text: &str) {
        self.talk(&format!("{}\n", printable(text)));
    }

    /// Something worth knowing for who looks into how it works.
    pub fn detail(&self, text: &str) {
        if self.level >= Level::Detail {
            self.talk(&format!("{}\n", self.dim(&printable(text))));
        }
    }

    /// A mistake of ours: said at every level.
    pub fn crash(&self, what: &str) {
        self.talk(&format!("{} {}\n", self.paint("31;1", "error:"), printable(what)));
    }

    /// Why the command failed: said at every level.
    pub fn failure(&self, failure: &Failure) {
        self.talk(&self.describe(failure));
    }

    fn describe(&self, failure: &Failure) -> String {
        let mut text = format!("{} {}\n", self.paint("31;1", "error:"), printable(&failure.error.to_string()));
        let mut cause = failure.error.source();
        let mut said = failure.error.to_string();
        while let Some(error) = cause {
            let words = error.to_string();
            // An error that passes its cause's text on as its own need not say it twice.
            if words != said {
                let _ = writeln!(text, "  {} {}", self.paint("1", "caused by:"), printable(&words));
            }
            said = words;
            cause = error.source();
        }
        for hint in &failure.hints {
            let _ = writeln!(text, "{} {}", self.paint("36;1", "hint:"), printable(hint));
        }
        text
    }

    /// `text` in an SGR style, for [`Printer::data`]: plain unless standard output shows colour too.
    pub fn paint_data(&self, style: &str, text: &str) -> String {
        if io::stdout().is_terminal() { self.paint(style, text) } else { text.to_owned() }
    }

    /// `text` in an SGR style.
    fn paint(&self, style: &str, text: &str) -> String {
        if self.color.load(Ordering::Relaxed) { format!("\x1b[{style}m{text}\x1b[0m") } else { text.to_owned() }
    }

    fn dim(&self, text: &str) -> String {
        self.paint("2", text)
    }

    /// Text to standard error, between bars if there are any. Nobody can be told when that fails.
    fn talk(&self, text: &str) {
        let write = || {
            let _ = io::stderr().lock().write_all(text.as_bytes());
        };
        match &self.bars {
            Some(bars) => bars.suspend(write),
            None => write(),
        }
    }
}

/// Names out of images, registries and YAML may hold bytes that steer a terminal: they are shown, not sent.
fn printable(text: &str) -> String {
    let steers = |c: char| c.is_control() && c != '\n' && c != '\t';
    if !text.contains(steers) {
        return text.to_owned();
    }
    text.chars().fold(String::with_capacity(text.len()), |mut shown, c| {
        if steers(c) {
            shown.extend(c.escape_default());
        } else {
            shown.push(c);
        }
        shown
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot open disk `{0}`")]
    struct Outer(&'static str, #[source] Middle);

    #[derive(Debug, thiserror::Error)]
    #[error(transparent)]
    struct Middle(#[from] io::Error);

    fn failure() -> Failure {
        let cause = io::Error::new(io::ErrorKind::NotFound, "no such file\x1b[2J");
        Failure::new(Outer("a\rb", cause.into())).hint("make it").hint("or not")
    }

    fn printer(color: bool) -> Printer {
        Printer { level: Level::Quiet, color: Arc::new(color.into()), bars: None }
    }

    #[test]
    fn an_error_shows_its_causes_once_and_then_the_hints() {
        let expected =
            "error: cannot open disk `a\\rb`\n  caused by: no such file\\u{1b}[2J\nhint: make it\nhint: or not\n";
        assert_eq!(printer(false).describe(&failure()), expected);
    }

    #[test]
    fn colour_adds_nothing_but_colour() {
        let mut colored = printer(true).describe(&failure());
        assert!(colored.starts_with("\x1b[31;1merror:\x1b[0m cannot"));
        for style in ["\x1b[31;1m", "\x1b[36;1m", "\x1b[1m", "\x1b[0m"] {
            colored = colored.replace(style, "");
        }
        assert_eq!(colored, printer(false).describe(&failure()));
    }
}
