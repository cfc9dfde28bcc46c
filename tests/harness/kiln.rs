//! Runs the program under test, away from the user's own files.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{OnceLock, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use super::tree;

/// The program under test.
pub const KILN: &str = env!("CARGO_BIN_EXE_kiln");

/// The folder of this run of the tests. What tests share lives in statics, which nobody drops: a process that outlives
/// this one by a moment, however it ends, removes the whole.
fn run_folder() -> &'static Path {
    static RUN: OnceLock<(PathBuf, Child)> = OnceLock::new();
    let (path, _remover) = RUN.get_or_init(|| {
        let path = tempfile::Builder::new().prefix("kiln-test-").tempdir().expect("a temp folder can be made").keep();
        let remover = Command::new("sh")
            .args(["-c", "cat; rm -rf \"$1\"", "remover"])
            .arg(&path)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .process_group(0)
            .spawn()
            .expect("sh starts");
        (path, remover)
    });
    path
}

/// A folder of its own and a `kiln` that sees nothing but it.
pub struct Sandbox {
    dir: tempfile::TempDir,
}

impl Sandbox {
    pub fn new() -> Self {
        Self { dir: tempfile::tempdir_in(run_folder()).expect("a temp folder can be made") }
    }

    /// The working folder of every `kiln` of this sandbox.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Writes a file below the folder, with its parents.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path().join(name);
        std::fs::create_dir_all(path.parent().expect("a file has a folder")).expect("the sandbox is writable");
        std::fs::write(&path, content).expect("the sandbox is writable");
        path
    }

    /// Writes a configuration; `TREE` in it is the tree under test.
    pub fn write_yaml(&self, name: &str, yaml: &str) -> PathBuf {
        self.write(name, yaml.replace("TREE", &tree().to_string_lossy()))
    }

    /// `kiln WORDS`, with an empty home and cache.
    pub fn kiln<S: AsRef<std::ffi::OsStr>>(&self, words: impl IntoIterator<Item = S>) -> Command {
        let mut command = Command::new(KILN);
        let home = self.path().join("home");
        std::fs::create_dir_all(&home).expect("the sandbox is writable");
        command.args(words).current_dir(self.path()).stdin(Stdio::null());
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy().into_owned();
            if name.starts_with("KILN_") || name.starts_with("LINUXKIT_") || name.starts_with("DOCKER_") {
                command.env_remove(&name);
            }
        }
        // Packages are built by cargo and apt, which need the real home's settings.
        if let Some(home) = std::env::var_os("HOME") {
            let home = PathBuf::from(home);
            command.env("CARGO_HOME", std::env::var_os("CARGO_HOME").unwrap_or(home.join(".cargo").into()));
            command.env("RUSTUP_HOME", std::env::var_os("RUSTUP_HOME").unwrap_or(home.join(".rustup").into()));
        }
        command.env("XDG_RUNTIME_DIR", home.join("run")).env("HOME", home).env("NO_COLOR", "1");
        command
    }

    /// Names below the folder (not below `home`), sorted: to see that nothing was left behind.
    pub fn files(&self) -> Vec<String> {
        let mut found = vec![];
        let mut folders = vec![self.path().to_path_buf()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(&folder).expect("the sandbox is readable").flatten() {
                let path = entry.path();
                let name = path.strip_prefix(self.path()).expect("below the sandbox").to_string_lossy().into_owned();
                if name == "home" {
                    continue;
                }
                if path.is_dir() && !path.is_symlink() {
                    folders.push(path);
                }
                found.push(name);
            }
        }
        found.sort();
        found
    }
}

/// What a finished program said, as text.
pub struct Said {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

impl Said {
    /// The exit code; a signal is no exit code.
    pub fn code(&self) -> i32 {
        self.status.code().unwrap_or_else(|| panic!("ended by a signal: {:?}\n{}", self.status, self.stderr))
    }

    /// Panics with all that was said unless the program succeeded.
    #[track_caller]
    pub fn ok(self) -> Self {
        assert!(self.status.success(), "{:?}\nstdout:\n{}\nstderr:\n{}", self.status, self.stdout, self.stderr);
        self
    }
}

impl From<Output> for Said {
    fn from(output: Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).replace('\r', "");
        Self { status: output.status, stdout: text(&output.stdout), stderr: text(&output.stderr) }
    }
}

/// Runs `command` to its end.
#[track_caller]
pub fn run(command: &mut Command) -> Said {
    match command.output() {
        Ok(output) => output.into(),
        Err(error) => panic!("cannot start {command:?}: {error}"),
    }
}

/// A program that is still running, its output read as it comes. Killed when dropped.
pub struct Running {
    child: Child,
    typed: File,
    lines: mpsc::Receiver<String>,
    seen: String,
}

