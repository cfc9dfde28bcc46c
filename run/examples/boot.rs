//! Boots a kernel in the lab: `boot --cpus N --mem MIB --kernel FILE [--initrd FILE] [--cmdline TEXT] [--disk FILE]`.
#![expect(clippy::print_stderr, clippy::unwrap_used, reason = "a stand-in until the command runs machines itself")]

use std::os::fd::AsFd;
use std::path::PathBuf;

use kiln_run::boot::KernelCache;
use kiln_run::config::{Boot, Disk, DiskFormat, MachineConfig, OnReset};
use kiln_run::console::{ConsoleInput, OutputThread};
use kiln_run::event::EventThread;
use kiln_run::machine::{Control, HostSide};

fn main() {
    let mut config = MachineConfig {
        cpus: 1,
        memory_mib: 128,
        boot: Boot::Linux { kernel: PathBuf::new(), initrd: None, cmdline: String::new() },
        disks: vec![],
        on_reset: OnReset::Stop,
        state_dir: "/tmp/state".into(),
    };
    let control = Control::new();
    let mut kernels = None;
    let mut args = std::env::args().skip(1).filter(|arg| arg != "lab-boot");
    while let Some(option) = args.next() {
        let value = args.next().unwrap();
        let Boot::Linux { kernel, initrd, cmdline } = &mut config.boot;
        match option.as_str() {
            "--cpus" => config.cpus = value.parse().unwrap(),
            "--mem" => config.memory_mib = value.parse().unwrap(),
            "--kernel" => *kernel = value.into(),
            "--initrd" => *initrd = Some(value.into()),
            "--cmdline" => *cmdline = value,
            "--cache" => kernels = Some(KernelCache::new(value)),
            "--press-after" => {
                let (control, wait) = (control.clone(), value.parse().unwrap());
                std::thread::spawn(move || {
                    std::thread::sleep(std::time::Duration::from_secs(wait));
                    control.press_power_button();
                });
            }
            "--on-reset" => config.on_reset = if value == "reboot" { OnReset::Reboot } else { OnReset::Stop },
            "--disk" => config.disks.push(Disk {
                path: value.into(),
                size_bytes: Some(64 << 20),
                format: DiskFormat::Raw,
                read_only: false,
            }),
            other => panic!("unknown option {other}"),
        }
    }
    let hypervisor = kiln_run::hv::kvm::probe().unwrap();
    let checked = kiln_run::check::check(&config).unwrap_or_else(|faults| {
        eprintln!("{faults}");
        std::process::exit(1)
    });
    let stdout = std::io::stdout().as_fd().try_clone_to_owned().unwrap();
    let (thread, output) = OutputThread::start(stdout).unwrap();
    let events = EventThread::start("devices").unwrap();
    let input = ConsoleInput::new().unwrap();
    let host = HostSide { output, input, size: None, events: events.events(), kernels };
    let reason = kiln_run::machine::run(&hypervisor, &checked, &host, &control);
    thread.finish().unwrap();
    eprintln!("EXIT {reason:?}");
}
