//! How a service starts, restarts and stops, and whom a container runs as. None of it is LinuxKit's; all of it is optional.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use kiln_abi::{
    RESTART_DELAY_FLOOR, RESTART_DELAY_LIMIT, Ready, ReadyCheck, RestartPolicy, STOP_TIMEOUT_LIMIT, Signal,
    parse_duration, write_duration,
};
use schemars::JsonSchema;
use serde::de::value::MapAccessDeserializer;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::nearest::nearest;
use super::schema::spellings;
use super::{Place, ValueError};

/// One name of `after`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct After {
    /// A service.
    pub name: String,
    /// Where it is written.
    pub place: Place,
}

/// When a service that ended is started again: a word, or a mapping with limits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restart {
    /// `no`, `on-failure` or `always`.
    pub policy: RestartPolicy,
    /// Most restarts in a row; no end if not given.
    pub limit: Option<u32>,
    /// Wait before the first restart, doubled for each further one.
    pub delay: Option<RestartDelay>,
    /// Longest wait before a restart.
    pub max_delay: Option<RestartDelay>,
}

/// When a service is started again, with limits.
#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[schemars(rename = "Restart", transform = spellings::<Self>)]
pub(super) struct RestartFields {
    /// `no`, `on-failure` or `always`.
    policy: Policy,
    /// Most restarts in a row; no end if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<u32>,
    /// Wait before the first restart, doubled for each further one; 100ms if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    delay: Option<RestartDelay>,
    /// Longest wait before a restart; 30s if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    max_delay: Option<RestartDelay>,
}

#[derive(Clone, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub(super) struct Policy(RestartPolicy);

impl TryFrom<String> for Policy {
    type Error = ValueError;

    fn try_from(text: String) -> Result<Self, ValueError> {
        let hint = nearest(&text, &["no", "on-failure", "always"]);
        let hint = hint.map(|word| format!(", did you mean `{word}`?")).unwrap_or_default();
        let wrong = || ValueError(format!("`{text}` is no restart policy; use no, on-failure or always{hint}"));
        RestartPolicy::of(&text).map(Self).ok_or_else(wrong)
    }
}

impl From<Policy> for String {
    fn from(value: Policy) -> Self {
        value.0.as_str().into()
    }
}

impl<'de> Deserialize<'de> for Restart {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Restart;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("no, on-failure, always, or a mapping with policy, limit, delay and maxDelay")
            }

            fn visit_str<E: de::Error>(self, word: &str) -> Result<Restart, E> {
                let Policy(policy) = Policy::try_from(word.to_owned()).map_err(E::custom)?;
                Ok(Restart { policy, limit: None, delay: None, max_delay: None })
            }

            fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<Restart, A::Error> {
                let RestartFields { policy, limit, delay, max_delay } =
                    RestartFields::deserialize(MapAccessDeserializer::new(map))?;
                Ok(Restart { policy: policy.0, limit, delay, max_delay })
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

impl Serialize for Restart {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { policy, limit, delay, max_delay } = *self;
        if limit.is_none() && delay.is_none() && max_delay.is_none() {
            return serializer.serialize_str(policy.as_str());
        }
        RestartFields { policy: Policy(policy), limit, delay, max_delay }.serialize(serializer)
    }
}

/// Times as text (`500ms`, `10s`, `2m`, `1h`) or as whole seconds, each with its own bounds.
macro_rules! times {
    ($($(#[$doc:meta])* $name:ident from $floor:expr, to $limit:expr, says $bounds:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub struct $name(pub Duration);

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_any(TimeVisitor { floor: $floor, limit: $limit, bounds: $bounds }).map(Self)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&write_duration(self.0))
            }
        }
    )*};
}