impl Running {
    pub fn start(command: &mut Command) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
        let typed = OwnedFd::from(child.stdin.take().expect("piped above")).into();
        let outputs: [Box<dyn Read + Send>; 2] =
            [Box::new(child.stdout.take().expect("piped above")), Box::new(child.stderr.take().expect("piped above"))];
        Self { child, typed, lines: read_lines(outputs), seen: String::new() }
    }

    /// Starts it at a terminal of its own, whose window has so many columns and rows.
    pub fn at_terminal(command: &Command, (columns, rows): (u16, u16)) -> Self {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let master = openpt(flags).expect("there are pseudoterminals");
        unlockpt(&master).expect("it is ours");
        let slave = ioctl_tiocgptpeer(&master, flags).expect("it has another end");
        let end = || Stdio::from(slave.try_clone().expect("there are descriptors"));
        // The terminal tells the programs that it is theirs of a window's new size.
        let mut with_terminal = Command::new("setsid");
        with_terminal.arg("--ctty").arg(command.get_program()).args(command.get_args()).env_clear();
        for (name, value) in std::env::vars_os().filter(|(name, _)| command.get_envs().all(|(known, _)| known != name))
        {
            with_terminal.env(name, value);
        }
        with_terminal.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        with_terminal.current_dir(command.get_current_dir().unwrap_or(Path::new(".")));
        let child = with_terminal.stdin(end()).stdout(end()).stderr(end()).spawn().expect("setsid is installed");
        // The command holds the other end: then ours never ends.
        drop(with_terminal);
        let typed = File::from(master);
        let output = typed.try_clone().expect("there are descriptors");
        let started = Self { child, typed, lines: read_lines([Box::new(output)]), seen: String::new() };
        started.resize(columns, rows);
        started
    }

    /// The window of its terminal has another size.
    pub fn resize(&self, columns: u16, rows: u16) {
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&self.typed, size).expect("it is at a terminal");
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Types into the program.
    pub fn type_in(&mut self, text: &str) {
        self.typed.write_all(text.as_bytes()).expect("it still reads");
    }

    /// Waits until a line holds `wanted`; gives that line.
    #[track_caller]
    pub fn wait_for(&mut self, wanted: &str, limit: Duration) -> String {
        let until = Instant::now() + limit;
        loop {
            match self.lines.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    self.seen.push_str(&line);
                    if line.contains(wanted) {
                        return line;
                    }
                }
                Err(why) => panic!("no line with `{wanted}` ({why}) in:\n{}", self.seen),
            }
        }
    }

    /// Waits for the end; gives the status and all that was said.
    #[track_caller]
    pub fn wait(mut self, limit: Duration) -> (ExitStatus, String) {
        let until = Instant::now() + limit;
        // The output ends when the program does: then both readers hang up.
        loop {
            match self.lines.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(line) => self.seen.push_str(&line),
                Err(mpsc::RecvTimeoutError::Disconnected) => break,
                Err(mpsc::RecvTimeoutError::Timeout) => panic!("still running after {limit:?}:\n{}", self.seen),
            }
        }
        let status = self.child.wait().expect("it was started here");
        (status, std::mem::take(&mut self.seen))
    }
}

impl Running {
    /// As [`wait`](Self::wait), but the time limit, or a line that holds one of `bad`, ends it: then what was said is the
    /// error.
    pub fn end(mut self, limit: Duration, bad: &[&str]) -> Result<(ExitStatus, String), String> {
        let until = Instant::now() + limit;
        loop {
            match self.lines.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(line) => self.seen.push_str(&line),
                Err(mpsc::RecvTimeoutError::Disconnected) => break,
                Err(mpsc::RecvTimeoutError::Timeout) => return Err(std::mem::take(&mut self.seen)),
            }
            let last = self.seen.lines().next_back().unwrap_or_default();
            if bad.iter().any(|bad| last.contains(bad)) {
                return Err(std::mem::take(&mut self.seen));
            }
        }
        let status = self.child.wait().expect("it was started here");
        Ok((status, std::mem::take(&mut self.seen)))
    }
}

/// Each line of these, as it comes.
fn read_lines<const N: usize>(outputs: [Box<dyn Read + Send>; N]) -> mpsc::Receiver<String> {
    let (sender, lines) = mpsc::channel();
    for output in outputs {
        let sender = sender.clone();
        thread::spawn(move || {
            let mut reader = BufReader::new(output);
            let mut line = vec![];
            while reader.read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
                let _ = sender.send(String::from_utf8_lossy(&line).replace('\r', ""));
                line.clear();
            }
        });
    }
    lines
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
