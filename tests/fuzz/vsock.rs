//! What a guest says to its socket device, with programs on the host that come, talk, read and go.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::OnceLock;

use kiln_run::config::{Vsock, VsockKind, VsockPort};
use kiln_run::vsock::memory::MemoryInbox;
use kiln_run::vsock::packet::{HEADER_BYTES, Header, op};
use kiln_run::vsock::{CONNECT, Muxer};

/// Steps of one input.
const STEPS_LIMIT: usize = 400;
/// Most packets that a guest with so many buffers can get in one go.
const BUFFERS: usize = 64;

/// Each step is a byte that says what happens, and what that needs.
pub fn packets(data: &[u8]) {
    static FOLDER: OnceLock<tempfile::TempDir> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| tempfile::tempdir().expect("a folder can be made")).path();
    let to_guest = vec![VsockPort { port: 1, kind: VsockKind::Stream, path: None }];
    let mut muxer = Muxer::open(&Vsock { to_guest, ..Vsock::default() }, folder).expect("sockets can be made");
    muxer.start(true);
    let host = folder.join("host.00000002");
    let _ = std::fs::remove_file(&host);
    let listener = UnixListener::bind(host).expect("the folder is there");
    listener.set_nonblocking(true).expect("a flag");
    let mut inbox = MemoryInbox { left: BUFFERS, bytes: 4096, packets: VecDeque::new() };
    let mut programs: Vec<UnixStream> = Vec::new();
    let mut last = Header::default();
    let mut rest = data;
    for _ in 0..STEPS_LIMIT {
        let Some((step, behind)) = rest.split_first() else { break };
        rest = behind;
        match step % 8 {
            // Any packet.
            0 => {
                let Some((header, behind)) = rest.split_first_chunk::<HEADER_BYTES>() else { break };
                rest = behind;
                let header = Header::from_bytes(header);
                muxer.from_guest(&header, &vec![0; header.len.min(70_000) as usize]);
            }
            // One that means something: for the last connection there was, or a new one.
            1 | 2 => {
                let len = usize::from(*step) * 300;
                let answer = Header {
                    src_cid: 3,
                    dst_cid: 2,
                    src_port: last.dst_port,
                    dst_port: if last.src_port == 0 { 2 } else { last.src_port },
                    kind: 1 + u16::from(step & 64 != 0),
                    op: u16::from(step / 8 % 8),
                    flags: u32::from(*step) & 3,
                    len: if u16::from(step / 8 % 8) == op::DATA { u32::try_from(len).unwrap_or(0) } else { 0 },
                    buf_alloc: u32::from(*step) << 10,
                    ..Header::default()
                };
                muxer.from_guest(&answer, &vec![0; answer.len as usize]);
            }
            3 => programs.extend(UnixStream::connect(folder.join(if step & 8 == 0 {
                "guest.00000001"
            } else {
                CONNECT
            }))),
            4 => {
                let (words, behind) = rest.split_at(rest.len().min(usize::from(*step)));
                rest = behind;
                if let Some(program) = programs.last_mut() {
                    let _ = program.set_nonblocking(true).and_then(|()| program.write(words));
                }
            }
            5 => drop(programs.pop()),
            6 => {
                programs.extend(listener.accept().map(|(program, _)| program));
                if let Some(program) = programs.last_mut() {
                    let _ = program.set_nonblocking(true).and_then(|()| program.read(&mut [0; 5000]));
                }
            }
            _ => {
                muxer.look().expect("sockets can be asked");
                muxer.to_guest(&mut inbox);
                last = inbox.packets.back().map_or(last, |(header, _)| *header);
                inbox.packets.clear();
                inbox.left = BUFFERS;
            }
        }
    }
    muxer.end();
}
