//! A guest that asks whatever it likes, and what comes of it on the host.

use std::ffi::{CString, OsStr};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use kiln_abi::{TOUCH_NANOSECONDS, TOUCH_SECONDS};
use kiln_net::chance::Chance;
use rustix::io::Errno;
use rustix::process::{getegid, geteuid};
use tempfile::TempDir;

use super::abi::{Operation, ROOT, set};
use super::memory::{Memory, request};
use super::*;
use crate::config::IdRange;

/// A guest and the folder that it was given. Beside that folder is a secret.
struct Guest {
    session: Session,
    outside: TempDir,
    uid: u32,
    room: usize,
}

fn share(folder: &Path) -> OpenShare {
    let share = Share { folder: folder.into(), tag: "t".into(), ..Share::default() };
    open_all(&[share], folder).unwrap().remove(0)
}

impl Guest {
    fn new() -> Self {
        Self::with(|_| {})
    }

    fn with(change: impl FnOnce(&mut OpenShare)) -> Self {
        let outside = tempfile::tempdir().unwrap();
        fs::create_dir(outside.path().join("shared")).unwrap();
        fs::write(outside.path().join("secret"), "secret").unwrap();
        let mut share = share(&outside.path().join("shared"));
        change(&mut share);
        Self { session: share.session().unwrap(), outside, uid: 0, room: 1 << 17 }
    }

    /// A path on the host.
    fn at(&self, name: &str) -> PathBuf {
        self.outside.path().join("shared").join(name)
    }

    fn raw(&self, operation: u32, node: u64, fields: &[u8]) -> Option<Vec<u8>> {
        let memory = Memory::new(request(operation, node, self.uid, fields), self.room);
        let len = self.session.serve(&memory)? as usize;
        let mut answer = memory.into_answer();
        assert!(len <= answer.len(), "no more than there was room for");
        answer.truncate(len);
        Some(answer)
    }

    fn ask(&self, operation: Operation, node: u64, fields: &[u8]) -> Result<Vec<u8>, Errno> {
        let answer = self.raw(operation as u32, node, fields).unwrap();
        let error = -i32::from_le_bytes(answer[4..8].try_into().unwrap());
        assert_eq!((u32_at(&answer, 0) as usize, u64_at(&answer, 8)), (answer.len(), 7));
        if error == 0 { Ok(answer[16..].to_vec()) } else { Err(Errno::from_raw_os_error(error)) }
    }

    fn lookup(&self, folder: u64, name: &str) -> Result<u64, Errno> {
        Ok(u64_at(&self.ask(Operation::Lookup, folder, &text(name))?, 0))
    }

    fn make_folder(&self, folder: u64, name: &str) -> Result<u64, Errno> {
        Ok(u64_at(&self.ask(Operation::MakeFolder, folder, &[&words(&[0o755, 0]), &text(name)[..]].concat())?, 0))
    }

    /// Makes a file; gives its node and its handle.
    fn create(&self, folder: u64, name: &str, mode: u32) -> Result<(u64, u64), Errno> {
        let fields = [&words(&[OFlags::RDWR.bits(), mode, 0, 0]), &text(name)[..]].concat();
        let answer = self.ask(Operation::Create, folder, &fields)?;
        Ok((u64_at(&answer, 0), u64_at(&answer, 128)))
    }

    fn open(&self, node: u64, flags: OFlags) -> Result<u64, Errno> {
        Ok(u64_at(&self.ask(Operation::Open, node, &words(&[flags.bits(), 0]))?, 0))
    }

    fn write(&self, handle: u64, offset: u64, data: &[u8]) -> Result<u32, Errno> {
        let len = u32::try_from(data.len()).unwrap();
        let fields = [&longs(&[handle, offset])[..], &words(&[len, 0]), &[0; 16], data].concat();
        Ok(u32_at(&self.ask(Operation::Write, ROOT, &fields)?, 0))
    }

    fn read(&self, handle: u64, offset: u64, len: u32) -> Result<Vec<u8>, Errno> {
        let fields = [&longs(&[handle, offset])[..], &words(&[len, 0]), &[0; 16]].concat();
        self.ask(Operation::Read, ROOT, &fields)
    }

