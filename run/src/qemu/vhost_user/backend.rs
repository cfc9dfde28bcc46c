//! What QEMU says of the queues, and when that makes a device active.

use std::fs::File;
use std::sync::Arc;

use vhost::vhost_user::message::{
    VhostTransferStateDirection, VhostTransferStatePhase, VhostUserConfigFlags, VhostUserInflight, VhostUserLog,
    VhostUserMemoryRegion, VhostUserProtocolFeatures, VhostUserShMemConfig, VhostUserSharedMsg,
    VhostUserSingleMemoryRegion, VhostUserVirtioFeatures, VhostUserVringAddrFlags, VhostUserVringState,
};
use vhost::vhost_user::{Error, GpuBackend, Result, VhostUserBackendReqHandlerMut};
use vm_memory::{Bytes, GuestAddress};
use vmm_sys_util::eventfd::EventFd;

use super::calls::Calls;
use super::kick;
use super::memory::Table;
use crate::virtio::spec::feature;
use crate::virtio::{Activation, Layout, Signal, VirtioDevice};

/// What QEMU and the rings add to a device's features.
const RING_FEATURES: u64 = feature::VERSION_1 | feature::EVENT_IDX | feature::INDIRECT_DESC;
/// Most descriptors of a queue (QEMU: `VIRTQUEUE_MAX_SIZE`).
const MAX_QUEUE_SIZE: u16 = 1024;
/// Offset of the index in the used ring (2.7.8).
const USED_INDEX: u64 = 2;
/// Longest configuration that is read (the protocol's own limit).
const CONFIG_BYTES: u32 = 256;

/// A queue as QEMU tells of it, piece by piece.
#[derive(Debug, Default)]
struct Vring {
    size: u16,
    /// Chains that are done.
    done: u16,
    /// Addresses in QEMU: descriptors, available ring, used ring.
    addresses: Option<(u64, u64, u64)>,
    kick: Option<Arc<EventFd>>,
    is_enabled: bool,
}

/// The device, and what QEMU has said so far.
pub(super) struct Backend<'a> {
    device: &'a mut dyn VirtioDevice,
    features: u64,
    table: Option<Table>,
    vrings: Vec<Vring>,
    calls: Arc<Calls>,
    is_active: bool,
}

impl<'a> Backend<'a> {
    /// A back end of which QEMU uses the first `queues` queues.
    pub(super) fn new(device: &'a mut dyn VirtioDevice, queues: usize) -> Self {
        let vrings = (0..queues).map(|_| Vring::default()).collect();
        Self { device, features: 0, table: None, vrings, calls: Arc::new(Calls::new(queues)), is_active: false }
    }

    fn vring(&mut self, index: u32) -> Result<&mut Vring> {
        let index = usize::try_from(index).map_err(|_| Error::InvalidParam)?;
        self.vrings.get_mut(index).ok_or(Error::InvalidParam)
    }

    /// Makes the device active as soon as all is known that it needs.
    fn start(&mut self) -> Result<()> {
        let is_ready =
            |vring: &Vring| vring.is_enabled && vring.size > 0 && vring.addresses.is_some() && vring.kick.is_some();
        let Some(table) = self.table.as_ref().filter(|_| !self.is_active && self.vrings.iter().all(is_ready)) else {
            return Ok(());
        };
        let mut rings = Vec::with_capacity(self.vrings.len());
        for (number, vring) in (0..).zip(&self.vrings) {
            let (Some((descriptors, available, used)), Some(kick)) = (vring.addresses, &vring.kick) else {
                return Ok(());
            };
            let guest = |theirs| table.guest_address(theirs).ok_or(Error::InvalidParam);
            let (descriptors, driver_area) = (guest(descriptors)?, guest(available)?);
            let device_area = guest(used)?;
            let layout = Layout { size: vring.size, descriptors, driver_area, device_area, done: vring.done };
            let ring = layout.ring(number, MAX_QUEUE_SIZE, self.features, &table.memory, Arc::clone(kick));
            rings.push(Some(ring.ok_or(Error::InvalidParam)?));
        }
        let activation = Activation {
            memory: table.memory.clone(),
            rings,
            signal: Arc::clone(&self.calls) as Arc<dyn Signal>,
            features: self.features,
        };
        // Also after a failure, so that it is reset.
        self.is_active = true;
        self.device.activate(activation).map_err(|_| Error::BackendInternalError)
    }

    /// Takes the queues back from the device, and notes how far it has come: devices give back all that they took.
    fn stop(&mut self) {
        if !std::mem::take(&mut self.is_active) {
            return;
        }
        self.device.reset();
        let Some(table) = &self.table else { return };
        for vring in &mut self.vrings {
            let used = vring.addresses.and_then(|(_, _, used)| table.guest_address(used));
            let index = used.and_then(|used| used.checked_add(USED_INDEX));
            let index = index.and_then(|index| table.memory.read_obj::<u16>(GuestAddress(index)).ok());
            vring.done = index.map_or(vring.done, u16::from_le);
        }
    }
}

impl Drop for Backend<'_> {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The answer to what QEMU may only ask if we offered it.
fn not_offered<T>() -> Result<T> {
    Err(Error::InvalidOperation("not offered"))
}

