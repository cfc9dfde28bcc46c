//! YAML as user data needs it: a tree of texts. What a text means is the reader's business, so `0644` stays what was written.

use std::collections::BTreeMap;

use saphyr_parser::{Event, Parser, ScalarStyle};

/// Deepest nesting; cloud-config needs five levels.
const DEPTH_LIMIT: usize = 32;
/// Most values, after aliases were replaced by what they stand for.
const NODE_LIMIT: usize = 50_000;
/// Most text, counted like that.
const BYTE_LIMIT: usize = 32 << 20;

/// A text that is no YAML, or too much.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum YamlError {
    #[error("line {line}: {text}")]
    Syntax { line: usize, text: String },
    #[error("line {line}: deeper than {DEPTH_LIMIT} levels")]
    Deep { line: usize },
    #[error("line {line}: more than {NODE_LIMIT} values or {BYTE_LIMIT} bytes")]
    Much { line: usize },
}

/// A value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Yaml {
    Null,
    Text(String),
    /// `!!binary`: base64 still.
    Binary(String),
    List(Vec<Yaml>),
    Map(Vec<(String, Yaml)>),
}

impl Yaml {
    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&Yaml> {
        match self {
            Self::Map(entries) => entries.iter().rev().find(|(name, _)| name == key).map(|(_, value)| value),
            _ => None,
        }
    }

    /// The text, if it is one.
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// Values and bytes below it, itself included.
    fn weight(&self) -> (usize, usize) {
        let sum = |(nodes, bytes): (usize, usize), (more, longer): (usize, usize)| (nodes + more, bytes + longer);
        match self {
            Self::Null => (1, 0),
            Self::Text(text) | Self::Binary(text) => (1, text.len()),
            Self::List(items) => items.iter().map(Self::weight).fold((1, 0), sum),
            Self::Map(entries) => {
                entries.iter().map(|(key, value)| sum((1, key.len()), value.weight())).fold((1, 0), sum)
            }
        }
    }
}

/// A list or mapping that has not ended.
struct Open {
    anchor: usize,
    kind: Kind,
}

enum Kind {
    List(Vec<Yaml>),
    Map(Vec<(String, Yaml)>, Option<String>),
}

#[derive(Default)]
struct Tree {
    open: Vec<Open>,
    anchors: BTreeMap<usize, Yaml>,
    root: Option<Yaml>,
    weight: (usize, usize),
}

/// Reads the first document.
///
/// # Errors
/// [`YamlError`].
pub(super) fn read(text: &str) -> Result<Yaml, YamlError> {
    let mut tree = Tree::default();
    let mut parser = Parser::new_from_str(text);
    while let Some(next) = parser.next_event() {
        let (event, span) =
            next.map_err(|error| YamlError::Syntax { line: error.marker().line(), text: error.info().to_owned() })?;
        if matches!(event, Event::DocumentEnd) {
            break;
        }
        tree.take(event, span.start.line())?;
    }
    Ok(tree.root.unwrap_or(Yaml::Null))
}

impl Tree {
    fn take(&mut self, event: Event<'_>, line: usize) -> Result<(), YamlError> {
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let null = style == ScalarStyle::Plain && matches!(&*text, "" | "~" | "null" | "Null" | "NULL");
                let value = match tag {
                    Some(tag) if tag.suffix == "binary" => Yaml::Binary(text.into_owned()),
                    _ if null => Yaml::Null,
                    _ => Yaml::Text(text.into_owned()),
                };
                self.count(value.weight(), line)?;
                self.place(value, anchor, line)
            }
            Event::Alias(anchor) => match self.anchors.get(&anchor).map(Yaml::weight) {
                Some(weight) => {
                    self.count(weight, line)?;
                    let value = self.anchors.get(&anchor).cloned().unwrap_or(Yaml::Null);
                    self.place(value, 0, line)
                }
                None => Err(YamlError::Syntax { line, text: "an alias inside of what it stands for".into() }),
            },
            Event::SequenceStart(anchor, _) => self.begin(anchor, Kind::List(vec![]), line),
            Event::MappingStart(anchor, _) => self.begin(anchor, Kind::Map(vec![], None), line),
            Event::SequenceEnd | Event::MappingEnd => match self.open.pop() {
                Some(Open { anchor, kind: Kind::List(items) }) => self.place(Yaml::List(items), anchor, line),
                Some(Open { anchor, kind: Kind::Map(entries, _) }) => self.place(Yaml::Map(entries), anchor, line),
                None => Ok(()),
            },
            _ => Ok(()),
        }
    }

    fn count(&mut self, (nodes, bytes): (usize, usize), line: usize) -> Result<(), YamlError> {
        self.weight = (self.weight.0 + nodes, self.weight.1 + bytes);
        if self.weight.0 > NODE_LIMIT || self.weight.1 > BYTE_LIMIT { Err(YamlError::Much { line }) } else { Ok(()) }
    }

    fn begin(&mut self, anchor: usize, kind: Kind, line: usize) -> Result<(), YamlError> {
        if self.open.len() >= DEPTH_LIMIT {
            return Err(YamlError::Deep { line });
        }
        self.count((1, 0), line)?;
        self.open.push(Open { anchor, kind });
        Ok(())
    }

    fn place(&mut self, value: Yaml, anchor: usize, line: usize) -> Result<(), YamlError> {
        if anchor != 0 {
            // It keeps a copy, which counts like any other.
            self.count(value.weight(), line)?;
            self.anchors.insert(anchor, value.clone());
        }
        match self.open.last_mut().map(|open| &mut open.kind) {
            None => self.root = Some(value),
            Some(Kind::List(items)) => items.push(value),
            Some(Kind::Map(entries, key)) => match (key.take(), value) {
                (Some(key), value) => entries.push((key, value)),
                (None, Yaml::Text(text)) => *key = Some(text),
                (None, Yaml::Null) => *key = Some(String::new()),
                (None, _) => return Err(YamlError::Syntax { line, text: "a key must be a word".into() }),
            },
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_broken_too_deep_or_too_much_is_refused() {
        assert!(matches!(read("a: [\nb: c"), Err(YamlError::Syntax { .. })));
        assert!(matches!(read(&"[".repeat(40)), Err(YamlError::Deep { line: 1 })));
        assert!(matches!(read("a: &x [*x]"), Err(YamlError::Syntax { .. })));
        // Each line stands for ten of the line before.
        let mut laughs = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
        for n in 1..9 {
            laughs.push_str(&format!("a{n}: &a{n} [{}]\n", vec![format!("*a{}", n - 1); 10].join(", ")));
        }
        assert!(matches!(read(&laughs), Err(YamlError::Much { .. })));
    }

    #[test]
    fn texts_stay_what_was_written() {
        let tree =
            read("#cloud-config\na: 0644\nb: \"~\"\nc:\nd: !!binary aGk=\ne: &k [x]\nf: *k\n---\nsecond: 1\n").unwrap();
        assert_eq!(tree.get("a").unwrap().text(), Some("0644"));
        assert_eq!(tree.get("b").unwrap().text(), Some("~"));
        assert_eq!(tree.get("c"), Some(&Yaml::Null));
        assert_eq!(tree.get("d"), Some(&Yaml::Binary("aGk=".into())));
        assert_eq!(tree.get("f"), Some(&Yaml::List(vec![Yaml::Text("x".into())])));
        assert_eq!((tree.get("second"), read("").unwrap()), (None, Yaml::Null));
    }
}
