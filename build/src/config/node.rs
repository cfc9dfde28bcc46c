//! YAML events to a tree of values that know where they stand. Aliases and merge keys are resolved here, within limits;
//! scalars get their type by YAML 1.2's core schema, with YAML 1.1's leading-zero octals.

use std::borrow::Cow;
use std::collections::BTreeMap;

use saphyr_parser::{Event, Parser, ScalarStyle, Span, Tag};

use super::Fault;
use super::decode::shown;
use super::place::Mark;
use super::variables::{self, Variables};

/// Deepest nesting: LinuxKit's fields need 7 levels.
const MAX_DEPTH: usize = 32;
/// Most values of a configuration, counted after aliases were replaced by what they stand for.
const MAX_NODES: usize = 250_000;
/// Most text of a configuration, counted like that.
const MAX_BYTES: usize = 32 << 20;

/// Most keys of one mapping; each new one is compared with all others.
const MAX_KEYS: usize = 500;

/// A value and where it stands. What an alias stands for stands where its anchor is.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub mark: Mark,
    pub value: Value,
}

#[derive(Debug, Clone)]
pub(super) enum Value {
    Null,
    Bool(bool),
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    Text(String),
    List(Vec<Node>),
    Map(Vec<(Key, Node)>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Key {
    pub mark: Mark,
    pub text: String,
}

/// A fault in the text, and where.
pub(super) type Located = (Fault, Mark);

impl Node {
    pub fn entry(&self, name: &str) -> Option<&(Key, Node)> {
        match &self.value {
            Value::Map(entries) => entries.iter().find(|(key, _)| key.text == name),
            _ => None,
        }
    }

    pub fn get(&self, name: &str) -> Option<&Node> {
        self.entry(name).map(|(_, node)| node)
    }

    pub fn item(&self, index: usize) -> Option<&Node> {
        match &self.value {
            Value::List(items) => items.get(index),
            _ => None,
        }
    }
}

/// The one document of `text`, with the values of `variables` put in, and then `replace` asked about each string that is
/// a value.
pub(super) fn read(
    text: &str,
    variables: &Variables,
    replace: &mut dyn FnMut(&str) -> Result<Option<String>, Fault>,
) -> Result<Node, Located> {
    let mut tree =
        Tree { open: Vec::new(), anchors: BTreeMap::new(), nodes: 0, bytes: 0, root: None, variables, replace };
    let mut parser = Parser::new_from_str(text);
    let mut documents = 0;
    while let Some(next) = parser.next_event() {
        let (event, span) = next.map_err(|error| syntax(text, &error))?;
        if let Event::DocumentStart(_) = event {
            documents += 1;
            if documents > 1 {
                let text = "a second document; a configuration is one document, give several files instead".into();
                return Err((Fault::Syntax { text }, mark(span)));
            }
            continue;
        }
        tree.take(event, mark(span))?;
    }
    tree.root.ok_or((Fault::Empty, Mark { line: 1, column: 0, width: 1 }))
}

fn mark(span: Span) -> Mark {
    let one_line = span.start.line() == span.end.line();
    let width = if one_line { span.end.col().saturating_sub(span.start.col()).max(1) } else { 1 };
    Mark { line: span.start.line(), column: span.start.col(), width }
}

fn syntax(text: &str, error: &saphyr_parser::ScanError) -> Located {
    let (line, column) = (error.marker().line(), error.marker().col());
    // The reader finds a tab where it stands or at the end of what came before it.
    for (number, content) in text.lines().enumerate().skip(line.saturating_sub(1)).take(2) {
        let indent = content.chars().take_while(|c| matches!(c, ' ' | '\t'));
        let tab = indent.enumerate().find(|(_, c)| *c == '\t');
        if let Some((column, _)) = tab.filter(|_| number + 1 == line || error.info().contains("tab")) {
            return (Fault::Tab, Mark { line: number + 1, column, width: 1 });
        }
    }
    let fault = Fault::Syntax { text: error.info().to_owned() };
    if text.lines().nth(line.saturating_sub(1)).is_some() {
        return (fault, Mark { line, column, width: 1 });
    }
    // The text ended too early: show its end.
    let (last, content) = text.lines().enumerate().last().unwrap_or_default();
    (fault, Mark { line: last + 1, column: content.chars().count(), width: 1 })
}

/// A list or mapping that has not ended yet.
struct Open {
    mark: Mark,
    anchor: usize,
    /// What was counted when it began.
    nodes: usize,
    bytes: usize,
    kind: OpenKind,
}

enum OpenKind {
    List(Vec<Node>),
    Map { entries: Vec<(Key, Node)>, key: Option<Key>, merged: Vec<Node> },
}

/// What an anchor stands for, and what it counts.
struct Anchored {
    node: Node,
    nodes: usize,
    bytes: usize,
}

struct Tree<'r> {
    open: Vec<Open>,
    anchors: BTreeMap<usize, Anchored>,
    nodes: usize,
    bytes: usize,
    root: Option<Node>,
    variables: &'r Variables,
    replace: &'r mut dyn FnMut(&str) -> Result<Option<String>, Fault>,
}

impl Tree<'_> {
    fn take(&mut self, event: Event<'_>, mark: Mark) -> Result<(), Located> {
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let node = self.scalar(text, style, tag.as_deref(), mark)?;
                let bytes = match &node.value {
                    Value::Text(text) => text.len(),
                    _ => 0,
                };
                self.count(1, bytes, mark)?;
                self.anchor(anchor, &node, 1, bytes);
                self.place(node)
            }
            Event::SequenceStart(anchor, tag) => {
                container_tag(tag.as_deref(), "seq", mark)?;
                self.begin(mark, anchor, OpenKind::List(Vec::new()))
            }
            Event::MappingStart(anchor, tag) => {
                container_tag(tag.as_deref(), "map", mark)?;
                self.begin(mark, anchor, OpenKind::Map { entries: Vec::new(), key: None, merged: Vec::new() })
            }
            Event::SequenceEnd | Event::MappingEnd => self.end(),
            Event::Alias(anchor) => {
                let known = self.anchors.get(&anchor).map(|known| (known.nodes, known.bytes));
                let Some((nodes, bytes)) = known else {
                    return Err((Fault::Syntax { text: "an alias inside of what it stands for".into() }, mark));
                };
                self.count(nodes, bytes, mark)?;
                match self.anchors.get(&anchor).map(|known| known.node.clone()) {
                    Some(node) => self.place(node),
                    None => Ok(()),
                }
            }
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentStart(_) | Event::DocumentEnd => {
                Ok(())
            }
        }
    }

    fn count(&mut self, nodes: usize, bytes: usize, mark: Mark) -> Result<(), Located> {
        self.nodes = self.nodes.saturating_add(nodes);
        self.bytes = self.bytes.saturating_add(bytes);
        if self.nodes > MAX_NODES {
            return Err((Fault::TooMuch { limit: MAX_NODES, what: "values" }, mark));
        }
        if self.bytes > MAX_BYTES {
            return Err((Fault::TooMuch { limit: MAX_BYTES, what: "bytes" }, mark));
        }
        Ok(())
    }

    fn anchor(&mut self, anchor: usize, node: &Node, nodes: usize, bytes: usize) {
        if anchor != 0 {
            self.anchors.insert(anchor, Anchored { node: node.clone(), nodes, bytes });
        }
    }

    fn begin(&mut self, mark: Mark, anchor: usize, kind: OpenKind) -> Result<(), Located> {
        if self.open.len() >= MAX_DEPTH {
            return Err((Fault::TooDeep { limit: MAX_DEPTH }, mark));
        }
        if let Some(Open { kind: OpenKind::Map { key: None, .. }, .. }) = self.open.last() {
            return Err((Fault::Syntax { text: "a key must be a word".into() }, mark));
        }
        let (nodes, bytes) = (self.nodes, self.bytes);
        self.count(1, 0, mark)?;
        self.open.push(Open { mark, anchor, nodes, bytes, kind });
        Ok(())
    }

    fn end(&mut self) -> Result<(), Located> {
        let Some(open) = self.open.pop() else { return Ok(()) };
        let value = match open.kind {
            OpenKind::List(items) => Value::List(items),
            OpenKind::Map { mut entries, merged, .. } => {
                merge(&mut entries, merged).map_err(|fault| (fault, open.mark))?;
                Value::Map(entries)
            }
        };
        let node = Node { mark: open.mark, value };
        let (nodes, bytes) = (self.nodes - open.nodes, self.bytes - open.bytes);
        if open.anchor != 0 {
            // The anchor keeps a copy, which counts like any other.
            self.count(nodes, bytes, open.mark)?;
        }
        self.anchor(open.anchor, &node, nodes, bytes);
        self.place(node)
    }

    /// Puts a complete value where the innermost open list or mapping wants it.
    fn place(&mut self, node: Node) -> Result<(), Located> {
        let Some(open) = self.open.last_mut() else {
            self.root = Some(node);
            return Ok(());
        };
        match &mut open.kind {
            OpenKind::List(items) => items.push(node),
            OpenKind::Map { entries, key, merged } => match key.take() {
                None => *key = Some(new_key(node, entries)?),
                Some(name) if name.text == MERGE => merge_sources(node, merged)?,
                Some(name) => entries.push((name, node)),
            },
        }
        Ok(())
    }

    fn scalar(
        &mut self,
        text: Cow<'_, str>,
        style: ScalarStyle,
        tag: Option<&Tag>,
        mark: Mark,
    ) -> Result<Node, Located> {
        let is_key = matches!(self.open.last(), Some(Open { kind: OpenKind::Map { key: None, .. }, .. }));
        // A key is a word, whatever it looks like.
        if is_key {
            return Ok(Node { mark, value: Value::Text(text.into_owned()) });
        }
        if self.is_in_variables() {
            // Text, whatever it looks like: `1.10` is a version here.
            let plain = style == ScalarStyle::Plain && matches!(&*text, "" | "~" | "null");
            let value = if plain { Value::Null } else { Value::Text(text.into_owned()) };
            return Ok(Node { mark, value });
        }
        let text = self.variables.expand(&text).map_err(|fault| (fault, mark))?.map_or(text, Cow::Owned);
        let value = typed(text, style, tag, mark)?;
        let value = match value {
            Value::Text(text) => match (self.replace)(&text).map_err(|fault| (fault, mark))? {
                Some(replaced) => Value::Text(replaced),
                None => Value::Text(text),
            },
            other => other,
        };
        Ok(Node { mark, value })
    }
}

