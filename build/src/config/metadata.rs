//! The configuration written out again, for `files` entries with `metadata`: what a machine was built from.

use serde_json::{Map, Value, json};

use super::node;
use super::{Config, Container, FileContent, FileEntry, MetadataFormat, Volume, VolumeFormat};

/// Indentation of one level.
const INDENT: &str = "  ";

impl Config {
    /// The whole configuration as YAML or JSON that [`super::parse`] reads again. `reference` writes out each image's
    /// reference, in full or as it is; those of volumes stay as they are.
    ///
    /// # Errors
    /// None is known; serde_json's, should a field become something that JSON cannot hold.
    pub fn metadata(
        &self,
        format: MetadataFormat,
        reference: impl Fn(&str) -> String,
    ) -> Result<String, serde_json::Error> {
        let containers = |list: &[Container]| -> Result<Value, serde_json::Error> {
            list.iter().map(|entry| container(entry, &reference)).collect()
        };
        let kernel = &self.kernel;
        let mut section = Map::new();
        set(&mut section, "image", kernel.image.as_deref().map(&reference));
        set(&mut section, "cmdline", kernel.cmdline.clone());
        set(&mut section, "binary", kernel.binary.clone());
        set(&mut section, "tar", kernel.tar.clone());
        set(&mut section, "ucode", kernel.ucode.clone());
        let whole = json!({
            "kernel": section,
            "init": self.init.iter().map(|entry| reference(&entry.image)).collect::<Vec<_>>(),
            "onboot": containers(&self.onboot)?,
            "onshutdown": containers(&self.onshutdown)?,
            "services": containers(&self.services)?,
            "files": self.files.iter().map(file).collect::<Vec<_>>(),
            "volumes": self.volumes.iter().map(volume).collect::<Vec<_>>(),
        });
        match format {
            MetadataFormat::Json => Ok(serde_json::to_string_pretty(&whole)? + "\n"),
            MetadataFormat::Yaml => {
                let mut text = String::new();
                write_block(&mut text, &whole, 0);
                Ok(text)
            }
        }
    }
}

fn container(entry: &Container, reference: &impl Fn(&str) -> String) -> Result<Value, serde_json::Error> {
    let mut options = entry.options.clone();
    options.name = Some(entry.name.clone());
    options.image = Some(reference(&entry.image));
    let after: Vec<String> = entry.after.iter().map(|after| after.name.clone()).collect();
    options.after = (!after.is_empty()).then_some(after);
    serde_json::to_value(&options)
}

fn file(entry: &FileEntry) -> Value {
    let mut fields = Map::new();
    set(&mut fields, "path", Some(entry.path.clone()));
    let (name, value) = match &entry.content {
        FileContent::Directory => ("directory", Value::Bool(true)),
        FileContent::Symlink(target) => ("symlink", target.as_str().into()),
        FileContent::Contents(text) => ("contents", text.as_str().into()),
        FileContent::Source(path) => ("source", path.as_str().into()),
        FileContent::Metadata(MetadataFormat::Yaml) => ("metadata", "yaml".into()),
        FileContent::Metadata(MetadataFormat::Json) => ("metadata", "json".into()),
    };
    set(&mut fields, name, Some(value));
    set(&mut fields, "optional", entry.optional.then_some(true));
    set(&mut fields, "mode", entry.written_mode.map(String::from));
    set(&mut fields, "uid", entry.uid.as_ref().map(|uid| json!(uid)));
    set(&mut fields, "gid", entry.gid.as_ref().map(|gid| json!(gid)));
    Value::Object(fields)
}

fn volume(entry: &Volume) -> Value {
    let mut fields = Map::new();
    set(&mut fields, "name", Some(entry.name.clone()));
    set(&mut fields, "image", entry.image.clone());
    set(&mut fields, "readonly", entry.readonly.then_some(true));
    set(&mut fields, "format", (entry.format == VolumeFormat::Oci).then_some("oci"));
    set(&mut fields, "platforms", (!entry.platforms.is_empty()).then(|| entry.platforms.clone()));
    Value::Object(fields)
}

fn set(fields: &mut Map<String, Value>, name: &str, value: Option<impl Into<Value>>) {
    if let Some(value) = value {
        fields.insert(name.into(), value.into());
    }
}

/// Writes a mapping's or list's lines at `depth`. Nesting is as deep as the configuration's types, so it ends.
fn write_block(out: &mut String, value: &Value, depth: usize) {
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            for (key, field) in fields {
                out.push_str(&INDENT.repeat(depth));
                write_entry(out, key, field, depth);
            }
        }
        Value::Array(items) if !items.is_empty() => {
            for item in items {
                out.push_str(&INDENT.repeat(depth));
                out.push_str("- ");
                write_item(out, item, depth);
            }
        }
        scalar => {
            out.push_str(&INDENT.repeat(depth));
            out.push_str(&flow(scalar));
            out.push('\n');
        }
    }
}

/// `key: value`, with what is nested on the lines below.
fn write_entry(out: &mut String, key: &str, value: &Value, depth: usize) {
    out.push_str(&word(key));
    out.push(':');
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            out.push('\n');
            write_block(out, value, depth + 1);
        }
        Value::Array(items) if !items.is_empty() => {
            out.push('\n');
            write_block(out, value, depth + 1);
        }
        scalar => {
            out.push(' ');
            out.push_str(&flow(scalar));
            out.push('\n');
        }
    }
}

/// What stands after `- `: a mapping begins on the same line.
fn write_item(out: &mut String, item: &Value, depth: usize) {
    match item {
        Value::Object(fields) if !fields.is_empty() => {
            for (index, (key, field)) in fields.iter().enumerate() {
                if index > 0 {
                    out.push_str(&INDENT.repeat(depth + 1));
                }
                write_entry(out, key, field, depth + 1);
            }
        }
        scalar => {
            out.push_str(&flow(scalar));
            out.push('\n');
        }
    }
}

/// A value on one line. JSON is YAML, so all but plain words are written as JSON.
fn flow(value: &Value) -> String {
    match value {
        Value::String(text) => word(text),
        other => other.to_string(),
    }
}

/// `text` without quotes where YAML reads it as the same text, else as a JSON string.
fn word(text: &str) -> String {
    let inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '/' | '@' | '+' | '=' | ':');
    let plain = text.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '/')
        && text.chars().all(inner)
        && !text.ends_with(':')
        && node::is_text(text);
    if plain { text.into() } else { Value::from(text).to_string() }
}
