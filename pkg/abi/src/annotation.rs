//! How a service asks for its restart and stop: annotations in its bundle's `config.json`.

use std::collections::BTreeMap;
use std::time::Duration;

/// Annotation with a service's restart policy: `always`, `on-failure` (the default) or `never`.
pub const ANNOTATION_RESTART: &str = "org.kiln.restart";
/// Annotation with the time a service has between SIGTERM and SIGKILL: `10`, `10s`, `500ms` or `2m`.
pub const ANNOTATION_STOP_TIMEOUT: &str = "org.kiln.stop-timeout";
/// The time a service has to stop when nothing is said.
pub const STOP_TIMEOUT_DEFAULT: Duration = Duration::from_secs(10);
/// The longest time that a service can ask for: a machine that is told to stop must stop some day.
pub const STOP_TIMEOUT_LIMIT: Duration = Duration::from_secs(3600);

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

/// What a service's annotations ask of its supervisor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServicePolicy {
    /// When it is started again.
    pub restart: RestartPolicy,
    /// Time between SIGTERM and SIGKILL when the machine stops.
    pub stop_timeout: Duration,
}

/// An annotation that cannot be read.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum AnnotationError {
    /// Not one of the three words.
    #[error("annotation `{ANNOTATION_RESTART}` is `{0}`: use `always`, `on-failure` or `never`")]
    Restart(String),
    /// Not a duration within [`STOP_TIMEOUT_LIMIT`].
    #[error(
        "annotation `{ANNOTATION_STOP_TIMEOUT}` is `{0}`: use a time up to one hour such as `10s`, `500ms` or `2m`"
    )]
    StopTimeout(String),
}

impl Default for ServicePolicy {
    fn default() -> Self {
        Self { restart: RestartPolicy::default(), stop_timeout: STOP_TIMEOUT_DEFAULT }
    }
}

impl ServicePolicy {
    /// Reads the policy from all annotations of a container; keys of others are left alone.
    ///
    /// # Errors
    /// [`AnnotationError`] names the first annotation that has no meaning.
    pub fn from_annotations(annotations: &BTreeMap<String, String>) -> Result<Self, AnnotationError> {
        let mut policy = Self::default();
        if let Some(word) = annotations.get(ANNOTATION_RESTART) {
            policy.restart = match word.as_str() {
                "always" => RestartPolicy::Always,
                "on-failure" => RestartPolicy::OnFailure,
                "never" => RestartPolicy::Never,
                _ => return Err(AnnotationError::Restart(word.clone())),
            };
        }
        if let Some(word) = annotations.get(ANNOTATION_STOP_TIMEOUT) {
            policy.stop_timeout = duration(word).ok_or_else(|| AnnotationError::StopTimeout(word.clone()))?;
        }
        Ok(policy)
    }
}

fn duration(word: &str) -> Option<Duration> {
    let digits = word.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: u64 = digits.parse().ok()?;
    let time = match word.get(digits.len()..)? {
        "" | "s" => Duration::from_secs(number),
        "ms" => Duration::from_millis(number),
        "m" => Duration::from_secs(number.checked_mul(60)?),
        _ => return None,
    };
    (time <= STOP_TIMEOUT_LIMIT).then_some(time)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(key: &str, value: &str) -> Result<ServicePolicy, AnnotationError> {
        ServicePolicy::from_annotations(&BTreeMap::from([(key.to_owned(), value.to_owned())]))
    }

    #[test]
    fn words_without_meaning_are_refused() {
        for word in ["", "Always", "no"] {
            assert_eq!(read(ANNOTATION_RESTART, word), Err(AnnotationError::Restart(word.into())));
        }
        for word in ["", "s", "-1", "1h", "1.5s", "3601", "61m", "99999999999999999999", "307445734561825861m"] {
            assert_eq!(read(ANNOTATION_STOP_TIMEOUT, word), Err(AnnotationError::StopTimeout(word.into())));
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
    }
}
