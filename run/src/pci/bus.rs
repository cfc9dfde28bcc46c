//! The bus: functions by address, configuration accesses, and memory accesses to wherever the BARs are.

use std::{
    collections::BTreeMap,
    ops::Range,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{
    PciAddress, PciFunction,
    bar::{Placed, decoded},
    chipset::ecam_of,
    config_space::SMALL_BAR_BYTES,
};
use crate::bus::BusDevice;

/// Configuration space of one function, as ECAM shows it, in bytes.
const FUNCTION_BYTES: u64 = 4096;

/// Where memory BARs may be. Small ones are always below 4 GiB.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Windows {
    /// Below 4 GiB.
    pub low: Range<u64>,
    /// Above 4 GiB and all RAM.
    pub high: Range<u64>,
}

/// PCI bus 0. Wrap it with [`memory_range`] and [`config_ports`] to put it on the machine's buses.
pub struct PciBus {
    functions: BTreeMap<PciAddress, Box<dyn PciFunction>>,
    windows: [Range<u64>; 2],
    /// Where configuration space is seen, as the host bridge says.
    ecam: Option<Range<u64>>,
    /// BARs that answer now.
    placed: Vec<Placed>,
    /// What was last written to port 0xCF8.
    port_address: u32,
}

/// A function that cannot be added.
#[derive(Debug, thiserror::Error)]
#[error("PCI address 00:{:02x}.{} is taken", .0.device(), .0.function())]
pub struct AddError(PciAddress);

/// BARs that do not fit.
#[derive(Debug, thiserror::Error)]
#[error("no room for {len} bytes of device memory of 00:{:02x}.{}", address.device(), address.function())]
pub struct NoRoom {
    address: PciAddress,
    len: u64,
}

impl PciBus {
    /// An empty bus, whose BARs may be in `windows`. Its configuration space is seen where its host bridge says.
    #[must_use]
    pub fn new(windows: Windows) -> Self {
        Self {
            functions: BTreeMap::new(),
            windows: [windows.low, windows.high],
            ecam: None,
            placed: Vec::new(),
            port_address: 0,
        }
    }

    /// Puts a function on the bus. For assembly.
    pub fn add(&mut self, address: PciAddress, function: Box<dyn PciFunction>) -> Result<(), AddError> {
        if self.functions.contains_key(&address) {
            return Err(AddError(address));
        }
        self.functions.insert(address, function);
        self.find_ecam();
        Ok(())
    }

    /// Where configuration space is seen now; `None` while it is switched off.
    #[must_use]
    pub fn ecam(&self) -> Option<Range<u64>> {
        self.ecam.clone()
    }

    fn find_ecam(&mut self) {
        self.ecam = self.functions.get_mut(&PciAddress::HOST_BRIDGE).and_then(|bridge| ecam_of(bridge.config()));
    }

    /// Gives every BAR a place, as firmware does. For a machine that starts without firmware.
    pub fn assign_bars(&mut self) -> Result<(), NoRoom> {
        let [low, high] = &mut self.windows.clone();
        for (address, function) in &mut self.functions {
            let config = function.config();
            for bar in config.bars().to_vec() {
                let small = if bar.len <= SMALL_BAR_BYTES { take(low, bar.len) } else { None };
                let at = small
                    .or_else(|| take(high, bar.len))
                    .or_else(|| take(low, bar.len))
                    .ok_or(NoRoom { address: *address, len: bar.len })?;
                config.set_bar_address(bar, at);
            }
        }
        Ok(())
    }

    fn read_config(&mut self, offset: u64, data: &mut [u8]) {
        if let Some((function, register)) = self.function_at(offset) {
            function.read_config(register, data);
        }
    }

    fn write_config(&mut self, offset: u64, data: &[u8]) {
        if let Some((function, register)) = self.function_at(offset) {
            function.write_config(register, data);
            self.find_ecam();
            self.place_bars();
        }
    }

    fn function_at(&mut self, offset: u64) -> Option<(&mut Box<dyn PciFunction>, u16)> {
        let address = PciAddress(u8::try_from(offset / FUNCTION_BYTES).ok()?);
        let register = u16::try_from(offset % FUNCTION_BYTES).ok()?;
        Some((self.functions.get_mut(&address)?, register))
    }

