//! Images that several tests boot, built once per run by the program under test.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use super::kiln::{Sandbox, run};
use super::{cache_dir, tree};

/// The content store that the tests share: packages are found by what they are made of, so a second run builds only
/// what changed.
pub fn store() -> PathBuf {
    cache_dir().join("store")
}

/// An image built from a file below `examples/`.
pub struct Built {
    sandbox: Sandbox,
    name: &'static str,
}

impl Built {
    fn example(name: &'static str) -> Self {
        let sandbox = Sandbox::new();
        let yaml = tree().join("examples").join(format!("{name}.yml"));
        run(sandbox.kiln(["build", "--cache"]).arg(store()).arg("--dir").arg(sandbox.path()).arg(yaml)).ok();
        Self { sandbox, name }
    }

    /// One of its files: `kernel`, `initrd.img`, `cmdline`.
    pub fn file(&self, which: &str) -> PathBuf {
        self.path().join(format!("{}-{which}", self.name))
    }

    /// The folder it is in.
    pub fn path(&self) -> &Path {
        self.sandbox.path()
    }

    /// The kernel command line that it asks for.
    pub fn cmdline(&self) -> String {
        std::fs::read_to_string(self.file("cmdline")).expect("built").trim().to_owned()
    }
}

/// `examples/minimal.yml`.
pub fn minimal() -> &'static Built {
    static BUILT: OnceLock<Built> = OnceLock::new();
    BUILT.get_or_init(|| Built::example("minimal"))
}

/// `examples/disk.yml`.
pub fn disk() -> &'static Built {
    static BUILT: OnceLock<Built> = OnceLock::new();
    BUILT.get_or_init(|| Built::example("disk"))
}

/// `examples/getty.yml`.
pub fn getty() -> &'static Built {
    static BUILT: OnceLock<Built> = OnceLock::new();
    BUILT.get_or_init(|| Built::example("getty"))
}
