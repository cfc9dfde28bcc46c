//! A place where KVM works: this machine if it can, else the lab. The author of a test cannot tell which.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::kiln::{KILN, Said, run};
use super::lab;

/// Shell words that every job may use. Jobs run under busybox' or the host's `sh -eu`, in a folder that holds the job's
/// files; `kiln` is in the path.
const PRELUDE: &str = r#"
# wait_for PATTERN FILE SECONDS: until a line of FILE matches.
wait_for() {
    tries=$(($3 * 10))
    until grep -q -e "$1" "$2" 2>/dev/null; do
        tries=$((tries - 1))
        if [ $tries -le 0 ]; then echo "no line with '$1' in $2:"; cat "$2"; exit 1; fi
        sleep 0.1
    done
}
"#;

/// For jobs that hang: those that run end long before, even in the lab on cores that others use too.
const LIMIT: Duration = Duration::from_secs(900);

/// A script that needs KVM, and the files it works on.
pub struct KvmJob {
    files: Vec<(PathBuf, String)>,
    texts: Vec<(String, String)>,
    script: String,
    memory_mib: u32,
    limit: Duration,
    place: Place,
}

/// Where a job runs.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Where KVM works.
    Kvm,
    /// In the lab, wherever KVM works.
    Lab,
    /// On this machine, with KVM or without.
    Here,
}

impl KvmJob {
    /// A job that runs `script`.
    pub fn new(script: &str) -> Self {
        Self {
            files: vec![(KILN.into(), "kiln".into())],
            texts: vec![],
            script: format!("{PRELUDE}\n{script}\n"),
            memory_mib: 2048,
            limit: LIMIT,
            place: Place::Kvm,
        }
    }

    /// Puts a copy of `path` into the job's folder as `name`.
    pub fn file(mut self, path: &Path, name: &str) -> Self {
        self.files.push((path.to_owned(), name.to_owned()));
        self
    }

    /// Puts a program of this host and its libraries into the job's folder, whatever the place: a script runs it with
    /// `./ld-linux-x86-64.so.2 --library-path . ./NAME`.
    pub fn program_with_libraries(self, name: &str) -> Self {
        let script = r#"program=$(command -v "$1"); echo "$program"; ldd "$program" | grep -o '/[^ ]*'"#;
        let files = run(Command::new("sh").args(["-euc", script, "sh", name])).ok().stdout;
        files.lines().map(Path::new).fold(self, |job, path| {
            let name = path.file_name().expect("a file").to_string_lossy().into_owned();
            job.file(&path.canonicalize().expect("it is there"), &name)
        })
    }

    /// Puts a file with this text into the job's folder.
    pub fn text(mut self, name: &str, text: &str) -> Self {
        self.texts.push((name.to_owned(), text.to_owned()));
        self
    }

    /// For what only the lab shows, such as exact counters.
    pub fn in_lab(mut self) -> Self {
        self.place = Place::Lab;
        self
    }

    /// For what the fallback does, which needs no KVM.
    pub fn here(mut self) -> Self {
        self.place = Place::Here;
        self
    }

    /// Memory for the place it runs in, beyond what the files need, where that has to be set.
    pub fn memory_mib(mut self, memory_mib: u32) -> Self {
        self.memory_mib = memory_mib;
        self
    }

    /// Runs the job to its end.
    #[track_caller]
    pub fn run(mut self) -> Said {
        let texts = tempfile::tempdir().expect("a temp folder can be made");
        for (name, text) in &self.texts {
            let path = texts.path().join(name);
            std::fs::write(&path, text).expect("the temp folder is writable");
            self.files.push((path, name.clone()));
        }
        match self.place {
            Place::Here => self.run_here(),
            Place::Kvm if host_kvm_works() => self.run_here(),
            Place::Kvm | Place::Lab => self.run_in_lab(),
        }
    }

    #[track_caller]
    fn run_here(self) -> Said {
        let folder = tempfile::tempdir().expect("a temp folder can be made");
        for (path, name) in &self.files {
            std::fs::copy(path, folder.path().join(name)).unwrap_or_else(|e| panic!("copy {}: {e}", path.display()));
        }
        let path = std::env::var("PATH").unwrap_or_default();
        run(Command::new("timeout")
            .arg(self.limit.as_secs().to_string())
            .args(["sh", "-euc", &self.script])
            .current_dir(folder.path())
            .env("PATH", format!("{}:{path}", folder.path().display()))
            .env("HOME", folder.path()))
    }

    #[track_caller]
    fn run_in_lab(self) -> Said {
        lab::run_job(&self.files, &self.script, self.memory_mib, self.limit)
    }
}

/// Whether a stock kernel can run on this machine's KVM. `kvm_pvm` alone opens and creates machines, but runs only
/// kernels made for it.
fn host_kvm_works() -> bool {
    let module = |name: &str| Path::new("/sys/module").join(name).exists();
    let opens = std::fs::File::options().read(true).write(true).open("/dev/kvm").is_ok();
    opens && (module("kvm_intel") || module("kvm_amd") || !module("kvm_pvm"))
}
