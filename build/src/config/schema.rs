//! The JSON Schema of the YAML, from the types that decode it: names, kinds and descriptions are theirs.

use std::borrow::Cow;

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserialize, Visitor};
use serde_json::{Map, Value, json};

use super::capability::{CAPABILITIES, Capability};
use super::check::ConfigFields;
use super::service::{Policy, ReadyInterval, ReadyTimeout, Restart, RestartDelay, RestartFields, StopTimeout, User};
use super::value::Id;

/// The schema as JSON, draft 7: the one that all editors read. A newline ends it.
///
/// # Errors
/// None is known; serde_json's.
pub fn schema() -> Result<String, serde_json::Error> {
    let generator = SchemaSettings::draft07().into_generator();
    let mut schema = generator.into_root_schema_for::<ConfigFields>().to_value();
    let objects = object_definitions(&schema);
    nothing_is_empty(&mut schema, &objects);
    if let Value::Object(fields) = &mut schema {
        fields.insert("title".into(), "kiln".into());
    }
    Ok(serde_json::to_string_pretty(&schema)? + "\n")
}

/// References to those definitions that are mappings.
fn object_definitions(schema: &Value) -> Vec<String> {
    let definitions = schema["definitions"].as_object().into_iter().flatten();
    let objects = definitions.filter(|(_, definition)| definition["type"] == "object");
    objects.map(|(name, _)| format!("#/definitions/{name}")).collect()
}

/// A field with nothing behind it is an empty list or mapping: see `decode`.
fn nothing_is_empty(schema: &mut Value, objects: &[String]) {
    match schema {
        Value::Object(fields) => {
            if let Some(Value::Object(properties)) = fields.get_mut("properties") {
                properties.values_mut().for_each(|property| allow_nothing(property, objects));
            }
            fields.values_mut().for_each(|field| nothing_is_empty(field, objects));
        }
        Value::Array(items) => items.iter_mut().for_each(|item| nothing_is_empty(item, objects)),
        _ => {}
    }
}

fn allow_nothing(property: &mut Value, objects: &[String]) {
    let Value::Object(fields) = property else { return };
    // Draft 7 looks at nothing beside a `$ref`, so the reference may stand alone in an `allOf`.
    let alone = fields.get("allOf").and_then(|all| all.get(0)?.get("$ref")).or_else(|| fields.get("$ref"));
    if let Some(reference) = alone.filter(|reference| objects.iter().any(|object| *reference == object)).cloned() {
        fields.remove("$ref");
        fields.remove("allOf");
        fields.insert("anyOf".into(), json!([{"$ref": reference}, {"type": "null"}]));
    } else if let Some(kind) = fields.get_mut("type").filter(|kind| *kind == "array" || *kind == "object") {
        *kind = json!([kind.take(), "null"]);
    }
}

/// Adds the other spellings of fields that `T` takes. They differ in upper and lower case only.
pub(super) fn spellings<T: for<'de> Deserialize<'de>>(schema: &mut Schema) {
    let Some(Value::Object(properties)) = schema.get_mut("properties") else { return };
    for name in field_names::<T>().iter().filter(|name| **name != "name-of-no-field") {
        if properties.contains_key(*name) {
            continue;
        }
        let own = properties.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        let same = own.map_or_else(|| json!({}), |(_, property)| property.clone());
        properties.insert((*name).into(), same);
    }
}

/// Every name that the decoder of `T` knows, as serde's derive hands it to the deserializer.
pub(super) fn field_names<T: for<'de> Deserialize<'de>>() -> &'static [&'static str] {
    let Err(Names(names)) = T::deserialize(AskNames) else { return &[] };
    names
}

struct AskNames;

#[derive(Debug)]
struct Names(&'static [&'static str]);

impl std::fmt::Display for Names {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{:?}", self.0)
    }
}

impl std::error::Error for Names {}

impl de::Error for Names {
    fn custom<T: std::fmt::Display>(_text: T) -> Self {
        Self(&[])
    }
}

impl<'de> de::Deserializer<'de> for AskNames {
    type Error = Names;

    fn deserialize_any<V: Visitor<'de>>(self, _visitor: V) -> Result<V::Value, Names> {
        Err(Names(&[]))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        _visitor: V,
    ) -> Result<V::Value, Names> {
        Err(Names(fields))
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

/// Types whose reading is written by hand, so their schemas are too.
macro_rules! written {
    ($($name:ty as $title:literal = $make:expr;)*) => {$(
        impl JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> Cow<'static, str> {
                $title.into()
            }

            fn json_schema(generator: &mut SchemaGenerator) -> Schema {
                let make: fn(&mut SchemaGenerator) -> Schema = $make;
                make(generator)
            }
        }
    )*};
}

written! {
    Capability as "Capability" = |_| json_schema!({
        "anyOf": [{"enum": CAPABILITIES.as_slice()}, {"enum": ["all", "none"]}, {"type": "string", "pattern": "^([aA][lL][lL]|[nN][oO][nN][eE])$"}]
    });
    Id as "Id" = |_| json_schema!({
        "anyOf": [{"type": "integer", "minimum": 0, "maximum": u32::MAX}, {"type": "string"}]
    });
    User as "User" = |_| json_schema!({
        "anyOf": [
            {"enum": ["image"]},
            {"type": "string", "pattern": "^[^:\\s]+(:[^:\\s]+)?$"},
            {"type": "integer", "minimum": 0},
        ]
    });
    Policy as "Policy" = |_| json_schema!({"enum": ["no", "on-failure", "always"]});
    Restart as "Restart" = |generator| {
        let fields = generator.subschema_for::<RestartFields>();
        json_schema!({"anyOf": [{"enum": ["no", "on-failure", "always"]}, fields]})
    };
    RestartDelay as "RestartDelay" = |_| time();
    StopTimeout as "StopTimeout" = |_| time();
    ReadyInterval as "ReadyInterval" = |_| time();
    ReadyTimeout as "ReadyTimeout" = |_| time();
}

fn time() -> Schema {
    let text: Map<String, Value> =
        Map::from_iter([("type".into(), "string".into()), ("pattern".into(), "^[0-9]+(ms|s|m|h)?$".into())]);
    json_schema!({"anyOf": [text, {"type": "integer", "minimum": 0, "maximum": 3600}]})
}

#[cfg(test)]
mod tests;
