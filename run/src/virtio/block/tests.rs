use std::{
    fs::File,
    io::{self, Read},
    os::unix::fs::{FileExt, MetadataExt},
    sync::{Arc, Condvar, Mutex},
};

use vm_memory::{Bytes, GuestAddress};

use super::{
    BlockOptions, VirtioBlock,
    spec::{feature, kind},
};
use crate::{
    block::{BlockBackend, HostFile, Place, RawDisk, Request},
    mem::GuestMemory,
    virtio::{
        mock::{Buffer, DEVICE, Driver, INDIRECT, NEXT, QUEUE_SIZE, Random, Used, WRITE},
        spec::status,
    },
};

const DISK_BYTES: u64 = 4 << 20;
const OK: u8 = 0;
const IO_ERROR: u8 = 1;
const UNSUPPORTED: u8 = 2;

fn disk(read_only: bool) -> (Driver, File) {
    let file = tempfile::tempfile().unwrap();
    file.write_all_at(&pattern(1 << 20), 0).unwrap();
    file.set_len(DISK_BYTES).unwrap();
    let backend = RawDisk::new(HostFile::cached(file.try_clone().unwrap()), read_only, true).unwrap();
    (driver_of(Arc::new(backend), 1), file)
}

fn driver_of(backend: Arc<dyn BlockBackend>, queues: u16) -> Driver {
    let options = BlockOptions { serial: "serial-number", thread_name: "disk-test", queues, is_write_through: false };
    Driver::find(Box::new(VirtioBlock::new(backend, options)))
}

fn started() -> (Driver, File) {
    let (mut driver, file) = disk(false);
    driver.start();
    (driver, file)
}

fn pattern(len: usize) -> Vec<u8> {
    let mut random = Random::new(7);
    (0..len.div_ceil(8)).flat_map(|_| random.next().to_le_bytes()).take(len).collect()
}

fn header(kind: u32, sector: u64) -> Buffer {
    let mut bytes = kind.to_le_bytes().to_vec();
    bytes.extend([0; 4]);
    bytes.extend(sector.to_le_bytes());
    Buffer::Out(bytes)
}

fn range(sector: u64, sectors: u32, flags: u32) -> Vec<u8> {
    [sector.to_le_bytes().as_slice(), &sectors.to_le_bytes(), &flags.to_le_bytes()].concat()
}

/// Does one request; returns its status and what it read.
fn ask(driver: &mut Driver, kind: u32, sector: u64, out: &[u8], into: u32) -> (u8, Vec<u8>) {
    let mut buffers = vec![header(kind, sector)];
    if !out.is_empty() {
        buffers.push(Buffer::Out(out.to_vec()));
    }
    if into > 0 {
        buffers.push(Buffer::In(into));
    }
    buffers.push(Buffer::In(1));
    let mut filled = driver.request(0, &buffers).filled;
    let status = filled.pop().unwrap();
    (status, filled)
}

#[test]
fn sectors_past_the_end_are_refused_and_touch_nothing() {
    let (mut driver, file) = started();
    let end = DISK_BYTES / 512;
    for (sector, sectors) in [(end, 1_u32), (end - 1, 2), (u64::MAX, 1), (u64::MAX / 512, 1), (1 << 55, 8)] {
        let len = sectors * 512;
        assert_eq!(ask(&mut driver, kind::IN, sector, &[], len).0, IO_ERROR, "{sector}");
        assert_eq!(ask(&mut driver, kind::OUT, sector, &vec![1; len as usize], 0).0, IO_ERROR);
        for kind in [kind::DISCARD, kind::WRITE_ZEROES] {
            assert_eq!(ask(&mut driver, kind, 0, &range(sector, sectors, 0), 0).0, IO_ERROR);
        }
    }
    assert_eq!(file.metadata().unwrap().len(), DISK_BYTES);
}

