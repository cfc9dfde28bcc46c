//! kiln on what LinuxKit was recorded on: each case twice, as it is and with `--compat linuxkit`.

mod case;
mod compare;
mod deviation;
mod effective;
mod own;

use std::collections::BTreeMap;
use std::fs;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use case::{Mode, Outcome};
use deviation::{Deviations, number};

use crate::harness::tree;

/// Runs `check` for every case, several at a time, and panics with all that they say.
fn each(cases: &[String], check: impl Fn(&str) -> Vec<String> + Sync) {
    let next = AtomicUsize::new(0);
    let all = Mutex::new(BTreeMap::new());
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let faults = check(case);
                    if !faults.is_empty() {
                        all.lock().unwrap().insert(case.clone(), faults);
                    }
                }
            });
        }
    });
    let all = all.into_inner().unwrap();
    let said: String =
        all.iter().map(|(case, faults)| format!("\n{case}\n  {}", faults.join("\n").replace('\n', "\n  "))).collect();
    assert!(all.is_empty(), "{} of {} cases:{said}", all.len(), cases.len());
}

/// What is wrong with the outcome of one case.
fn faults(case: &str, mode: Mode, deviations: &Deviations) -> Vec<String> {
    if deviations.pending.iter().any(|pending| pending == number(case)) {
        return vec![];
    }
    let outcome = case::run(&case::corpus().join("cases").join(case), mode);
    let known = deviations.of(case, mode);
    let recorded: i32 = case::recorded_text(case, "expected.rc").trim().parse().expect("a status");
    let status = known.iter().find_map(|deviation| deviation.status).unwrap_or(recorded);
    if outcome.status != status {
        return vec![format!("status {} instead of {status}:\n{}{}", outcome.status, outcome.stdout, outcome.stderr)];
    }
    let mut differences = vec![];
    let mut trees = vec![];
    if status == 0 && recorded == 0 {
        (differences, trees) = case::differences(case, &outcome);
        differences.extend(printed(case, &outcome));
    }
    let mut all: Vec<String> = differences
        .iter()
        .filter(|difference| !known.iter().any(|deviation| deviation.covers(difference)))
        .map(|difference| format!("{}\n  - {}\n  + {}", difference.at, difference.wanted, difference.found))
        .collect();
    all.extend(known.iter().flat_map(|deviation| deviation.faults(&outcome, &differences, &trees)));
    all
}

/// Standard output: text that counts, of `pkg show-tag` and of `--dry-run`. What LinuxKit tells about its work does not.
fn printed(case: &str, outcome: &Outcome) -> Vec<compare::Difference> {
    let wanted = case::recorded_text(case, "expected.stdout");
    let counts = case.starts_with('p') || case::recorded_text(case, "cmd").contains("--dry-run");
    if !counts || wanted == outcome.stdout {
        return vec![];
    }
    compare::documents("stdout", wanted.as_bytes(), outcome.stdout.as_bytes())
        .unwrap_or_else(|| vec![compare::Difference { at: "stdout".into(), wanted, found: outcome.stdout.clone() }])
}

#[test]
fn what_linuxkit_builds_kiln_builds_and_differs_only_as_documented() {
    let deviations = Deviations::read();
    each(&case::names('v'), |case| faults(case, Mode::Default, &deviations));
}

#[test]
fn with_compat_kiln_builds_what_linuxkit_builds() {
    let deviations = Deviations::read();
    each(&case::names('v'), |case| faults(case, Mode::Compat, &deviations));
}

#[test]
fn packages_have_linuxkits_tags() {
    let deviations = Deviations::read();
    each(&case::names('p'), |case| faults(case, Mode::Default, &deviations));
}

#[test]
fn what_linuxkit_refuses_kiln_refuses_and_names_the_offender() {
    let deviations = Deviations::read();
    let words = fs::read_to_string(tree().join("tests/conformance/words.toml")).expect("words.toml is there");
    let words: BTreeMap<String, Vec<String>> = toml::from_str(&words).expect("words.toml can be read");
    each(&case::names('e'), |case| {
        if deviations.pending.iter().any(|pending| pending == number(case)) {
            return vec![];
        }
        let mut all = faults(case, Mode::Default, &deviations);
        let Some(words) = words.get(number(case)) else { return vec!["words.toml has no words for it".into()] };
        let outcome = case::run(&case::corpus().join("cases").join(case), Mode::Compat);
        let recorded = case::recorded_text(case, "expected.rc");
        let known = deviations.of(case, Mode::Compat).iter().any(|deviation| deviation.status.is_some());
        if !known && outcome.status.to_string() != recorded.trim() {
            all.push(format!("status {} with `--compat linuxkit`:\n{}", outcome.status, outcome.stderr));
        }
        for word in words.iter().filter(|word| outcome.status != 0 && !outcome.stderr.contains(word.as_str())) {
            all.push(format!("no `{word}` in:\n{}", outcome.stderr));
        }
        all
    });
}

#[test]
fn every_deviation_is_a_row_of_the_documentation() {
    let faults = Deviations::read().undocumented();
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}
