//! The agent over a socket, with this machine as the guest.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::thread;

use kiln_abi::{AgentProgram, AgentRequest, AgentTask, FRAME_BYTES, FrameKind, INPUT_WINDOW_BYTES, frame, read_frame};
use kiln_agent::session::{Place, serve};

/// Somebody who talks to an agent.
struct Host {
    stream: UnixStream,
}

/// All that was said, and the exit code.
#[derive(Debug, Default, PartialEq, Eq)]
struct Said {
    output: Vec<u8>,
    errors: String,
    code: Option<i32>,
    refused: Option<String>,
    taken: usize,
}

impl Host {
    fn connect() -> Self {
        let (stream, theirs) = UnixStream::pair().unwrap();
        let place = Place { own: env!("CARGO_BIN_EXE_kiln-agent").into(), machine: std::process::id() };
        thread::spawn(move || serve(theirs, &place));
        Self { stream }
    }

    fn ask(task: AgentTask) -> Self {
        let mut host = Self::connect();
        let request = AgentRequest { version: 1, service: None, task };
        host.send(FrameKind::Request, &serde_json::to_vec(&request).unwrap());
        host
    }

    fn run(words: &[&str]) -> Self {
        Self::ask(AgentTask::Run(program(words)))
    }

    fn send(&mut self, kind: FrameKind, contents: &[u8]) {
        self.stream.write_all(&frame(kind, contents)).unwrap();
    }

    /// Hears all until the end, or until `text` was put out.
    fn hear_until(&mut self, text: &str) -> Said {
        let (mut said, mut contents) = (Said::default(), vec![]);
        while let Some(kind) = read_frame(&mut self.stream, &mut contents).unwrap() {
            match kind {
                FrameKind::Output => said.output.extend(&contents),
                FrameKind::Errors => said.errors.push_str(&String::from_utf8_lossy(&contents)),
                FrameKind::Exit => said.code = Some(i32::from_le_bytes(contents[..].try_into().unwrap())),
                FrameKind::Refused => said.refused = Some(String::from_utf8_lossy(&contents).into()),
                FrameKind::Taken => said.taken += u32::from_le_bytes(contents[..].try_into().unwrap()) as usize,
                kind => panic!("{kind:?}"),
            }
            if !text.is_empty() && String::from_utf8_lossy(&said.output).contains(text) {
                break;
            }
        }
        said
    }

    fn hear(&mut self) -> Said {
        self.hear_until("")
    }
}

fn program(words: &[&str]) -> AgentProgram {
    AgentProgram { command: words.iter().map(|word| (*word).to_owned()).collect(), ..AgentProgram::default() }
}

fn sh(script: &str) -> Said {
    Host::run(&["sh", "-c", script]).hear()
}

