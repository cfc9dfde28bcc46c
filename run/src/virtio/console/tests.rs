use std::{
    fs::File,
    io::{Read, Write},
};

use rustix::pipe::{PipeFlags, pipe_with};

use super::VirtioConsole;
use crate::{
    console::{Console, ConsoleInput, TerminalSize},
    event::EventThread,
    virtio::{
        mock::{Buffer, DEVICE, Driver, NEXT, Random},
        spec::status,
    },
};

struct Setup {
    driver: Driver,
    console: Console,
    printed: File,
    typed: File,
    size: TerminalSize,
    thread: EventThread,
}

fn setup() -> Setup {
    let (stdin, typed) = pipe_with(PipeFlags::CLOEXEC).unwrap();
    let (printed, stdout) = pipe_with(PipeFlags::CLOEXEC).unwrap();
    let thread = EventThread::start("test").unwrap();
    let mut console = Console::over(stdin, stdout).unwrap();
    console.start(&thread.events()).unwrap();
    let size = TerminalSize::new(80, 25).unwrap();
    let device = VirtioConsole::new(console.sink(), Some(console.input()), Some(size.clone()), thread.events());
    let driver = Driver::find(Box::new(device));
    Setup { driver, console, printed: printed.into(), typed: typed.into(), size, thread }
}

fn read(file: &mut File, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    file.read_exact(&mut bytes).unwrap();
    bytes
}

#[test]
fn what_the_driver_prints_comes_out_in_order() {
    let Setup { mut driver, mut printed, console, thread: _thread, typed: _typed, .. } = setup();
    driver.start();
    driver.request(1, &[Buffer::Out(b"hello, ".to_vec()), Buffer::Out(b"world\n".to_vec())]);
    driver.request(1, &[Buffer::Out(vec![b'x'; 10_000])]);
    assert_eq!(read(&mut printed, 13), b"hello, world\n");
    assert_eq!(read(&mut printed, 10_000), vec![b'x'; 10_000]);
    drop(driver);
    console.finish().unwrap();
}

#[test]
fn output_without_a_doorbell_is_printed_when_the_device_stops() {
    let Setup { mut driver, mut printed, console, thread: _thread, typed: _typed, .. } = setup();
    driver.start();
    driver.put(1, &[Buffer::Out(b"last words".to_vec())]);
    drop(driver);
    console.finish().unwrap();
    let mut all = Vec::new();
    printed.read_to_end(&mut all).unwrap();
    assert_eq!(all, b"last words");
}

#[test]
fn a_slow_reader_holds_the_driver_back_and_loses_nothing() {
    let Setup { mut driver, mut printed, console, thread: _thread, typed: _typed, .. } = setup();
    driver.start();
    // Four of these fill the sink and the pipe; the last one cannot be finished yet.
    let piece: Vec<u8> = (0..60_000_u32).map(|n| u8::try_from(n % 251).unwrap()).collect();
    for _ in 0..5 {
        driver.put(1, &[Buffer::Out(piece.clone())]);
    }
    driver.notify(1);
    let reader = std::thread::spawn(move || {
        let all = read(&mut printed, 300_000);
        (all, printed)
    });
    for _ in 0..5 {
        driver.finished(1);
    }
    let (all, _printed) = reader.join().unwrap();
    assert!(all.chunks(60_000).all(|chunk| chunk == piece));
    drop(driver);
    console.finish().unwrap();
}

#[test]
fn what_is_typed_waits_for_the_driver() {
    let Setup { mut driver, mut typed, printed: _printed, thread: _thread, console: _console, .. } = setup();
    typed.write_all(b"early").unwrap();
    driver.start();
    assert_eq!(driver.request(0, &[Buffer::In(2), Buffer::In(30)]).filled[..5], *b"early");
    driver.put(0, &[Buffer::In(4)]);
    driver.notify(0);
    typed.write_all(b"later").unwrap();
    let first = driver.finished(0);
    assert_eq!((first.written, first.filled), (4, b"late".to_vec()));
    assert_eq!(driver.request(0, &[Buffer::In(64)]).filled[..1], *b"r");
}

#[test]
fn a_new_size_is_told() {
    let Setup { mut driver, size, printed: _printed, thread: _thread, console: _console, .. } = setup();
    driver.start();
    assert_eq!((driver.read_u16(driver.at(DEVICE, 0)), driver.read_u16(driver.at(DEVICE, 2))), (80, 25));
    size.set(132, 43);
    driver.wait(0);
    assert_eq!((driver.read_u16(driver.at(DEVICE, 0)), driver.read_u16(driver.at(DEVICE, 2))), (132, 43));
}

#[test]
fn a_console_without_input_or_size_only_prints() {
    let (printed, stdout) = pipe_with(PipeFlags::CLOEXEC).unwrap();
    let thread = EventThread::start("test").unwrap();
    let (output, sink) = crate::console::OutputThread::start(stdout).unwrap();
    let mut driver = Driver::find(Box::new(VirtioConsole::new(sink, None, None, thread.events())));
    assert_eq!(driver.offered() & 1, 0);
    driver.start();
    driver.put(0, &[Buffer::In(64)]);
    driver.notify(0);
    driver.request(1, &[Buffer::Out(b"out".to_vec())]);
    drop(driver);
    output.finish().unwrap();
    assert_eq!(read(&mut printed.into(), 3), b"out");
}

#[test]
fn hostile_rings_stop_the_console_and_a_reset_brings_it_back() {
    let Setup { mut driver, mut printed, thread: _thread, console: _console, .. } = setup();
    for queue in [0, 1] {
        driver.start();
        let (table, ..) = Driver::ring_addresses(queue);
        driver.describe(table, 0, 0x9_0000, 16, NEXT, 0);
        driver.offer(queue, 0);
        // Whichever side the device looks at first.
        driver.notify(queue);
        if queue == 0 {
            // Nothing was typed, so nothing is asked of that ring.
            assert_eq!(driver.status() & status::DEVICE_NEEDS_RESET, 0);
        } else {
            driver.wait_for_break_down();
        }
        driver.reset();
    }
    driver.start();
    driver.request(1, &[Buffer::Out(b"alive".to_vec())]);
    assert_eq!(read(&mut printed, 5), b"alive");
}

#[test]
fn random_rings_are_survived() {
    let thread = EventThread::start("test").unwrap();
    let (output, sink) = crate::console::OutputThread::start(File::create("/dev/null").unwrap().into()).unwrap();
    let input = ConsoleInput::new().unwrap();
    let mut driver = Driver::find(Box::new(VirtioConsole::new(sink, Some(input), None, thread.events())));
    let mut random = Random::new(5);
    for _ in 0..300 {
        driver.start();
        for queue in [0, 1] {
            let (table, ..) = Driver::ring_addresses(queue);
            for index in 0..16 {
                let (address, len) = (random.next() % 0x11_0000, random.below(0x8000).into());
                let flags = random.below(8);
                driver.describe(table, index, address, len, flags, random.below(17));
            }
            for _ in 0..8 {
                driver.offer(queue, random.below(18));
            }
            driver.notify(queue);
        }
        driver.reset();
    }
    drop(driver);
    output.finish().unwrap();
}
