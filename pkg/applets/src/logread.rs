//! `logread [-f | -F]`: shows what memlogd has, a line each: time, log and text with `;` between.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use crate::arguments::{Flags, WrongUse};
use crate::logwrite::{LINE_LIMIT_BYTES, SOCKET, parse};
use crate::{Failure, Voice};

/// What it takes.
pub const USAGE: &str = "[-f: what comes | -F: what is there and what comes] [-socket PATH]";

const FLAGS: Flags = Flags { valued: &["socket"], alone: &["f", "F"] };

/// Why nothing is shown.
#[derive(Debug, thiserror::Error)]
enum LogreadError {
    #[error("cannot ask memlogd at `{}`; it has to be among the machine's `init` packages", socket.display())]
    Ask {
        socket: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot read what memlogd says, or write it")]
    Read(#[source] io::Error),
}

/// Runs the program.
///
/// # Errors
/// There is no memlogd, or the connection breaks.
pub fn run(arguments: &[String], _say: Voice<'_>) -> Result<(), Failure> {
    let given = FLAGS.read(arguments)?;
    if let Some(more) = given.words.first() {
        return Err(WrongUse::TooMuch(more.clone()).into());
    }
    let socket = PathBuf::from(given.value("socket").unwrap_or(SOCKET));
    let mode = if given.has("F") { 2 } else { u8::from(given.has("f")) };
    let asked = UnixStream::connect(&socket).and_then(|mut stream| stream.write_all(&[mode]).map(|()| stream));
    let stream = asked.map_err(|source| Failure::of(LogreadError::Ask { socket, source }))?;
    show(BufReader::new(stream), &mut io::stdout().lock()).map_err(|error| Failure::of(LogreadError::Read(error)))
}

fn show(mut from: impl BufRead, to: &mut impl Write) -> io::Result<()> {
    let mut line = Vec::new();
    while from.by_ref().take(LINE_LIMIT_BYTES).read_until(b'\n', &mut line)? > 0 {
        if let Some(message) = parse(&line) {
            writeln!(to, "{};{};{}", message.time, message.source.replace(';', "\\;"), message.text)?;
            to.flush()?;
        }
        line.clear();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_shown_and_nonsense_is_passed_over() {
        let mut shown = vec![];
        show(&b"{\"time\":\"T\",\"source\":\"a;b\",\"msg\":\"x;y\"}\nnonsense\n{}\n"[..], &mut shown).unwrap();
        assert_eq!(String::from_utf8(shown).unwrap(), "T;a\\;b;x;y\n");
    }
}