    /// Mode, user and group.
    fn owner(&self, node: u64) -> Result<(u32, u32, u32), Errno> {
        let answer = self.ask(Operation::GetAttributes, node, &[0; 16])?;
        Ok((u32_at(&answer, 16 + 60), u32_at(&answer, 16 + 68), u32_at(&answer, 16 + 72)))
    }

    fn set(&self, node: u64, valid: u32, (mode, uid, gid): (u32, u32, u32), size: u64) -> Result<Vec<u8>, Errno> {
        let fields =
            [&longs(&[valid.into(), 0, size, 0, 0, 0, 0])[..], &words(&[0, 0, 0, mode, 0, uid, gid, 0])].concat();
        self.ask(Operation::SetAttributes, node, &fields)
    }

    /// All names of a folder.
    fn names(&self, folder: u64, plus: bool) -> Vec<String> {
        let handle = u64_at(&self.ask(Operation::OpenFolder, folder, &[0; 8]).unwrap(), 0);
        let operation = if plus { Operation::ReadFolderPlus } else { Operation::ReadFolder };
        let (mut names, mut offset) = (Vec::new(), 0);
        loop {
            let fields = [&longs(&[handle, offset])[..], &words(&[600, 0]), &[0; 16]].concat();
            let answer = self.ask(operation, folder, &fields).unwrap();
            if answer.is_empty() {
                self.ask(Operation::ReleaseFolder, folder, &longs(&[handle, 0, 0])).unwrap();
                names.sort();
                return names;
            }
            let mut at = 0;
            while at < answer.len() {
                at += if plus { 128 } else { 0 };
                let len = u32_at(&answer, at + 16) as usize;
                offset = u64_at(&answer, at + 8);
                names.push(String::from_utf8(answer[at + 24..at + 24 + len].to_vec()).unwrap());
                at = (at + 24 + len).next_multiple_of(8);
            }
        }
    }

