use std::{
    io,
    sync::{Arc, Mutex},
};

use crate::{
    pci::MAX_VECTORS,
    virtio::{
        Activation, VirtioDevice,
        mock::{COMMON, CONFIG, DEVICE, Driver, ECAM, ISR, MEMORY_BYTES, NOTIFY, WINDOW},
        spec::{DeviceType, feature, status},
    },
};

/// Remembers what the transport gave it.
#[derive(Default)]
struct Probe {
    held: Arc<Mutex<Option<Activation>>>,
    resets: Arc<Mutex<u32>>,
    fails: bool,
}

impl VirtioDevice for Probe {
    fn device_type(&self) -> DeviceType {
        DeviceType::Entropy
    }

    fn features(&self) -> u64 {
        1 << 3
    }

    fn queue_sizes(&self) -> &[u16] {
        &[16, 64]
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        for (at, byte) in (offset..8).zip(data) {
            *byte = u8::try_from(at).unwrap() + 0x10;
        }
    }

    fn activate(&mut self, activation: Activation) -> io::Result<()> {
        if self.fails {
            return Err(io::ErrorKind::Other.into());
        }
        *self.held.lock().unwrap() = Some(activation);
        Ok(())
    }

    fn reset(&mut self) {
        *self.held.lock().unwrap() = None;
        *self.resets.lock().unwrap() += 1;
    }
}

fn probe() -> (Driver, Arc<Mutex<Option<Activation>>>) {
    let probe = Probe::default();
    let held = Arc::clone(&probe.held);
    (Driver::find(Box::new(probe)), held)
}

#[test]
fn a_driver_finds_a_modern_device() {
    let (driver, _) = probe();
    assert_eq!(driver.read_u32(CONFIG), 0x1044_1af4);
    assert_eq!(driver.read_u8(CONFIG + 8), 1, "revision");
    assert!(WINDOW.contains(&driver.bar));
    assert_eq!(driver.offered(), 1 << 3 | 1 << 28 | 1 << 29 | 1 << 32);
    assert_eq!(driver.read_u16(driver.at(COMMON, 0x12)), 2, "queues");
    assert_eq!(driver.read_u32(driver.at(DEVICE, 2)), 0x1514_1312);
    assert_eq!(driver.read_u32(driver.at(DEVICE, 6)), 0x0000_1716, "zeros past the end");
    assert!(driver.host.lines.lock().unwrap().len() == 3);
}

#[test]
fn functions_that_are_not_there_read_as_ones() {
    let (driver, _) = probe();
    assert_eq!(driver.read_u32(ECAM + (2 << 15)), !0);
    assert_eq!(driver.read_u32(driver.bar + 0x8000), !0);
    assert_eq!(driver.read_u32(WINDOW.end - 4), !0);
}

#[test]
fn a_driver_that_skips_a_step_breaks_only_its_device() {
    let (mut driver, held) = probe();
    driver.set_up_queue(0);
    driver.add_status(status::ACKNOWLEDGE | status::DRIVER | status::DRIVER_OK);
    assert_ne!(driver.status() & status::DEVICE_NEEDS_RESET, 0);
    assert!(held.lock().unwrap().is_none());
    driver.reset();
    assert_eq!(driver.status(), 0);
    driver.start();
    assert!(held.lock().unwrap().is_some());
}

#[test]
fn features_that_were_not_offered_or_without_version_1_are_not_accepted() {
    for features in [1 << 3, feature::VERSION_1 | 1 << 5, feature::VERSION_1 | 1 << 63, 0] {
        let (driver, _) = probe();
        driver.add_status(status::ACKNOWLEDGE);
        driver.add_status(status::DRIVER);
        driver.accept(features);
        driver.add_status(status::FEATURES_OK);
        assert_eq!(driver.status(), status::ACKNOWLEDGE | status::DRIVER, "{features:#x}");
    }
}

