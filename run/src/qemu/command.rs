//! The machine description as QEMU's words. Pure.

use std::ffi::OsString;
use std::os::fd::RawFd;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::vhost_user::Served;
use crate::cards::OpenCard;
use crate::config::{Boot, Disk, DiskCache, DiskFormat, Firmware, MachineConfig, Pages, Told};
use crate::disks::ChainError;
use crate::disks::chain::{self, Below};
use crate::firmware::{FirmwareError, IGNITION_FILE, Image};
use crate::smbios::{MAKER, PRODUCT, Uuid};
use crate::virtio::block::MAX_QUEUES;

/// Inherited file descriptors, by their numbers in QEMU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Descriptors {
    /// Socket of the control protocol.
    pub qmp: RawFd,
    /// Socket of the first serial port.
    pub serial: RawFd,
    /// Socket of the virtio console.
    pub virtio_console: RawFd,
    /// Pipe that QEMU logs processor resets to.
    pub log: RawFd,
    /// File with the ACPI table that tells of the watchdog.
    pub watchdog_table: RawFd,
    /// Sockets of the network cards' cables, in the order of the cards.
    pub cables: Vec<RawFd>,
    /// Sockets of the devices that we serve, in their order.
    pub devices: Vec<RawFd>,
    /// Of each disk the file that has what the guest writes, if that is thrown away: numbers in this process.
    pub overlays: Vec<Option<RawFd>>,
}

