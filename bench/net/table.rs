//! Medians of rows, the spread, and how many times as good kiln is.

use std::collections::BTreeMap;
use std::fs;

use crate::stacks::STACKS;

/// A line of the table: what it is called, test, value, and whether more is better.
const LINES: [(&str, &str, &str, bool); 27] = [
    ("TCP up, 1 stream, Gb/s", "up1", "gbps", true),
    ("TCP down, 1 stream, Gb/s", "down1", "gbps", true),
    ("TCP up, 8 streams, Gb/s", "up8", "gbps", true),
    ("TCP down, 8 streams, Gb/s", "down8", "gbps", true),
    ("CPU up, s/GB", "up1", "cpu_s_gb", false),
    ("CPU down, s/GB", "down1", "cpu_s_gb", false),
    ("CPU up, 8 streams, s/GB", "up8", "cpu_s_gb", false),
    ("CPU down, 8 streams, s/GB", "down8", "cpu_s_gb", false),
    ("segments the guest sent again, up", "up1", "resent", false),
    ("… of which probes after a pause", "up1", "probes", false),
    ("segments the guest sent again, up, 8 streams", "up8", "resent", false),
    ("… of which probes after a pause", "up8", "probes", false),
    ("request/response, /s", "rr1", "rate", true),
    ("request/response, p50, µs", "rr1", "p50_us", false),
    ("request/response, CPU, µs", "rr1", "cpu_us_each", false),
    ("request/response, 64 connections, /s", "rr64", "rate", true),
    ("new connections, one at a time, /s", "crr1", "rate", true),
    ("new connections, 16 at a time, /s", "crr16", "rate", true),
    ("new connections, 16 at a time, CPU, µs", "crr16", "cpu_us_each", false),
    ("opening 1,000 connections, s", "hold", "open_s", false),
    ("memory for each of 1,000 connections, KiB", "hold", "kib_each", false),
    ("memory after all, ÷ before", "memory", "growth", false),
    ("memory after all, MiB", "memory", "last_mib", false),
    ("UDP echo, /s", "udprr", "rate", true),
    ("UDP echo, p50, µs", "udprr", "p50_us", false),
    ("UDP 64 bytes, arrived/s", "udp64", "rate", true),
    ("others' load, cores", "noise", "cores", false),
];

/// The lines of the table of whole machines.
const MACHINE_LINES: [(&str, &str, &str, bool); 15] = [
    ("TCP up, 1 stream, Gb/s", "up1", "gbps", true),
    ("TCP down, 1 stream, Gb/s", "down1", "gbps", true),
    ("TCP up, 8 streams, Gb/s", "up8", "gbps", true),
    ("TCP down, 8 streams, Gb/s", "down8", "gbps", true),
    ("exits for a megabyte up", "up1", "exits_mb", false),
    ("exits for a megabyte down", "down1", "exits_mb", false),
    ("the card's interrupts for a megabyte up", "up1", "irqs_mb", false),
    ("the card's interrupts for a megabyte down", "down1", "irqs_mb", false),
    ("request/response, /s", "rr1", "rate", true),
    ("request/response, p50, µs", "rr1", "p50_us", false),
    ("the card's interrupts for a request", "rr1", "irqs_each", false),
    ("exits for a request", "rr1", "exits_each", false),
    ("new connections, 16 at a time, /s", "crr16", "rate", true),
    ("the card's interrupts for a connection", "crr16", "irqs_each", false),
    ("exits for a connection", "crr16", "exits_each", false),
];

/// The lines of the table of sockets between host and guest.
const VSOCK_LINES: [(&str, &str, &str, bool); 19] = [
    ("to the guest, 1 stream, Gb/s", "down1", "gbps", true),
    ("from the guest, 1 stream, Gb/s", "up1", "gbps", true),
    ("to the guest, 8 streams, Gb/s", "down8", "gbps", true),
    ("from the guest, 8 streams, Gb/s", "up8", "gbps", true),
    ("CPU to the guest, s/GB", "down1", "cpu_s_gb", false),
    ("CPU from the guest, s/GB", "up1", "cpu_s_gb", false),
    ("CPU to the guest, 8 streams, s/GB", "down8", "cpu_s_gb", false),
    ("CPU from the guest, 8 streams, s/GB", "up8", "cpu_s_gb", false),
    ("exits for a megabyte to the guest", "down1", "exits_mb", false),
    ("exits for a megabyte from the guest", "up1", "exits_mb", false),
    ("request/response, /s", "rr1", "rate", true),
    ("request/response, p50, µs", "rr1", "p50_us", false),
    ("exits for a request", "rr1", "exits_each", false),
    ("request/response, CPU, µs", "rr1", "cpu_us_each", false),
    ("new connections, one at a time, /s", "crr1", "rate", true),
    ("exits for a connection", "crr1", "exits_each", false),
    ("new connections, 16 at a time, /s", "crr16", "rate", true),
    ("new connections, 16 at a time, CPU, µs", "crr16", "cpu_us_each", false),
    ("exits for a connection, 16 at a time", "crr16", "exits_each", false),
];

type Row = BTreeMap<String, f64>;
type Rows = BTreeMap<(String, String), Vec<Row>>;

