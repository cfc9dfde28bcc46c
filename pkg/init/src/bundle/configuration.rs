//! `config.json`: what PID 1 reads of it, and the copy that the runtime gets.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::held::Held;
use super::{Bundle, BundleError, binds, read_json};

#[derive(Deserialize)]
struct Annotated {
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
}

/// A bundle's annotations.
pub fn annotations(bundle: &Path) -> Result<BTreeMap<String, String>, BundleError> {
    let annotated: Annotated = read_json(&bundle.join(kiln_abi::BUNDLE_CONFIG))?;
    Ok(annotated.annotations.unwrap_or_default())
}

/// Where a container looks for programs when its environment does not say: the runtime starts none without it, and a
/// YAML's `env:` takes the place of the image's.
const PATH_DEFAULT: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Writes the runtime's copy into `state`: the root's path made absolute, a `PATH`, a cgroup named after the container
/// unless it has one, and what the runtime would refuse or do to the machine in another way. Returns that cgroup.
pub fn write_for_runtime(bundle: &Bundle, state: &Path) -> Result<Option<PathBuf>, BundleError> {
    let original = bundle.folder.join(kiln_abi::BUNDLE_CONFIG);
    let mut config: Map<String, Value> = read_json(&original)?;
    if config.get("linux").and_then(|linux| linux.get("seccomp")).is_some_and(|profile| !profile.is_null()) {
        return Err(BundleError::Seccomp { path: original });
    }
    let own = adapt(&mut config, &bundle.folder, &bundle.id);
    binds::check(&mut config)?;
    let held = Held::take(&mut config, state);
    binds::check_targets(&config)?;
    held.write(state)?;
    let path = state.join(kiln_abi::BUNDLE_CONFIG);
    let bytes = Value::Object(config).to_string();
    fs::write(&path, bytes).map_err(|source| BundleError::Write { path, source })?;
    Ok(own)
}

fn adapt(config: &mut Map<String, Value>, folder: &Path, id: &str) -> Option<PathBuf> {
    if let Some(Value::String(path)) = config.get_mut("root").and_then(|root| root.get_mut("path")) {
        *path = folder.join(path.as_str()).to_string_lossy().into_owned();
    }
    if let Some(process) = config.get_mut("process").and_then(Value::as_object_mut) {
        let env = process.entry("env").or_insert(Value::Null);
        if env.is_null() {
            *env = Value::Array(Vec::new());
        }
        let is_path = |word: &Value| word.as_str().is_some_and(|word| word.starts_with("PATH="));
        if let Some(words) = env.as_array_mut()
            && !words.iter().any(is_path)
        {
            words.push(PATH_DEFAULT.into());
        }
    }
    let named = ["hostname", "domainname"]
        .into_iter()
        .any(|name| config.get(name).and_then(Value::as_str).is_some_and(|text| !text.is_empty()));
    let linux = config.entry("linux").or_insert_with(|| Value::Object(Map::new())).as_object_mut()?;
    if named {
        add_uts_namespace(linux);
    }
    spell_propagation(linux);
    match linux.get("cgroupsPath").and_then(Value::as_str) {
        Some(path) if !path.is_empty() => None,
        _ => {
            let own = format!("/{id}");
            linux.insert("cgroupsPath".to_owned(), Value::String(own.clone()));
            Some(PathBuf::from(own))
        }
    }
}

/// A name without a place for it is the container's own: the machine's stays, and the runtime would refuse it.
fn add_uts_namespace(linux: &mut Map<String, Value>) {
    let namespaces = linux.entry("namespaces").or_insert(Value::Null);
    if namespaces.is_null() {
        *namespaces = Value::Array(Vec::new());
    }
    if let Some(list) = namespaces.as_array_mut()
        && !list.iter().any(|namespace| namespace.get("type").is_some_and(|kind| kind == "uts"))
    {
        list.push(json!({"type": "uts"}));
    }
}

