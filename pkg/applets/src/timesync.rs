//! `timesync`: keeps the machine's clock at the host's: by the host's own clock where the hypervisor offers it as a PTP device
//! (`ptp_kvm`), else by the machine's battery clock, which hypervisors keep at theirs. A machine that was asleep is right again
//! within one turn.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use kiln_guest::clock;
use rustix::time::{ClockId, DynamicClockId, Timespec, clock_gettime, clock_gettime_dynamic, clock_settime};

use crate::arguments::Flags;
use crate::{Failure, Voice};

/// What it takes.
pub const USAGE: &str = "[-1] [-every SECONDS]";

/// `port` is LinuxKit's: a vsock port where the host says that it woke up. Here nobody has to say so.
const FLAGS: Flags = Flags { valued: &["every", "port", "rtc", "cid"], alone: &["1", "v", "debug"] };
const EVERY_SECONDS: u64 = 10;
/// Names that the drivers of hypervisors give to their clocks (`drivers/ptp/ptp_kvm_common.c`, Hyper-V's, VMware's).
const HOST_CLOCKS: [&str; 4] = ["KVM virtual PTP", "hyperv", "ptp_vmw", "Xen"];
/// From here on the clock is set at once; below it is made faster or slower.
const STEP: Duration = Duration::from_millis(200);
/// Offsets that are left alone: what reading two clocks one after the other costs.
const FINE: Duration = Duration::from_micros(200);
/// The battery clock counts seconds: it says nothing about less than this.
const RTC_COARSE: Duration = Duration::from_millis(1500);

/// Why the clock is not kept.
#[derive(Debug, thiserror::Error)]
enum TimesyncError {
    #[error("cannot read the clock `{}`", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot set the machine's clock; the container needs CAP_SYS_TIME")]
    Set(#[source] io::Error),
}

/// A clock that is right.
#[derive(Debug)]
enum Source {
    Ptp(PathBuf, File),
    Rtc(PathBuf),
}

/// What to do about an offset.
#[derive(Debug, PartialEq, Eq)]
enum Correction {
    Nothing,
    /// Set the clock: nanoseconds to add.
    Step(i64),
    /// Make it faster or slower until it has gained these nanoseconds.
    Slew(i64),
}

/// Runs the program: once, or until the process is ended. That there is no clock to go by is no failure: it will not come.
///
/// # Errors
/// A clock cannot be read, or the machine's cannot be set.
pub fn run(arguments: &[String], say: Voice<'_>) -> Result<(), Failure> {
    let given = FLAGS.read(arguments)?;
    let every = Duration::from_secs(given.number("every", EVERY_SECONDS)?.max(1));
    let Some(source) = Source::find(Path::new("/sys"), Path::new("/dev")) else {
        say("nothing to keep the clock by: there is no clock of a host's (/dev/ptp0) and no battery clock (/dev/rtc0)");
        return Ok(());
    };
    say(&format!("keeping the clock by {}", source.path().display()));
    loop {
        let offset = source.offset().map_err(Failure::of)?;
        let set = |error: io::Error| Failure::of(TimesyncError::Set(error));
        match source.correction(offset) {
            Correction::Nothing => {}
            Correction::Step(nanos) => {
                clock_settime(ClockId::Realtime, later(clock_gettime(ClockId::Realtime), nanos))
                    .map_err(|errno| set(errno.into()))?;
                say(&format!("the clock was {:.3} s {}", seconds(nanos), if nanos > 0 { "late" } else { "early" }));
            }
            Correction::Slew(nanos) => clock::slew(nanos / 1000).map_err(set)?,
        }
        if given.has("1") {
            return Ok(());
        }
        std::thread::sleep(every);
    }
}

#[expect(clippy::cast_precision_loss, reason = "for a message of milliseconds")]
fn seconds(nanos: i64) -> f64 {
    nanos.unsigned_abs() as f64 / 1e9
}

fn later(time: Timespec, nanos: i64) -> Timespec {
    let all = i128::from(time.tv_sec) * NANOS + i128::from(time.tv_nsec) + i128::from(nanos);
    Timespec {
        tv_sec: i64::try_from(all.div_euclid(NANOS)).unwrap_or(time.tv_sec),
        tv_nsec: i64::try_from(all.rem_euclid(NANOS)).unwrap_or_default(),
    }
}

const NANOS: i128 = 1_000_000_000;

/// Nanoseconds from `from` to `to`.
fn between(from: Timespec, to: Timespec) -> i64 {
    let all = |time: Timespec| i128::from(time.tv_sec) * NANOS + i128::from(time.tv_nsec);
    i64::try_from(all(to) - all(from)).unwrap_or(i64::MAX)
}

impl Source {
    /// The best one that the machine has.
    fn find(sys: &Path, dev: &Path) -> Option<Self> {
        let mut clocks: Vec<_> = fs::read_dir(sys.join("class/ptp")).into_iter().flatten().flatten().collect();
        clocks.sort_by_key(fs::DirEntry::file_name);
        let ptp = clocks.into_iter().find_map(|clock| {
            let name = fs::read_to_string(clock.path().join("clock_name")).ok()?;
            HOST_CLOCKS.iter().any(|known| name.trim() == *known).then_some(())?;
            let path = dev.join(clock.file_name());
            File::open(&path).ok().map(|file| Self::Ptp(path, file))
        });
        let rtc = sys.join("class/rtc/rtc0/since_epoch");
        ptp.or_else(|| rtc.exists().then_some(Self::Rtc(rtc)))
    }

