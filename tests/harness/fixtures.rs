//! Costly things that tests share, made once and kept below the target folder.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::cache_dir;
use super::kiln::{Sandbox, run};

/// Debian's cloud kernel, unpacked.
pub struct Kernel {
    pub vmlinuz: PathBuf,
    modules: PathBuf,
}

impl Kernel {
    /// The module's file.
    pub fn module(&self, name: &str) -> PathBuf {
        let wanted = format!("{name}.ko");
        let mut folders = vec![self.modules.clone()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder).expect("unpacked").flatten() {
                if entry.file_name().to_string_lossy() == wanted {
                    return entry.path();
                }
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    folders.push(entry.path());
                }
            }
        }
        panic!("no module {name} below {}", self.modules.display());
    }
}

/// Debian's cloud kernel, by apt, which checks its signature.
pub fn debian_kernel() -> Kernel {
    kernel_of("linux-image-cloud-amd64", "kernel")
}

/// One that is not older than Linux 6.12: Debian 12 has it beside its own.
pub fn newer_kernel() -> Kernel {
    kernel_of("linux-image-6.12-cloud-amd64", "kernel-6.12")
}

fn kernel_of(meta: &str, folder: &str) -> Kernel {
    let dir = cache_dir().join(folder);
    once(&dir, |dir| {
        let depends = run(Command::new("apt-cache").args(["depends", meta])).ok().stdout;
        let package = depends
            .lines()
            .find_map(|line| line.trim().strip_prefix("Depends: ").filter(|name| name.starts_with("linux-image-")))
            .expect("the meta package names the real one");
        unpack(dir, package);
        run(Command::new("sh").args(["-euc", "find lib -name '*.ko.xz' -exec xz -d {} +"]).current_dir(dir)).ok();
    });
    let vmlinuz = fs::read_dir(dir.join("boot"))
        .expect("unpacked")
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("vmlinuz-")))
        .expect("the package holds a kernel");
    Kernel { vmlinuz, modules: dir.join("lib/modules") }
}

/// A file of a Debian package that need not be installed, by apt, which checks its signature.
pub fn debian_file(package: &str, path: &str) -> PathBuf {
    let dir = cache_dir().join(format!("package-{package}"));
    once(&dir, |dir| unpack(dir, package));
    dir.join(path)
}

/// A static program for guests, made in the sandbox of one source file by rustc alone.
pub fn static_program(sandbox: &Sandbox, name: &str, source: &str) -> PathBuf {
    let path = sandbox.path().join(name);
    let source = sandbox.write(&format!("{name}.rs"), source);
    let mut rustc = Command::new("rustc");
    rustc.args(["--edition", "2024", "-O", "-C", "target-feature=+crt-static", "-C", "strip=symbols", "-o"]);
    run(rustc.arg(&path).arg(source)).ok();
    path
}

fn unpack(dir: &Path, package: &str) {
    run(Command::new("apt-get").args(["download", "--quiet", package]).current_dir(dir)).ok();
    let unpack = r#"dpkg-deb -x ./*.deb . && rm ./*.deb"#;
    run(Command::new("sh").args(["-euc", unpack]).current_dir(dir)).ok();
}

/// Makes the folder `dir` with `make` unless an earlier run did. Safe against other test processes and against a run
/// that was cut off: the folder gets its name last.
pub fn once(dir: &Path, make: impl FnOnce(&Path)) {
    let lock = File::create(dir.with_extension("lock")).expect("the cache is writable");
    lock.lock().expect("the cache can be locked");
    if dir.exists() {
        return;
    }
    let unfinished = dir.with_extension("unfinished");
    let _ = fs::remove_dir_all(&unfinished);
    fs::create_dir(&unfinished).expect("the cache is writable");
    make(&unfinished);
    fs::rename(&unfinished, dir).expect("the cache is writable");
}