#[test]
fn queues_that_break_the_rules_are_refused_when_the_driver_is_ready() {
    let (max, edge) = (u64::MAX, MEMORY_BYTES - 16);
    // (size, descriptors, driver area, device area)
    let bad = [
        (0, 0x1000, 0x2000, 0x3000),
        (3, 0x1000, 0x2000, 0x3000),
        (32, 0x1000, 0x2000, 0x3000),
        (0x8000, 0x1000, 0x2000, 0x3000),
        (16, 0x1008, 0x2000, 0x3000),
        (16, 0x1000, 0x2001, 0x3000),
        (16, 0x1000, 0x2000, 0x3002),
        (16, edge, 0x2000, 0x3000),
        (16, 0x1000, edge, 0x3000),
        (16, 0x1000, 0x2000, edge),
        (16, max & !15, 0x2000, 0x3000),
        (16, 0x1000, max & !1, 0x3000),
        (16, 0x1000, 0x2000, max & !3),
    ];
    for (size, descriptors, driver_area, device_area) in bad {
        let (driver, held) = probe();
        driver.negotiate(u64::MAX);
        driver.write(driver.at(COMMON, 0x18), &u16::to_le_bytes(size));
        driver.write(driver.at(COMMON, 0x20), &u64::to_le_bytes(descriptors));
        driver.write(driver.at(COMMON, 0x28), &u64::to_le_bytes(driver_area));
        driver.write(driver.at(COMMON, 0x30), &u64::to_le_bytes(device_area));
        driver.write(driver.at(COMMON, 0x1C), &1_u16.to_le_bytes());
        driver.add_status(status::DRIVER_OK);
        assert_ne!(driver.status() & status::DEVICE_NEEDS_RESET, 0, "{size} {descriptors:#x}");
        assert!(held.lock().unwrap().is_none());
    }
}

#[test]
fn a_device_that_cannot_start_asks_for_a_reset() {
    let mut driver = Driver::find(Box::new(Probe { fails: true, ..Probe::default() }));
    driver.start();
    assert_ne!(driver.status() & status::DEVICE_NEEDS_RESET, 0);
    assert!(driver.fired(0), "the driver is told");
}

#[test]
fn only_enabled_queues_are_handed_over_and_reset_takes_all_back() {
    let (mut driver, held) = probe();
    driver.negotiate(u64::MAX);
    driver.set_up_queue(1);
    driver.add_status(status::DRIVER_OK);
    {
        let held = held.lock().unwrap();
        let activation = held.as_ref().unwrap();
        assert!(activation.rings[0].is_none());
        assert_eq!(activation.rings[1].as_ref().unwrap().number(), 1);
        assert_eq!(activation.features, driver.offered());
    }
    driver.reset();
    assert!(held.lock().unwrap().is_none());
    assert!(driver.host.doorbells.lock().unwrap().is_empty());
    driver.start();
    assert_eq!(held.lock().unwrap().as_ref().unwrap().rings.iter().flatten().count(), 2);
}

#[test]
fn a_live_queue_does_not_change() {
    let (mut driver, _) = probe();
    driver.start();
    for (offset, value) in [(0x18, 2_u64), (0x20, 0x9000), (0x28, 0x9000), (0x30, 0x9000), (0x1C, 0)] {
        driver.write(driver.at(COMMON, 0x16), &0_u16.to_le_bytes());
        let before = driver.read_u16(driver.at(COMMON, offset));
        driver.write(driver.at(COMMON, offset), &value.to_le_bytes()[..if offset < 0x20 { 2 } else { 8 }]);
        assert_eq!(driver.read_u16(driver.at(COMMON, offset)), before, "{offset:#x}");
    }
}

#[test]
fn a_queue_that_is_not_there_has_no_size() {
    let (driver, _) = probe();
    for queue in [2_u16, 1000, u16::MAX] {
        driver.write(driver.at(COMMON, 0x16), &queue.to_le_bytes());
        driver.write(driver.at(COMMON, 0x18), &4_u16.to_le_bytes());
        driver.write(driver.at(COMMON, 0x1A), &1_u16.to_le_bytes());
        assert_eq!(driver.read_u16(driver.at(COMMON, 0x18)), 0);
        assert_eq!(driver.read_u16(driver.at(COMMON, 0x1A)), 0xffff);
        driver.notify(queue);
    }
}