/// A disk that QEMU cannot be told of.
#[derive(Debug, thiserror::Error)]
pub enum DiskWords {
    /// A path that cannot be written into QEMU's JSON.
    #[error("the name of disk `{}` is not UTF-8, which QEMU insists on", .0.display())]
    NotUtf8(PathBuf),
    /// Firmware that cannot be read any more.
    #[error(transparent)]
    Firmware(#[from] FirmwareError),
    /// An image whose files below are not known.
    #[error(transparent)]
    Chain(#[from] ChainError),
}

/// The arguments of `qemu-system-*` for this machine.
pub(super) fn arguments(
    config: &MachineConfig,
    cards: &[OpenCard],
    served: &[Served],
    fds: &Descriptors,
) -> Result<Vec<OsString>, DiskWords> {
    let mut words: Vec<OsString> = Vec::new();
    let mut add = |line: &[&str]| words.extend(line.iter().map(OsString::from));
    add(&["-nodefaults", "-no-user-config", "-display", "none", "-cpu", "max"]);
    let (flash, needed) = flash(config)?;
    for (flag, word) in needed.iter().chain(&told(config)?) {
        add(&[flag, word]);
    }
    let memory = format!("{}M", config.memory_mib);
    let reserved = config.memory.pages == Pages::Reserved;
    if served.is_empty() && !reserved {
        add(&["-machine", &format!("q35,accel=tcg{flash}")]);
    } else {
        // What we serve, we serve in memory that both have.
        let share = if served.is_empty() { "off" } else { "on" };
        let pages = if reserved { ",hugetlb=on,prealloc=on" } else { "" };
        add(&["-machine", &format!("q35,accel=tcg{flash},memory-backend=memory")]);
        add(&["-object", &format!("memory-backend-memfd,id=memory,size={memory},share={share}{pages}")]);
    }
    // A reset is always an end here: the caller tells it from a triple fault and starts anew if that is wished. What a
    // hang does is the caller's business too.
    add(&["-action", "reboot=shutdown,shutdown=poweroff,panic=shutdown,watchdog=none"]);
    // The chipset has a watchdog, which its strap keeps from doing anything, and of which no table tells.
    add(&["-global", "ICH9-LPC.noreboot=off", "-acpitable", &format!("file=/dev/fd/{}", fds.watchdog_table)]);
    add(&["-smp", &config.cpus.to_string(), "-m", &memory]);
    for (name, fd) in [("qmp", fds.qmp), ("serial", fds.serial), ("hvc", fds.virtio_console)] {
        add(&["-chardev", &format!("socket,id={name},fd={fd}")]);
    }
    add(&["-mon", "chardev=qmp,mode=control", "-serial", "chardev:serial"]);
    add(&["-device", "virtio-serial-pci,disable-legacy=on", "-device", "virtconsole,chardev=hvc"]);
    add(&["-device", "virtio-rng-pci,disable-legacy=on", "-device", "pvpanic"]);
    if config.memory.has_balloon() {
        add(&["-device", "virtio-balloon-pci,free-page-reporting=on,deflate-on-oom=on,disable-legacy=on"]);
    }
    add(&["-d", "cpu_reset", "-D", &format!("/dev/fd/{}", fds.log)]);
    for (at, (card, fd)) in cards.iter().zip(&fds.cables).enumerate() {
        let (name, OpenCard { mac, mtu, .. }) = (cable_name(at), card);
        add(&["-netdev", &format!("stream,id={name},server=off,addr.type=fd,addr.str={fd}")]);
        // No ROM: nothing is booted from the network.
        let card = format!("virtio-net-pci,netdev={name},mac={mac},host_mtu={mtu},romfile=,disable-legacy=on");
        add(&["-device", &card]);
    }
    for (at, (served, fd)) in served.iter().zip(&fds.devices).enumerate() {
        add(&["-chardev", &format!("socket,id=device{at},fd={fd}")]);
        add(&["-device", &format!("{},chardev=device{at}", served.device_word)]);
    }
    for (flag, word) in &disks(config, fds)? {
        add(&[flag, word]);
    }
    let (kernel, initrd, cmdline) = match &config.boot {
        Boot::Linux { kernel, initrd, cmdline } => (kernel, initrd, cmdline),
        Boot::Firmware(Firmware { kernel: Some(kernel), .. }) => (&kernel.image, &kernel.initrd, &kernel.cmdline),
        Boot::Firmware(_) => return Ok(words),
    };
    let mut add_path = |flag: &str, path: &Path| words.extend([flag.into(), path.as_os_str().to_owned()]);
    add_path("-kernel", kernel);
    if let Some(initrd) = initrd {
        add_path("-initrd", initrd);
    }
    // On a busy host the software CPU's timer is late, and a kernel that counts its ticks at boot takes the IO-APIC to be
    // broken and panics. Linux itself leaves this check out under the hypervisors that it knows.
    words.extend(["-append".into(), format!("{cmdline} no_timer_check").into()]);
    Ok(words)
}

/// Flags and what follows each.
type Words = Vec<(&'static str, String)>;

fn disks(config: &MachineConfig, fds: &Descriptors) -> Result<Words, DiskWords> {
    let mut words = vec![];
    for (at, disk) in config.disks.iter().enumerate() {
        let name = format!("disk{at}");
        let overlay = fds.overlays.get(at).copied().flatten();
        words.push(("-blockdev", blockdev(&name, disk, overlay)?));
        let write_cache = if disk.cache == DiskCache::Writethrough { "off" } else { "on" };
        let queues = config.cpus.min(MAX_QUEUES.into());
        let place = if matches!(config.boot, Boot::Firmware(_)) { format!(",bootindex={at}") } else { String::new() };
        let device = format!(
            "virtio-blk-pci,drive={name},serial={name},num-queues={queues},write-cache={write_cache}{place},disable-legacy=on"
        );
        words.push(("-device", device));
    }
    Ok(words)
}

/// What the machine's own words say of flash, and what these need.
fn flash(config: &MachineConfig) -> Result<(&'static str, Words), DiskWords> {
    let Boot::Firmware(firmware) = &config.boot else { return Ok(("", vec![])) };
    let mut words: Words = flash_nodes(firmware)?.map(|node| ("-blockdev", node)).into();
    if let Some(seconds) = firmware.menu_wait_s {
        words.push(("-boot", format!("menu=on,splash-time={}", u32::from(seconds) * 1000)));
    }
    Ok((",pflash0=code,pflash1=variables", words))
}

/// What the guest is told by tables, as QEMU says it.
fn told(config: &MachineConfig) -> Result<Words, DiskWords> {
    let uuid = Uuid::of(&config.state_dir);
    let mut words = vec![
        ("-smbios", format!("type=1,manufacturer={MAKER},product={PRODUCT},uuid={uuid}")),
        ("-smbios", format!("type=2,manufacturer={MAKER},product={PRODUCT}")),
        ("-smbios", format!("type=3,manufacturer={MAKER}")),
    ];
    let Told { oem_strings, ignition } = &config.told;
    // A comma ends a value unless it is doubled.
    words.extend(oem_strings.iter().map(|text| ("-smbios", format!("type=11,value={}", text.replace(',', ",,")))));
    if let Some(path) = ignition {
        let path = text(path)?.replace(',', ",,");
        words.push(("-fw_cfg", format!("name={IGNITION_FILE},file={path}")));
    }
    Ok(words)
}

/// The two flash chips of a machine with firmware: what runs, and the variables.
fn flash_nodes(firmware: &Firmware) -> Result<[String; 2], DiskWords> {
    let code = json!({ "driver": "file", "filename": text(&firmware.code)?, "read-only": true });
    let mut code = json!({ "driver": "raw", "node-name": "code", "read-only": true, "file": code });
    if firmware.template.is_none() {
        // Its first variables are in front.
        let image = Image::read(firmware)?;
        code["offset"] = image.code_offset.into();
        code["size"] = image.code.len().into();
    }
    let variables = json!({ "driver": "file", "filename": text(&firmware.variables)?, "locking": "off" });
    let variables = json!({ "driver": "raw", "node-name": "variables", "file": variables });
    Ok([code, variables].map(|node| node.to_string()))
}

/// What the end of a card's cable is called.
pub(super) fn cable_name(card: usize) -> String {
    format!("net{card}")
}

/// A disk with everything below it, so that QEMU follows no name that an image has.
fn blockdev(name: &str, disk: &Disk, overlay: Option<RawFd>) -> Result<String, DiskWords> {
    let cache = json!({ "direct": disk.cache == DiskCache::None, "no-flush": disk.cache == DiskCache::Unsafe });
    let is_read_only = disk.keeps_file();
    let file = json!({
        "driver": "file", "filename": text(&disk.path)?, "discard": "unmap", "read-only": is_read_only, "cache": cache,
    });
    let mut node = json!({
        "driver": disk.layout().name(), "discard": "unmap", "read-only": is_read_only, "file": file, "cache": cache,
    });
    if disk.layout() == DiskFormat::Qcow2 {
        let (_, files) = chain::of(disk)?;
        node["backing"] = below(&files)?;
    }
    if let Some(fd) = overlay {
        let file = format!("/proc/{}/fd/{fd}", std::process::id());
        let cache = json!({ "no-flush": true });
        // No lock: nobody else can open it.
        let file = json!({ "driver": "file", "filename": file, "discard": "unmap", "locking": "off", "cache": cache });
        node = json!({ "driver": "qcow2", "discard": "unmap", "file": file, "backing": node, "cache": cache });
    }
    node["node-name"] = name.into();
    Ok(node.to_string())
}

/// The files below an image, the nearest first.
fn below(files: &[Below]) -> Result<Value, DiskWords> {
    let mut node = Value::Null;
    for Below { path, format } in files.iter().rev() {
        let file = json!({ "driver": "file", "filename": text(path)?, "read-only": true });
        let upper = json!({ "driver": format.name(), "read-only": true, "file": file });
        let lower = std::mem::replace(&mut node, upper);
        if *format == DiskFormat::Qcow2 {
            node["backing"] = lower;
        }
    }
    Ok(node)
}

fn text(path: &Path) -> Result<&str, DiskWords> {
    path.to_str().ok_or_else(|| DiskWords::NotUtf8(path.into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use kiln_net::wire::Mac;
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    use crate::cards::open_all;
    use crate::config::{CableEnd, Card, MemoryOptions, OnHang, OnReset};

    fn fds() -> Descriptors {
        Descriptors {
            qmp: 10,
            serial: 11,
            virtio_console: 12,
            log: 13,
            watchdog_table: 16,
            cables: vec![14],
            devices: vec![15],
            overlays: vec![],
        }
    }

    fn machine(disks: Vec<Disk>) -> MachineConfig {
        MachineConfig {
            cpus: 3,
            memory_mib: 5120,
            memory: MemoryOptions::default(),
            boot: Boot::Linux { kernel: "k,x".into(), initrd: Some("i".into()), cmdline: "console=ttyS0 a,b".into() },
            disks,
            cards: vec![],
            shares: vec![],
            vsock: None,
            told: Told { oem_strings: vec!["a,b".into()], ignition: Some("i,g".into()) },
            on_reset: OnReset::Reboot,
            on_hang: OnHang::default(),
            boot_timeout: None,
            state_dir: "s".into(),
        }
    }

    fn disk(path: PathBuf) -> Disk {
        Disk { read_only: true, ..Disk::of(path) }
    }

    #[test]
    fn a_disk_whose_name_is_no_text_is_refused_by_name() {
        let config = machine(vec![disk(OsStr::from_bytes(b"a\xff").into())]);
        assert!(arguments(&config, &[], &[], &fds()).is_err());
    }

    #[test]
    fn reserved_pages_take_the_balloon_s_place() {
        let mut config = machine(vec![]);
        config.memory.pages = Pages::Reserved;
        let words: Vec<_> = arguments(&config, &[], &[], &fds()).unwrap();
        let text: Vec<_> = words.iter().filter_map(|word| word.to_str()).collect();
        assert!(text.contains(&"memory-backend-memfd,id=memory,size=5120M,share=off,hugetlb=on,prealloc=on"));
        assert!(!text.iter().any(|word| word.starts_with("virtio-balloon")));
    }

    #[test]
    fn qemu_follows_no_name_in_an_image() {
        let plain = |disk: &Disk, overlay| -> Value {
            serde_json::from_str(&blockdev("disk0", disk, overlay).unwrap()).unwrap()
        };
        let folder = tempfile::tempdir().unwrap();
        let image = Disk { size_bytes: Some(1 << 20), ephemeral: true, ..Disk::of(folder.path().join("a.qcow2")) };
        drop(crate::disks::open_all(std::slice::from_ref(&image), folder.path()).unwrap());
        let node = plain(&image, None);
        assert_eq!(
            (&node["driver"], &node["backing"], &node["read-only"]),
            (&json!("qcow2"), &Value::Null, &json!(true))
        );
        assert!(node.as_object().unwrap().contains_key("backing"));
        let node = plain(&image, Some(7));
        assert_eq!(node["file"]["filename"], format!("/proc/{}/fd/7", std::process::id()));
        assert_eq!(node["backing"]["driver"], "qcow2");
        let files = [
            Below { path: "m".into(), format: DiskFormat::Qcow2 },
            Below { path: "b".into(), format: DiskFormat::Raw },
        ];
        let node = below(&files).unwrap();
        assert_eq!((&node["file"]["filename"], &node["backing"]["file"]["filename"]), (&json!("m"), &json!("b")));
        assert!(!node["backing"].as_object().unwrap().contains_key("backing"));
    }

    #[test]
    fn what_the_machine_has_is_what_qemu_is_told() {
        let config = machine(vec![disk("odd,name\".img".into())]);
        let card = Card {
            mac: Some(Mac([0x52, 0x54, 0, 0, 0, 1])),
            mtu: 9000,
            end: CableEnd::User(Box::default()),
            capture: None,
        };
        let cards = open_all(&[card], Path::new(".")).unwrap();
        let events = crate::event::EventThread::start("devices").unwrap();
        let device = Box::new(crate::virtio::rng::VirtioRng::new(events.events()));
        let served = [Served { device_word: "vhost-user-rng-pci".into(), queues: 1, device }];
        let words = arguments(&config, &cards, &served, &fds()).unwrap();
        let after = |flag: &str| -> Vec<&str> {
            words.windows(2).filter(|pair| pair[0] == flag).filter_map(|pair| pair[1].to_str()).collect()
        };
        assert_eq!(after("-smp"), ["3"]);
        assert_eq!(after("-m"), ["5120M"]);
        assert_eq!(after("-object"), ["memory-backend-memfd,id=memory,size=5120M,share=on"]);
        assert_eq!(after("-machine"), ["q35,accel=tcg,memory-backend=memory"]);
        assert!(after("-chardev").contains(&"socket,id=device0,fd=15"));
        assert!(after("-device").contains(&"vhost-user-rng-pci,chardev=device0"));
        assert_eq!(after("-acpitable"), ["file=/dev/fd/16"]);
        assert!(after("-device").iter().any(|device| device.starts_with("virtio-balloon-pci,free-page-reporting=on")));
        assert_eq!(after("-kernel"), ["k,x"]);
        assert_eq!(after("-initrd"), ["i"]);
        assert_eq!(after("-append"), ["console=ttyS0 a,b no_timer_check"]);
        assert_eq!(after("-smbios").last(), Some(&"type=11,value=a,,b"));
        assert_eq!(after("-fw_cfg"), ["name=opt/com.coreos/config,file=i,,g"]);
        let node: Value = serde_json::from_str(after("-blockdev")[0]).unwrap();
        assert_eq!(node["file"]["filename"], "odd,name\".img");
        assert_eq!(node["read-only"], true);
        assert_eq!(after("-netdev"), ["stream,id=net0,server=off,addr.type=fd,addr.str=14"]);
        let card = "virtio-net-pci,netdev=net0,mac=52:54:00:00:00:01,host_mtu=9000,romfile=,disable-legacy=on";
        assert!(after("-device").contains(&card));
        assert!(after("-device").iter().any(|device| device.starts_with("virtio-blk-pci,drive=disk0,")));
    }
}