#[test]
fn parts_of_sectors_and_unknown_requests_are_refused() {
    let (mut driver, _) = started();
    for len in [1, 511, 513] {
        assert_eq!(ask(&mut driver, kind::IN, 0, &[], len).0, IO_ERROR);
        assert_eq!(ask(&mut driver, kind::OUT, 0, &vec![1; len as usize], 0).0, IO_ERROR);
    }
    for kind in [2, 3, 5, 12, 14, u32::MAX] {
        assert_eq!(ask(&mut driver, kind, 0, &[0; 512], 512).0, UNSUPPORTED, "{kind}");
    }
    for bad in [vec![], vec![0; 15], vec![0; 17], range(0, u32::MAX, 0), range(0, 8, 0).repeat(33)] {
        assert_eq!(ask(&mut driver, kind::DISCARD, 0, &bad, 0).0, IO_ERROR);
    }
    assert_eq!(ask(&mut driver, kind::DISCARD, 0, &range(0, 8, 1), 0).0, UNSUPPORTED, "unmap means nothing here");
    assert_eq!(ask(&mut driver, kind::WRITE_ZEROES, 0, &range(0, 8, 2), 0).0, UNSUPPORTED);
}

#[test]
fn what_is_written_is_read_back() {
    let (mut driver, file) = started();
    assert_eq!(ask(&mut driver, kind::IN, 3, &[], 1024), (OK, pattern(1 << 20)[3 * 512..5 * 512].to_vec()));
    let bytes = pattern(8192);
    assert_eq!(ask(&mut driver, kind::OUT, 4096, &bytes, 0).0, OK);
    assert_eq!(ask(&mut driver, kind::FLUSH, 0, &[], 0).0, OK);
    assert_eq!(ask(&mut driver, kind::IN, 4096, &[], 8192), (OK, bytes.clone()));
    let mut on_disk = vec![0; 8192];
    file.read_exact_at(&mut on_disk, 4096 * 512).unwrap();
    assert_eq!(on_disk, bytes);
}

#[test]
fn a_request_may_be_cut_anywhere() {
    let (mut driver, _) = started();
    let Buffer::Out(head) = header(kind::IN, 1) else { panic!() };
    let buffers = [
        Buffer::Out(head[..3].to_vec()),
        Buffer::Out(head[3..9].to_vec()),
        Buffer::Out(head[9..].to_vec()),
        Buffer::In(500),
        Buffer::In(12),
        Buffer::In(511),
        // The last byte of data shares a buffer with the status.
        Buffer::In(2),
    ];
    let Used { written, filled } = driver.request(0, &buffers);
    assert_eq!(written, 1025);
    assert_eq!(filled[..1024], pattern(1 << 20)[512..1536]);
    assert_eq!(filled[1024], OK);
}

#[test]
fn a_read_only_disk_refuses_every_change() {
    let (mut driver, file) = disk(true);
    let offered = driver.offered();
    assert_ne!(offered & feature::RO, 0);
    assert_eq!(offered & (feature::DISCARD | feature::WRITE_ZEROES), 0);
    driver.start();
    assert_eq!(ask(&mut driver, kind::OUT, 0, &[9; 512], 0).0, IO_ERROR);
    assert_eq!(ask(&mut driver, kind::DISCARD, 0, &range(0, 8, 0), 0).0, IO_ERROR);
    assert_eq!(ask(&mut driver, kind::WRITE_ZEROES, 0, &range(0, 8, 0), 0).0, IO_ERROR);
    assert_eq!(ask(&mut driver, kind::FLUSH, 0, &[], 0).0, OK);
    let mut on_disk = vec![0; 1 << 20];
    file.read_exact_at(&mut on_disk, 0).unwrap();
    assert_eq!(on_disk, pattern(1 << 20));
}

#[test]
fn a_discard_gives_room_back_and_zeroes_are_zeros() {
    let (mut driver, file) = started();
    let blocks = file.metadata().unwrap().blocks();
    let two = [range(0, 512, 0), range(512, 512, 0)].concat();
    assert_eq!(ask(&mut driver, kind::DISCARD, 0, &two, 0).0, OK);
    let punched = file.metadata().unwrap().blocks();
    assert!(punched + 1000 <= blocks, "{punched} of {blocks} blocks are left");
    for (sector, flags) in [(1024, 0), (1536, 1)] {
        assert_eq!(ask(&mut driver, kind::WRITE_ZEROES, 0, &range(sector, 256, flags), 0).0, OK);
        assert_eq!(ask(&mut driver, kind::IN, sector, &[], 256 * 512), (OK, vec![0; 256 * 512]));
    }
    let mut rest = vec![0; 128 * 512];
    file.read_exact_at(&mut rest, 1280 * 512).unwrap();
    assert_eq!(rest, pattern(1 << 20)[1280 * 512..1408 * 512]);
}