impl VhostUserBackendReqHandlerMut for Backend<'_> {
    fn set_owner(&mut self) -> Result<()> {
        Ok(())
    }

    fn reset_owner(&mut self) -> Result<()> {
        self.stop();
        Ok(())
    }

    fn reset_device(&mut self) -> Result<()> {
        self.stop();
        Ok(())
    }

    fn get_features(&mut self) -> Result<u64> {
        Ok(self.device.features() | RING_FEATURES | VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits())
    }

    fn set_features(&mut self, features: u64) -> Result<()> {
        self.stop();
        self.features = features;
        if features & VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits() == 0 {
            // Nobody will say that a queue may be used.
            self.vrings.iter_mut().for_each(|vring| vring.is_enabled = true);
        }
        Ok(())
    }

    fn get_protocol_features(&mut self) -> Result<VhostUserProtocolFeatures> {
        Ok(VhostUserProtocolFeatures::MQ | VhostUserProtocolFeatures::CONFIG)
    }

    fn set_protocol_features(&mut self, _features: u64) -> Result<()> {
        Ok(())
    }

    fn get_queue_num(&mut self) -> Result<u64> {
        Ok(self.vrings.len() as u64)
    }

    fn set_mem_table(
        &mut self,
        regions: &[VhostUserMemoryRegion],
        files: Vec<File>,
        _postcopy: Option<bool>,
    ) -> Result<Option<Vec<u64>>> {
        self.stop();
        self.table = Some(Table::map(regions, files).ok_or(Error::InvalidParam)?);
        self.start()?;
        Ok(None)
    }

    fn set_vring_num(&mut self, index: u32, num: u32) -> Result<()> {
        self.vring(index)?.size = u16::try_from(num).map_err(|_| Error::InvalidParam)?;
        Ok(())
    }

    fn set_vring_addr(
        &mut self,
        index: u32,
        _flags: VhostUserVringAddrFlags,
        descriptor: u64,
        used: u64,
        available: u64,
        _log: u64,
    ) -> Result<()> {
        self.vring(index)?.addresses = Some((descriptor, available, used));
        Ok(())
    }

    fn set_vring_base(&mut self, index: u32, base: u32) -> Result<()> {
        self.vring(index)?.done = u16::try_from(base).map_err(|_| Error::InvalidParam)?;
        Ok(())
    }

    fn get_vring_base(&mut self, index: u32) -> Result<VhostUserVringState> {
        self.stop();
        let vring = self.vring(index)?;
        vring.kick = None;
        Ok(VhostUserVringState::new(index, vring.done.into()))
    }

    fn set_vring_kick(&mut self, index: u8, fd: Option<File>) -> Result<()> {
        // A queue without a doorbell would have to be looked at all the time.
        let kick = fd.ok_or(Error::InvalidParam)?;
        self.vring(index.into())?.kick = Some(Arc::new(kick::event(kick)));
        self.start()
    }

    fn set_vring_call(&mut self, index: u8, fd: Option<File>) -> Result<()> {
        if self.calls.set(index.into(), fd) { Ok(()) } else { Err(Error::InvalidParam) }
    }

    fn set_vring_err(&mut self, _index: u8, _fd: Option<File>) -> Result<()> {
        Ok(())
    }

    fn set_vring_enable(&mut self, index: u32, enable: bool) -> Result<()> {
        if !enable {
            self.stop();
        }
        self.vring(index)?.is_enabled = enable;
        self.start()
    }

    fn get_config(&mut self, offset: u32, size: u32, _flags: VhostUserConfigFlags) -> Result<Vec<u8>> {
        let size = usize::try_from(size.min(CONFIG_BYTES)).map_err(|_| Error::InvalidParam)?;
        let mut config = vec![0; size];
        self.device.read_config(offset.into(), &mut config);
        Ok(config)
    }

    fn set_config(&mut self, offset: u32, buf: &[u8], _flags: VhostUserConfigFlags) -> Result<()> {
        self.device.write_config(offset.into(), buf);
        Ok(())
    }

    fn set_gpu_socket(&mut self, _backend: GpuBackend) -> Result<()> {
        not_offered()
    }

    fn get_shared_object(&mut self, _uuid: VhostUserSharedMsg) -> Result<File> {
        not_offered()
    }

    fn get_inflight_fd(&mut self, _inflight: &VhostUserInflight) -> Result<(VhostUserInflight, File)> {
        not_offered()
    }

    fn set_inflight_fd(&mut self, _inflight: &VhostUserInflight, _file: File) -> Result<()> {
        not_offered()
    }

    fn get_max_mem_slots(&mut self) -> Result<u64> {
        not_offered()
    }

    fn add_mem_region(
        &mut self,
        _region: &VhostUserSingleMemoryRegion,
        _fd: File,
        _postcopy: Option<bool>,
    ) -> Result<Option<u64>> {
        not_offered()
    }

    fn remove_mem_region(&mut self, _region: &VhostUserSingleMemoryRegion) -> Result<()> {
        not_offered()
    }

    fn set_device_state_fd(
        &mut self,
        _direction: VhostTransferStateDirection,
        _phase: VhostTransferStatePhase,
        _fd: File,
    ) -> Result<Option<File>> {
        not_offered()
    }

    fn check_device_state(&mut self) -> Result<()> {
        not_offered()
    }

    fn get_shmem_config(&mut self) -> Result<VhostUserShMemConfig> {
        not_offered()
    }

    fn set_log_base(&mut self, _log: &VhostUserLog, _file: File) -> Result<()> {
        not_offered()
    }
}
