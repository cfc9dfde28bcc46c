//! What LinuxKit loses on the way to `config.json`, for `--compat linuxkit`: it reads the YAML without regard to the names
//! that fields have in the specification, so that those with upper-case letters are taken and not kept.

use crate::config::{ContainerOptions, IdMapping, Resources};

/// Drops it from settled options.
pub(super) fn drop_what_is_lost(options: &mut ContainerOptions) {
    if let Some(resources) = &mut options.resources {
        drop_from(resources);
    }
    for mappings in [&mut options.uid_mappings, &mut options.gid_mappings] {
        for IdMapping { host_id, container_id, .. } in mappings.iter_mut().flatten() {
            (*host_id, *container_id) = (0, 0);
        }
    }
    for mount in options.mounts.iter_mut().flatten() {
        mount.uid_mappings.clear();
        mount.gid_mappings.clear();
    }
}

fn drop_from(resources: &mut Resources) {
    if let Some(memory) = &mut resources.memory {
        memory.kernel_tcp = None;
        memory.disable_oom_killer = None;
        memory.use_hierarchy = None;
        memory.check_before_update = None;
    }
    if let Some(cpu) = &mut resources.cpu {
        cpu.realtime_runtime = None;
        cpu.realtime_period = None;
    }
    if let Some(block_io) = &mut resources.block_io {
        *block_io = crate::config::BlockIo { weight: block_io.weight, ..Default::default() };
    }
    resources.hugepage_limits.clear();
    if let Some(network) = &mut resources.network {
        network.class_id = None;
    }
    for limit in resources.rdma.values_mut() {
        *limit = Default::default();
    }
}
