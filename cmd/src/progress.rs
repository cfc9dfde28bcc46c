//! Shows how far a build is: bars on a terminal, lines elsewhere, nothing when quiet.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use indicatif::{HumanBytes, ProgressBar, ProgressStyle};
use kiln_build::progress::{Meter, Progress, Silent};

use crate::printer::{Level, Printer};

/// Work that takes less is not worth a line at its end.
const SHORT: Duration = Duration::from_secs(1);
/// How often a bar without news turns its spinner.
const TICK: Duration = Duration::from_millis(120);

/// A bar for work of known size.
const MEASURED: &str = "{spinner} {msg:50} [{bar:25}] {bytes}/{total_bytes} {bytes_per_sec}";
/// A line for work that counts bytes and does not know how many there are.
const COUNTED: &str = "{spinner} {msg:50} {bytes} {elapsed}";
/// A line for work that counts nothing.
const TIMED: &str = "{spinner} {msg:50} {elapsed}";

/// A build's progress, told through the printer.
pub struct Shown {
    printer: Printer,
}

impl Shown {
    /// Bars or lines, as the printer can.
    pub fn new(printer: &Printer) -> Self {
        Self { printer: printer.clone() }
    }
}

impl Progress for Shown {
    fn begin(&self, what: &str, total_bytes: Option<u64>) -> Box<dyn Meter> {
        if self.printer.level() == Level::Quiet {
            return Box::new(Silent);
        }
        let first_style = if total_bytes.is_some() { MEASURED } else { TIMED };
        let bar = self.printer.bars().map(|bars| {
            let bar = bars.add(ProgressBar::new(total_bytes.unwrap_or(0)).with_style(style(first_style)));
            bar.set_message(shortened(what));
            bar.enable_steady_tick(TICK);
            bar
        });
        if bar.is_none() {
            self.printer.note(what);
        }
        let (printer, what) = (self.printer.clone(), what.to_owned());
        let has_total = total_bytes.is_some();
        Box::new(Piece { printer, what, bar, has_total, bytes: AtomicU64::new(0), began: Instant::now() })
    }

    fn note(&self, line: &str) {
        self.printer.note(line);
    }
}

/// One piece of work that is shown.
struct Piece {
    printer: Printer,
    what: String,
    bar: Option<ProgressBar>,
    has_total: bool,
    bytes: AtomicU64,
    began: Instant,
}

impl Meter for Piece {
    fn advance(&self, bytes: u64) {
        let before = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        if let Some(bar) = &self.bar {
            if before == 0 && !self.has_total {
                bar.set_style(style(COUNTED));
            }
            bar.inc(bytes);
        }
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        let took = self.began.elapsed();
        if took >= SHORT || self.printer.level() >= Level::Detail {
            self.printer.note(&done_line(&self.what, self.bytes.load(Ordering::Relaxed), took));
        }
    }
}

fn done_line(what: &str, bytes: u64, took: Duration) -> String {
    let size = if bytes > 0 { format!("{}, ", HumanBytes(bytes)) } else { String::new() };
    format!("{what}: done ({size}{:.1} s)", took.as_secs_f64())
}

/// The templates are constants: a mistake in one shows the plain bar.
fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> ")
}

/// A bar has one line: long names lose their middle.
fn shortened(what: &str) -> String {
    const COLUMNS: usize = 50;
    let chars: Vec<char> = what.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let half = COLUMNS / 2 - 1;
    match (chars.get(..half), chars.get(chars.len().saturating_sub(half)..)) {
        (Some(head), Some(tail)) if chars.len() > COLUMNS => head.iter().chain(&['…']).chain(tail).collect(),
        _ => chars.into_iter().collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_names_keep_their_ends_and_steer_no_terminal() {
        let long = format!("pull {}:tag", "x".repeat(200));
        let short = shortened(&long);
        assert!(short.starts_with("pull xxx") && short.ends_with("x:tag") && short.chars().count() <= 50, "{short}");
        assert_eq!(shortened("a\x1b[2Jb"), "a [2Jb");
        assert_eq!(shortened("é"), "é");
    }

    #[test]
    fn a_finished_piece_tells_size_and_time() {
        let took = Duration::from_millis(2345);
        assert_eq!(done_line("write x", 3 << 20, took), "write x: done (3.00 MiB, 2.3 s)");
        assert_eq!(done_line("pin", 0, took), "pin: done (2.3 s)");
    }
}