impl Tree<'_> {
    /// Whether the next value is one of the top level's `variables`.
    fn is_in_variables(&self) -> bool {
        let [Open { kind: OpenKind::Map { key: Some(key), .. }, .. }, _] = &self.open[..] else { return false };
        key.text == variables::SECTION
    }
}

/// The key of YAML 1.1's merge type.
const MERGE: &str = "<<";

fn new_key(node: Node, entries: &[(Key, Node)]) -> Result<Key, Located> {
    let Value::Text(text) = node.value else {
        return Err((Fault::Syntax { text: "a key must be a word".into() }, node.mark));
    };
    if entries.len() >= MAX_KEYS {
        return Err((Fault::TooMuch { limit: MAX_KEYS, what: "keys in a mapping" }, node.mark));
    }
    match entries.iter().find(|(key, _)| key.text == text) {
        Some((first, _)) => Err((Fault::DuplicateField { name: shown(&text), first: first.mark.line }, node.mark)),
        None => Ok(Key { mark: node.mark, text }),
    }
}

/// Collects the mappings that a merge key names.
fn merge_sources(node: Node, merged: &mut Vec<Node>) -> Result<(), Located> {
    let refuse = |mark| (Fault::Syntax { text: "`<<` takes a mapping or a list of mappings".into() }, mark);
    match node.value {
        Value::Map(_) => merged.push(node),
        Value::List(items) => {
            for item in items {
                if !matches!(item.value, Value::Map(_)) {
                    return Err(refuse(item.mark));
                }
                merged.push(item);
            }
        }
        _ => return Err(refuse(node.mark)),
    }
    Ok(())
}

