//! Serde's view of the tree: fields are derived on the types, and a fault comes back with the place of the very value or
//! key that caused it and the path that leads there.

use std::fmt;

use serde::de::{self, DeserializeSeed, Expected, IntoDeserializer, Unexpected, Visitor};

use super::Fault;
use super::nearest::nearest;
use super::node::{Key, Node, Value};
use super::place::Mark;

/// Longest word of the text that a message repeats, in characters.
const SHOWN_CHARS: usize = 80;

/// A fault on its way out of the tree.
#[derive(Debug)]
pub(super) struct DecodeError {
    pub fault: Fault,
    pub mark: Option<Mark>,
    /// Innermost step first.
    path: Vec<Step>,
}

#[derive(Debug)]
enum Step {
    Key(String),
    Index(usize),
}

impl DecodeError {
    fn new(fault: Fault) -> Self {
        Self { fault, mark: None, path: Vec::new() }
    }

    /// The innermost place is the one that counts.
    fn at(mut self, mark: Mark) -> Self {
        self.mark.get_or_insert(mark);
        self
    }

    fn below(mut self, step: Step) -> Self {
        self.path.push(step);
        self
    }

    /// The path as `services[2].binds`.
    pub fn field(&self) -> String {
        let mut field = String::new();
        for step in self.path.iter().rev() {
            match step {
                Step::Key(key) if field.is_empty() => field.push_str(key),
                Step::Key(key) => field.extend([".", key]),
                Step::Index(index) => field.push_str(&format!("[{index}]")),
            }
        }
        field
    }
}

/// `text` as a message repeats it: cut, and without characters that a terminal would act on.
pub(crate) fn shown(text: &str) -> String {
    let mut shown: String =
        text.chars().take(SHOWN_CHARS).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
    if text.chars().nth(SHOWN_CHARS).is_some() {
        shown.push('…');
    }
    shown
}

impl fmt::Display for DecodeError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.fault.fmt(out)
    }
}

impl std::error::Error for DecodeError {}

impl de::Error for DecodeError {
    fn custom<T: fmt::Display>(text: T) -> Self {
        Self::new(Fault::Invalid { text: text.to_string() })
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        let expected = expectation(&expected.to_string());
        let scalar = matches!(
            found,
            Unexpected::Bool(_) | Unexpected::Unsigned(_) | Unexpected::Signed(_) | Unexpected::Float(_)
        );
        let quote = scalar && expected == "text";
        Self::new(Fault::WrongType { expected, found: description(found), quote })
    }

    fn invalid_value(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        let expected = expectation(&expected.to_string());
        Self::new(Fault::WrongType { expected, found: description(found), quote: false })
    }

    fn unknown_variant(found: &str, known: &'static [&'static str]) -> Self {
        let expected = format!("one of {}", known.join(", "));
        Self::new(Fault::WrongType { expected, found: format!("`{}`", shown(found)), quote: false })
    }

    fn unknown_field(field: &str, known: &'static [&'static str]) -> Self {
        let nearest = nearest(field, known).map(str::to_owned);
        // Of two spellings of one field, the one with capitals is shown.
        let spelled_better =
            |name: &str| known.iter().any(|other| *other != name && other.to_ascii_lowercase() == name);
        let known = known.iter().filter(|name| !spelled_better(name)).map(|&name| name.to_owned()).collect();
        Self::new(Fault::UnknownField { field: shown(field), nearest, known })
    }

    fn missing_field(field: &'static str) -> Self {
        Self::new(Fault::MissingField { field: field.into() })
    }

    fn duplicate_field(field: &'static str) -> Self {
        Self::new(Fault::Invalid { text: format!("field `{field}` is given twice, in two spellings") })
    }
}

/// What serde's derived code expects, in words for users.
fn expectation(words: &str) -> String {
    match words {
        "a string" => "text".into(),
        "a sequence" => "a list".into(),
        "a map" => "a mapping".into(),
        "a boolean" => "true or false".into(),
        "u16" => "a number from 0 to 65535".into(),
        "u32" => "a number from 0 to 4294967295".into(),
        "u64" => "a number from 0 to 18446744073709551615".into(),
        "i32" => "a number from -2147483648 to 2147483647".into(),
        "i64" => "a number from -9223372036854775808 to 9223372036854775807".into(),
        other if other.starts_with("struct ") => "a mapping".into(),
        other => other.into(),
    }
}

fn description(found: Unexpected<'_>) -> String {
    match found {
        Unexpected::Bool(value) => format!("`{value}`"),
        Unexpected::Unsigned(number) => format!("the number {number}"),
        Unexpected::Signed(number) => format!("the number {number}"),
        Unexpected::Float(number) => format!("the number {number}"),
        Unexpected::Str(text) => format!("the text `{}`", shown(text)),
        Unexpected::Unit | Unexpected::Option => "nothing".into(),
        Unexpected::Seq => "a list".into(),
        Unexpected::Map => "a mapping".into(),
        other => other.to_string(),
    }
}