/// The runtime always means the whole tree, and knows only the words that do not say so.
fn spell_propagation(linux: &mut Map<String, Value>) {
    if let Some(Value::String(word)) = linux.get_mut("rootfsPropagation")
        && let Some(plain) = word.strip_prefix('r')
    {
        *word = plain.to_owned();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn adapted(text: &str) -> (Value, Option<PathBuf>) {
        let mut config = serde_json::from_str(text).unwrap();
        let own = adapt(&mut config, Path::new("/containers/services/web"), "web");
        (Value::Object(config), own)
    }

    #[test]
    fn a_seccomp_profile_is_refused_and_not_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let bundle = Bundle::new(folder.path().to_owned());
        let write = |text: &str| {
            fs::write(folder.path().join("config.json"), text).unwrap();
            write_for_runtime(&bundle, &folder.path().join("state"))
        };
        fs::create_dir(folder.path().join("state")).unwrap();
        let profile = r#"{"linux":{"seccomp":{"defaultAction":"SCMP_ACT_ERRNO"}}}"#;
        assert!(matches!(write(profile), Err(BundleError::Seccomp { .. })));
        assert!(write(r#"{"linux":{"seccomp":null}}"#).is_ok());
    }

    #[test]
    fn a_configuration_without_a_linux_part_gets_a_cgroup() {
        let (config, own) = adapted("{}");
        assert_eq!(config["linux"]["cgroupsPath"], "/web");
        assert_eq!(own.as_deref(), Some(Path::new("/web")));
    }

    #[test]
    fn a_name_gets_a_namespace_of_its_own_once_and_an_empty_one_needs_none() {
        let kinds = |text: &str| adapted(text).0["linux"]["namespaces"].clone();
        assert_eq!(kinds(r#"{"hostname":"web"}"#), json!([{"type": "uts"}]));
        let net = r#"{"hostname":"web","linux":{"namespaces":[{"type":"network"}]}}"#;
        assert_eq!(kinds(net), json!([{"type": "network"}, {"type": "uts"}]));
        let uts = r#"{"hostname":"web","linux":{"namespaces":[{"type":"uts","path":"/run/ns"}]}}"#;
        assert_eq!(kinds(uts), json!([{"type": "uts", "path": "/run/ns"}]));
        assert_eq!(kinds(r#"{"hostname":""}"#), Value::Null);
    }

    #[test]
    fn propagation_is_spelled_as_the_runtime_knows_it() {
        for (word, expected) in [("rshared", "shared"), ("shared", "shared"), ("rslave", "slave"), ("odd", "odd")] {
            let (config, _) = adapted(&format!(r#"{{"linux":{{"rootfsPropagation":"{word}"}}}}"#));
            assert_eq!(config["linux"]["rootfsPropagation"], expected);
        }
    }

    #[test]
    fn an_environment_without_a_path_gets_one_and_others_stay() {
        for (env, expected) in [
            (r#"{}"#, vec![PATH_DEFAULT]),
            (r#"{"env":null}"#, vec![PATH_DEFAULT]),
            (r#"{"env":["INSECURE=true"]}"#, vec!["INSECURE=true", PATH_DEFAULT]),
            (r#"{"env":["PATH=/"]}"#, vec!["PATH=/"]),
        ] {
            let (config, _) = adapted(&format!(r#"{{"process":{env}}}"#));
            assert_eq!(config["process"]["env"], serde_json::json!(expected));
        }
    }

    #[test]
    fn a_cgroup_that_was_asked_for_may_be_shared_and_stays() {
        let (config, own) = adapted(r#"{"root":{"path":"rootfs"},"linux":{"cgroupsPath":"/podruntime"}}"#);
        assert_eq!(config["linux"]["cgroupsPath"], "/podruntime");
        assert_eq!(config["root"]["path"], "/containers/services/web/rootfs");
        assert_eq!(own, None);
    }
}
