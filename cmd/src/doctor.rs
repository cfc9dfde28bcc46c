//! `kiln doctor`: what this host can do, and why not.

use std::path::{Path, PathBuf};

use indicatif::HumanBytes;
use kiln_run::host::{self, Accel, Backend, Facts, find_program};
use rustix::fs::{Access, access, statvfs};
use serde_json::json;

use crate::args;
use crate::failure::Failure;
use crate::printer::Printer;
use crate::surroundings::{self, variable};

/// Free space that a build of an ordinary system wants: images in the store, spooled files, outputs.
const WANTED_BYTES: u64 = 2 << 30;
/// What native packages are built with: program, Debian's package, and what for.
const PACKAGE_TOOLS: [(&str, &str, &str); 3] = [
    ("cargo", "cargo", "programs of the tree itself"),
    ("apt-get", "apt", "Debian's packages"),
    ("depmod", "kmod", "the kernel's list of modules"),
];

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Check {
    area: &'static str,
    name: &'static str,
    good: bool,
    /// Without it the area does not work; else it is only better to have.
    needed: bool,
    found: String,
    hints: Vec<String>,
}

/// The state of the image store's folder.
#[derive(Debug, Clone, PartialEq, Eq)]
struct StoreFacts {
    folder: PathBuf,
    /// The folder, or the nearest one above it that exists, can be written to.
    writable: bool,
    free_bytes: u64,
}

/// Looks, and prints what was seen. Fails when this host can neither build nor run.
pub fn doctor(asked: &args::Doctor, global: &args::Global, printer: &Printer) -> Result<(), Failure> {
    let facts = Facts::read();
    let store = store_facts(surroundings::store(global, &variable)?);
    let search_path = variable("PATH").unwrap_or_default();
    let tools = PACKAGE_TOOLS.map(|(program, _, _)| find_program(program, &search_path));
    let mut checks = run_checks(&facts);
    checks.push(store_check(&store));
    checks.extend(tool_checks(&tools));
    let backend = host::choose(Accel::Auto, &facts).ok().map(|choice| choice.backend);
    let text = if asked.json { as_json(&checks, backend) } else { as_table(&checks, backend, printer) };
    printer.data(text.as_bytes())?;
    let bad: Vec<&str> = [("run", backend.is_none()), ("build", lacks(&checks, "build"))]
        .into_iter()
        .filter_map(|(what, is_bad)| is_bad.then_some(what))
        .collect();
    if bad.is_empty() { Ok(()) } else { Err(Failure::new(format!("this host cannot {}", bad.join(" or ")))) }
}

fn lacks(checks: &[Check], area: &str) -> bool {
    checks.iter().any(|check| check.area == area && check.needed && !check.good)
}

fn run_checks(facts: &Facts) -> Vec<Check> {
    let trouble = host::kvm_trouble(facts);
    let kvm = Check {
        area: "run",
        name: "kvm",
        good: trouble.is_none(),
        needed: false,
        found: trouble.as_ref().map_or_else(|| "/dev/kvm serves".into(), ToString::to_string),
        hints: trouble.iter().filter_map(host::KvmTrouble::hint).collect(),
    };
    let refusal = facts.qemu.is_none().then_some(host::NoBackend::Qemu);
    let qemu = Check {
        area: "run",
        name: "qemu",
        good: facts.qemu.is_some(),
        needed: false,
        found: facts.qemu.as_ref().map_or_else(
            || format!("`{}` is not in PATH", kiln_run::qemu::program()),
            |qemu| format!("version {} at {}", qemu.version, qemu.path.display()),
        ),
        hints: refusal.map(|refusal| refusal.hints()).unwrap_or_default(),
    };
    vec![kvm, qemu]
}

fn store_facts(folder: PathBuf) -> StoreFacts {
    let existing = folder.ancestors().find(|above| above.exists());
    let existing = existing.filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new(".")).to_path_buf();
    let free_bytes = statvfs(&existing).map_or(0, |space| space.f_bavail.saturating_mul(space.f_frsize));
    let writable = existing.is_dir() && access(&existing, Access::WRITE_OK | Access::EXEC_OK).is_ok();
    StoreFacts { folder, writable, free_bytes }
}

fn store_check(store: &StoreFacts) -> Check {
    let folder = store.folder.display();
    let free = HumanBytes(store.free_bytes);
    let roomy = store.free_bytes >= WANTED_BYTES;
    let (found, hint) = match (store.writable, roomy) {
        (false, _) => {
            (format!("{folder} cannot be written to"), Some("`-cache DIR` or KILN_CACHE names another".into()))
        }
        (true, false) => {
            let hint = format!("an ordinary build wants {}", HumanBytes(WANTED_BYTES));
            (format!("{folder}, only {free} free"), Some(hint))
        }
        (true, true) => (format!("{folder}, {free} free"), None),
    };
    Check {
        area: "build",
        name: "image store",
        good: store.writable && roomy,
        needed: !store.writable,
        found,
        hints: hint.into_iter().collect(),
    }
}