    /// Brings what answers where into line with the BARs and command registers.
    fn place_bars(&mut self) {
        let wanted = self.functions.iter_mut().flat_map(|(address, function)| {
            let config = function.config();
            let bars = if config.memory_enabled() { config.bars() } else { &[] };
            let place = |bar| Placed { function: *address, bar, address: config.bar_address(bar) };
            bars.iter().copied().map(place).collect::<Vec<_>>()
        });
        let now = decoded(wanted, &self.windows, self.ecam.clone());
        let before = std::mem::replace(&mut self.placed, now.clone());
        for gone in before.iter().filter(|placed| !now.contains(placed)) {
            self.tell(gone, None);
        }
        for new in now.iter().filter(|placed| !before.contains(placed)) {
            self.tell(new, Some(new.address));
        }
    }

    fn tell(&mut self, placed: &Placed, address: Option<u64>) {
        if let Some(function) = self.functions.get_mut(&placed.function) {
            function.place_bar(placed.bar.index, address);
        }
    }

    fn ecam_offset(&self, address: u64) -> Option<u64> {
        let ecam = self.ecam.as_ref().filter(|ecam| ecam.contains(&address))?;
        address.checked_sub(ecam.start)
    }

    /// The guest reads memory that is not RAM.
    fn read(&mut self, address: u64, data: &mut [u8]) {
        if let Some(offset) = self.ecam_offset(address) {
            self.read_config(offset, data);
        } else if let Some((function, bar, offset)) = self.bar_at(address, data.len()) {
            function.read_bar(bar, offset, data);
        }
    }

    fn write(&mut self, address: u64, data: &[u8]) {
        if let Some(offset) = self.ecam_offset(address) {
            self.write_config(offset, data);
        } else if let Some((function, bar, offset)) = self.bar_at(address, data.len()) {
            function.write_bar(bar, offset, data);
        }
    }

    fn bar_at(&mut self, address: u64, len: usize) -> Option<(&mut Box<dyn PciFunction>, usize, u64)> {
        let (placed, offset) = self.placed.iter().find_map(|placed| Some((*placed, placed.offset(address, len)?)))?;
        Some((self.functions.get_mut(&placed.function)?, placed.bar.index, offset))
    }
}

/// Takes `len` bytes, aligned to themselves, from the front of `window`.
fn take(window: &mut Range<u64>, len: u64) -> Option<u64> {
    let start = window.start.checked_next_multiple_of(len)?;
    let end = start.checked_add(len).filter(|end| *end <= window.end)?;
    window.start = end;
    Some(start)
}

fn lock(bus: &Mutex<PciBus>) -> MutexGuard<'_, PciBus> {
    bus.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The bus as seen through the memory that begins at `start`: ECAM, and the BARs.
#[must_use]
pub fn memory_range(bus: &Arc<Mutex<PciBus>>, start: u64) -> Arc<Mutex<dyn BusDevice>> {
    Arc::new(Mutex::new(MemoryRange { bus: Arc::clone(bus), start }))
}

struct MemoryRange {
    bus: Arc<Mutex<PciBus>>,
    start: u64,
}

impl BusDevice for MemoryRange {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        if let Some(address) = self.start.checked_add(offset) {
            lock(&self.bus).read(address, data);
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        if let Some(address) = self.start.checked_add(offset) {
            lock(&self.bus).write(address, data);
        }
    }
}

/// The two configuration ports (PCI 3.0, 3.2.2.3.2) as seen through the ports from `start` on, counted from 0xCF8. Slower than
/// ECAM; firmware begins with it. Between them is the chipset's reset port: insert them apart, 1 and 4 long.
#[must_use]
pub fn config_ports(bus: &Arc<Mutex<PciBus>>, start: u64) -> Arc<Mutex<dyn BusDevice>> {
    Arc::new(Mutex::new(ConfigPorts { bus: Arc::clone(bus), start }))
}

struct ConfigPorts {
    bus: Arc<Mutex<PciBus>>,
    start: u64,
}

/// Offset of the data port from the address port.
pub const DATA_PORT: u64 = 4;

