use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;

use tempfile::TempDir;

use super::*;
use crate::boot::tests::elf_kernel;
use crate::check::check;
use crate::config::{Boot, Firmware, MachineConfig, MemoryOptions, OnHang, OnReset, Told};
use crate::console::OutputThread;
use crate::event::EventThread;
use crate::hands::{Hands, Refusal};
use crate::hv::Entry;
use crate::hv::scripted::{Scripted, Step};

struct Rig {
    folder: TempDir,
    output: OutputThread,
    _events: EventThread,
    host: HostSide,
    config: MachineConfig,
}

impl Rig {
    fn new(cpus: u32) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let kernel = folder.path().join("vmlinux");
        std::fs::write(&kernel, elf_kernel(&[0xF4; 8])).unwrap();
        let file = File::create(folder.path().join("console")).unwrap();
        let (output, sink) = OutputThread::start(OwnedFd::from(file)).unwrap();
        let events = EventThread::start("devices").unwrap();
        let host = HostSide {
            output: sink,
            input: ConsoleInput::new().unwrap(),
            size: None,
            events: events.events(),
            kernels: None,
            opened: Opened::default(),
            started: Started::default(),
        };
        let config = MachineConfig {
            cpus,
            memory_mib: 32,
            memory: MemoryOptions::default(),
            boot: Boot::Linux { kernel, initrd: None, cmdline: "quiet".into() },
            disks: vec![],
            cards: vec![],
            shares: vec![],
            vsock: None,
            told: Told::default(),
            on_reset: OnReset::Stop,
            on_hang: OnHang::default(),
            boot_timeout: None,
            state_dir: folder.path().join("state"),
        };
        Self { folder, output, _events: events, host, config }
    }

    fn run(&self, hypervisor: &Scripted, control: &Control) -> Result<ExitReason, Error> {
        run(hypervisor, &check(&self.config).unwrap(), &self.host, control)
    }

    fn printed(self) -> String {
        self.output.finish().unwrap();
        let mut text = String::new();
        File::open(self.folder.path().join("console")).unwrap().read_to_string(&mut text).unwrap();
        text
    }
}

fn power_off() -> Step {
    Step::PortWrite(0x604, 0x2000u16.to_le_bytes().into())
}

fn reset() -> Step {
    Step::PortWrite(0xCF9, vec![6])
}

fn ending(steps: Vec<Step>) -> Result<ExitReason, Error> {
    Rig::new(1).run(&Scripted::new(vec![steps]), &Control::new())
}

#[test]
fn a_failing_hypervisor_ends_the_run_with_its_reason() {
    assert!(matches!(ending(vec![Step::Fail]), Err(Error::Hypervisor(hv::Error::Stuck { .. }))));
}

#[test]
fn every_way_to_end_has_its_own_reason() {
    assert_eq!(ending(vec![power_off()]).unwrap(), ExitReason::PowerOff);
    assert_eq!(ending(vec![reset()]).unwrap(), ExitReason::Reset);
    assert_eq!(ending(vec![Step::PortWrite(0x64, vec![0xFE])]).unwrap(), ExitReason::Reset);
    assert_eq!(ending(vec![Step::PortWrite(0x505, vec![1])]).unwrap(), ExitReason::Panic);
    assert_eq!(ending(vec![Step::Shutdown]).unwrap(), ExitReason::TripleFault);
}

#[test]
fn the_first_reason_wins_and_all_vcpus_stop() {
    let rig = Rig::new(3);
    let scripts = vec![vec![power_off(), reset(), Step::Shutdown], vec![], vec![]];
    assert_eq!(rig.run(&Scripted::new(scripts), &Control::new()).unwrap(), ExitReason::PowerOff);
}

#[test]
fn a_stop_before_or_during_the_run_is_obeyed() {
    let control = Control::new();
    control.stop();
    assert_eq!(Rig::new(2).run(&Scripted::new(vec![]), &control).unwrap(), ExitReason::Stopped);
    let control = Control::new();
    let stopper = control.clone();
    let rig = Rig::new(2);
    let stopper = std::thread::spawn(move || stopper.stop());
    assert_eq!(rig.run(&Scripted::new(vec![]), &control).unwrap(), ExitReason::Stopped);
    stopper.join().unwrap();
}

#[test]
fn what_nobody_answers_reads_as_ones_and_the_serial_port_prints() {
    let rig = Rig::new(1);
    let mut steps = vec![Step::PortRead(0x80, 1), Step::MemoryRead(0xFED4_0000, 4), Step::PortRead(0xCF8, 4)];
    steps.extend(b"hi\n".iter().map(|byte| Step::PortWrite(0x3F8, vec![*byte])));
    steps.push(power_off());
    let hypervisor = Scripted::new(vec![steps]);
    rig.run(&hypervisor, &Control::new()).unwrap();
    let record = hypervisor.record.lock().unwrap();
    assert_eq!(record.reads, [vec![0xFF], vec![0xFF; 4], vec![0xFF; 4]]);
    assert_eq!(record.entries, [Entry::Protected { address: 0x10_0000, ebx: 0x7000 }]);
    drop(record);
    assert_eq!(rig.printed(), "hi\n");
}