fn read(file: &str) -> Rows {
    let mut rows = Rows::new();
    // Counted since the machine began.
    let mut before: BTreeMap<&str, f64> = BTreeMap::new();
    for line in fs::read_to_string(file).expect("the file of rows is readable").lines() {
        let mut words = line.split_whitespace();
        if words.next() != Some("row") {
            continue;
        }
        let (Some(name), Some(test)) = (words.next(), words.next()) else { continue };
        let pairs = words.filter_map(|word| word.split_once('='));
        let mut row: Row = pairs.filter_map(|(key, value)| Some((key.to_owned(), value.parse().ok()?))).collect();
        for key in ["exits", "irqs"] {
            if let Some(count) = row.get_mut(key) {
                *count -= before.insert(key, *count).unwrap_or(0.0);
            }
        }
        derive(&mut row);
        rows.entry((name.to_owned(), test.to_owned())).or_default().push(row);
    }
    rows
}

/// What follows from what was measured.
fn derive(row: &mut Row) {
    let value = |key: &str| row.get(key).copied();
    let mut more = Vec::new();
    if let (Some(cpu_s), Some(bytes)) = (value("cpu_s"), value("bytes"))
        && bytes > 1e8
    {
        more.push(("cpu_s_gb", cpu_s * 1e9 / bytes));
    }
    if let (Some(exits), Some(bytes)) = (value("exits"), value("bytes")) {
        more.push(("exits_mb", exits * 1e6 / bytes));
    }
    if let (Some(irqs), Some(bytes)) = (value("irqs"), value("bytes")) {
        more.push(("irqs_mb", irqs * 1e6 / bytes));
    }
    if let (Some(irqs), Some(rate), Some(s)) = (value("irqs"), value("rate"), value("s")) {
        more.push(("irqs_each", irqs / (rate * s)));
    }
    if let (Some(exits), Some(rate), Some(s)) = (value("exits"), value("rate"), value("s")) {
        more.push(("exits_each", exits / (rate * s)));
    }
    if let (Some(cpu_s), Some(rate), Some(s)) = (value("cpu_s"), value("rate"), value("s")) {
        more.push(("cpu_us_each", cpu_s * 1e6 / (rate * s)));
    }
    if let (Some(open), Some(before), Some(during)) = (value("open"), value("rss_before_kib"), value("rss_kib")) {
        more.push(("kib_each", (during - before) / open));
    }
    if let (Some(first), Some(last)) = (value("first_kib"), value("last_kib")) {
        more.extend([("growth", last / first), ("last_mib", last / 1024.0)]);
    }
    row.extend(more.into_iter().map(|(key, value)| (key.to_owned(), value)));
}

/// Median, smallest and largest.
fn spread(rows: &Rows, name: &str, test: &str, key: &str) -> Option<(f64, f64, f64)> {
    let rows = rows.get(&(name.to_owned(), test.to_owned()))?;
    let mut values: Vec<f64> = rows.iter().filter_map(|row| row.get(key).copied()).collect();
    values.sort_by(f64::total_cmp);
    Some((*values.get(values.len() / 2)?, *values.first()?, *values.last()?))
}

fn short(value: f64) -> String {
    match value {
        value if value >= 1000.0 => format!("{value:.0}"),
        value if value >= 10.0 => format!("{value:.1}"),
        value => format!("{value:.2}"),
    }
}

pub fn print(file: &str) {
    let rows = read(file);
    for mtu in [65_520, 1_500] {
        let names: Vec<&str> = STACKS.iter().filter(|stack| stack.mtu == mtu).map(|stack| stack.name).collect();
        print_lines(&format!("MTU {mtu}"), &rows, &names, &LINES);
    }
}

/// The same for whole machines.
pub fn print_machines(file: &str) {
    print_lines("whole machine", &read(file), &["kiln", "qemu-slirp", "qemu-passt"], &MACHINE_LINES);
}

/// The same for sockets between host and guest.
pub fn print_vsock(file: &str) {
    print_lines("vsock", &read(file), &["kiln", "qemu-vhost-user", "qemu-vhost"], &VSOCK_LINES);
}

fn print_lines(title: &str, rows: &Rows, names: &[&str], lines: &[(&str, &str, &str, bool)]) {
    let is_known = |name: &&&str| rows.keys().any(|(known, _)| known == **name);
    let names: Vec<&str> = names.iter().filter(is_known).copied().collect();
    if names.is_empty() {
        return;
    }
    println!("| {title} | {} |\n| --- |{}", names.join(" | "), " --- |".repeat(names.len()));
    for (label, test, key, more_is_better) in lines {
        let ours = spread(rows, names[0], test, key);
        let cells = names.iter().enumerate().map(|(place, name)| {
            let Some((median, least, most)) = spread(rows, name, test, key) else { return "-".to_owned() };
            let ratio = match ours {
                Some((ours, ..)) if place > 0 && ours > 0.0 && median > 0.0 => {
                    let times = if *more_is_better { ours / median } else { median / ours };
                    format!(" **{}×**", short(times))
                }
                _ => String::new(),
            };
            format!("{}{ratio} ({}–{})", short(median), short(least), short(most))
        });
        println!("| {label} | {} |", cells.collect::<Vec<_>>().join(" | "));
    }
    println!();
}