#[test]
fn the_serial_and_the_geometry_are_told() {
    let (mut driver, _) = started();
    assert_eq!(ask(&mut driver, kind::GET_ID, 0, &[], 20), (OK, b"serial-number\0\0\0\0\0\0\0".to_vec()));
    assert_eq!(ask(&mut driver, kind::GET_ID, 0, &[], 6), (OK, b"serial".to_vec()));
    assert_eq!(driver.read_u64(driver.at(DEVICE, 0)), DISK_BYTES / 512);
    assert_eq!(driver.read_u32(driver.at(DEVICE, 12)), 254);
    assert_eq!(driver.read_u32(driver.at(DEVICE, 20)), 512);
    assert_eq!(driver.read_u32(driver.at(DEVICE, 0xff0)), 0);
}

#[test]
fn many_requests_at_once_all_end_with_their_own_bytes() {
    let (mut driver, _) = started();
    for _ in 0..50 {
        for sector in 0..5 {
            driver.put(0, &[header(kind::IN, sector), Buffer::In(512), Buffer::In(1)]);
        }
        driver.notify(0);
        for sector in 0..5 {
            let mut filled = driver.finished(0).filled;
            assert_eq!(filled.pop(), Some(OK));
            assert_eq!(filled, pattern(1 << 20)[sector * 512..(sector + 1) * 512]);
        }
    }
}

#[test]
fn a_disk_works_after_a_reset_and_without_optional_features() {
    let (mut driver, file) = started();
    assert_eq!(ask(&mut driver, kind::OUT, 0, &[1; 512], 0).0, OK);
    driver.reset();
    driver.start_with(0);
    assert_eq!(ask(&mut driver, kind::OUT, 1, &[2; 512], 0).0, OK);
    let mut two = [0; 1024];
    file.read_exact_at(&mut two, 0).unwrap();
    assert_eq!(two, [[1; 512], [2; 512]].concat()[..]);
}

#[test]
fn an_indirect_table_is_followed_once() {
    let (mut driver, _) = started();
    let (table, ..) = Driver::ring_addresses(0);
    let (inner, head, data, done) = (0x8_0000, 0x8_1000, 0x8_2000, 0x8_3000);
    let Buffer::Out(bytes) = header(kind::IN, 2) else { panic!() };
    driver.memory.write_slice(&bytes, GuestAddress(head)).unwrap();
    driver.memory.write_slice(&[0xff], GuestAddress(done)).unwrap();
    driver.describe(inner, 0, head, 16, NEXT, 1);
    driver.describe(inner, 1, data, 512, NEXT | WRITE, 2);
    driver.describe(inner, 2, done, 1, WRITE, 0);
    driver.describe(table, 0, inner, 48, INDIRECT, 0);
    driver.offer(0, 0);
    driver.notify(0);
    driver.wait(1);
    assert_eq!(driver.memory.read_obj::<u8>(GuestAddress(done)).unwrap(), OK);
    let mut read = [0; 512];
    driver.memory.read_slice(&mut read, GuestAddress(data)).unwrap();
    assert_eq!(read, pattern(1 << 20)[1024..1536]);
}

/// Where a table of descriptors may be put.
const INNER: u64 = 0x8_0000;

/// A driver's malice: writes descriptors and says which chain to offer.
type Malice = fn(&Driver, u64) -> u16;

const MALICE: [(&str, Malice); 13] = [
    ("loops", |d, t| {
        d.describe(t, 0, 0x9_0000, 16, NEXT, 1);
        d.describe(t, 1, 0x9_0000, 16, NEXT, 0);
        0
    }),
    ("points to itself", |d, t| {
        d.describe(t, 0, 0x9_0000, 16, NEXT, 0);
        0
    }),
    ("leaves the table", |d, t| {
        d.describe(t, 0, 0x9_0000, 16, NEXT, QUEUE_SIZE);
        0
    }),
    ("begins outside the table", |_, _| u16::MAX),
    ("wild address", |d, t| {
        d.describe(t, 0, u64::MAX - 4, 16, 0, 0);
        0
    }),
    ("past memory", |d, t| {
        d.describe(t, 0, 0x9_0000, u32::MAX, 0, 0);
        0
    }),
    ("readable after writable", |d, t| {
        d.describe(t, 0, 0x9_0000, 16, NEXT | WRITE, 1);
        d.describe(t, 1, 0x9_0000, 16, 0, 0);
        0
    }),
    ("no header", |d, t| {
        d.describe(t, 0, 0x9_0000, 15, NEXT, 1);
        d.describe(t, 1, 0x9_0000, 16, WRITE, 0);
        0
    }),
    ("no status", |d, t| {
        d.describe(t, 0, 0x9_0000, 4096, 0, 0);
        0
    }),
    ("all empty", |d, t| {
        d.describe(t, 0, 0x9_0000, 0, NEXT, 1);
        d.describe(t, 1, 0x9_0000, 0, WRITE, 0);
        0
    }),
    ("indirect in indirect", |d, t| {
        d.describe(INNER, 0, INNER, 16, INDIRECT, 0);
        d.describe(t, 0, INNER, 16, INDIRECT, 0);
        0
    }),
    ("a table of odd length", |d, t| {
        d.describe(t, 0, INNER, 17, INDIRECT, 0);
        0
    }),
    ("a huge table that is not there", |d, t| {
        d.describe(t, 0, 0xF_FFF8, !15, INDIRECT, 0);
        0
    }),
];

