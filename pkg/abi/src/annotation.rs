//! How a service asks for its start, restart and stop: annotations in its bundle's `config.json`. Other init programs
//! pass over them.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::ready::Ready;
use crate::signal::Signal;
use crate::time::parse_duration;

/// Annotation with a service's restart policy: `always`, `on-failure` (the default) or `no`, also spelled `never`.
pub const ANNOTATION_RESTART: &str = "org.kiln.restart";
/// Annotation with the most restarts in a row: a decimal number. After it the service stays down. Without it there is no
/// end.
pub const ANNOTATION_RESTART_LIMIT: &str = "org.kiln.restart-limit";
/// Annotation with the wait before the first restart, doubled for each further one.
pub const ANNOTATION_RESTART_DELAY: &str = "org.kiln.restart-delay";
/// Annotation with the longest wait before a restart.
pub const ANNOTATION_RESTART_MAX_DELAY: &str = "org.kiln.restart-max-delay";
/// Annotation with the time a service has between its stop signal and SIGKILL: `10`, `10s`, `500ms` or `2m`.
pub const ANNOTATION_STOP_TIMEOUT: &str = "org.kiln.stop-timeout";
/// Annotation with the signal that asks a service to stop: see [`Signal`].
pub const ANNOTATION_STOP_SIGNAL: &str = "org.kiln.stop-signal";
/// Annotation with the names of the services that come before this one, separated by commas.
pub const ANNOTATION_AFTER: &str = "org.kiln.after";
/// Annotation with how to find out that a service is ready: JSON of [`Ready`].
pub const ANNOTATION_READY: &str = "org.kiln.ready";

/// The time a service has to stop when nothing is said.
pub const STOP_TIMEOUT_DEFAULT: Duration = Duration::from_secs(10);
/// The longest time that a service can ask for: a machine that is told to stop must stop some day.
pub const STOP_TIMEOUT_LIMIT: Duration = Duration::from_secs(3600);
/// The wait before the first restart when nothing is said.
pub const RESTART_DELAY_DEFAULT: Duration = Duration::from_millis(100);
/// The longest wait before a restart when nothing is said.
pub const RESTART_MAX_DELAY_DEFAULT: Duration = Duration::from_secs(30);
/// The shortest wait that a service can ask for: one that ends at once must not take the whole processor.
pub const RESTART_DELAY_FLOOR: Duration = Duration::from_millis(10);
/// The longest wait that a service can ask for.
pub const RESTART_DELAY_LIMIT: Duration = Duration::from_secs(3600);

/// When a service that ended is started again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RestartPolicy {
    /// Whatever its exit code.
    Always,
    /// When its exit code is not 0, or a signal killed it, or it could not be started.
    #[default]
    OnFailure,
    /// Not at all.
    Never,
}

impl RestartPolicy {
    /// The policy of this name: `always`, `on-failure`, `no` or `never`.
    #[must_use]
    pub fn of(word: &str) -> Option<Self> {
        match word {
            "always" => Some(Self::Always),
            "on-failure" => Some(Self::OnFailure),
            "no" | "never" => Some(Self::Never),
            _ => None,
        }
    }

    /// As it is written in annotations.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Always => "always",
            Self::OnFailure => "on-failure",
            Self::Never => "no",
        }
    }
}

/// What a service's annotations ask of its supervisor once it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServicePolicy {
    /// When it is started again.
    pub restart: RestartPolicy,
    /// Most restarts in a row; [`None`]: no end. A good run begins a new row.
    pub restart_limit: Option<u32>,
    /// Wait before the first restart, doubled for each further one in a row.
    pub restart_delay: Duration,
    /// Longest wait before a restart; never below `restart_delay`.
    pub restart_max_delay: Duration,
    /// Asks its first process to end.
    pub stop_signal: Signal,
    /// Time between that signal and SIGKILL when the machine stops.
    pub stop_timeout: Duration,
}

/// What a service waits for before it starts, and what the ones after it wait for.
///
/// A service in `after` is waited for until it is ready (without a readiness check: until its process runs), until its
/// check's time is over, or until it has ended or failed for good. So a broken service delays others, and never keeps
/// them from starting.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StartConditions {
    /// Names of services, each once. All exist, and there is no cycle, if `kiln build` wrote it.
    pub after: Vec<String>,
    /// How to find out that this one is ready.
    pub ready: Option<Ready>,
}

