//! What a guest asks of a shared folder, beside which is a secret, and in which are links that lead there.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use kiln_run::config::Share;
use kiln_run::share::memory::{Memory, request};
use kiln_run::share::open_all;

/// Steps of one input.
const STEPS_LIMIT: usize = 200;
/// Room for an answer.
const ROOM_BYTES: usize = 4096;
/// Operations that would take the host long for what they are asked: space for all that a number can say.
const ALLOCATE: u32 = 43;
const COPY_RANGE: u32 = 47;
const SYNC_FILE_SYSTEM: u32 = 50;
/// One more than the last operation there is.
const OPERATIONS: u32 = 54;
/// Names that are there, that may be made, and that are none.
const NAMES: [&[u8]; 12] = [
    b"f\0",
    b"d\0",
    b"link\0",
    b"up\0",
    b"new\0",
    b"\xff\0",
    b"user.a\0",
    b"..\0",
    b".\0",
    b"\0",
    b"../secret\0",
    b"d/f\0",
];

/// Each step is an operation, a node, how many pieces its fields have, and those.
pub fn requests(data: &[u8]) {
    let outside = tempfile::tempdir_in(super::scratch()).expect("the scratch folder is writable");
    let folder = outside.path().join("shared");
    let secret = outside.path().join("secret");
    fs::create_dir_all(folder.join("d")).expect("the scratch folder is writable");
    fs::write(&secret, "secret").expect("the scratch folder is writable");
    fs::write(folder.join("f"), "text of the host").expect("the scratch folder is writable");
    symlink("../secret", folder.join("link")).expect("the scratch folder has links");
    symlink("..", folder.join("up")).expect("the scratch folder has links");
    let mode = |path: &Path| fs::metadata(path).expect("it stays").permissions().mode();
    let before = (mode(outside.path()), mode(&secret));
    let share = Share { folder: folder.clone(), tag: "t".into(), ..Share::default() };
    let session =
        open_all(&[share], outside.path()).expect("it can be shared").remove(0).session().expect("it can be served");
    let mut steps = Steps { rest: data, last: [0; 8] };
    for _ in 0..STEPS_LIMIT {
        let Some((operation, node, fields)) = steps.next() else { break };
        let memory = Memory::new(request(operation, node, 0, &fields), ROOM_BYTES);
        let Some(len) = session.serve(&memory) else { continue };
        let answer = memory.into_answer();
        assert!(len == 0 || answer[..4] == len.to_le_bytes(), "{operation}: {len} bytes");
        if let Some(first) = answer.get(16..24).filter(|_| len >= 24) {
            steps.last.copy_from_slice(first);
        }
    }
    drop(session);
    assert_eq!(fs::read(&secret).expect("it stays"), b"secret");
    assert_eq!((mode(outside.path()), mode(&secret)), before);
    assert_eq!(fs::read_dir(outside.path()).expect("it stays").count(), 2);
    open_up(&folder);
}

struct Steps<'a> {
    rest: &'a [u8],
    /// What the last answer began with: a node or a handle.
    last: [u8; 8],
}

impl Steps<'_> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*first)
    }

    fn next(&mut self) -> Option<(u32, u64, Vec<u8>)> {
        let operation = u32::from(self.byte()?) % OPERATIONS;
        let node = match self.byte()? {
            255 => u64::from_le_bytes(self.last),
            node => u64::from(node % 8),
        };
        let mut fields = Vec::new();
        for _ in 0..self.byte()? % 10 {
            let (kind, value) = (self.byte()?, self.byte()?);
            match kind % 6 {
                0 => fields.extend(u32::from(value).to_le_bytes()),
                1 => fields.extend(u64::from(value).to_le_bytes()),
                2 => fields.extend(NAMES[usize::from(value) % NAMES.len()]),
                3 => fields.extend(self.last),
                4 => fields.extend((1_u32 << (value % 32)).to_le_bytes()),
                _ => fields.extend(vec![value; usize::from(value)]),
            }
        }
        let word =
            |at: usize| fields.get(at..at + 8).map_or(0, |word| u64::from_le_bytes(word.try_into().unwrap_or([0; 8])));
        let is_small = match operation {
            ALLOCATE => word(8).max(word(16)) < 1 << 20,
            COPY_RANGE => word(40) < 1 << 20,
            _ => operation != SYNC_FILE_SYSTEM,
        };
        Some((if is_small { operation } else { 0 }, node, fields))
    }
}

/// A folder that may not be searched could not be removed.
fn open_up(folder: &Path) {
    let _gone = fs::set_permissions(folder, fs::Permissions::from_mode(0o700));
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            open_up(&entry.path());
        }
    }
}
