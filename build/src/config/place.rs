//! Where something stands in a configuration, and how it is shown: file, line, column, the line itself and carets.

use std::fmt;
use std::sync::Arc;

/// Longest part of a line that is shown, in characters; a longer line is cut around the place.
const SHOWN_CHARS: usize = 100;

/// A text to read a configuration from, and the name to call it by in messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Source<'a> {
    /// The file as the user named it, or a word such as `standard input`.
    pub name: &'a str,
    /// The whole text.
    pub text: &'a str,
}

/// The source kept for messages that come after parsing. Shared by all places in it.
struct Kept {
    name: String,
    text: String,
}

/// A place in a configuration. Cheap to clone; shows as `minimal.yml:7:3`.
#[derive(Clone)]
pub struct Place {
    kept: Arc<Kept>,
    span: Mark,
    field: String,
}

/// A stretch of one line. `line` counts from 1, `column` from 0, both in characters; `width` is at least 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark {
    pub line: usize,
    pub column: usize,
    pub width: usize,
}

/// Makes the places of one source.
#[derive(Clone)]
pub(super) struct Origin(Arc<Kept>);

impl Origin {
    pub fn new(source: Source<'_>) -> Self {
        Self(Arc::new(Kept { name: source.name.into(), text: source.text.into() }))
    }

    pub fn place(&self, span: Mark, field: String) -> Place {
        Place { kept: Arc::clone(&self.0), span, field }
    }
}

impl Place {
    /// The source's name, as it was given to the parser.
    pub fn file(&self) -> &str {
        &self.kept.name
    }

    /// Line, counted from 1.
    pub fn line(&self) -> usize {
        self.span.line
    }

    /// Column in characters, counted from 1.
    pub fn column(&self) -> usize {
        self.span.column + 1
    }

    /// Path of the field, such as `services[2].binds`; empty for the whole file.
    pub fn field(&self) -> &str {
        &self.field
    }

    /// The text that the carets stand under.
    pub(super) fn text(&self) -> Option<String> {
        let line = self.kept.text.lines().nth(self.span.line.saturating_sub(1))?;
        Some(line.chars().skip(self.span.column).take(self.span.width).collect())
    }

    /// Four lines that show the place: position, the line itself, carets below it. No newline at the end.
    pub fn excerpt(&self) -> String {
        let number = self.line().to_string();
        let margin = " ".repeat(number.len());
        let field = if self.field.is_empty() { String::new() } else { format!(", {}", self.field) };
        let head = format!("{margin}--> {self}{field}");
        let Some(line) = self.kept.text.lines().nth(self.span.line.saturating_sub(1)) else { return head };
        let (shown, padding, width) = cut(line, self.span);
        let carets = "^".repeat(width);
        format!("{head}\n{margin} |\n{number} | {shown}\n{margin} | {padding}{carets}").replace("| \n", "|\n")
    }
}

/// The part of `line` around the span, what to put in front of the carets, and how many carets.
fn cut(line: &str, span: Mark) -> (String, String, usize) {
    let from = if span.column >= SHOWN_CHARS { span.column - SHOWN_CHARS / 2 } else { 0 };
    let mut shown = String::new();
    let mut padding = String::new();
    for (column, c) in line.chars().enumerate().skip(from).take(SHOWN_CHARS) {
        // A control character could move the terminal's cursor or worse; a tab keeps its width above and below.
        let safe = if c.is_control() && c != '\t' { '\u{fffd}' } else { c };
        shown.push(safe);
        if column < span.column {
            padding.push(if c == '\t' { '\t' } else { ' ' });
        }
    }
    let end_of_line = shown.chars().count().saturating_sub(padding.chars().count()).max(1);
    (shown, padding, span.width.clamp(1, end_of_line))
}

impl fmt::Display for Place {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}:{}:{}", self.file(), self.line(), self.column())
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Place({self}, {})", self.field)
    }
}

impl PartialEq for Place {
    fn eq(&self, other: &Self) -> bool {
        self.file() == other.file() && self.span == other.span && self.field == other.field
    }
}

impl Eq for Place {}
