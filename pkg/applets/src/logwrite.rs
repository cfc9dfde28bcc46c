//! `logwrite`: writes what memlogd has gathered, and what it gathers, to one file for each log, which has a limit. kiln's own
//! init writes `/var/log` itself and has no memlogd: then there is nothing to do.

use std::collections::HashMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use kiln_guest::log_file::LogFile;
use serde_json::Value;

use crate::arguments::Flags;
use crate::{Failure, Voice};

/// What it takes.
pub const USAGE: &str = "[-socket PATH] [-log-dir DIR] [-max-log-files N] [-max-log-size BYTES]";

const FLAGS: Flags = Flags { valued: &["socket", "log-dir", "max-log-files", "max-log-size"], alone: &[] };
pub(crate) const SOCKET: &str = "/var/run/memlogdq.sock";
const FOLDER: &str = "/var/log";
/// Asks for what is there and for what comes.
const DUMP_AND_FOLLOW: u8 = 2;
/// memlogd's own limit of a message is 1024 bytes, and JSON makes at most six of each.
pub(crate) const LINE_LIMIT_BYTES: u64 = 16 << 10;
/// Most logs; a machine has two for each container.
const LOG_LIMIT: usize = 1024;

/// Why it ends.
#[derive(Debug, thiserror::Error)]
enum LogwriteError {
    #[error("cannot read from memlogd by `{}`", socket.display())]
    Read {
        socket: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// A message of memlogd's.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Message {
    pub time: String,
    pub source: String,
    pub text: String,
}

/// Follows memlogd until it ends.
///
/// # Errors
/// The connection breaks.
pub fn run(arguments: &[String], say: Voice<'_>) -> Result<(), Failure> {
    let given = FLAGS.read(arguments)?;
    let socket = PathBuf::from(given.value("socket").unwrap_or(SOCKET));
    let folder = PathBuf::from(given.value("log-dir").unwrap_or(FOLDER));
    let files = u32::try_from(given.number("max-log-files", 10)?).unwrap_or(u32::MAX);
    let limit_bytes = given.number("max-log-size", 1 << 20)?;
    let failed = |source| Failure::of(LogwriteError::Read { socket: socket.clone(), source });
    let mut stream = match UnixStream::connect(&socket) {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
            say(&format!(
                "no memlogd at `{}`: init writes {FOLDER} itself, so there is nothing to do",
                socket.display()
            ));
            return Ok(());
        }
        connected => connected.map_err(failed)?,
    };
    stream.write_all(&[DUMP_AND_FOLLOW]).map_err(failed)?;
    let mut logs = Logs { folder, limit_bytes, older: files.saturating_sub(1), files: HashMap::new() };
    let mut reader = BufReader::new(stream);
    let mut line = Vec::new();
    loop {
        line.clear();
        let len = reader.by_ref().take(LINE_LIMIT_BYTES).read_until(b'\n', &mut line).map_err(failed)?;
        if len == 0 {
            return Ok(());
        }
        match parse(&line) {
            None => say("a message of memlogd's is not understood"),
            Some(message) => {
                if let Err(error) = logs.write(&message) {
                    say(&format!("log `{}`: {error}", message.source));
                }
            }
        }
    }
}

#[derive(Debug)]
struct Logs {
    folder: PathBuf,
    limit_bytes: u64,
    older: u32,
    files: HashMap<String, LogFile>,
}

impl Logs {
    fn write(&mut self, message: &Message) -> io::Result<()> {
        // Its own words would come round for ever.
        if message.source.starts_with("logwrite") {
            return Ok(());
        }
        let name = &message.source;
        if name.is_empty() || name.starts_with('.') || Path::new(name).components().count() != 1 || name.contains('/') {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no name of a file"));
        }
        if !self.files.contains_key(name) && self.files.len() >= LOG_LIMIT {
            return Err(io::Error::new(io::ErrorKind::QuotaExceeded, "there are too many logs"));
        }
        let (path, limit, older) = (self.folder.join(name), self.limit_bytes, self.older);
        let file = self.files.entry(name.clone()).or_insert_with(|| LogFile::with_limits(path, limit, older));
        file.write(format!("{} {name} {}\n", message.time, message.text).as_bytes())
    }
}

/// `{"time":…,"source":…,"msg":…}`, or `TIME,SOURCE;TEXT` of older ones.
pub(crate) fn parse(line: &[u8]) -> Option<Message> {
    let line = String::from_utf8_lossy(line);
    let line = line.trim_end();
    if let Ok(value) = serde_json::from_str::<Value>(line) {
        let field = |name: &str| Some(value.get(name)?.as_str()?.trim_end().to_owned());
        return Some(Message { time: field("time")?, source: field("source")?, text: field("msg")? });
    }
    let (head, text) = line.split_once(';')?;
    let (time, source) = head.split_once(',')?;
    Some(Message { time: time.to_owned(), source: source.to_owned(), text: text.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_of_memlogds_formats_are_read_and_nonsense_is_not() {
        for nonsense in ["", "{}", "no sign", "a;b", "{\"time\":1,\"source\":\"x\",\"msg\":\"y\"}"] {
            assert_eq!(parse(nonsense.as_bytes()), None, "{nonsense}");
        }
        let wanted = |text: &str| {
            Some(Message { time: "2024-01-02T03:04:05Z".into(), source: "web.out".into(), text: text.into() })
        };
        assert_eq!(
            parse(br#"{"time":"2024-01-02T03:04:05Z","source":"web.out","msg":"a \"b\"\n"}"#),
            wanted("a \"b\"")
        );
        assert_eq!(parse(b"2024-01-02T03:04:05Z,web.out;a;b\n"), wanted("a;b"));
    }

    #[test]
    fn messages_go_to_files_of_their_names_and_nowhere_else() {
        let folder = tempfile::tempdir().unwrap();
        let logs = folder.path().join("log");
        let mut written = Logs { folder: logs.clone(), limit_bytes: 100, older: 2, files: HashMap::new() };
        let message = |source: &str, text: &str| Message { time: "T".into(), source: source.into(), text: text.into() };
        for name in ["../x", "a/b", "", "..", ".", "/etc/passwd"] {
            assert!(written.write(&message(name, "bad")).is_err(), "{name}");
        }
        written.write(&message("logwrite.out", "myself")).unwrap();
        for turn in 0..40 {
            written.write(&message("web.out", &format!("turn {turn}"))).unwrap();
        }
        let mut names: Vec<String> = std::fs::read_dir(&logs)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        assert_eq!(names, ["web.out", "web.out.1", "web.out.2"]);
        assert!(std::fs::read_to_string(logs.join("web.out")).unwrap().ends_with("T web.out turn 39\n"));
    }
}