#[test]
fn a_hostile_ring_stops_the_disk_and_a_reset_brings_it_back() {
    let (mut driver, _) = disk(false);
    for (name, malice) in MALICE {
        driver.start();
        let (table, ..) = Driver::ring_addresses(0);
        let head = malice(&driver, table);
        driver.offer(0, head);
        driver.notify(0);
        driver.wait_for_break_down();
        driver.notify(0);
        driver.reset();
        driver.start();
        assert_eq!(ask(&mut driver, kind::IN, 0, &[], 512).0, OK, "after: {name}");
        driver.reset();
    }
}

#[test]
fn an_available_index_that_runs_ahead_stops_the_disk() {
    let (driver, _) = started();
    let (_, avail, _) = Driver::ring_addresses(0);
    driver.memory.write_obj((QUEUE_SIZE + 1).to_le(), GuestAddress(avail + 2)).unwrap();
    driver.notify(0);
    driver.wait_for_break_down();
}

#[test]
fn random_rings_are_survived() {
    let (mut driver, _) = disk(false);
    let mut random = Random::new(3);
    for _ in 0..300 {
        driver.start();
        let (table, ..) = Driver::ring_addresses(0);
        for index in 0..QUEUE_SIZE {
            let address = 0x8_0000 + random.next() % 0x9_0000;
            let (len, flags, next) = (random.below(0x4000), random.below(8), random.below(18));
            driver.describe(table, index, address, len.into(), flags, next);
        }
        // Some of it looks like requests.
        let Buffer::Out(header) = header(random.below(14).into(), random.below(0x2100).into()) else { panic!() };
        for at in (0x8_0000..0xF_0000).step_by(16) {
            driver.memory.write_slice(&header, GuestAddress(at)).unwrap();
        }
        for _ in 0..8 {
            driver.offer(0, random.below(20));
        }
        driver.notify(0);
        driver.reset();
    }
    driver.start();
    assert_eq!(ask(&mut driver, kind::FLUSH, 0, &[], 0).0, OK);
}

/// A disk whose medium fails.
struct Failing;

impl BlockBackend for Failing {
    fn len_bytes(&self) -> u64 {
        1 << 40
    }

    fn is_read_only(&self) -> bool {
        false
    }

    fn execute(&self, _memory: &GuestMemory, request: Request<'_>) -> io::Result<()> {
        match request {
            Request::Discard { .. } => Err(io::ErrorKind::Unsupported.into()),
            _ => Err(io::ErrorKind::StorageFull.into()),
        }
    }

    fn place(&self, _request: Request<'_>) -> Option<Place> {
        None
    }
}

#[test]
fn errors_of_the_medium_reach_the_driver() {
    let mut driver = driver_of(Arc::new(Failing), 1);
    driver.start();
    assert_eq!(ask(&mut driver, kind::IN, 0, &[], 512).0, IO_ERROR);
    assert_eq!(ask(&mut driver, kind::OUT, 0, &[0; 512], 0).0, IO_ERROR);
    assert_eq!(ask(&mut driver, kind::FLUSH, 0, &[], 0).0, IO_ERROR);
    assert_eq!(ask(&mut driver, kind::DISCARD, 0, &range(0, 8, 0), 0).0, UNSUPPORTED);
    assert_eq!(driver.status() & status::DEVICE_NEEDS_RESET, 0);
}