    fn forget(&self, node: u64, times: u64) {
        assert_eq!(self.raw(Operation::Forget as u32, node, &longs(&[times])), Some(vec![]));
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

fn longs(longs: &[u64]) -> Vec<u8> {
    longs.iter().flat_map(|long| long.to_le_bytes()).collect()
}

fn text(text: &str) -> Vec<u8> {
    CString::new(text).unwrap().into_bytes_with_nul()
}

#[test]
fn no_name_leads_out_of_its_folder() {
    let guest = Guest::new();
    guest.make_folder(ROOT, "d").unwrap();
    let long = "x".repeat(256);
    for bad in ["", ".", "..", "../secret", "d/..", "/", "/etc/passwd", &long] {
        let name = text(bad);
        for (operation, before) in [
            (Operation::Lookup, vec![]),
            (Operation::MakeFolder, words(&[0o755, 0])),
            (Operation::MakeNode, words(&[0o100_644, 0, 0, 0])),
            (Operation::Unlink, vec![]),
            (Operation::RemoveFolder, vec![]),
            (Operation::SymbolicLink, vec![]),
            (Operation::Create, words(&[0, 0o644, 0, 0])),
            (Operation::Link, longs(&[ROOT])),
            (Operation::Rename, longs(&[ROOT])),
        ] {
            let refused = guest.ask(operation, ROOT, &[&before[..], &name, &text("new")].concat()).unwrap_err();
            assert!(matches!(refused, Errno::INVAL | Errno::NAMETOOLONG), "{bad}: {operation:?} {refused}");
        }
        let renamed = guest.ask(Operation::Rename, ROOT, &[&longs(&[ROOT])[..], &text("d"), &name].concat());
        assert!(renamed.is_err(), "{bad}");
    }
    assert_eq!(guest.ask(Operation::Lookup, ROOT, b"no zero"), Err(Errno::INVAL));
    assert_eq!(guest.names(ROOT, false), [".", "..", "d"]);
}

#[test]
fn no_link_is_followed_and_nothing_but_files_and_folders_is_opened() {
    let guest = Guest::new();
    symlink(guest.outside.path(), guest.at("out")).unwrap();
    symlink("../secret", guest.at("file")).unwrap();
    rustix::fs::mkfifoat(CWD, guest.at("pipe"), Mode::RUSR | Mode::WUSR).unwrap();
    for (name, refused) in [("out", Errno::LOOP), ("file", Errno::LOOP), ("pipe", Errno::NXIO)] {
        let node = guest.lookup(ROOT, name).unwrap();
        assert_eq!(guest.open(node, OFlags::RDONLY), Err(refused));
        assert_eq!(guest.open(node, OFlags::WRONLY | OFlags::TRUNC), Err(refused));
        assert_eq!(guest.ask(Operation::OpenFolder, node, &[0; 8]), Err(Errno::NOTDIR));
        assert_eq!(guest.lookup(node, "secret"), Err(Errno::NOTDIR));
        assert_eq!(guest.set(node, set::SIZE, (0, 0, 0), 0), Err(refused));
        let fields = [&words(&[OFlags::RDWR.bits(), 0o644, 0, 0]), &text(name)[..]].concat();
        assert_eq!(guest.ask(Operation::Create, ROOT, &fields), Err(refused));
    }
    let node = guest.lookup(ROOT, "file").unwrap();
    assert_eq!(guest.ask(Operation::ReadLink, node, &[]).unwrap(), b"../secret");
    for kind in [0o020_666, 0o060_666] {
        let fields = [&words(&[kind, 0x0101, 0, 0]), &text("device")[..]].concat();
        assert_eq!(guest.ask(Operation::MakeNode, ROOT, &fields), Err(Errno::PERM));
    }
    assert_eq!(fs::read(guest.outside.path().join("secret")).unwrap(), b"secret");
}

#[test]
fn a_folder_that_the_host_replaced_by_a_link_leads_nowhere() {
    let guest = Guest::new();
    fs::create_dir_all(guest.at("d/e")).unwrap();
    let d = guest.lookup(ROOT, "d").unwrap();
    fs::rename(guest.at("d"), guest.at("was")).unwrap();
    symlink(guest.outside.path(), guest.at("d")).unwrap();
    assert_eq!(guest.lookup(d, "secret"), Err(Errno::STALE));
    assert_eq!(guest.owner(d), Err(Errno::STALE));
    fs::remove_file(guest.at("d")).unwrap();
    fs::create_dir(guest.at("d")).unwrap();
    assert_eq!(guest.lookup(d, "e"), Err(Errno::STALE), "it is another one");
    let was = guest.lookup(ROOT, "was").unwrap();
    assert_eq!((was, guest.lookup(d, "e").is_ok()), (d, true), "found again, it is the same");
}

#[test]
fn no_request_is_too_wild() {
    let guest = Guest::with(|share| share.open_nodes = 8);
    guest.make_folder(ROOT, "d").unwrap();
    let mut chance = Chance::new(7);
    let seeds = [text("d"), text("f"), longs(&[1, 0, 100]), longs(&[2, 1 << 40, 4096, 0, 0]), words(&[2, 0o644, 0, 0])];
    for round in 0..60_000 {
        let operation = match chance.below(20) {
            0 => u32::try_from(chance.below(5_000)).unwrap(),
            _ => Operation::ALL[chance.index(Operation::ALL)] as u32,
        };
        let mut fields: Vec<u8> = Vec::new();
        for _ in 0..chance.below(4) {
            fields.extend(&seeds[chance.index(&seeds)]);
        }
        for _ in 0..chance.below(4) {
            chance.change(&mut fields);
        }
        // A hole of the whole disk would take its time to be copied or allocated.
        if matches!(Operation::of(operation), Some(Operation::Allocate | Operation::SyncFileSystem)) {
            continue;
        }
        let answer = guest.raw(operation, chance.below(6), &fields).unwrap();
        assert!(answer.is_empty() || answer.len() >= 16, "round {round}");
    }
    for len in 0..40 {
        let memory = Memory::new(vec![1; len], 0);
        assert_eq!(guest.session.serve(&memory), None, "{len} bytes are no request");
    }
    assert_eq!(fs::read(guest.outside.path().join("secret")).unwrap(), b"secret");
    assert_eq!(fs::read_dir(guest.outside.path()).unwrap().count(), 2);
}

#[test]
fn an_answer_without_room_is_an_error_and_a_guest_that_is_too_old_is_told_so() {
    let mut guest = Guest::new();
    let init = |minor: u32| [&words(&[7, minor, 1 << 17, u32::MAX, u32::MAX])[..], &[0; 44]].concat();
    assert_eq!(guest.ask(Operation::Init, 0, &init(30)), Err(Errno::PROTO));
    let answer = guest.ask(Operation::Init, 0, &init(38)).unwrap();
    assert_eq!((answer.len(), u32_at(&answer, 0), u32_at(&answer, 20)), (64, 7, DATA_LIMIT_BYTES));
    guest.make_folder(ROOT, "d").unwrap();
    guest.create(ROOT, "f", 0o644).unwrap();
    guest.ask(Operation::Init, 0, &init(38)).unwrap();
    assert_eq!((guest.session.nodes.counts().0, guest.session.handles.count()), (1, 0), "a guest that begins");
    guest.room = 20;
    assert_eq!(guest.ask(Operation::Init, 0, &init(38)), Err(Errno::RANGE));
}

#[test]
fn a_share_to_read_is_not_changed() {
    let guest = Guest::with(|share| share.read_only = true);
    fs::write(guest.at("f"), "old").unwrap();
    let node = guest.lookup(ROOT, "f").unwrap();
    assert_eq!(guest.create(ROOT, "new", 0o644), Err(Errno::ROFS));
    assert_eq!(guest.make_folder(ROOT, "new"), Err(Errno::ROFS));
    assert_eq!(guest.ask(Operation::Unlink, ROOT, &text("f")), Err(Errno::ROFS));
    assert_eq!(guest.set(node, set::SIZE, (0, 0, 0), 0), Err(Errno::ROFS));
    for flags in [OFlags::WRONLY, OFlags::RDWR, OFlags::TRUNC] {
        assert_eq!(guest.open(node, flags), Err(Errno::ROFS));
    }
    let handle = guest.open(node, OFlags::RDONLY).unwrap();
    assert_eq!(guest.write(handle, 0, b"new"), Err(Errno::ROFS));
    assert_eq!(guest.read(handle, 1, 100).unwrap(), b"ld");
}

#[test]
fn what_is_written_is_what_is_read_on_both_sides() {
    let guest = Guest::new();
    let (node, handle) = guest.create(ROOT, "f", 0o4640).unwrap();
    assert_eq!(fs::metadata(guest.at("f")).unwrap().mode() & 0o7777, 0o4640);
    assert_eq!(guest.write(handle, 3, b"hello"), Ok(5));
    assert_eq!(fs::read(guest.at("f")).unwrap(), b"\0\0\0hello");
    fs::write(guest.at("f"), "of the host").unwrap();
    assert_eq!(guest.read(handle, 3, 1 << 20).unwrap(), b"the host");
    assert_eq!(guest.create(ROOT, "f", 0o600).unwrap().0, node, "what is there is opened");
    let exclusive = [&words(&[(OFlags::RDWR | OFlags::EXCL).bits(), 0o644, 0, 0]), &text("f")[..]].concat();
    assert_eq!(guest.ask(Operation::Create, ROOT, &exclusive), Err(Errno::EXIST));
    guest.set(node, set::SIZE, (0, 0, 0), 2).unwrap();
    assert_eq!(fs::read(guest.at("f")).unwrap(), b"of");
    let (_, other) = guest.create(ROOT, "g", 0o644).unwrap();
    let copied = guest.ask(Operation::CopyRange, node, &longs(&[handle, 0, node, other, 4, 2, 0])).unwrap();
    assert_eq!((u32_at(&copied, 0), fs::read(guest.at("g")).unwrap()), (2, b"\0\0\0\0of".to_vec()));
    guest.ask(Operation::Release, node, &longs(&[handle, 0, 0])).unwrap();
    assert_eq!(guest.read(handle, 0, 1), Err(Errno::BADF));
    // What is appended goes to the end, pages that were mapped to their places.
    let handle = guest.open(node, OFlags::WRONLY | OFlags::APPEND).unwrap();
    guest.write(handle, 0, b"+").unwrap();
    guest.ask(Operation::Write, node, &[&longs(&[handle, 0])[..], &words(&[2, 1]), &[0; 16], b"OF"].concat()).unwrap();
    assert_eq!(fs::read(guest.at("f")).unwrap(), b"OF+");
    // Whoever writes to a file takes its right to run as its owner away.
    let handle = guest.open(node, OFlags::WRONLY).unwrap();
    let fields = [&longs(&[handle, 0])[..], &words(&[1, 1 << 2]), &[0; 16], b"x"].concat();
    guest.ask(Operation::Write, node, &fields).unwrap();
    assert_eq!(guest.owner(node).unwrap().0 & 0o7777, 0o640);
}

#[test]
fn a_removed_file_stays_for_who_has_it_and_a_moved_folder_keeps_what_is_in_it() {
    let guest = Guest::new();
    let d = guest.make_folder(ROOT, "d").unwrap();
    let (gone, handle) = guest.create(d, "gone", 0o644).unwrap();
    guest.write(handle, 0, b"still here").unwrap();
    guest.ask(Operation::Release, gone, &longs(&[handle, 0, 0])).unwrap();
    guest.ask(Operation::Unlink, d, &text("gone")).unwrap();
    let handle = guest.open(gone, OFlags::RDONLY).unwrap();
    assert_eq!(guest.read(handle, 0, 100).unwrap(), b"still here");
    let (file, _) = guest.create(d, "f", 0o644).unwrap();
    let e = guest.make_folder(ROOT, "e").unwrap();
    let replaced = guest.lookup(ROOT, "e").unwrap();
    assert_eq!(e, replaced);
    guest.ask(Operation::Rename, ROOT, &[&longs(&[ROOT])[..], &text("d"), &text("e")].concat()).unwrap();
    assert!(guest.owner(file).is_ok() && guest.lookup(d, "f").unwrap() == file);
    assert_eq!(guest.owner(e).unwrap().0, 0o040_755, "replaced, and still known");
    assert_eq!(guest.lookup(ROOT, "d"), Err(Errno::NOENT));
    let linked = guest.ask(Operation::Link, ROOT, &[&longs(&[file])[..], &text("other")].concat()).unwrap();
    assert_eq!((u64_at(&linked, 0), fs::metadata(guest.at("other")).unwrap().nlink()), (file, 2));
    let flags = [&longs(&[ROOT])[..], &words(&[1, 0]), &text("other"), &text("e")].concat();
    assert_eq!(guest.ask(Operation::Rename2, ROOT, &flags), Err(Errno::EXIST));
    let swap = [&longs(&[ROOT])[..], &words(&[2, 0]), &text("other"), &text("e")].concat();
    guest.ask(Operation::Rename2, ROOT, &swap).unwrap();
    assert_eq!((guest.lookup(ROOT, "other"), guest.lookup(ROOT, "e")), (Ok(d), Ok(file)));
}

#[test]
fn every_name_is_told_once_however_little_fits() {
    let guest = Guest::new();
    let mut wanted: Vec<String> = (0..300).map(|number| format!("{number:03}{}", "n".repeat(number / 2))).collect();
    wanted.iter().for_each(|name| fs::write(guest.at(name), "").unwrap());
    wanted.extend([".".to_owned(), "..".to_owned()]);
    wanted.sort();
    assert!(guest.names(ROOT, false) == wanted);
    assert_eq!(guest.session.nodes.counts().0, 1);
    assert!(guest.names(ROOT, true) == wanted);
    assert_eq!((guest.session.nodes.counts().0, guest.session.handles.count()), (301, 0));
    let mut forget = longs(&[300]);
    (2..302).for_each(|node| forget.extend(longs(&[node, 1])));
    assert_eq!(guest.raw(Operation::BatchForget as u32, 0, &forget), Some(vec![]));
    assert_eq!(guest.session.nodes.counts(), (1, 0));
}

#[test]
fn few_nodes_are_open_however_many_are_known_and_deep() {
    let guest = Guest::with(|share| share.open_nodes = 8);
    let (mut folder, mut all) = (ROOT, vec![]);
    for _ in 0..2_000 {
        folder = guest.make_folder(folder, "d").unwrap();
        all.push(folder);
    }
    let (known, open) = guest.session.nodes.counts();
    assert!(known == 2_001 && open <= 16, "{open} are open");
    for node in [all[7], all[1_999], all[1_000]] {
        assert_eq!(guest.lookup(node, "no"), Err(Errno::NOENT), "found again by its place");
    }
    assert!(guest.session.nodes.counts().1 <= 16);
    // The last one holds all the others until it goes.
    for node in all {
        guest.forget(node, 1);
    }
    assert_eq!(guest.session.nodes.counts().0, 1);
    guest.forget(ROOT, u64::MAX);
    assert!(guest.lookup(ROOT, "d").is_ok());
    // Such a path is longer than others can remove.
    let status = std::process::Command::new("rm").arg("-rf").arg(guest.at("d")).status().unwrap();
    assert!(status.success());
}

#[test]
fn who_cannot_give_files_away_keeps_their_owners_beside_them() {
    let mut guest = Guest::with(|share| {
        let own = |id: u32| vec![IdRange { guest: 0, host: id, count: 1 }];
        share.owners = Owners::new(&own(geteuid().as_raw()), &own(getegid().as_raw()));
        share.owners.keeps = true;
    });
    guest.uid = 33;
    let (node, _) = guest.create(ROOT, "f", 0o4755).unwrap();
    assert_eq!(guest.owner(node), Ok((0o104_755, 33, 33)));
    let file = fs::metadata(guest.at("f")).unwrap();
    assert_eq!((file.mode() & 0o7777, file.uid()), (0o755, geteuid().as_raw()), "nobody runs it as its user");
    guest.set(node, set::UID | set::GID | set::MODE, (0o2711, 0, 5), 0).unwrap();
    assert_eq!(guest.owner(node), Ok((0o102_711, 0, 5)));
    guest.set(node, set::GID, (0, 0, 0), 0).unwrap();
    assert_eq!(guest.owner(node), Ok((0o100_711, 0, 0)), "a file that changes hands runs as nobody");
    let listed = guest.ask(Operation::ListXattr, node, &words(&[0, 0])).unwrap();
    assert_eq!(u32_at(&listed, 0), 0);
    guest.set(node, set::UID, (0, 7, 0), 0).unwrap();
    for (operation, before) in [(Operation::GetXattr, words(&[100, 0])), (Operation::RemoveXattr, vec![])] {
        let name = [&before[..], &text("user.kiln.owner")].concat();
        assert_eq!(guest.ask(operation, node, &name), Err(Errno::OPNOTSUPP));
    }
    let link = guest.ask(Operation::SymbolicLink, ROOT, &[text("l"), text("f")].concat()).unwrap();
    assert!(guest.set(u64_at(&link, 0), set::UID, (0, 7, 0), 0).is_ok());
}

#[test]
fn attributes_of_users_go_through_and_others_do_not() {
    let guest = Guest::new();
    let (node, _) = guest.create(ROOT, "f", 0o644).unwrap();
    let put = |name: &str, value: &[u8]| {
        let size = u32::try_from(value.len()).unwrap();
        guest.ask(Operation::SetXattr, node, &[&words(&[size, 0])[..], &text(name), value].concat())
    };
    for name in ["security.capability", "trusted.overlay.opaque", "system.posix_acl_access", "user.kiln.owner"] {
        assert_eq!(put(name, b"x"), Err(Errno::OPNOTSUPP), "{name}");
    }
    put("user.big", &[7; 3_000]).unwrap();
    let name = text("user.big");
    let get = |size: u32| guest.ask(Operation::GetXattr, node, &[&words(&[size, 0])[..], &name].concat());
    assert_eq!(get(3_000).unwrap(), [7; 3_000]);
    assert_eq!((get(2_999), u32_at(&get(0).unwrap(), 0)), (Err(Errno::RANGE), 3_000));
    assert_eq!(guest.ask(Operation::ListXattr, node, &words(&[100, 0])).unwrap(), b"user.big\0");
    guest.ask(Operation::RemoveXattr, node, &name).unwrap();
    assert_eq!(get(0), Err(Errno::NODATA));
}

#[test]
fn a_folder_that_hands_its_group_down_does_so() {
    let guest = Guest::new();
    let d = guest.make_folder(ROOT, "d").unwrap();
    fs::set_permissions(guest.at("d"), fs::Permissions::from_mode(0o2775)).unwrap();
    guest.make_folder(d, "e").unwrap();
    assert_eq!(fs::metadata(guest.at("d/e")).unwrap().mode() & 0o7777, 0o2755);
}

#[test]
fn a_folder_that_the_host_moves_stays_shared_and_one_that_it_removes_takes_nothing_new() {
    let guest = Guest::new();
    let (file, handle) = guest.create(ROOT, "f", 0o644).unwrap();
    let moved = guest.outside.path().join("moved");
    fs::rename(guest.at(""), &moved).unwrap();
    guest.write(handle, 0, b"text").unwrap();
    guest.make_folder(ROOT, "d").unwrap();
    assert!(moved.join("d").is_dir() && fs::read(moved.join("f")).unwrap() == b"text");
    fs::remove_dir_all(&moved).unwrap();
    assert_eq!(
        (guest.create(ROOT, "new", 0o644), guest.make_folder(ROOT, "d")),
        (Err(Errno::NOENT), Err(Errno::NOENT))
    );
    assert_eq!((guest.lookup(ROOT, "f"), guest.owner(file)), (Err(Errno::NOENT), Err(Errno::STALE)));
    assert!(guest.owner(ROOT).is_ok());
    assert_eq!(guest.read(handle, 0, 100).unwrap(), b"text", "what is open stays");
}

#[test]
fn a_name_is_any_bytes_and_a_folder_has_any_number_of_them() {
    let guest = Guest::new();
    for name in [&b"\xff\xfe"[..], b"\n", b" ", "\u{e9}".repeat(127).as_bytes(), b"-rf"] {
        let made = [&words(&[OFlags::RDWR.bits(), 0o644, 0, 0]), name, b"\0"].concat();
        guest.ask(Operation::Create, ROOT, &made).unwrap();
        let path = guest.at("").join(OsStr::from_bytes(name));
        assert!(path.exists(), "{name:?}");
        guest.ask(Operation::Unlink, ROOT, &[name, b"\0"].concat()).unwrap();
        assert!(!path.exists());
    }
    let mut wanted: Vec<String> = (0..20_000).map(|number| format!("file-{number}")).collect();
    wanted.iter().for_each(|name| drop(File::create(guest.at(name)).unwrap()));
    wanted.extend([".".to_owned(), "..".to_owned()]);
    wanted.sort();
    assert!(guest.names(ROOT, true) == wanted);
}

#[test]
fn a_guest_may_believe_what_it_was_told_only_as_long_as_its_user_wants() {
    for seconds in [0_u32, 7] {
        let guest = Guest::with(|share| share.cache_s = seconds);
        fs::write(guest.at("f"), "").unwrap();
        let entry = guest.ask(Operation::Lookup, ROOT, &text("f")).unwrap();
        let attributes = guest.ask(Operation::GetAttributes, u64_at(&entry, 0), &[0; 16]).unwrap();
        assert_eq!([u64_at(&entry, 16), u64_at(&entry, 24), u64_at(&attributes, 0)], [u64::from(seconds); 3]);
        assert_eq!([u32_at(&entry, 32), u32_at(&entry, 36), u32_at(&attributes, 8)], [0; 3]);
    }
}

#[test]
fn a_touch_of_the_agents_changes_nothing_and_is_let_through_where_nothing_may_be_changed() {
    for read_only in [false, true] {
        let guest = Guest::with(|share| share.read_only = read_only);
        fs::write(guest.at("f"), "").unwrap();
        let before = fs::metadata(guest.at("f")).unwrap();
        let node = guest.lookup(ROOT, "f").unwrap();
        let touch = |seconds: i64| {
            let fields = longs(&[set::MTIME.into(), 0, 0, 0, 0, seconds.cast_unsigned(), 0]);
            let rest = words(&[0, TOUCH_NANOSECONDS, 0, 0, 0, 0, 0, 0]);
            guest.ask(Operation::SetAttributes, node, &[fields, rest].concat())
        };
        touch(TOUCH_SECONDS).unwrap();
        let after = fs::metadata(guest.at("f")).unwrap();
        assert_eq!((before.mtime(), before.ctime_nsec()), (after.mtime(), after.ctime_nsec()));
        assert_eq!(touch(1_000).err(), read_only.then_some(Errno::ROFS));
        assert_eq!(fs::metadata(guest.at("f")).unwrap().mtime() == 1_000, !read_only);
    }
}