times! {
    /// A wait before a restart.
    RestartDelay from RESTART_DELAY_FLOOR, to RESTART_DELAY_LIMIT, says "a time from 10ms to 1h, such as 500ms, 10s or 2m";
    /// Time between the stop signal and SIGKILL.
    StopTimeout from Duration::ZERO, to STOP_TIMEOUT_LIMIT, says "a time up to 1h, such as 500ms, 10s or 2m";
    /// Time between two tries of a readiness check.
    ReadyInterval from Ready::INTERVAL_FLOOR, to Ready::LIMIT, says "a time from 10ms to 1h, such as 500ms, 10s or 2m";
    /// Time after which nobody waits any longer for a service to be ready.
    ReadyTimeout from Duration::ZERO, to Ready::LIMIT, says "a time up to 1h, such as 500ms, 10s or 2m";
}

struct TimeVisitor {
    floor: Duration,
    limit: Duration,
    bounds: &'static str,
}

impl de::Visitor<'_> for TimeVisitor {
    type Value = Duration;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.bounds)
    }

    fn visit_str<E: de::Error>(self, word: &str) -> Result<Duration, E> {
        let fits = |time: &Duration| (self.floor..=self.limit).contains(time);
        let time = parse_duration(word).filter(fits);
        time.ok_or_else(|| E::invalid_value(de::Unexpected::Str(word), &self))
    }

    fn visit_u64<E: de::Error>(self, seconds: u64) -> Result<Duration, E> {
        let fits = |time: &Duration| (self.floor..=self.limit).contains(time);
        let time = Some(Duration::from_secs(seconds)).filter(fits);
        time.ok_or_else(|| E::invalid_value(de::Unexpected::Unsigned(seconds), &self))
    }
}

/// How to find out that a service is ready.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(try_from = "ReadyFields", into = "ReadyFields")]
pub struct ReadyOptions(pub Ready);

/// How to find out that a service is ready. Exactly one of `exec`, `tcp`, `unix` and `file`, as the container sees them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "Ready", transform = spellings::<Self>)]
pub(super) struct ReadyFields {
    /// Program and arguments: started in the container, it exits with 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    exec: Option<Program>,
    /// Address and port that accept a connection: `127.0.0.1:80` or `[::1]:80`.
    #[serde(skip_serializing_if = "Option::is_none")]
    tcp: Option<Address>,
    /// Absolute path of a Unix socket that accepts a connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    unix: Option<AbsolutePath>,
    /// Absolute path that exists.
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<AbsolutePath>,
    /// Time between two tries; 500ms if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    interval: Option<ReadyInterval>,
    /// Time from the service's start after which nobody waits for it any longer; 60s if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    timeout: Option<ReadyTimeout>,
}

impl TryFrom<ReadyFields> for ReadyOptions {
    type Error = ValueError;

    fn try_from(fields: ReadyFields) -> Result<Self, ValueError> {
        let ReadyFields { exec, tcp, unix, file, interval, timeout } = fields;
        let mut checks = [
            exec.map(|program| ReadyCheck::Exec(program.0)),
            tcp.map(|address| ReadyCheck::Tcp(address.0)),
            unix.map(|path| ReadyCheck::Unix(path.0)),
            file.map(|path| ReadyCheck::File(path.0)),
        ]
        .into_iter()
        .flatten();
        let (Some(check), None) = (checks.next(), checks.next()) else {
            return Err(ValueError(kiln_abi::ReadyError::NotOne.to_string()));
        };
        Ok(Self(Ready {
            check,
            interval: interval.map_or(Ready::INTERVAL_DEFAULT, |time| time.0),
            timeout: timeout.map_or(Ready::TIMEOUT_DEFAULT, |time| time.0),
        }))
    }
}

impl From<ReadyOptions> for ReadyFields {
    fn from(ReadyOptions(ready): ReadyOptions) -> Self {
        let mut fields = Self::default();
        match ready.check {
            ReadyCheck::Exec(command) => fields.exec = Some(Program(command)),
            ReadyCheck::Tcp(address) => fields.tcp = Some(Address(address)),
            ReadyCheck::Unix(path) => fields.unix = Some(AbsolutePath(path)),
            ReadyCheck::File(path) => fields.file = Some(AbsolutePath(path)),
        }
        fields.interval = (ready.interval != Ready::INTERVAL_DEFAULT).then_some(ReadyInterval(ready.interval));
        fields.timeout = (ready.timeout != Ready::TIMEOUT_DEFAULT).then_some(ReadyTimeout(ready.timeout));
        fields
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(try_from = "Vec<String>")]
struct Program(Vec<String>);

impl TryFrom<Vec<String>> for Program {
    type Error = ValueError;

