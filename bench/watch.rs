//! Starts one virtual machine monitor, waits for its guest's first line, and prints what that cost: time, KVM's own
//! counters, memory. Plain std, so that `rustc -O -C target-feature=+crt-static` makes one static file of it.
//!
//!     watch run NAME GUEST_MIB LIMIT_S -- PROGRAM WORDS…   one line of JSON-like `key=value` pairs
//!     watch table FILE                                     medians of such lines, one row a name
//!
//! The guest prints `@INIT UPTIME` as the first line of its user space and `@BYE` just before it powers off.

use std::collections::BTreeMap;
use std::io::Read;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};
use std::{env, fs, thread};

fn main() {
    let words: Vec<String> = env::args().skip(1).collect();
    match words.first().map(String::as_str) {
        Some("run") => run(&words[1..]),
        Some("table") => table(&words[1]),
        _ => panic!("usage: watch run NAME GUEST_MIB LIMIT_S -- PROGRAM WORDS… | watch table FILE"),
    }
}

fn run(words: &[String]) {
    let name = &words[0];
    let guest_kib: u64 = words[1].parse::<u64>().expect("GUEST_MIB is a number") * 1024;
    let limit = Duration::from_secs(words[2].parse().expect("LIMIT_S is a number"));
    let start = Instant::now();
    let mut child = Command::new(&words[4])
        .args(&words[5..])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(fs::File::create("/tmp/stderr").expect("/tmp is writable"))
        .spawn()
        .expect("the program starts");
    let pid = child.id();
    let mut output = child.stdout.take().expect("piped above");
    let (sender, chunks) = mpsc::channel();
    thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(n) = output.read(&mut buffer) {
            if n == 0 || sender.send((Instant::now(), buffer[..n].to_vec())).is_err() {
                break;
            }
        }
    });
    let mut row: Vec<(String, f64)> = vec![];
    let (mut text, mut bye, mut seen_init) = (String::new(), None, false);
    while let Ok((at, chunk)) = chunks.recv_timeout(limit.saturating_sub(start.elapsed())) {
        text.push_str(&String::from_utf8_lossy(&chunk));
        let uptime = text.split("@INIT ").nth(1).filter(|rest| rest.contains('\n'));
        if let (false, Some(rest)) = (seen_init, uptime) {
            seen_init = true;
            row.push(("init_ms".into(), ms(at - start)));
            let guest_s: f64 = rest.split_whitespace().next().and_then(|s| s.parse().ok()).unwrap_or(0.0);
            row.push(("guest_ms".into(), guest_s * 1e3));
            row.extend(kvm_counters(pid));
            row.extend(cpu(pid));
            row.extend(memory(pid, guest_kib));
            row.push(("threads".into(), count(&format!("/proc/{pid}/task"))));
            row.push(("fds".into(), count(&format!("/proc/{pid}/fd"))));
        }
        if text.contains("@BYE") {
            bye.get_or_insert(at);
        }
    }
    while start.elapsed() < limit && child.try_wait().is_ok_and(|status| status.is_none()) {
        thread::sleep(Duration::from_millis(2));
    }
    match (child.try_wait().ok().flatten(), bye) {
        (Some(status), Some(bye)) if status.success() => row.push(("off_ms".into(), ms(bye.elapsed()))),
        _ => {
            let _ = child.kill();
        }
    }
    let _ = child.wait();
    let row: Vec<String> = row.iter().map(|(key, value)| format!("{key}={value:.1}")).collect();
    println!("row {name} {}", row.join(" "));
    if !seen_init {
        println!("{text}\n{}", fs::read_to_string("/tmp/stderr").unwrap_or_default());
    }
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

fn count(folder: &str) -> f64 {
    fs::read_dir(folder).map_or(0.0, |entries| entries.count() as f64)
}

/// KVM's counters of the machine that one of `pid`'s threads made (needs debugfs).
fn kvm_counters(pid: u32) -> Vec<(String, f64)> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let tasks: Vec<String> = tasks.map(|task| task.file_name().to_string_lossy().into_owned()).collect();
    let mut found = vec![];
    for machine in fs::read_dir("/sys/kernel/debug/kvm").into_iter().flatten().flatten() {
        let name = machine.file_name().to_string_lossy().into_owned();
        if !tasks.iter().any(|task| name.split('-').next() == Some(task)) {
            continue;
        }
        for counter in ["exits", "io_exits", "mmio_exits", "pf_fixed"] {
            if let Ok(text) = fs::read_to_string(machine.path().join(counter)) {
                found.push((counter.to_owned(), text.trim().parse().unwrap_or(0.0)));
            }
        }
    }
    found
}

/// CPU time of the monitor less its guest's, from /proc/PID/stat (in ticks of 10 ms).
fn cpu(pid: u32) -> Vec<(String, f64)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields: Vec<f64> =
        stat.rsplit(')').next().unwrap_or("").split_whitespace().map(|field| field.parse().unwrap_or(0.0)).collect();
    let field = |number: usize| fields.get(number - 3).copied().unwrap_or(0.0) * 10.0;
    vec![("cpu_ms".into(), field(14) + field(15) - field(43))]
}

/// Resident memory: a mapping at least half as large as the guest's memory is the guest's, all else is the monitor's.
fn memory(pid: u32, guest_kib: u64) -> Vec<(String, f64)> {
    let (mut guest, mut own, mut size, mut resident) = (0, 0, 0, 0);
    for line in fs::read_to_string(format!("/proc/{pid}/smaps")).unwrap_or_default().lines() {
        let mut words = line.split_whitespace();
        let (key, value) = (words.next().unwrap_or(""), words.next().and_then(|word| word.parse::<u64>().ok()));
        match key {
            "Size:" => size = value.unwrap_or(0),
            "Rss:" => resident = value.unwrap_or(0),
            "VmFlags:" if size >= guest_kib / 2 => guest += resident,
            "VmFlags:" => own += resident,
            _ => {}
        }
    }
    vec![("own_kib".into(), own as f64), ("guest_mib".into(), guest as f64 / 1024.0)]
}

fn table(file: &str) {
    const COLUMNS: [&str; 12] = [
        "init_ms", "guest_ms", "off_ms", "exits", "io_exits", "mmio_exits", "pf_fixed", "cpu_ms", "own_kib", "guest_mib",
        "threads", "fds",
    ];
    let mut rows: BTreeMap<String, BTreeMap<String, Vec<f64>>> = BTreeMap::new();
    for line in fs::read_to_string(file).expect("FILE is readable").lines() {
        let mut words = line.split_whitespace().skip_while(|word| *word != "row").skip(1);
        let Some(name) = words.next() else { continue };
        let row = rows.entry(name.to_owned()).or_default();
        for (key, value) in words.filter_map(|word| word.split_once('=')) {
            row.entry(key.to_owned()).or_default().extend(value.parse::<f64>());
        }
    }
    println!("| name | n | {} |\n|{}", COLUMNS.join(" | "), " --- |".repeat(COLUMNS.len() + 2));
    for (name, mut row) in rows {
        let n = row.get("init_ms").map_or(0, Vec::len);
        let cells = COLUMNS.map(|column| row.get_mut(column).and_then(|values| median(values)).unwrap_or("-".into()));
        println!("| {name} | {n} | {} |", cells.join(" | "));
    }
}

fn median(values: &mut [f64]) -> Option<String> {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).map(|value| format!("{value:.0}"))
}