fn tool_checks(tools: &[Option<PathBuf>]) -> Vec<Check> {
    let checks = PACKAGE_TOOLS.iter().zip(tools).map(|((name, package, purpose), path)| Check {
        area: "packages",
        name,
        good: path.is_some(),
        needed: true,
        found: path
            .as_ref()
            .map_or_else(|| format!("not in PATH; builds {purpose}"), |path| path.display().to_string()),
        hints: if path.is_none() { vec![format!("`sudo apt-get install {package}`")] } else { vec![] },
    });
    checks.collect()
}

fn as_json(checks: &[Check], backend: Option<Backend>) -> String {
    let checks: Vec<_> = checks
        .iter()
        .map(|check| {
            json!({"area": check.area, "name": check.name, "ok": check.good, "found": check.found, "hints": check.hints})
        })
        .collect();
    let run_with = backend.map(|backend| match backend {
        Backend::Kvm => "kvm",
        Backend::Qemu => "qemu",
    });
    let report = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "os": std::env::consts::OS,
        "arch": std::env::consts::ARCH,
        "run_with": run_with,
        "checks": checks,
    });
    format!("{report:#}\n")
}

fn as_table(checks: &[Check], backend: Option<Backend>, printer: &Printer) -> String {
    let mut text =
        format!("kiln {} on {} {}\n", env!("CARGO_PKG_VERSION"), std::env::consts::OS, std::env::consts::ARCH);
    let mut area = "";
    for check in checks {
        if check.area != area {
            area = check.area;
            text.push_str(&format!("\n{area}\n"));
        }
        let (style, word) = if check.good { ("32", "yes") } else { ("33", "no ") };
        text.push_str(&format!("  {:12} {}  {}\n", check.name, printer.paint_data(style, word), check.found));
        for hint in &check.hints {
            text.push_str(&format!("{:20}hint: {hint}\n", ""));
        }
    }
    let verdict = match backend {
        Some(Backend::Kvm) => "`kiln run` runs guests in this process, over KVM",
        Some(Backend::Qemu) => "`kiln run` runs guests on QEMU's software CPU",
        None => "`kiln run` can run nothing here",
    };
    text.push_str(&format!("\n{verdict}\n"));
    text
}

#[cfg(test)]
mod tests {
    use kiln_run::host::KvmDevice;

    use super::*;
    use crate::printer::Level;

    fn bare_host() -> Facts {
        Facts { kvm_device: KvmDevice::Missing, kvm_modules: vec![], cpu_virtualizes: true, qemu: None }
    }

    #[test]
    fn what_is_missing_comes_with_what_to_do() {
        let store = StoreFacts { folder: "/c".into(), writable: false, free_bytes: 0 };
        let mut checks = run_checks(&bare_host());
        checks.push(store_check(&store));
        checks.extend(tool_checks(&[None, None, None]));
        for check in &checks {
            assert!(!check.good && !check.hints.is_empty(), "{check:?}");
        }
        assert!(lacks(&checks, "build") && lacks(&checks, "packages"));
    }

    #[test]
    fn little_space_is_said_and_stops_nothing() {
        let check = store_check(&StoreFacts { folder: "/c".into(), writable: true, free_bytes: 1 << 20 });
        assert!(!check.good && !check.needed && check.found.contains("1.00 MiB free"), "{check:?}");
    }

    #[test]
    fn a_store_that_does_not_exist_yet_is_judged_by_the_folder_above() {
        let folder = tempfile::tempdir().unwrap();
        let facts = store_facts(folder.path().join("a/b/c"));
        assert!(facts.writable && facts.free_bytes > 0);
        std::fs::write(folder.path().join("file"), "").unwrap();
        assert!(!store_facts(folder.path().join("file/c")).writable);
    }

    #[test]
    fn both_forms_tell_the_same() {
        let checks = run_checks(&bare_host());
        let table = as_table(&checks, None, &Printer::new(Level::Quiet));
        assert!(table.contains("  kvm          no   there is no /dev/kvm"), "{table}");
        assert!(table.ends_with("\n`kiln run` can run nothing here\n"), "{table}");
        let json: serde_json::Value = serde_json::from_str(&as_json(&checks, None)).unwrap();
        assert_eq!(json["run_with"], serde_json::Value::Null);
        assert_eq!(json["checks"][0]["ok"], false);
    }
}