/// An annotation that cannot be read.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum AnnotationError {
    /// Not one of the words.
    #[error("annotation `{ANNOTATION_RESTART}` is `{0}`: use `always`, `on-failure` or `no`")]
    Restart(String),
    /// Not a number.
    #[error("annotation `{ANNOTATION_RESTART_LIMIT}` is `{0}`: use a number from 0 to 4294967295")]
    RestartLimit(String),
    /// Not a duration from [`RESTART_DELAY_FLOOR`] to [`RESTART_DELAY_LIMIT`].
    #[error("annotation `{key}` is `{word}`: use a time from 10ms to one hour such as `500ms`, `10s` or `2m`")]
    RestartDelay {
        /// Which of the two.
        key: &'static str,
        /// What it holds.
        word: String,
    },
    /// Not a duration within [`STOP_TIMEOUT_LIMIT`].
    #[error(
        "annotation `{ANNOTATION_STOP_TIMEOUT}` is `{0}`: use a time up to one hour such as `10s`, `500ms` or `2m`"
    )]
    StopTimeout(String),
    /// Not a signal.
    #[error("annotation `{ANNOTATION_STOP_SIGNAL}` is `{0}`: use a signal such as `SIGTERM`")]
    StopSignal(String),
    /// Not a readiness check.
    #[error("annotation `{ANNOTATION_READY}` is no readiness check: {0}")]
    Ready(String),
}

impl ServicePolicy {
    /// What holds when nothing is said.
    pub const DEFAULT: Self = Self {
        restart: RestartPolicy::OnFailure,
        restart_limit: None,
        restart_delay: RESTART_DELAY_DEFAULT,
        restart_max_delay: RESTART_MAX_DELAY_DEFAULT,
        stop_signal: Signal::TERM,
        stop_timeout: STOP_TIMEOUT_DEFAULT,
    };

    /// Reads the policy from all annotations of a container; keys of others are left alone.
    ///
    /// # Errors
    /// [`AnnotationError`] names the first annotation that has no meaning.
    pub fn from_annotations(annotations: &BTreeMap<String, String>) -> Result<Self, AnnotationError> {
        let mut policy = Self::default();
        if let Some(word) = annotations.get(ANNOTATION_RESTART) {
            policy.restart = RestartPolicy::of(word).ok_or_else(|| AnnotationError::Restart(word.clone()))?;
        }
        if let Some(word) = annotations.get(ANNOTATION_RESTART_LIMIT) {
            policy.restart_limit = Some(word.parse().map_err(|_error| AnnotationError::RestartLimit(word.clone()))?);
        }
        if let Some(delay) = delay(annotations, ANNOTATION_RESTART_DELAY)? {
            policy.restart_delay = delay;
        }
        if let Some(delay) = delay(annotations, ANNOTATION_RESTART_MAX_DELAY)? {
            policy.restart_max_delay = delay;
        }
        policy.restart_max_delay = policy.restart_max_delay.max(policy.restart_delay);
        if let Some(word) = annotations.get(ANNOTATION_STOP_SIGNAL) {
            policy.stop_signal = Signal::of(word).ok_or_else(|| AnnotationError::StopSignal(word.clone()))?;
        }
        if let Some(word) = annotations.get(ANNOTATION_STOP_TIMEOUT) {
            let time = parse_duration(word).filter(|time| *time <= STOP_TIMEOUT_LIMIT);
            policy.stop_timeout = time.ok_or_else(|| AnnotationError::StopTimeout(word.clone()))?;
        }
        Ok(policy)
    }
}