#[test]
fn vectors_that_are_not_there_read_back_as_none() {
    let (driver, _) = probe();
    for (vector, seen) in [(2_u16, 2), (3, 0xffff), (MAX_VECTORS, 0xffff), (0xffff, 0xffff)] {
        driver.write(driver.at(COMMON, 0x10), &vector.to_le_bytes());
        assert_eq!(driver.read_u16(driver.at(COMMON, 0x10)), seen);
    }
}

#[test]
fn interrupts_follow_the_table_and_wait_while_masked() {
    let (mut driver, held) = probe();
    driver.start();
    let signal = Arc::clone(&held.lock().unwrap().as_ref().unwrap().signal);
    let msix = CONFIG + driver.capability(0x11);
    let entry = driver.bar + u64::from(driver.read_u32(msix + 4) & !7) + 16;
    let pending = driver.bar + u64::from(driver.read_u32(msix + 8) & !7);
    signal.queue_used(0);
    assert!(driver.fired(1) && !driver.fired(2));

    driver.write(entry + 12, &1_u32.to_le_bytes());
    signal.queue_used(0);
    assert!(!driver.fired(1));
    assert_eq!(driver.read_u64(pending), 0b10);
    driver.write(entry + 12, &0_u32.to_le_bytes());
    assert!(driver.fired(1));
    assert_eq!(driver.read_u64(pending), 0);

    driver.write(msix + 2, &0xC000_u16.to_le_bytes());
    signal.queue_used(0);
    signal.config_changed();
    assert!(!driver.fired(1) && !driver.fired(0));
    assert_eq!(driver.read_u64(pending), 0b11);
    driver.write(msix + 2, &0x8000_u16.to_le_bytes());
    assert!(driver.fired(1) && driver.fired(0));

    driver.write(msix + 2, &0_u16.to_le_bytes());
    signal.queue_used(0);
    assert!(!driver.fired(1), "MSI-X is off");
}

#[test]
fn the_hypervisor_is_asked_once_for_a_change_of_many_vectors_and_never_for_masking() {
    let (mut driver, _) = probe();
    driver.start();
    let connects = || std::mem::take(&mut *driver.host.connects.lock().unwrap());
    let first = connects();
    assert_eq!(first.len(), 1);
    assert_eq!(first[0].len(), 3);
    let msix = CONFIG + driver.capability(0x11);
    let entry = driver.bar + u64::from(driver.read_u32(msix + 4) & !7) + 16;
    driver.write(entry + 12, &1_u32.to_le_bytes());
    driver.write(entry + 12, &0_u32.to_le_bytes());
    driver.write(msix + 2, &0xC000_u16.to_le_bytes());
    driver.write(msix + 2, &0x8000_u16.to_le_bytes());
    assert!(connects().is_empty());
    driver.write(entry + 12, &1_u32.to_le_bytes());
    driver.write(entry + 8, &77_u32.to_le_bytes());
    driver.write(entry + 12, &0_u32.to_le_bytes());
    let moved = connects();
    assert_eq!((moved.len(), moved[0][0].0, moved[0][0].1.unwrap().data), (1, 1, 77));
}

#[test]
fn the_isr_is_cleared_by_reading_and_the_generation_counts_changes() {
    let (mut driver, held) = probe();
    driver.start();
    let signal = Arc::clone(&held.lock().unwrap().as_ref().unwrap().signal);
    let generation = driver.read_u8(driver.at(COMMON, 0x15));
    signal.queue_used(1);
    signal.config_changed();
    assert_eq!(driver.read_u8(driver.at(ISR, 0)), 3);
    assert_eq!(driver.read_u8(driver.at(ISR, 0)), 0);
    assert_eq!(driver.read_u8(driver.at(COMMON, 0x15)), generation.wrapping_add(1));
    driver.reset();
    signal.queue_used(1);
    assert_eq!(driver.read_u8(driver.at(ISR, 0)), 0, "a reset device is silent");
}