/// Adds what is not there yet: own keys win, then earlier mappings over later ones.
fn merge(entries: &mut Vec<(Key, Node)>, merged: Vec<Node>) -> Result<(), Fault> {
    for node in merged {
        let Value::Map(more) = node.value else { continue };
        for (key, value) in more {
            if !entries.iter().any(|(known, _)| known.text == key.text) {
                entries.push((key, value));
            }
        }
        if entries.len() > MAX_KEYS {
            return Err(Fault::TooMuch { limit: MAX_KEYS, what: "keys in a mapping" });
        }
    }
    Ok(())
}

fn container_tag(tag: Option<&Tag>, own: &str, mark: Mark) -> Result<(), Located> {
    match tag {
        Some(tag) if !(tag.is_yaml_core_schema() && tag.suffix == own) => Err(unknown_tag(tag, mark)),
        _ => Ok(()),
    }
}

fn unknown_tag(tag: &Tag, mark: Mark) -> Located {
    let name = if tag.is_yaml_core_schema() { format!("!!{}", tag.suffix) } else { tag.to_string() };
    (Fault::Invalid { text: format!("the tag `{name}` has no meaning here") }, mark)
}

fn typed(text: Cow<'_, str>, style: ScalarStyle, tag: Option<&Tag>, mark: Mark) -> Result<Value, Located> {
    let Some(tag) = tag else {
        return Ok(if style == ScalarStyle::Plain { plain(text) } else { Value::Text(text.into_owned()) });
    };
    if !tag.is_yaml_core_schema() {
        return Err(unknown_tag(tag, mark));
    }
    let misfit = |text: &str| {
        let text = format!("`{}` is no `!!{}`", shown(text), tag.suffix);
        (Fault::Invalid { text }, mark)
    };
    let value = match tag.suffix.as_str() {
        "str" => return Ok(Value::Text(text.into_owned())),
        "null" | "bool" | "int" | "float" => plain(Cow::Borrowed(&text)),
        _ => return Err(unknown_tag(tag, mark)),
    };
    match (tag.suffix.as_str(), value) {
        ("null", value @ Value::Null)
        | ("bool", value @ Value::Bool(_))
        | ("int", value @ (Value::Unsigned(_) | Value::Signed(_)))
        | ("float", value @ (Value::Float(_) | Value::Unsigned(_) | Value::Signed(_))) => Ok(value),
        _ => Err(misfit(&text)),
    }
}