#[test]
fn what_is_no_request_is_refused_or_hung_up_on() {
    let mut host = Host::connect();
    host.send(FrameKind::Request, b"nonsense");
    assert!(host.hear().refused.unwrap().contains("no request"));
    let mut host = Host::connect();
    host.send(FrameKind::Request, br#"{"version":2,"task":{"do":"look","path":"/"}}"#);
    assert!(host.hear().refused.unwrap().contains("version 1"));
    let mut host = Host::connect();
    host.send(FrameKind::Request, br#"{"version":1,"service":"x","task":{"do":"look","path":"/"}}"#);
    assert!(host.hear().refused.unwrap().contains("which services run"));
    let mut host = Host::connect();
    host.send(FrameKind::Input, b"early");
    assert_eq!(host.hear(), Said::default());
}

#[test]
fn what_cannot_be_started_says_why_and_has_its_own_code() {
    for (words, code, text) in [
        (&["/nonexistent/program"][..], 127, "/nonexistent/program"),
        (&["/etc/passwd"], 126, "/etc/passwd"),
        (&[], 125, "no program"),
    ] {
        let said = Host::run(words).hear();
        assert_eq!(said.code, Some(code), "{said:?}");
        assert!(said.errors.contains(text), "{said:?}");
    }
    let mut lost = program(&["true"]);
    lost.folder = Some("/nonexistent".into());
    assert_eq!(Host::ask(AgentTask::Run(lost)).hear().code, Some(125));
    let mut nobody = program(&["true"]);
    nobody.user = Some("nobody-of-this-name".into());
    assert!(Host::ask(AgentTask::Run(nobody)).hear().errors.contains("nobody-of-this-name"));
}

#[test]
fn output_errors_and_exit_code_come_back() {
    let said = sh("echo out; echo err >&2; exit 7");
    let expected = Said { output: b"out\n".into(), errors: "err\n".into(), code: Some(7), ..Said::default() };
    assert_eq!(said, expected);
    assert_eq!(sh("kill -TERM $$").code, Some(128 + 15));
    let mut dressed = program(&["sh", "-c", "echo $A $HOME; pwd"]);
    dressed.env = vec!["A=b c".into(), "HOME=/x".into()];
    dressed.folder = Some("/usr".into());
    assert_eq!(Host::ask(AgentTask::Run(dressed)).hear().output, b"b c /x\n/usr\n");
}

#[test]
fn much_input_comes_back_as_it_went_and_no_more_than_the_window_is_on_its_way() {
    let mut host = Host::run(&["cat"]);
    let much: Vec<u8> = (0..2_000_000_u32).flat_map(u32::to_le_bytes).collect();
    let (mut sent, mut taken, mut back, mut contents) = (0, 0, Vec::<u8>::new(), vec![]);
    loop {
        while sent < much.len() && sent + FRAME_BYTES - taken <= INPUT_WINDOW_BYTES {
            let end = (sent + FRAME_BYTES).min(much.len());
            host.send(FrameKind::Input, &much[sent..end]);
            sent = end;
            if sent == much.len() {
                host.send(FrameKind::Input, b"");
            }
        }
        match read_frame(&mut host.stream, &mut contents).unwrap().unwrap() {
            FrameKind::Output => back.extend(&contents),
            FrameKind::Taken => taken += u32::from_le_bytes(contents[..].try_into().unwrap()) as usize,
            FrameKind::Exit => break,
            kind => panic!("{kind:?}"),
        }
    }
    assert!(back == much && taken == much.len());
}

#[test]
fn who_sends_more_than_the_window_is_hung_up_on() {
    let mut host = Host::run(&["sleep", "1000"]);
    for _ in 0..=INPUT_WINDOW_BYTES / FRAME_BYTES + 2 {
        if host.stream.write_all(&frame(FrameKind::Input, &vec![0; FRAME_BYTES])).is_err() {
            break;
        }
    }
    // Nothing is told: the connection ends, and with it the program.
    let mut rest = vec![];
    let _reset = host.stream.read_to_end(&mut rest);
    assert!(!rest.contains(&18));
}

#[test]
fn signals_reach_the_program_even_if_it_reads_nothing() {
    let mut host = Host::run(&["sh", "-c", "trap 'echo got it; exit 3' INT; echo ready; while :; do sleep 0.05; done"]);
    host.hear_until("ready");
    host.send(FrameKind::Input, b"never read");
    host.send(FrameKind::Signal, &[2]);
    let said = host.hear();
    assert_eq!((said.output.as_slice(), said.code), (&b"got it\n"[..], Some(3)));
}

#[test]
fn a_program_on_a_terminal_has_its_size_and_its_keys() {
    let mut on_terminal = program(&["sh", "-c", "tty >/dev/null && stty size; read x; stty size; exec sleep 1000"]);
    on_terminal.terminal = Some((132, 43));
    let mut host = Host::ask(AgentTask::Run(on_terminal));
    host.hear_until("43 132");
    host.send(FrameKind::Size, &kiln_abi::size_contents(80, 25));
    host.send(FrameKind::Input, b"\r");
    host.hear_until("25 80");
    // Ctrl-C, which the terminal turns into a signal.
    host.send(FrameKind::Input, b"\x03");
    assert_eq!(host.hear().code, Some(128 + 2));
}

#[test]
fn a_program_ends_when_its_user_goes_and_its_children_are_not_waited_for() {
    let said = sh("sleep 1000 & echo $!");
    let child: i32 = String::from_utf8(said.output).unwrap().trim().parse().unwrap();
    rustix::process::kill_process(rustix::process::Pid::from_raw(child).unwrap(), rustix::process::Signal::KILL)
        .unwrap();
    let folder = tempfile::tempdir().unwrap();
    let fifo = folder.path().join("fifo");
    let script = format!("mkfifo {0}; echo made; exec sleep 1000 > {0}", fifo.display());
    let mut host = Host::run(&["sh", "-c", &script]);
    host.hear_until("made");
    let mut held = std::fs::File::open(&fifo).unwrap();
    host.stream.shutdown(Shutdown::Both).unwrap();
    drop(host);
    // It ends when nobody holds the other end any more.
    held.read_to_end(&mut vec![]).unwrap();
}

#[test]
fn trees_go_in_and_out() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    std::fs::create_dir_all(path("from/deep")).unwrap();
    std::fs::create_dir(path("to")).unwrap();
    std::fs::write(path("from/deep/file"), "text").unwrap();
    for (name, code) in [("from", 0), ("from/deep/file", 3), ("none", 4)] {
        assert_eq!(Host::ask(AgentTask::Look { path: path(name) }).hear().code, Some(code), "{name}");
    }
    let packed = Host::ask(AgentTask::Pack { path: path("from"), name: "copy".into() }).hear();
    assert_eq!((packed.code, packed.errors.as_str()), (Some(0), ""));
    let mut host = Host::ask(AgentTask::Unpack { folder: path("to") });
    packed.output.chunks(FRAME_BYTES).for_each(|chunk| host.send(FrameKind::Input, chunk));
    host.send(FrameKind::Input, b"");
    assert_eq!(host.hear().code, Some(0));
    assert_eq!(std::fs::read_to_string(path("to/copy/deep/file")).unwrap(), "text");
    let missing = Host::ask(AgentTask::Pack { path: path("none"), name: "copy".into() }).hear();
    assert!(missing.code == Some(1) && missing.errors.contains("cannot read"), "{missing:?}");
}