#[test]
fn doorbells_move_with_the_bar() {
    let (mut driver, held) = probe();
    driver.start();
    let rings = |driver: &Driver| {
        driver.notify(1);
        held.lock().unwrap().as_ref().unwrap().rings[1].as_ref().unwrap().doorbell().read().is_ok()
    };
    assert!(rings(&driver));
    let old = driver.at(NOTIFY, 4);
    driver.write(CONFIG + 0x10, &(0xCABC_0000_u32).to_le_bytes());
    driver.bar = 0xCABC_0000;
    let attached: Vec<u64> = driver.host.doorbells.lock().unwrap().keys().copied().collect();
    assert_eq!(attached, [driver.at(NOTIFY, 0), driver.at(NOTIFY, 4)]);
    assert!(rings(&driver));
    assert_eq!(driver.read_u16(driver.at(COMMON, 0x12)), 2);
    assert_eq!(driver.read_u32(old), !0);

    // Off, over RAM, over ECAM and past every window: it decodes nowhere, and the device lives on.
    for (low, high, command) in [
        (0xCABC_0000_u32, 0_u32, 4_u16),
        (0x1000, 0, 6),
        (0xE000_0000, 0, 6),
        (0xFFFF_8000, !0, 6),
        (0xD000_0000, 0, 6),
    ] {
        driver.write(CONFIG + 4, &command.to_le_bytes());
        driver.write(CONFIG + 0x14, &high.to_le_bytes());
        driver.write(CONFIG + 0x10, &low.to_le_bytes());
        let nowhere = u64::from(low & !0x7fff) | u64::from(high) << 32;
        assert!(driver.host.doorbells.lock().unwrap().is_empty(), "{low:#x}");
        if !(ECAM..ECAM + (1 << 20)).contains(&nowhere) {
            assert_eq!(driver.read_u32(nowhere + 0x10), !0, "{low:#x}");
        }
    }
    driver.write(CONFIG + 0x10, &0xC800_0000_u32.to_le_bytes());
    driver.bar = 0xC800_0000;
    assert!(rings(&driver));
}

#[test]
fn the_bar_is_reached_through_configuration_space_too() {
    let (driver, _) = probe();
    let mut at = driver.capability(9);
    while driver.read_u8(CONFIG + at + 3) != 5 {
        at = u64::from(driver.read_u8(CONFIG + at + 1));
    }
    let select = |offset: u32, len: u32| {
        driver.write(CONFIG + at + 8, &offset.to_le_bytes());
        driver.write(CONFIG + at + 12, &len.to_le_bytes());
    };
    let common = u32::try_from(driver.at(COMMON, 0) - driver.bar).unwrap();
    select(common + 0x14, 1);
    driver.write(CONFIG + at + 16, &[status::ACKNOWLEDGE]);
    assert_eq!(driver.status(), status::ACKNOWLEDGE);
    assert_eq!(driver.read_u8(CONFIG + at + 16), status::ACKNOWLEDGE);
    select(common + 0x12, 2);
    assert_eq!(driver.read_u16(CONFIG + at + 16), 2);
    for (offset, len) in [(common + 1, 4), (common, 3), (common, 8), (!0, 4), (0x8000, 1)] {
        select(offset, len);
        driver.write(CONFIG + at + 16, &[0xff; 4]);
        driver.read_u32(CONFIG + at + 16);
    }
    assert_eq!(driver.status(), status::ACKNOWLEDGE);
}

#[test]
fn any_access_at_all_is_survived() {
    let (mut driver, _) = probe();
    let mut random = crate::virtio::mock::Random::new(1);
    for round in 0..40_000 {
        let len = 1 << random.below(4);
        let data = random.next().to_le_bytes();
        let address = match random.below(3) {
            0 => CONFIG + random.next() % 0x110,
            1 => driver.bar + random.next() % 0x6100,
            _ => driver.bar + random.next() % 0x40,
        };
        if random.below(2) == 0 {
            driver.write(address, &data[..len]);
        } else {
            driver.read(address, &mut [0; 8][..len]);
        }
        if round % 1000 == 999 {
            driver.write(CONFIG + 4, &6_u16.to_le_bytes());
            driver.write(CONFIG + 0x10, &u32::try_from(WINDOW.start).unwrap().to_le_bytes());
            driver.write(CONFIG + 0x14, &0_u32.to_le_bytes());
            driver.bar = WINDOW.start;
            driver.reset();
            driver.start();
            assert_eq!(driver.status() & status::DEVICE_NEEDS_RESET, 0);
        }
    }
}
