//! What can be wrong with a configuration.

use std::error::Error;
use std::fmt;

use super::Place;

/// Longest fault that is shown, in characters. The longest list of known fields has about 600.
const SHOWN_CHARS: usize = 1_000;

/// Why a configuration cannot be used. Shows the fault, then the line it stands in.
#[derive(Debug)]
pub struct ConfigError {
    /// What is wrong.
    pub fault: Fault,
    /// Where; boxed, as errors travel through many returns.
    pub place: Box<Place>,
}

/// What is wrong, without the place.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// There is nothing in the file.
    #[error("the configuration is empty")]
    Empty,
    /// The text is longer than the limit.
    #[error("the configuration has {bytes} bytes, more than the limit of {limit}")]
    TooLong {
        /// Length of the text.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// Lists and mappings are nested too deep.
    #[error("nested deeper than {limit} levels")]
    TooDeep {
        /// The limit.
        limit: usize,
    },
    /// Too many values, written or made by aliases.
    #[error("more than {limit} {what}, counted with what the aliases repeat")]
    TooMuch {
        /// The limit.
        limit: usize,
        /// What was counted: `values` or `bytes`.
        what: &'static str,
    },
    /// Not YAML.
    #[error("not valid YAML: {text}")]
    Syntax {
        /// What the YAML reader has to say.
        text: String,
    },
    /// A tab where YAML wants spaces.
    #[error("a tab cannot indent YAML; use spaces")]
    Tab,
    /// A key that no field has.
    #[error("unknown field `{field}`{}", suggestion(nearest, known))]
    UnknownField {
        /// The key.
        field: String,
        /// The known field that is spelled most like it, if one is near.
        nearest: Option<String>,
        /// The fields that would be right here.
        known: Vec<String>,
    },
    /// A field that must be given.
    #[error("field `{field}` is missing")]
    MissingField {
        /// The field.
        field: String,
    },
    /// A value of another kind than the field takes.
    #[error("expected {expected}, found {found}{}", quoting(*quote))]
    WrongType {
        /// What the field takes.
        expected: String,
        /// What stands there.
        found: String,
        /// Whether quotes would mend it.
        quote: bool,
    },
    /// A name that only one may have.
    #[error("duplicate {what} `{name}`; the first one is at {first}")]
    Duplicate {
        /// `service`, `volume`.
        what: &'static str,
        /// The name.
        name: String,
        /// The first one.
        first: Box<Place>,
    },
    /// A key that stands twice in one mapping.
    #[error("duplicate field `{name}`; the first one is in line {first}")]
    DuplicateField {
        /// The key.
        name: String,
        /// Line of the first one, counted from 1.
        first: usize,
    },
    /// An included file that cannot be read.
    #[error("cannot include `{file}`")]
    Include {
        /// As it is written.
        file: String,
        /// Why not.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// A name in `after` that no service has.
    #[error("no service is named `{name}`{}", other_service(nearest, *onboot))]
    UnknownService {
        /// The name.
        name: String,
        /// Whether a container of `onboot` has it.
        onboot: bool,
        /// The service that is spelled most like it, if one is near.
        nearest: Option<String>,
    },
    /// Services that wait for each other.
    #[error("services wait for each other: {}", services.join(" after "))]
    Circle {
        /// Their names, in order; the last is the first again.
        services: Vec<String>,
    },
    /// A value that its field cannot hold; the text says why.
    #[error("{text}")]
    Invalid {
        /// What is wrong with it, and how to mend it.
        text: String,
    },
    /// A `@pkg:` reference that could not be resolved.
    #[error("cannot resolve package `{folder}`")]
    Package {
        /// The folder as it is written after `@pkg:`.
        folder: String,
        /// Why not.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
}

fn suggestion(nearest: &Option<String>, known: &[String]) -> String {
    match nearest {
        Some(nearest) => format!(", did you mean `{nearest}`?"),
        None if known.is_empty() => String::new(),
        None => format!(", expected one of {}", known.join(", ")),
    }
}

fn other_service(nearest: &Option<String>, onboot: bool) -> String {
    if onboot {
        return "; containers of onboot have ended before services start, so leave it out".into();
    }
    suggestion(nearest, &[])
}

fn quoting(quote: bool) -> &'static str {
    if quote { "; put it in quotes" } else { "" }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A registry's label may be at fault: no message of it is endless or moves the terminal's cursor.
        let text = self.fault.to_string();
        let clean: String =
            text.chars().take(SHOWN_CHARS).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
        let more = if text.chars().nth(SHOWN_CHARS).is_some() { "…" } else { "" };
        write!(out, "{clean}{more}\n{}", self.place.excerpt())
    }
}

impl Error for ConfigError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.fault.source()
    }
}
