//! What LinuxKit's init does with bundles, written from the description of its contract and not from kiln's init: the two
//! are to agree. busybox mounts, Debian's runc runs, this reads `runtime.json` in between.
//!
//! Acts by the name that it is called by: `…volumes`, `…onboot`, `…onshutdown`, `…containerd`.

use std::error::Error;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use rustix::process::{Pid, WaitOptions, WaitStatus};
use serde_json::Value;

type Outcome<T = ()> = Result<T, Box<dyn Error>>;

fn main() -> ExitCode {
    let called = std::env::args().next().unwrap_or_default();
    // Containers become children of this process when runc has gone, so that their end can be waited for.
    let adopted = rustix::process::set_child_subreaper(Some(rustix::process::getpid()));
    let done = adopted.map_err(Into::into).and_then(|()| match called.rsplit('-').next() {
        Some("volumes") => each("/containers/volumes", volume),
        Some("onboot") => each("/containers/onboot", |bundle| run_once(bundle, "onboot")),
        Some("onshutdown") => each("/containers/onshutdown", |bundle| run_once(bundle, "shutdown")),
        Some("containerd") => each("/containers/services", service),
        _ => Err(format!("called as `{called}`").into()),
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&error.to_string());
            ExitCode::FAILURE
        }
    }
}

fn say(text: &str) {
    // Without a console there is nobody to tell.
    let _ = writeln!(io::stdout(), "contract: {text}");
}

/// In name order; one that fails is reported and the next one has its turn.
fn each(folder: &str, act: impl Fn(&Path) -> Outcome) -> Outcome {
    let Ok(entries) = fs::read_dir(folder) else { return Ok(()) };
    let mut paths = entries.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
    paths.sort();
    for path in paths {
        if let Err(error) = act(&path) {
            say(&format!("{}: {error}", path.display()));
        }
    }
    Ok(())
}

/// `lower`, and where there is a `tmp` a layer over it, on `merged`.
fn volume(folder: &Path) -> Outcome {
    let path = |name: &str| folder.join(name).display().to_string();
    let (lower, tmp, merged) = (path("lower"), path("tmp"), path("merged"));
    if !Path::new(&tmp).is_dir() {
        return mount(&["-t", "overlay", "-o", &format!("ro,lowerdir={lower}:{merged}"), "overlay", &merged]);
    }
    mount(&["-t", "tmpfs", "tmpfs", &tmp])?;
    fs::create_dir(folder.join("tmp/upper"))?;
    fs::create_dir(folder.join("tmp/work"))?;
    let layers = format!("lowerdir={lower},upperdir={tmp}/upper,workdir={tmp}/work");
    mount(&["-t", "overlay", "-o", &layers, "overlay", &merged])
}

fn run_once(bundle: &Path, kind: &str) -> Outcome {
    let name = name(bundle);
    let folder = PathBuf::from("/run/log").join(kind);
    let logs = ["log", "out.log"].map(|end| folder.join(format!("{kind}.{name}.{end}")));
    fs::create_dir_all(&folder)?;
    let pid = start(bundle, &logs)?;
    let status = loop {
        if let Some((_, status)) = rustix::process::waitpid(Some(pid), WaitOptions::empty())? {
            break status;
        }
    };
    command("umount", &[&bundle.join("rootfs").display().to_string()])?;
    for log in &logs {
        for line in String::from_utf8_lossy(&fs::read(log)?).lines() {
            writeln!(io::stdout(), "{name}: {line}")?;
        }
    }
    say(&format!("{name} ended: {}", WaitStatus::exit_status(status).unwrap_or(-1)));
    Ok(())
}

fn service(bundle: &Path) -> Outcome {
    let log = |end: &str| Path::new("/var/log").join(format!("{}.{end}", name(bundle)));
    start(bundle, &[log("log"), log("out.log")])?;
    say(&format!("{} started", name(bundle)));
    Ok(())
}

