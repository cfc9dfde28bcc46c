//! What the host says to the agent in the guest, and to a machine's console: frames on a stream. A frame is its kind (one
//! byte), the length of what follows (four, little-endian) and that. pkg/agent/README.md tells who says what.

use std::io::{self, Read};

use serde::{Deserialize, Serialize};

/// The agent's vsock port: `kiln` in ASCII, far from the ports that people choose.
pub const AGENT_PORT: u32 = 0x6B69_6C6E;
/// Version of the protocol. An agent refuses a request of another one.
pub const AGENT_VERSION: u32 = 1;
/// Most bytes behind the head of a frame.
pub const FRAME_BYTES: usize = 64 * 1024;
/// Bytes of [`FrameKind::Input`] that may be on their way before the program has taken them.
pub const INPUT_WINDOW_BYTES: usize = 256 * 1024;
/// Bytes of a frame's head.
pub const FRAME_HEAD_BYTES: usize = 5;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameKind {
    /// To the agent, first and once: [`AgentRequest`] as JSON.
    Request,
    /// To the program: its standard input. An empty one is the end.
    Input,
    /// To the program: the number of a signal, one byte.
    Signal,
    /// To the program's terminal: columns, then rows, two bytes each, little-endian.
    Size,
    /// From the program: standard output.
    Output,
    /// From the program: standard error.
    Errors,
    /// From the agent, last: the program's exit code, four bytes, little-endian; 128 + signal if one ended it.
    Exit,
    /// From the agent, last: why it does not do what it was asked for, as text.
    Refused,
    /// From the agent: how many bytes of input the program took, four bytes, little-endian.
    Taken,
}

/// Each kind and its byte.
const KINDS: [(FrameKind, u8); 9] = [
    (FrameKind::Request, 1),
    (FrameKind::Input, 2),
    (FrameKind::Signal, 3),
    (FrameKind::Size, 4),
    (FrameKind::Output, 16),
    (FrameKind::Errors, 17),
    (FrameKind::Exit, 18),
    (FrameKind::Refused, 19),
    (FrameKind::Taken, 20),
];

/// The head of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHead {
    /// What it is.
    pub kind: FrameKind,
    /// How many bytes follow, at most [`FRAME_BYTES`].
    pub len: usize,
}

/// Why bytes are no head of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Nobody knows it.
    #[error("no frame is of kind {0}")]
    Kind(u8),
    /// Too much at once.
    #[error("a frame of {0} bytes is longer than {FRAME_BYTES}")]
    Length(u32),
}

impl FrameHead {
    /// Reads a head.
    ///
    /// # Errors
    /// [`FrameError`] when nothing can be understood from here on.
    pub fn read([kind, l0, l1, l2, l3]: [u8; FRAME_HEAD_BYTES]) -> Result<Self, FrameError> {
        let len = u32::from_le_bytes([l0, l1, l2, l3]);
        let known = KINDS.iter().find(|(_, byte)| *byte == kind).ok_or(FrameError::Kind(kind))?;
        let fits = usize::try_from(len).ok().filter(|len| *len <= FRAME_BYTES);
        Ok(Self { kind: known.0, len: fits.ok_or(FrameError::Length(len))? })
    }

    /// The head as bytes.
    #[must_use]
    pub fn bytes(self) -> [u8; FRAME_HEAD_BYTES] {
        let kind = KINDS.iter().find(|(kind, _)| *kind == self.kind).map_or(0, |(_, byte)| *byte);
        let [l0, l1, l2, l3] = u32::try_from(self.len).unwrap_or(u32::MAX).to_le_bytes();
        [kind, l0, l1, l2, l3]
    }
}

/// `contents` as one frame. What is longer than [`FRAME_BYTES`] is cut off: whoever has more sends several.
#[must_use]
pub fn frame(kind: FrameKind, contents: &[u8]) -> Vec<u8> {
    let contents = contents.get(..FRAME_BYTES).unwrap_or(contents);
    [&FrameHead { kind, len: contents.len() }.bytes()[..], contents].concat()
}