/// Where a data access goes in configuration space; `None` if it is off or for another bus.
fn port_target(address: u32, offset: u64, len: usize) -> Option<u64> {
    let enabled = address & 1 << 31 != 0;
    let bus = address >> 16 & 0xff;
    let within = offset.checked_sub(DATA_PORT).filter(|within| within + len as u64 <= 4)?;
    let function = u64::from(address >> 8 & 0xff);
    (enabled && bus == 0).then_some(function * FUNCTION_BYTES + u64::from(address & 0xfc) + within)
}

impl BusDevice for ConfigPorts {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        let offset = self.start.saturating_add(offset);
        let mut bus = lock(&self.bus);
        if offset == 0 && data.len() == 4 {
            data.copy_from_slice(&bus.port_address.to_le_bytes());
        } else if let Some(target) = port_target(bus.port_address, offset, data.len()) {
            bus.read_config(target, data);
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        let offset = self.start.saturating_add(offset);
        let mut bus = lock(&self.bus);
        if offset == 0 {
            if let Ok(address) = data.try_into() {
                bus.port_address = u32::from_le_bytes(address);
            }
        } else if let Some(target) = port_target(bus.port_address, offset, data.len()) {
            bus.write_config(target, data);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pci::{Bar, ConfigSpace, HostBridge, Identity, LpcBridge};

    const ECAM: u64 = 0xE000_0000;
    const LOW: Range<u64> = 0xC000_0000..0xC010_0000;
    const LEN: u64 = 0x1_0000;

    /// Answers with its number, and remembers where it was put last.
    struct Function {
        config: ConfigSpace,
        number: u8,
        places: Arc<Mutex<Vec<Option<u64>>>>,
    }

    impl PciFunction for Function {
        fn config(&mut self) -> &mut ConfigSpace {
            &mut self.config
        }

        fn read_bar(&mut self, _bar: usize, _offset: u64, data: &mut [u8]) {
            data.fill(self.number);
        }

        fn place_bar(&mut self, _bar: usize, address: Option<u64>) {
            self.places.lock().unwrap().push(address);
        }
    }

    struct Machine {
        memory: Arc<Mutex<dyn BusDevice>>,
        ports: Arc<Mutex<dyn BusDevice>>,
        places: Vec<Arc<Mutex<Vec<Option<u64>>>>>,
    }

    impl Machine {
        /// Bridges, and two functions with a BAR each at 00:01.0 and 00:02.0.
        fn new() -> Self {
            let mut bus = PciBus::new(Windows { low: LOW, high: 1 << 33..1 << 34 });
            bus.add(PciAddress::HOST_BRIDGE, Box::new(HostBridge::new(Some(ECAM)))).unwrap();
            bus.add(PciAddress::LPC_BRIDGE, Box::new(LpcBridge::new(0x600, 0xFED1_C000))).unwrap();
            let mut places = Vec::new();
            for number in [1, 2] {
                let mut config = ConfigSpace::new(Identity {
                    vendor: 0x1234,
                    device: number.into(),
                    revision: 0,
                    class: 0xFF_00_00,
                    subsystem: (0, 0),
                });
                config.add_bar(Bar { index: 0, len: LEN });
                let seen = Arc::new(Mutex::new(Vec::new()));
                places.push(Arc::clone(&seen));
                let function = Function { config, number, places: seen };
                let address = PciAddress::new(number, 0).unwrap();
                bus.add(address, Box::new(function)).unwrap();
            }
            bus.assign_bars().unwrap();
            let bus = Arc::new(Mutex::new(bus));
            Self { memory: memory_range(&bus, 0), ports: config_ports(&bus, 0), places }
        }

        fn read(&self, address: u64) -> u32 {
            let mut data = [0xff; 4];
            self.memory.lock().unwrap().read(address, &mut data);
            u32::from_le_bytes(data)
        }

        fn write(&self, address: u64, value: u32) {
            self.memory.lock().unwrap().write(address, &value.to_le_bytes());
        }

        fn config(number: u64, register: u64) -> u64 {
            ECAM + (number << 15) + register
        }
    }

    #[test]
    fn an_address_holds_one_function() {
        let mut bus = PciBus::new(Windows { low: LOW, high: 0..0 });
        bus.add(PciAddress::HOST_BRIDGE, Box::new(HostBridge::new(Some(ECAM)))).unwrap();
        let error = bus.add(PciAddress::HOST_BRIDGE, Box::new(HostBridge::new(Some(ECAM)))).unwrap_err();
        assert_eq!(error.to_string(), "PCI address 00:00.0 is taken");
        assert_eq!((PciAddress::new(32, 0), PciAddress::new(0, 8)), (None, None));
    }

    #[test]
    fn bars_that_lie_over_each_other_leave_one_that_answers() {
        let machine = Machine::new();
        assert_eq!(machine.read(LOW.start), !0, "memory is off");
        for number in [1, 2] {
            machine.write(Machine::config(number, 4), 2);
        }
        assert_eq!((machine.read(LOW.start), machine.read(LOW.start + LEN)), (0x0101_0101, 0x0202_0202));
        machine.write(Machine::config(2, 0x10), 0xC000_0000);
        assert_eq!((machine.read(LOW.start), machine.read(LOW.start + LEN)), (0x0101_0101, !0));
        assert_eq!(*machine.places[1].lock().unwrap(), [Some(LOW.start + LEN), None]);
        machine.write(Machine::config(1, 0x10), 0xC008_0000);
        assert_eq!((machine.read(LOW.start), machine.read(0xC008_0000)), (0x0202_0202, 0x0101_0101));
        machine.write(Machine::config(1, 4), 0);
        assert_eq!(machine.read(0xC008_0000), !0);
    }

    #[test]
    fn an_access_that_leaves_its_bar_meets_nothing() {
        let machine = Machine::new();
        machine.write(Machine::config(1, 4), 2);
        assert_eq!(machine.read(LOW.start + LEN - 4), 0x0101_0101);
        assert_eq!(machine.read(LOW.start + LEN - 3), !0);
    }

    #[test]
    fn ports_and_ecam_show_the_same_registers() {
        let machine = Machine::new();
        let mut ports = machine.ports.lock().unwrap();
        let select = |ports: &mut dyn BusDevice, address: u32| ports.write(0, &address.to_le_bytes());
        let data = |ports: &mut dyn BusDevice, offset: u64, len: usize| {
            let mut data = [0xff; 4];
            ports.read(4 + offset, &mut data[..len]);
            u32::from_le_bytes(data)
        };
        select(&mut *ports, 0x8000_0000);
        assert_eq!(data(&mut *ports, 0, 4), 0x29C0_8086);
        assert_eq!(data(&mut *ports, 2, 2), 0xFFFF_29C0);
        assert_eq!(data(&mut *ports, 2, 4), !0, "past the port");
        select(&mut *ports, 0x8000_F800);
        assert_eq!(data(&mut *ports, 0, 4), 0x2918_8086);
        select(&mut *ports, 0x8000_F840);
        assert_eq!(data(&mut *ports, 0, 4), 0x601);
        ports.write(4, &0x0B01_u32.to_le_bytes());
        assert_eq!(machine.read(ECAM + (31 << 15) + 0x40), 0xB01);
        for absent in [0x0000_0000, 0x8001_0000, 0x8000_1800, 0x80FF_0000] {
            select(&mut *ports, absent);
            assert_eq!(data(&mut *ports, 0, 4), !0, "{absent:#x}");
        }
        assert_eq!(machine.read(ECAM + 0x60), 0xE000_0005, "the host bridge tells where ECAM is");
    }

    #[test]
    fn bars_that_do_not_fit_are_an_error() {
        let mut bus = PciBus::new(Windows { low: LOW, high: 0..0 });
        let mut config = ConfigSpace::new(Identity { vendor: 1, device: 1, revision: 0, class: 0, subsystem: (0, 0) });
        config.add_bar(Bar { index: 0, len: 1 << 30 });
        let function = Function { config, number: 1, places: Arc::default() };
        bus.add(PciAddress::new(3, 0).unwrap(), Box::new(function)).unwrap();
        assert_eq!(
            bus.assign_bars().unwrap_err().to_string(),
            "no room for 1073741824 bytes of device memory of 00:03.0"
        );
    }
}