    fn try_from(command: Vec<String>) -> Result<Self, ValueError> {
        if command.first().is_some_and(|program| !program.is_empty()) {
            Ok(Self(command))
        } else {
            Err(ValueError(kiln_abi::ReadyError::NoCommand.to_string()))
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(try_from = "String")]
struct Address(SocketAddr);

impl TryFrom<String> for Address {
    type Error = ValueError;

    fn try_from(text: String) -> Result<Self, ValueError> {
        let wrong = |_| ValueError(format!("`{text}` is no address; write 127.0.0.1:80 or [::1]:80"));
        text.parse().map(Self).map_err(wrong)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(try_from = "String")]
#[schemars(extend("pattern" = "^/"))]
struct AbsolutePath(String);

impl TryFrom<String> for AbsolutePath {
    type Error = ValueError;

    fn try_from(path: String) -> Result<Self, ValueError> {
        if path.starts_with('/') && !path.contains('\0') {
            Ok(Self(path))
        } else {
            Err(ValueError(format!("`{path}` is no absolute path")))
        }
    }
}

/// The signal that asks a service to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
pub enum StopSignal {
    /// The one that the image's configuration names; SIGTERM if it names none.
    Image,
    /// This one.
    Signal(Signal),
}

/// What stands for the image's own user or stop signal.
const IMAGE: &str = "image";

impl TryFrom<String> for StopSignal {
    type Error = ValueError;

    fn try_from(text: String) -> Result<Self, ValueError> {
        if text == IMAGE {
            return Ok(Self::Image);
        }
        let upper = text.to_ascii_uppercase();
        let hint = || {
            let names: Vec<&str> = Signal::names().collect();
            let near = nearest(upper.strip_prefix("SIG").unwrap_or(&upper), &names);
            near.map(|name| format!(", did you mean `SIG{name}`?")).unwrap_or_default()
        };
        let wrong = || {
            let known = "a name such as SIGTERM, a number from 1 to 64, or image";
            ValueError(format!("`{text}` is no signal; use {known}{}", hint()))
        };
        Signal::of(&text).map(Self::Signal).ok_or_else(wrong)
    }
}

impl From<StopSignal> for String {
    fn from(value: StopSignal) -> Self {
        match value {
            StopSignal::Image => IMAGE.into(),
            StopSignal::Signal(signal) => signal.to_string(),
        }
    }
}

/// Whom a container's first process runs as, by the image's own list of users.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum User {
    /// The user that the image's configuration names; root if it names none.
    Image,
    /// `NAME[:GROUP]`, each a name of the image's `/etc/passwd` and `/etc/group` or a number.
    Named(String),
}

impl TryFrom<String> for User {
    type Error = ValueError;

    fn try_from(text: String) -> Result<Self, ValueError> {
        if text == IMAGE {
            return Ok(Self::Image);
        }
        let fit = |word: &str| {
            !word.is_empty()
                && word.len() <= 256
                && word.chars().all(|c| !c.is_control() && !c.is_whitespace() && c != ':')
        };
        let (user, group) = text.split_once(':').unwrap_or((&text, "0"));
        if fit(user) && fit(group) {
            Ok(Self::Named(text))
        } else {
            Err(ValueError(format!("`{text}` is no user; write image, USER or USER:GROUP")))
        }
    }
}

impl<'de> Deserialize<'de> for User {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl de::Visitor<'_> for Visitor {
            type Value = User;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("image, USER or USER:GROUP, with names or numbers of the image")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<User, E> {
                User::try_from(text.to_owned()).map_err(E::custom)
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<User, E> {
                Ok(User::Named(number.to_string()))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

impl Serialize for User {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(match self {
            Self::Image => IMAGE,
            Self::Named(text) => text,
        })
    }
}

#[cfg(test)]
mod tests;