/// Everything from `runtime.json` to the running process; `logs` are for stderr and stdout.
fn start(bundle: &Path, logs: &[PathBuf; 2]) -> Outcome<Pid> {
    let name = name(bundle);
    let runtime: Value = serde_json::from_slice(&fs::read(bundle.join("runtime.json"))?)?;
    prepare(&runtime, &bundle.join("rootfs"))?;
    let pid_file = format!("/run/{name}.pid");
    let [error, out] = logs;
    let created = Command::new("/usr/bin/runc")
        .args(["create", "--pid-file", &pid_file, "--bundle"])
        .args([bundle.as_os_str(), name.as_ref()])
        .stdin(File::open("/dev/null")?)
        .stdout(File::create(out)?)
        .stderr(File::create(error)?)
        .status()?;
    if !created.success() {
        return Err(format!("runc create: {created}: {}", fs::read_to_string(error)?).into());
    }
    let pid = fs::read_to_string(pid_file)?;
    for interface in list(&runtime, "interfaces") {
        give(interface, &pid)?;
    }
    for (kind, path) in runtime.get("bindNS").and_then(Value::as_object).into_iter().flatten() {
        let Some(path) = path.as_str().filter(|path| !path.is_empty()) else { continue };
        fs::create_dir_all(Path::new(path).parent().ok_or("a namespace's path has no folder")?)?;
        File::create(path)?;
        mount(&["-o", "bind", &format!("/proc/{pid}/ns/{kind}"), path])?;
    }
    command("runc", &["start", &name])?;
    Pid::from_raw(pid.parse()?).ok_or_else(|| "runc gives no process id".into())
}

fn prepare(runtime: &Value, rootfs: &Path) -> Outcome {
    for entry in list(runtime, "mounts") {
        // A relative one is below the container's root.
        let destination = rootfs.join(text(entry, "destination")).display().to_string();
        fs::create_dir_all(&destination)?;
        let mut words = vec![];
        for word in list(entry, "options").iter().filter_map(Value::as_str) {
            if let Some(folder) = word.strip_prefix("upperdir=").or_else(|| word.strip_prefix("workdir=")) {
                fs::create_dir_all(folder)?;
            }
            // busybox has its own names for changes of propagation.
            let propagation = ["private", "shared", "slave", "unbindable"].contains(&word.trim_start_matches('r'));
            words.push(if propagation { format!("make-{word}") } else { word.to_owned() });
        }
        let (kind, options) = (text(entry, "type"), words.join(","));
        let source = Some(text(entry, "source")).filter(|source| !source.is_empty()).unwrap_or("none");
        let mut arguments = vec![];
        if !kind.is_empty() {
            arguments.extend(["-t", kind]);
        }
        if !options.is_empty() {
            arguments.extend(["-o", &options]);
        }
        arguments.extend([source, &destination]);
        mount(&arguments)?;
    }
    for folder in list(runtime, "mkdir").iter().filter_map(Value::as_str) {
        fs::create_dir_all(rootfs.join(folder))?;
    }
    for group in list(runtime, "cgroups").iter().filter_map(Value::as_str) {
        fs::create_dir_all(Path::new("/sys/fs/cgroup").join(group.trim_start_matches('/')))?;
    }
    Ok(())
}

/// A new interface in the container's network, one that is made outside and goes in, or one that is there already.
fn give(interface: &Value, pid: &str) -> Outcome {
    let (name, kind, peer) = (text(interface, "name"), text(interface, "add"), text(interface, "peer"));
    let outside = kind == "veth" || interface.get("createInRoot").and_then(Value::as_bool).unwrap_or(false);
    let mut add = vec!["link", "add", name];
    if !kind.is_empty() && !outside {
        add.extend(["netns", pid]);
    }
    add.extend(["type", kind]);
    if !peer.is_empty() {
        add.extend(["peer", "name", peer]);
    }
    if !kind.is_empty() {
        command("ip", &add)?;
    }
    if kind.is_empty() || outside {
        command("ip", &["link", "set", name, "netns", pid])?;
    }
    Ok(())
}

fn name(bundle: &Path) -> String {
    bundle.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

/// A list that is `null` or not there is empty.
fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value.get(key).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

fn mount(arguments: &[&str]) -> Outcome {
    command("mount", arguments)
}

fn command(program: &str, arguments: &[&str]) -> Outcome {
    let status = Command::new(program).args(arguments).status()?;
    if status.success() { Ok(()) } else { Err(format!("{program} {}: {status}", arguments.join(" ")).into()) }
}
