//! Docker's credentials: `config.json` and the helper programs that it names. This is the one place of the image rooms
//! that starts a program, and it gives it a time limit and a limit on what it may answer.

use std::collections::HashMap;
use std::fmt;
use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

/// Keychains may ask the user to unlock them.
const HELPER_LIMIT: Duration = Duration::from_secs(60);
/// A name and a token; cloud registries' tokens have a few KiB.
const ANSWER_BYTES_MAX: u64 = 256 << 10;
const CONFIG_BYTES_MAX: u64 = 4 << 20;
/// Docker keeps the credentials of its own registry under this name.
const DOCKER_SERVER: &str = "https://index.docker.io/v1/";
/// Helpers answer with this name when the secret is a refresh token.
const IDENTITY_USER: &str = "<token>";

/// What proves who asks.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Credentials {
    /// A user name and its password or access token.
    Password { user: String, password: String },
    /// A refresh token, to be exchanged for one that the registry takes (OAuth2).
    Identity(String),
    /// A token that the registry takes as it is.
    Token(String),
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Password { user, .. } => f.debug_struct("Password").field("user", user).finish_non_exhaustive(),
            Self::Identity(_) => f.write_str("Identity"),
            Self::Token(_) => f.write_str("Token"),
        }
    }
}

/// Why credentials cannot be read. That there are none is no error.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// The file is there and cannot be read.
    #[error("cannot read `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file is no JSON of Docker's form.
    #[error("`{}` is no Docker configuration; mend it, or log in again with `docker login`", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// An entry's `auth` is not base64 of `USER:PASSWORD`.
    #[error("`{}` has no `USER:PASSWORD` in base64 for `{server}`; log in again with `docker login`", path.display())]
    Entry {
        /// The file.
        path: PathBuf,
        /// The entry.
        server: String,
    },
    /// A helper program cannot be run.
    #[error(
        "cannot run `{program}`, the credential helper that the Docker configuration names; install it or remove it there"
    )]
    Helper {
        /// The program.
        program: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A helper program does not end.
    #[error("`{program}` did not answer within {} s", HELPER_LIMIT.as_secs())]
    HelperHangs {
        /// The program.
        program: String,
    },
    /// A helper program answers something else.
    #[error("`{program}` failed: {answer}")]
    HelperFails {
        /// The program.
        program: String,
        /// Its answer, shortened.
        answer: String,
    },
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct DockerConfig {
    auths: HashMap<String, Entry>,
    cred_helpers: HashMap<String, String>,
    creds_store: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Entry {
    auth: String,
    username: String,
    password: String,
    #[serde(rename = "identitytoken")]
    identity_token: String,
    #[serde(rename = "registrytoken")]
    registry_token: String,
}

/// The credentials for `registry` (host with an optional port, or `docker.io`), or `None` if there are none.
pub(super) fn look_up(config: &Path, registry: &str) -> Result<Option<Credentials>, CredentialsError> {
    let Some(docker) = read_config(config)? else { return Ok(None) };
    let server = match registry {
        "docker.io" | "index.docker.io" | "registry-1.docker.io" => DOCKER_SERVER,
        other => other,
    };
    let own_helper = docker.cred_helpers.get(server).or_else(|| docker.cred_helpers.get(registry));
    let helper = own_helper.map_or(docker.creds_store.as_str(), String::as_str);
    if !helper.is_empty()
        && let Some(found) = ask_helper(helper, server)?
    {
        return Ok(Some(found));
    }
    let names = [server.to_owned(), format!("https://{server}"), format!("https://{server}/v1/"), format!("{server}/")];
    for name in &names {
        if let Some(entry) = docker.auths.get(name) {
            return entry_credentials(entry, config, name);
        }
    }
    Ok(None)
}

fn read_config(path: &Path) -> Result<Option<DockerConfig>, CredentialsError> {
    let fail = |source| CredentialsError::Read { path: path.to_owned(), source };
    let file = match fs::File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(fail)?,
    };
    let mut bytes = Vec::new();
    file.take(CONFIG_BYTES_MAX).read_to_end(&mut bytes).map_err(fail)?;
    serde_json::from_slice(&bytes).map(Some).map_err(|source| CredentialsError::Json { path: path.to_owned(), source })
}

fn entry_credentials(entry: &Entry, path: &Path, server: &str) -> Result<Option<Credentials>, CredentialsError> {
    if !entry.identity_token.is_empty() {
        return Ok(Some(Credentials::Identity(entry.identity_token.clone())));
    }
    if !entry.registry_token.is_empty() {
        return Ok(Some(Credentials::Token(entry.registry_token.clone())));
    }
    if !entry.username.is_empty() {
        return Ok(Some(Credentials::Password { user: entry.username.clone(), password: entry.password.clone() }));
    }
    if entry.auth.is_empty() {
        return Ok(None); // Docker leaves an empty entry where a helper holds the secret
    }
    let decoded = STANDARD.decode(entry.auth.trim()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    let pair = decoded.as_deref().and_then(|text| text.split_once(':'));
    let (user, password) =
        pair.ok_or_else(|| CredentialsError::Entry { path: path.to_owned(), server: server.to_owned() })?;
    Ok(Some(Credentials::Password { user: user.to_owned(), password: password.trim_end_matches('\0').to_owned() }))
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    username: String,
    secret: String,
}

fn ask_helper(name: &str, server: &str) -> Result<Option<Credentials>, CredentialsError> {
    let program = format!("docker-credential-{name}");
    if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.')) {
        let source =
            io::Error::new(io::ErrorKind::InvalidInput, "its name has other characters than letters, digits, `-_.`");
        return Err(CredentialsError::Helper { program, source });
    }
    let (worked, bytes) = run(&program, server, HELPER_LIMIT)?;
    let text = String::from_utf8_lossy(&bytes);
    if !worked && text.contains("credentials not found") {
        return Ok(None);
    }
    match serde_json::from_str::<Answer>(&text) {
        Ok(answer) if worked && answer.username == IDENTITY_USER => Ok(Some(Credentials::Identity(answer.secret))),
        Ok(answer) if worked => Ok(Some(Credentials::Password { user: answer.username, password: answer.secret })),
        // What does not look like an answer may still hold a secret, unless the program said that it failed.
        _ if worked => {
            Err(CredentialsError::HelperFails { program, answer: "its answer has no name and secret".into() })
        }
        _ => Err(CredentialsError::HelperFails { program, answer: text.trim().chars().take(200).collect() }),
    }
}

/// Runs `program get` with `server` on its standard input. Returns whether it succeeded, and its output.
fn run(program: &str, server: &str, limit: Duration) -> Result<(bool, Vec<u8>), CredentialsError> {
    let fail = |source| CredentialsError::Helper { program: program.to_owned(), source };
    let mut command = Command::new(program);
    let command = command.arg("get").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().map_err(fail)?;
    let (input, output) = (child.stdin.take(), child.stdout.take());
    let (send, receive) = mpsc::channel();
    let server = server.to_owned();
    // The thread ends with the program: when its end of the pipes is gone.
    thread::spawn(move || {
        let asked = input.map_or(Ok(()), |mut input| input.write_all(server.as_bytes()));
        let mut bytes = Vec::new();
        let read = output.map_or(Ok(0), |output| output.take(ANSWER_BYTES_MAX).read_to_end(&mut bytes));
        // A program that does not read its input may still answer.
        let _asker_gave_up = send.send(read.or(asked.map(|()| 0)).map(|_| bytes));
    });
    let Ok(answer) = receive.recv_timeout(limit) else {
        end(&mut child);
        return Err(CredentialsError::HelperHangs { program: program.to_owned() });
    };
    let bytes = answer.map_err(|source| {
        end(&mut child);
        fail(source)
    })?;
    if bytes.len() as u64 >= ANSWER_BYTES_MAX {
        end(&mut child);
    }
    let status = child.wait().map_err(fail)?;
    Ok((status.success(), bytes))
}

fn end(child: &mut Child) {
    // An error says that it is gone already.
    let _gone = child.kill().and_then(|()| child.wait());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), text).unwrap();
        file
    }

    #[test]
    fn no_file_and_no_entry_are_no_credentials() {
        assert!(look_up(Path::new("/nonexistent/config.json"), "docker.io").unwrap().is_none());
        for text in ["{}", r#"{"auths":{}}"#, r#"{"auths":{"a.example":{}}}"#] {
            assert!(look_up(config(text).path(), "a.example").unwrap().is_none(), "{text}");
        }
    }

    #[test]
    fn a_broken_file_is_an_error_that_names_it_and_no_secret() {
        let cases = [
            ("{", "no Docker configuration"),
            (r#"{"auths":{"a.example":{"auth":"!!"}}}"#, "no `USER:PASSWORD`"),
            (r#"{"auths":{"a.example":{"auth":"c2VjcmV0"}}}"#, "no `USER:PASSWORD`"),
            (r#"{"credHelpers":{"a.example":"../x"}}"#, "docker-credential-../x"),
            (r#"{"credsStore":"no-such-helper"}"#, "docker-credential-no-such-helper"),
        ];
        for (text, fault) in cases {
            let error = look_up(config(text).path(), "a.example").unwrap_err().to_string();
            assert!(error.contains(fault) && !error.contains("secret"), "{text}: {error}");
        }
    }

    #[test]
    fn entries_are_found_under_each_of_their_names() {
        let found = |name: &str, registry: &str| {
            let text = format!(r#"{{"auths":{{"{name}":{{"auth":"{}"}}}}}}"#, STANDARD.encode("u:p:q"));
            look_up(config(&text).path(), registry).unwrap()
        };
        let expected = Some(Credentials::Password { user: "u".into(), password: "p:q".into() });
        assert_eq!(found("a.example:5000", "a.example:5000"), expected);
        assert_eq!(found("https://a.example", "a.example"), expected);
        assert_eq!(found("https://a.example/v1/", "a.example"), expected);
        assert_eq!(found("https://index.docker.io/v1/", "docker.io"), expected);
        assert_eq!(found("b.example", "a.example"), None);
    }

    #[test]
    fn tokens_win_over_passwords() {
        let auth = STANDARD.encode("u:p");
        let found = |more: &str| {
            let text = format!(r#"{{"auths":{{"a.example":{{"auth":"{auth}"{more}}}}}}}"#);
            look_up(config(&text).path(), "a.example").unwrap()
        };
        assert_eq!(found(r#","identitytoken":"i""#), Some(Credentials::Identity("i".into())));
        assert_eq!(found(r#","registrytoken":"r""#), Some(Credentials::Token("r".into())));
    }

    fn helper(script: &str) -> (tempfile::TempDir, String) {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("helper");
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        let name = path.to_str().unwrap().to_owned();
        (folder, name)
    }

    #[test]
    fn a_helper_that_hangs_is_ended() {
        let (_folder, program) = helper("exec sleep 1000");
        let error = run(&program, "a.example", Duration::from_millis(200)).unwrap_err();
        assert!(matches!(error, CredentialsError::HelperHangs { .. }), "{error}");
    }

    #[test]
    fn a_helper_that_talks_without_end_is_cut() {
        let (_folder, program) = helper("exec yes");
        let (worked, bytes) = run(&program, "a.example", HELPER_LIMIT).unwrap();
        assert!(!worked);
        assert_eq!(bytes.len() as u64, ANSWER_BYTES_MAX);
    }

    #[test]
    fn a_helper_gets_the_server_and_answers() {
        let (_folder, program) = helper(r#"read server; echo "$1 $server""#);
        let (worked, bytes) = run(&program, "a.example\n", HELPER_LIMIT).unwrap();
        assert_eq!((worked, bytes.as_slice()), (true, &b"get a.example\n"[..]));
    }
}