#[test]
fn a_file_that_shrank_is_an_error_and_not_the_end() {
    let (mut driver, mut file) = started();
    file.set_len(512).unwrap();
    assert_eq!(ask(&mut driver, kind::IN, 8, &[], 512).0, IO_ERROR);
    assert_eq!(ask(&mut driver, kind::IN, 0, &[], 512).0, OK);
    file.read_to_end(&mut Vec::new()).unwrap();
}

/// A disk on which a read ends only when another one has begun.
#[derive(Default)]
struct Slow {
    begun: Mutex<u32>,
    changed: Condvar,
}

impl BlockBackend for Slow {
    fn len_bytes(&self) -> u64 {
        DISK_BYTES
    }

    fn is_read_only(&self) -> bool {
        true
    }

    fn execute(&self, _memory: &GuestMemory, _request: Request<'_>) -> io::Result<()> {
        let mut begun = self.begun.lock().unwrap();
        *begun += 1;
        self.changed.notify_all();
        while *begun < 2 {
            begun = self.changed.wait(begun).unwrap();
        }
        Ok(())
    }

    fn place(&self, _request: Request<'_>) -> Option<Place> {
        None
    }
}

#[test]
fn requests_of_one_queue_do_not_wait_for_each_other() {
    let mut driver = driver_of(Arc::new(Slow::default()), 1);
    driver.start();
    for sector in 0..2 {
        driver.put(0, &[header(kind::IN, sector), Buffer::In(512), Buffer::In(1)]);
    }
    driver.notify(0);
    for _ in 0..2 {
        assert_eq!(driver.finished(0).filled.pop(), Some(OK));
    }
}

/// A disk that knows which thread did what.
struct Watched(RawDisk, Mutex<Vec<Option<String>>>);

impl BlockBackend for Watched {
    fn len_bytes(&self) -> u64 {
        self.0.len_bytes()
    }

    fn is_read_only(&self) -> bool {
        false
    }

    fn execute(&self, memory: &GuestMemory, request: Request<'_>) -> io::Result<()> {
        self.1.lock().unwrap().push(std::thread::current().name().map(str::to_owned));
        self.0.execute(memory, request)
    }

    fn place(&self, request: Request<'_>) -> Option<Place> {
        self.0.place(request)
    }
}

#[test]
fn what_lies_in_memory_is_handed_to_nobody() {
    let file = File::from(rustix::fs::memfd_create("disk", rustix::fs::MemfdFlags::CLOEXEC).unwrap());
    file.set_len(DISK_BYTES).unwrap();
    let disk = RawDisk::new(HostFile::cached(file), false, true).unwrap();
    let disk = Arc::new(Watched(disk, Mutex::default()));
    let mut driver = driver_of(Arc::clone(&disk) as Arc<dyn BlockBackend>, 1);
    driver.start();
    for sector in 0..4 {
        driver.put(0, &[header(kind::IN, sector), Buffer::In(512), Buffer::In(1)]);
    }
    driver.notify(0);
    for _ in 0..4 {
        assert_eq!(driver.finished(0).filled.pop(), Some(OK));
    }
    assert_eq!(*disk.1.lock().unwrap(), vec![Some("disk-test".to_owned()); 4]);
}

#[test]
fn each_queue_is_served_by_itself() {
    let mut driver = driver_of(Arc::new(Slow::default()), 3);
    assert_ne!(driver.offered() & feature::MQ, 0);
    assert_eq!(driver.read_u16(driver.at(DEVICE, 34)), 3);
    driver.start();
    for queue in [0, 2] {
        driver.put(queue, &[header(kind::IN, 0), Buffer::In(512), Buffer::In(1)]);
        driver.notify(queue);
    }
    for queue in [2, 0] {
        assert_eq!(driver.finished(queue).filled.pop(), Some(OK));
    }
}

#[test]
fn a_disk_that_writes_through_offers_no_flush() {
    let file = tempfile::tempfile().unwrap();
    file.set_len(DISK_BYTES).unwrap();
    let backend = Arc::new(RawDisk::new(HostFile::cached(file), false, true).unwrap());
    let options = BlockOptions { serial: "", thread_name: "disk-test", queues: 1, is_write_through: true };
    let mut driver = Driver::find(Box::new(VirtioBlock::new(backend, options)));
    assert_eq!(driver.offered() & feature::FLUSH, 0);
    driver.start();
    assert_eq!(ask(&mut driver, kind::OUT, 0, &[1; 512], 0).0, OK);
}