/// Reads one frame from what the caller has; its contents replace those of `contents`. [`None`] at an end between frames.
///
/// # Errors
/// The stream's, or `InvalidData` with a [`FrameError`].
pub fn read_frame(stream: &mut impl Read, contents: &mut Vec<u8>) -> io::Result<Option<FrameKind>> {
    let mut head = [0; FRAME_HEAD_BYTES];
    let (first, rest) = head.split_at_mut(1);
    loop {
        match stream.read(first) {
            Ok(0) => return Ok(None),
            Ok(_) => break,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    stream.read_exact(rest)?;
    let FrameHead { kind, len } =
        FrameHead::read(head).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    contents.clear();
    contents.resize(len, 0);
    stream.read_exact(contents)?;
    Ok(Some(kind))
}

/// The contents of [`FrameKind::Size`].
#[must_use]
pub fn size_contents(columns: u16, rows: u16) -> [u8; 4] {
    let ([c0, c1], [r0, r1]) = (columns.to_le_bytes(), rows.to_le_bytes());
    [c0, c1, r0, r1]
}

/// Columns and rows out of the contents of [`FrameKind::Size`].
#[must_use]
pub fn size_of(contents: &[u8]) -> Option<(u16, u16)> {
    let [c0, c1, r0, r1] = <[u8; 4]>::try_from(contents).ok()?;
    Some((u16::from_le_bytes([c0, c1]), u16::from_le_bytes([r0, r1])))
}

/// What the agent is asked for. One connection, one request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgentRequest {
    /// [`AGENT_VERSION`].
    pub version: u32,
    /// The service in whose container it is done; without one it is the machine's own root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// What is to be done.
    pub task: AgentTask,
}

/// What the agent can do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case", deny_unknown_fields)]
pub enum AgentTask {
    /// Run a program.
    Run(AgentProgram),
    /// Tell by the exit code what is at a path: see [`LOOK_FOLDER`] and its like.
    Look {
        /// The path, from the root.
        path: String,
    },
    /// Write a tar archive of a file or folder to standard output.
    Pack {
        /// The path, from the root.
        path: String,
        /// What it is called in the archive.
        name: String,
    },
    /// Unpack the tar archive on standard input.
    Unpack {
        /// The folder, which must be there.
        folder: String,
    },
    /// Let who watches a shared folder know what the host changed there. The paths come on standard input, from the shared
    /// folder, which is the empty one; a zero ends each. They are touched with a time that is none: [`TOUCH_SECONDS`].
    Touch {
        /// The folder's tag.
        tag: String,
    },
}

/// The time of last change, in seconds, that means `only tell who watches` to the server of a shared folder, which then
/// changes nothing; together with [`TOUCH_NANOSECONDS`], and alone.
pub const TOUCH_SECONDS: i64 = -0x6B69_6C6E_0000;
/// Its nanoseconds.
pub const TOUCH_NANOSECONDS: u32 = 0x0B69_6C6E;

/// Exit code of [`AgentTask::Look`]: a folder, or a link to one.
pub const LOOK_FOLDER: i32 = 0;
/// Exit code of [`AgentTask::Look`]: something else.
pub const LOOK_FILE: i32 = 3;
/// Exit code of [`AgentTask::Look`]: nothing.
pub const LOOK_NOTHING: i32 = 4;

/// A program to run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgentProgram {
    /// The program and its words; looked for in the `PATH` there.
    pub command: Vec<String>,
    /// `NAME=VALUE`, over the usual `PATH` and `HOME`.
    #[serde(default)]
    pub env: Vec<String>,
    /// Working folder; without one it is `/`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub folder: Option<String>,
    /// `USER[:GROUP]`, names or numbers; without one it is root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// A terminal of this size, columns and rows, instead of pipes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub terminal: Option<(u16, u16)>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_of_no_kind_or_of_too_much_is_refused() {
        assert_eq!(FrameHead::read([0, 1, 0, 0, 0]), Err(FrameError::Kind(0)));
        assert_eq!(FrameHead::read([21, 0, 0, 0, 0]), Err(FrameError::Kind(21)));
        assert_eq!(FrameHead::read([2, 1, 0, 1, 0]), Err(FrameError::Length(65537)));
        assert_eq!(FrameHead::read([2, 255, 255, 255, 255]), Err(FrameError::Length(u32::MAX)));
    }

    #[test]
    fn every_head_is_read_as_it_was_written() {
        for (kind, _) in KINDS {
            for len in [0, 1, FRAME_BYTES] {
                let head = FrameHead { kind, len };
                assert_eq!(FrameHead::read(head.bytes()), Ok(head));
            }
        }
        assert_eq!(frame(FrameKind::Input, b"ab"), [2, 2, 0, 0, 0, b'a', b'b']);
        assert_eq!(size_of(&size_contents(80, 300)), Some((80, 300)));
        assert_eq!(size_of(b"abc"), None);
    }

    #[test]
    fn a_stream_ends_between_frames_or_it_is_an_error() {
        let two = [frame(FrameKind::Input, b"ab"), frame(FrameKind::Exit, &[])].concat();
        let (mut stream, mut contents) = (&two[..], vec![7; 9]);
        assert_eq!(read_frame(&mut stream, &mut contents).unwrap(), Some(FrameKind::Input));
        assert_eq!(contents, b"ab");
        assert_eq!(read_frame(&mut stream, &mut contents).unwrap(), Some(FrameKind::Exit));
        assert_eq!(read_frame(&mut stream, &mut contents).unwrap(), None);
        for cut in [1, 4, 6] {
            let error = read_frame(&mut &two[..cut], &mut contents).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "{cut}");
        }
        let error = read_frame(&mut &[9, 0, 0, 0, 0][..], &mut contents).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn a_request_with_unknown_fields_is_refused() {
        let request = |text: &str| serde_json::from_str::<AgentRequest>(text);
        assert!(request(r#"{"version":1,"task":{"do":"look","path":"/"},"more":1}"#).is_err());
        assert!(request(r#"{"version":1,"task":{"do":"fly"}}"#).is_err());
        let look = AgentRequest { version: 1, service: None, task: AgentTask::Look { path: "/".into() } };
        assert_eq!(request(r#"{"version":1,"task":{"do":"look","path":"/"}}"#).ok(), Some(look));
    }
}
