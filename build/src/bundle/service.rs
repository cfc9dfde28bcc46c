//! What a service asks of the guest's init, as annotations of its `config.json`. What the YAML does not say is not written,
//! so that a LinuxKit file gives LinuxKit's `config.json`.

use std::collections::BTreeMap;

use kiln_abi::{
    ANNOTATION_AFTER, ANNOTATION_READY, ANNOTATION_RESTART, ANNOTATION_RESTART_DELAY, ANNOTATION_RESTART_LIMIT,
    ANNOTATION_RESTART_MAX_DELAY, ANNOTATION_STOP_SIGNAL, ANNOTATION_STOP_TIMEOUT, Signal, write_duration,
};

use super::BundleError;
use super::document::Subject;
use crate::config::{ContainerOptions, StopSignal, shown};
use crate::oci::ImageConfig;

impl Subject<'_> {
    /// The container's own annotations and, if it is a service, those of its fields.
    pub(super) fn annotations(
        &self,
        options: &ContainerOptions,
        image: &ImageConfig,
    ) -> Result<BTreeMap<String, String>, BundleError> {
        let mut annotations = options.annotations.clone().unwrap_or_default();
        if !self.is_service() {
            return Ok(annotations);
        }
        let mut set = |key: &str, value: String| annotations.insert(key.into(), value);
        let after: Vec<&str> = self.container.after.iter().map(|after| after.name.as_str()).collect();
        if !after.is_empty() {
            set(ANNOTATION_AFTER, after.join(","));
        }
        if let Some(ready) = &options.ready {
            let json = |source| BundleError::Json { role: self.role, source };
            set(ANNOTATION_READY, serde_json::to_string(&ready.0).map_err(json)?);
        }
        if let Some(restart) = &options.restart {
            set(ANNOTATION_RESTART, restart.policy.as_str().into());
            if let Some(limit) = restart.limit {
                set(ANNOTATION_RESTART_LIMIT, limit.to_string());
            }
            let delays = [(ANNOTATION_RESTART_DELAY, restart.delay), (ANNOTATION_RESTART_MAX_DELAY, restart.max_delay)];
            for (key, delay) in delays {
                if let Some(delay) = delay {
                    set(key, write_duration(delay.0));
                }
            }
        }
        if let Some(signal) = self.stop_signal(options.stop_signal, &image.stop_signal)? {
            set(ANNOTATION_STOP_SIGNAL, signal.to_string());
        }
        if let Some(timeout) = options.stop_timeout {
            set(ANNOTATION_STOP_TIMEOUT, write_duration(timeout.0));
        }
        Ok(annotations)
    }

    fn stop_signal(&self, asked: Option<StopSignal>, image: &str) -> Result<Option<Signal>, BundleError> {
        match asked {
            None => Ok(None),
            Some(StopSignal::Signal(signal)) => Ok(Some(signal)),
            Some(StopSignal::Image) if image.is_empty() => Ok(None),
            Some(StopSignal::Image) => Signal::of(image).map(Some).ok_or_else(|| BundleError::StopSignal {
                image: self.container.image.clone(),
                signal: shown(image),
                place: self.container.place.clone(),
            }),
        }
    }
}