fn printing(text: &str) -> Vec<Step> {
    text.bytes().map(|byte| Step::PortWrite(0x3F8, vec![byte])).collect()
}

#[test]
fn a_kernel_that_panics_and_resets_has_panicked_unless_it_starts_again() {
    let mut steps = printing("[    1.0] Kernel panic - not syncing: no init\r\n");
    steps.push(reset());
    assert_eq!(ending(steps).unwrap(), ExitReason::Panic);
}

#[test]
fn a_watchdog_that_runs_down_ends_the_run_as_it_was_asked_to() {
    // The smallest count, then on.
    let steps = vec![Step::PortWrite(0x672, vec![2, 0]), Step::PortWrite(0x668, vec![0, 0])];
    for (on_hang, expected) in [(OnHang::Stop, ExitReason::Hung), (OnHang::PowerOff, ExitReason::PowerOff)] {
        let mut rig = Rig::new(1);
        (rig.config.on_hang, rig.config.on_reset) = (on_hang, OnReset::Reboot);
        assert_eq!(rig.run(&Scripted::new(vec![steps.clone()]), &Control::new()).unwrap(), expected);
    }
}

#[test]
fn a_paused_machine_stands_still_and_learns_of_it_when_it_goes_on() {
    let control = Control::new();
    assert_eq!(control.pause(), Err(Refusal::NotRunning));
    let rig = Rig::new(2);
    let hypervisor = Scripted::new(vec![vec![Step::PortRead(0x80, 1)]; 2]);
    let (hand, record) = (control.clone(), Arc::clone(&hypervisor.record));
    let user = std::thread::spawn(move || {
        while record.lock().unwrap().reads.len() < 2 {
            std::thread::yield_now();
        }
        let pauses = || record.lock().unwrap().pauses;
        for told in [2, 4] {
            hand.pause().unwrap();
            hand.pause().unwrap();
            assert_eq!(pauses(), told - 2);
            let memory = hand.memory().unwrap();
            assert_eq!((memory.total_bytes, memory.balloon.unwrap().target_bytes), (32 << 20, 0));
            assert!((1..32 << 20).contains(&memory.resident_bytes), "{memory:?}");
            hand.resume().unwrap();
            while pauses() < told {
                std::thread::yield_now();
            }
        }
        // It ends, paused or not.
        hand.pause().unwrap();
        hand.stop();
    });
    assert_eq!(rig.run(&hypervisor, &control).unwrap(), ExitReason::Stopped);
    user.join().unwrap();
    assert_eq!(control.set_balloon(0), Err(Refusal::NotRunning));
}

#[test]
fn a_machine_with_firmware_starts_at_its_reset_and_has_what_firmware_asks() {
    let mut rig = Rig::new(1);
    let at = |name: &str| rig.folder.path().join(name);
    std::fs::write(at("code.fd"), crate::firmware::tests::code()).unwrap();
    std::fs::write(at("vars.fd"), crate::firmware::tests::variables()).unwrap();
    let firmware = Firmware {
        code: at("code.fd"),
        template: Some(at("vars.fd")),
        variables: at("efi-vars.fd"),
        menu_wait_s: None,
        kernel: None,
    };
    rig.config.boot = Boot::Firmware(firmware);
    rig.config.memory_mib = 128;
    rig.host.opened = Opened::open(&rig.config).unwrap();
    let bridge = [Step::PortWrite(0xCF8, vec![0, 0, 0, 0x80]), Step::PortRead(0xCFC, 4)];
    let ecam = [Step::PortWrite(0xCF8, vec![0x60, 0, 0, 0x80]), Step::PortWrite(0xCFC, vec![1, 0, 0, 0xB0])];
    let signature = [Step::PortWrite(0x510, vec![0, 0]), Step::PortRead(0x511, 1), Step::MemoryRead(0xB000_0000, 4)];
    let hypervisor = Scripted::new(vec![[&bridge[..], &ecam, &signature, &[reset()]].concat()]);
    assert_eq!(rig.run(&hypervisor, &Control::new()).unwrap(), ExitReason::Reset);
    let record = hypervisor.record.lock().unwrap();
    assert_eq!(record.entries, [Entry::Reset]);
    assert_eq!(record.shown, [0xFFFF_D000, 0xFFFF_9000]);
    assert_eq!(record.reads, [vec![0x86, 0x80, 0xC0, 0x29], b"Q".to_vec(), vec![0x86, 0x80, 0xC0, 0x29]]);
}