/// The type of an unquoted scalar.
fn plain(text: Cow<'_, str>) -> Value {
    match &*text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "true" | "True" | "TRUE" => return Value::Bool(true),
        "false" | "False" | "FALSE" => return Value::Bool(false),
        ".nan" | ".NaN" | ".NAN" => return Value::Float(f64::NAN),
        ".inf" | ".Inf" | ".INF" | "+.inf" => return Value::Float(f64::INFINITY),
        "-.inf" | "-.Inf" | "-.INF" => return Value::Float(f64::NEG_INFINITY),
        _ => {}
    }
    integer(&text).or_else(|| float(&text)).unwrap_or_else(|| Value::Text(text.into_owned()))
}

fn integer(text: &str) -> Option<Value> {
    let (negative, digits) = match text.as_bytes().first()? {
        b'-' => (true, text.get(1..)?),
        b'+' => (false, text.get(1..)?),
        _ => (false, text),
    };
    let (radix, digits) = match digits.get(..2) {
        Some("0x") => (16, digits.get(2..)?),
        Some("0o") => (8, digits.get(2..)?),
        Some("0b") => (2, digits.get(2..)?),
        _ if digits.len() > 1 && digits.starts_with('0') && digits.bytes().all(|c| matches!(c, b'0'..=b'7')) => {
            (8, digits)
        }
        _ => (10, digits),
    };
    // `from_str_radix` would take a second sign.
    if !digits.starts_with(|c: char| c.is_digit(radix)) {
        return None;
    }
    let number = u64::from_str_radix(digits, radix).ok()?;
    if !negative {
        return Some(Value::Unsigned(number));
    }
    0i64.checked_sub_unsigned(number).map(Value::Signed)
}

fn float(text: &str) -> Option<Value> {
    let looks = text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.'))
        && text.contains(|c: char| c.is_ascii_digit())
        && text.bytes().all(|c| matches!(c, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E'));
    if looks { text.parse().ok().map(Value::Float) } else { None }
}

/// Whether an unquoted `text` is read as text, not as a number, true, false or nothing.
pub(super) fn is_text(text: &str) -> bool {
    matches!(plain(Cow::Borrowed(text)), Value::Text(_))
}
