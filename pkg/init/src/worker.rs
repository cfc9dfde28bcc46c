//! The program `kiln-bundle`: one container's start or removal, its mounts, the volumes, or a script, for PID 1.
//!
//! Each of them runs without PID 1's blocked signals.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use crate::bundle::{self, Bundle, Report};
use crate::{chain, fail};

/// `start DIR`, `remove DIR`, `ready DIR PID MS`, `mount STATE-DIR`, `volumes` or `script FILE`.
pub fn main(mut arguments: impl Iterator<Item = String>) -> ExitCode {
    if let Err(error) = kiln_guest::signals::unblock_all() {
        return fail(&format!("cannot unblock signals: {error}"));
    }
    match (arguments.next().as_deref(), arguments.next().map(PathBuf::from)) {
        (Some("start"), Some(folder)) => start(&Bundle::new(folder)),
        (Some("remove"), Some(folder)) => match Bundle::new(folder).remove() {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => fail(&format!("cannot clean up: {}", chain(&error))),
        },
        (Some("ready"), Some(folder)) => ready(&Bundle::new(folder), arguments),
        // The hook of a container that `start` creates.
        (Some("mount"), Some(state)) => match bundle::mount_held(&state) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => fail(&chain(&error)),
        },
        (Some("script"), Some(file)) => {
            let error = std::process::Command::new(&file).exec();
            fail(&format!("cannot run `{}`: {error}", file.display()))
        }
        (Some("volumes"), None) => {
            let failures = bundle::mount_volumes(Path::new(kiln_abi::VOLUMES_DIR));
            let report = |(volume, error)| fail(&format!("{volume}: {}", chain(&error)));
            failures.into_iter().map(report).last().unwrap_or(ExitCode::SUCCESS)
        }
        _ => fail("usage: kiln-bundle start DIR | remove DIR | ready DIR PID MS | mount DIR | volumes | script FILE"),
    }
}

fn start(bundle: &Bundle) -> ExitCode {
    let (report, code) = match bundle.start() {
        Ok(started) => (Report::Started(started), ExitCode::SUCCESS),
        Err(error) => (Report::Failed(chain(&error)), ExitCode::FAILURE),
    };
    match report.write(&bundle.state()) {
        Ok(()) => code,
        Err(error) => fail(&format!("cannot report the start: {error}")),
    }
}

fn ready(bundle: &Bundle, mut arguments: impl Iterator<Item = String>) -> ExitCode {
    let mut number = || arguments.next()?.parse::<u32>().ok();
    let (Some(pid), Some(limit_ms)) = (number(), number()) else { return fail("usage: kiln-bundle ready DIR PID MS") };
    match bundle::wait_ready(bundle, pid, Duration::from_millis(limit_ms.into())) {
        Ok(()) => ExitCode::SUCCESS,
        Err(missing) => {
            // PID 1 says that it failed in any case.
            let _ = bundle::write_missing(&bundle.state(), &chain(&missing));
            ExitCode::FAILURE
        }
    }
}