    fn path(&self) -> &Path {
        match self {
            Self::Ptp(path, _) | Self::Rtc(path) => path,
        }
    }

    /// How many nanoseconds the machine's clock is behind.
    fn offset(&self) -> Result<i64, TimesyncError> {
        let failed = |source| TimesyncError::Read { path: self.path().to_owned(), source };
        let now = || clock_gettime(ClockId::Realtime);
        match self {
            Self::Ptp(_, device) => {
                let before = now();
                let right = clock_gettime_dynamic(DynamicClockId::Dynamic(device.as_fd()))
                    .map_err(|errno| failed(errno.into()))?;
                let middle = later(before, between(before, now()) / 2);
                Ok(between(middle, right))
            }
            Self::Rtc(path) => {
                let text = fs::read_to_string(path).map_err(failed)?;
                let seconds = text.trim().parse().map_err(|_| failed(io::ErrorKind::InvalidData.into()))?;
                // On the average it is half a second further than it says.
                Ok(between(now(), Timespec { tv_sec: seconds, tv_nsec: 500_000_000 }))
            }
        }
    }

    fn correction(&self, offset: i64) -> Correction {
        let size = Duration::from_nanos(offset.unsigned_abs());
        match self {
            Self::Rtc(_) if size < RTC_COARSE => Correction::Nothing,
            Self::Ptp(..) if size < FINE => Correction::Nothing,
            Self::Ptp(..) if size < STEP => Correction::Slew(offset),
            _ => Correction::Step(offset),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_cards_clock_is_not_taken_for_the_hosts() {
        let folder = tempfile::tempdir().unwrap();
        let (sys, dev) = (folder.path().join("sys"), folder.path().join("dev"));
        assert!(Source::find(&sys, &dev).is_none());
        for (clock, name) in [("ptp0", "enp3s0"), ("ptp1", "KVM virtual PTP")] {
            fs::create_dir_all(sys.join("class/ptp").join(clock)).unwrap();
            fs::write(sys.join("class/ptp").join(clock).join("clock_name"), format!("{name}\n")).unwrap();
        }
        fs::create_dir_all(sys.join("class/rtc/rtc0")).unwrap();
        fs::write(sys.join("class/rtc/rtc0/since_epoch"), "1\n").unwrap();
        fs::create_dir(&dev).unwrap();
        // Its driver is there and its node is not.
        let rtc = Source::find(&sys, &dev).unwrap();
        assert!(matches!(rtc, Source::Rtc(_)));
        assert!(rtc.offset().unwrap() < -1_000_000_000);
        fs::write(dev.join("ptp1"), "").unwrap();
        assert_eq!(Source::find(&sys, &dev).unwrap().path(), dev.join("ptp1"));
    }

    #[test]
    fn large_offsets_are_stepped_small_ones_slewed_and_what_means_nothing_left_alone() {
        let ptp = Source::Ptp("p".into(), tempfile::tempfile().unwrap());
        let rtc = Source::Rtc("r".into());
        let milli = 1_000_000;
        assert_eq!(ptp.correction(milli / 10), Correction::Nothing);
        assert_eq!(ptp.correction(-5 * milli), Correction::Slew(-5 * milli));
        assert_eq!(ptp.correction(300 * milli), Correction::Step(300 * milli));
        assert_eq!(rtc.correction(-900 * milli), Correction::Nothing);
        assert_eq!(rtc.correction(2000 * milli), Correction::Step(2000 * milli));
        let time = Timespec { tv_sec: 10, tv_nsec: 5 };
        assert_eq!(later(time, -10), Timespec { tv_sec: 9, tv_nsec: 999_999_995 });
        assert_eq!(between(time, later(time, -10)), -10);
    }
}
