//! The end of all mounts, so that no disk is left with something to recover.
//!
//! When no process is left, a file system may still be in use: by swap in a file, by devices that are made of files or of other
//! devices (loop, device mapper), by mounts below it, by a mount namespace that is bound to a path. So these go first, and
//! another round follows as long as one helps. What still does not go becomes read-only, by force if need be.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use kiln_guest::mount::table::{self, Mounted};
use kiln_guest::{block, device_mapper, swap};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;
use rustix::mount::{MountFlags, UnmountFlags};

/// The kernel closes some files of a process only after its end (io_uring's); this long is waited for them.
const PATIENCE: Duration = Duration::from_secs(2);
const LOOK_AGAIN: Duration = Duration::from_millis(10);
/// The kernel writes all file systems out meanwhile.
const FORCE_LIMIT: Duration = Duration::from_secs(10);
/// What the kernel's log says when it is done (`fs/super.c`).
const FORCED: &str = "Emergency Remount complete";
/// File systems that show each of theirs in `/sys/fs` as long as it is in use, mounted or not.
const SHOWN: [&str; 3] = ["ext4", "xfs", "f2fs"];

/// Ends all swapping and unmounts all that can be, the latest mount first; makes the rest read-only. Tells what had to be
/// forced.
pub fn unmount_all() -> Vec<String> {
    let began = Instant::now();
    while round() {
        let busy = mounts().iter().any(|mounted| mounted.is_of_a_disk() && !keeps(&mounted.target));
        if !busy || began.elapsed() > PATIENCE {
            break;
        }
        std::thread::sleep(LOOK_AGAIN);
    }
    for mounted in mounts().iter().filter(|mounted| mounted.is_of_a_disk() && !mounted.read_only) {
        // What refuses is forced below.
        let _ = rustix::mount::mount_remount(&mounted.target, MountFlags::RDONLY, c"");
    }
    let _ = rustix::mount::mount_remount("/", MountFlags::RDONLY, c"");
    let left = left(&mounts(), Path::new("/sys"));
    if !left.is_empty()
        && let Err(error) = force_read_only()
    {
        return vec![format!("cannot make {} read-only: {error}", left.join(", "))];
    }
    left.iter().map(|what| format!("{what} was in use to the end, and is read-only now")).collect()
}

/// Unmounts what can be; whether something is left that may go in another round.
fn round() -> bool {
    let mounts = mounts();
    let points: Vec<&Path> = mounts.iter().map(|mounted| mounted.target.as_path()).collect();
    swap::off_all(&points);
    let mut left = false;
    for mounted in mounts.iter().rev().filter(|mounted| !keeps(&mounted.target)) {
        left |= rustix::mount::unmount(&mounted.target, UnmountFlags::NOFOLLOW).is_err();
    }
    // Devices that are in use stay.
    let _ = device_mapper::remove_unused();
    block::loops::detach_all();
    left
}

fn mounts() -> Vec<Mounted> {
    table::read().unwrap_or_default()
}

/// What is needed to the end: the root, and what the kernel tells of itself.
fn keeps(target: &Path) -> bool {
    let kernels = ["/proc", "/sys", "/dev"].into_iter().any(|top| target.starts_with(top));
    kernels || target == Path::new("/") || target == Path::new("/run")
}

/// File systems of disks that can still be written: mounted ones, and those in use with no mount that can be seen here.
fn left(mounts: &[Mounted], sys: &Path) -> Vec<String> {
    let writable = mounts.iter().filter(|mounted| mounted.is_of_a_disk() && !mounted.read_only);
    let mut left: Vec<String> = writable.map(|mounted| mounted.source.to_string_lossy().into_owned()).collect();
    for kind in SHOWN {
        for entry in fs::read_dir(sys.join("fs").join(kind)).into_iter().flatten().flatten() {
            let name = entry.file_name();
            // `features` and the like are no devices.
            let Ok(number) = fs::read_to_string(sys.join("class/block").join(&name).join("dev")) else { continue };
            if mounts.iter().all(|mounted| mounted.number != number.trim()) {
                left.push(format!("/dev/{}", name.to_string_lossy().replace('!', "/")));
            }
        }
    }
    left.dedup();
    left
}

/// Has the kernel write out all file systems of disks and make them read-only, whoever uses them (SysRq's `u`), and waits
/// until its log says that this is done.
fn force_read_only() -> io::Result<()> {
    let nonblocking = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or_default();
    let mut log = File::options().read(true).custom_flags(nonblocking).open("/dev/kmsg")?;
    log.seek(SeekFrom::End(0))?;
    fs::write("/proc/sysrq-trigger", "u")?;
    let began = Instant::now();
    let mut record = vec![0; 16 << 10];
    while began.elapsed() < FORCE_LIMIT {
        match log.read(&mut record) {
            Ok(len) if String::from_utf8_lossy(record.get(..len).unwrap_or_default()).contains(FORCED) => return Ok(()),
            // Another line, or lines that were lost.
            Ok(_) => {}
            Err(error) if matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::Interrupted) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let time = Timespec { tv_sec: 1, tv_nsec: 0 };
                poll(&mut [PollFd::new(&log, PollFlags::IN)], Some(&time))?;
            }
            Err(error) => return Err(error),
        }
    }
    Err(io::ErrorKind::TimedOut.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_power_off_itself_needs_stays_mounted() {
        for (target, stays) in [
            ("/", true),
            ("/proc", true),
            ("/dev/pts", true),
            ("/run", true),
            ("/run/netns/kept", false),
            ("/development", false),
            ("/var", false),
        ] {
            assert_eq!(keeps(Path::new(target)), stays, "{target}");
        }
    }

    #[test]
    fn only_disks_that_may_still_be_written_are_left() {
        let sys = tempfile::tempdir().unwrap();
        let mounts = table::parse(
            b"22 1 254:0 / / ro - ext4 /dev/root ro\n23 1 0:5 / /var rw - tmpfs tmpfs rw\n\
             24 1 254:17 / /var/data rw - ext4 /dev/vdb1 rw\n",
        );
        assert_eq!(left(&mounts, sys.path()), ["/dev/vdb1"]);
        assert!(left(&mounts[..2], sys.path()).is_empty());
        // One that is in use although nothing is mounted.
        for (name, number) in [("vda", "254:0\n"), ("vdb1", "254:17\n")] {
            fs::create_dir_all(sys.path().join("fs/ext4").join(name)).unwrap();
            fs::create_dir_all(sys.path().join("class/block").join(name)).unwrap();
            fs::write(sys.path().join("class/block").join(name).join("dev"), number).unwrap();
        }
        fs::create_dir_all(sys.path().join("fs/ext4/features")).unwrap();
        assert_eq!(left(&mounts[..2], sys.path()), ["/dev/vdb1"]);
        assert_eq!(left(&mounts, sys.path()), ["/dev/vdb1"]);
    }
}