impl Default for ServicePolicy {
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl StartConditions {
    /// Reads the conditions from all annotations of a container; keys of others are left alone.
    ///
    /// # Errors
    /// [`AnnotationError::Ready`].
    pub fn from_annotations(annotations: &BTreeMap<String, String>) -> Result<Self, AnnotationError> {
        let mut after: Vec<String> = Vec::new();
        for name in annotations.get(ANNOTATION_AFTER).map(String::as_str).unwrap_or_default().split(',') {
            let name = name.trim();
            if !name.is_empty() && !after.iter().any(|known| known == name) {
                after.push(name.into());
            }
        }
        let ready = annotations.get(ANNOTATION_READY).map(|text| serde_json::from_str(text));
        let ready = ready.transpose().map_err(|error| AnnotationError::Ready(error.to_string()))?;
        Ok(Self { after, ready })
    }
}

fn delay(annotations: &BTreeMap<String, String>, key: &'static str) -> Result<Option<Duration>, AnnotationError> {
    let Some(word) = annotations.get(key) else { return Ok(None) };
    let fits = |time: &Duration| (RESTART_DELAY_FLOOR..=RESTART_DELAY_LIMIT).contains(time);
    let time = parse_duration(word).filter(fits);
    time.map(Some).ok_or_else(|| AnnotationError::RestartDelay { key, word: word.clone() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ready::ReadyCheck;

    fn annotations(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    fn read(key: &str, value: &str) -> Result<ServicePolicy, AnnotationError> {
        ServicePolicy::from_annotations(&annotations(&[(key, value)]))
    }

    #[test]
    fn words_without_meaning_are_refused() {
        for word in ["", "Always", "yes"] {
            assert_eq!(read(ANNOTATION_RESTART, word), Err(AnnotationError::Restart(word.into())));
        }
        for word in ["", "-1", "many", "4294967296"] {
            assert_eq!(read(ANNOTATION_RESTART_LIMIT, word), Err(AnnotationError::RestartLimit(word.into())));
        }
        for word in ["0", "9ms", "61m"] {
            let key = ANNOTATION_RESTART_DELAY;
            assert_eq!(read(key, word), Err(AnnotationError::RestartDelay { key, word: word.into() }));
        }
        for word in ["", "KILLED", "0", "65", "SIGRTMAX+1"] {
            assert_eq!(read(ANNOTATION_STOP_SIGNAL, word), Err(AnnotationError::StopSignal(word.into())));
        }
        for word in ["", "s", "-1", "1d", "1.5s", "3601", "61m", "99999999999999999999", "307445734561825861m"] {
            assert_eq!(read(ANNOTATION_STOP_TIMEOUT, word), Err(AnnotationError::StopTimeout(word.into())));
        }
        for text in ["", "{}", r#"{"tcp":"127.0.0.1:80","file":"/x"}"#, r#"{"tcp":"here"}"#, r#"{"file":""}"#] {
            let read = StartConditions::from_annotations(&annotations(&[(ANNOTATION_READY, text)]));
            assert!(matches!(read, Err(AnnotationError::Ready(_))), "{text}");
        }
    }

    #[test]
    fn a_time_has_a_unit_or_is_in_seconds() {
        for (word, ms) in [("0", 0), ("7", 7_000), ("10s", 10_000), ("250ms", 250), ("60m", 3_600_000)] {
            let policy = read(ANNOTATION_STOP_TIMEOUT, word).unwrap();
            assert_eq!(policy.stop_timeout, Duration::from_millis(ms), "{word}");
        }
    }

    #[test]
    fn annotations_of_others_change_nothing() {
        assert_eq!(read("org.example.restart", "whatever"), Ok(ServicePolicy::default()));
        let read = StartConditions::from_annotations(&annotations(&[("org.example.after", "x")]));
        assert_eq!(read, Ok(StartConditions::default()));
    }

    #[test]
    fn the_longest_wait_is_never_below_the_first() {
        let policy = read(ANNOTATION_RESTART_DELAY, "2m").unwrap();
        assert_eq!(policy.restart_max_delay, Duration::from_secs(120));
    }

    #[test]
    fn conditions_are_names_and_a_check() {
        let text = r#"{"exec":["/check","a b"],"interval":"50ms"}"#;
        let read = StartConditions::from_annotations(&annotations(&[
            (ANNOTATION_AFTER, "db, net,db"),
            (ANNOTATION_READY, text),
        ]));
        let conditions = read.unwrap();
        assert_eq!(conditions.after, ["db", "net"]);
        let ready = conditions.ready.unwrap();
        assert_eq!(ready.check, ReadyCheck::Exec(vec!["/check".into(), "a b".into()]));
        assert_eq!((ready.interval, ready.timeout), (Duration::from_millis(50), Ready::TIMEOUT_DEFAULT));
    }
}