impl<'de> de::Deserializer<'de> for &'de Node {
    type Error = DecodeError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        let result = match &self.value {
            Value::Null => visitor.visit_unit(),
            Value::Bool(value) => visitor.visit_bool(*value),
            Value::Unsigned(number) => visitor.visit_u64(*number),
            Value::Signed(number) => visitor.visit_i64(*number),
            Value::Float(number) => visitor.visit_f64(*number),
            Value::Text(text) => visitor.visit_str(text),
            Value::List(items) => visitor.visit_seq(Items { items, next: 0 }),
            Value::Map(entries) => visitor.visit_map(Entries { entries, value: None }),
        };
        result.map_err(|error| error.at(self.mark))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        match self.value {
            Value::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        visitor.visit_newtype_struct(self)
    }

    /// A key with nothing behind it is an empty list.
    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        match self.value {
            Value::Null => visitor.visit_seq(Items { items: &[], next: 0 }),
            _ => self.deserialize_any(visitor),
        }
    }

    /// A key with nothing behind it is an empty mapping.
    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        match self.value {
            Value::Null => {
                visitor.visit_map(Entries { entries: &[], value: None }).map_err(|error| error.at(self.mark))
            }
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        match self.value {
            // Derived visitors would take a list for the fields in their order.
            Value::List(_) => {
                let expected = expectation(&format!("struct {name}"));
                Err(DecodeError::new(Fault::WrongType { expected, found: "a list".into(), quote: false }).at(self.mark))
            }
            _ => self.deserialize_map(visitor),
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        let result = match &self.value {
            Value::Text(text) => visitor.visit_enum(text.as_str().into_deserializer()),
            other => Err(DecodeError::new(Fault::WrongType {
                expected: format!("one of {}", variants.join(", ")),
                found: description(other.unexpected()),
                quote: false,
            })),
        };
        result.map_err(|error| error.at(self.mark))
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        visitor.visit_unit()
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string
        bytes byte_buf unit unit_struct tuple tuple_struct identifier
    }
}

impl Value {
    fn unexpected(&self) -> Unexpected<'_> {
        match self {
            Self::Null => Unexpected::Unit,
            Self::Bool(value) => Unexpected::Bool(*value),
            Self::Unsigned(number) => Unexpected::Unsigned(*number),
            Self::Signed(number) => Unexpected::Signed(*number),
            Self::Float(number) => Unexpected::Float(*number),
            Self::Text(text) => Unexpected::Str(text),
            Self::List(_) => Unexpected::Seq,
            Self::Map(_) => Unexpected::Map,
        }
    }
}

struct Items<'de> {
    items: &'de [Node],
    next: usize,
}

impl<'de> de::SeqAccess<'de> for Items<'de> {
    type Error = DecodeError;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, DecodeError> {
        let Some(item) = self.items.get(self.next) else { return Ok(None) };
        let index = self.next;
        self.next += 1;
        // `at` once more: a value made from the item's own value (`try_from`) fails outside of the item.
        let value = seed.deserialize(item).map_err(|error| error.at(item.mark).below(Step::Index(index)))?;
        Ok(Some(value))
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.items.len().saturating_sub(self.next))
    }
}

struct Entries<'de> {
    entries: &'de [(Key, Node)],
    value: Option<&'de (Key, Node)>,
}

impl<'de> de::MapAccess<'de> for Entries<'de> {
    type Error = DecodeError;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, DecodeError> {
        let Some((first, rest)) = self.entries.split_first() else { return Ok(None) };
        self.entries = rest;
        self.value = Some(first);
        let key: de::value::StrDeserializer<'de, DecodeError> = first.0.text.as_str().into_deserializer();
        seed.deserialize(key).map(Some).map_err(|error| error.at(first.0.mark))
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, DecodeError> {
        let Some((key, node)) = self.value.take() else {
            return Err(de::Error::custom("a value was asked for before its key"));
        };
        // Nothing has no width of its own: its key is what to look at.
        let mark = if matches!(node.value, Value::Null) { key.mark } else { node.mark };
        seed.deserialize(node).map_err(|error| {
            let error = if matches!(node.value, Value::Null) { error.moved(node.mark, mark) } else { error };
            error.at(mark).below(Step::Key(shown(&key.text)))
        })
    }
}

impl DecodeError {
    fn moved(mut self, from: Mark, to: Mark) -> Self {
        if self.mark == Some(from) {
            self.mark = Some(to);
        }
        self
    }
}
