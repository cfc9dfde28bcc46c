//! Settles what a container is: its YAML over its image's label over its image's configuration.

use crate::config::{ContainerOptions, Namespace, NamespacePaths, Runtime};
use crate::oci::ImageConfig;

/// `options` with everything filled in that the label or the image says.
///
/// A field of the YAML replaces the label's, also when it is empty; but an empty text for `cwd`, `hostname` or a
/// namespace counts as not given. The `.add` fields are joined into the plain ones and are [`None`] afterwards; they are
/// dropped when the YAML has the plain field. The image's `User` and `StopSignal` play no part unless `user` or `stopSignal` ask
/// for them.
pub(super) fn settled(options: &ContainerOptions, label: ContainerOptions, image: &ImageConfig) -> ContainerOptions {
    let own = options.clone();
    let mut all = label;
    let capabilities = joined(all.capabilities.take(), [all.capabilities_add.take(), own.capabilities_add]);
    all.capabilities = own.capabilities.or(capabilities);
    let binds = joined(all.binds.take(), [all.binds_add.take(), own.binds_add]);
    all.binds = own.binds.or(binds);

    all.ambient = own.ambient.or(all.ambient);
    all.mounts = own.mounts.or(all.mounts);
    all.devices = own.devices.or(all.devices);
    all.tmpfs = own.tmpfs.or(all.tmpfs);
    all.command = own.command.or(all.command).or_else(|| Some([&image.entrypoint[..], &image.cmd].concat()));
    all.env = own.env.or(all.env).or_else(|| Some(image.env.clone()));
    all.readonly = own.readonly.or(all.readonly);
    all.masked_paths = own.masked_paths.or(all.masked_paths);
    all.readonly_paths = own.readonly_paths.or(all.readonly_paths);
    // `user` and the numbers are two ways to say one thing: the label's way counts only if the YAML has neither.
    if own.user.is_some() {
        (all.uid, all.gid, all.additional_gids) = (None, None, None);
    }
    let numbers = own.uid.is_some() || own.gid.is_some() || own.additional_gids.is_some();
    all.user = own.user.or(all.user.filter(|_| !numbers));
    all.uid = own.uid.or(all.uid);
    all.gid = own.gid.or(all.gid);
    all.additional_gids = own.additional_gids.or(all.additional_gids);
    all.no_new_privileges = own.no_new_privileges.or(all.no_new_privileges);
    all.oom_score_adj = own.oom_score_adj.or(all.oom_score_adj);
    all.rootfs_propagation = own.rootfs_propagation.or(all.rootfs_propagation);
    all.cgroups_path = own.cgroups_path.or(all.cgroups_path);
    all.resources = own.resources.or(all.resources);
    all.sysctl = own.sysctl.or(all.sysctl);
    all.rlimits = own.rlimits.or(all.rlimits);
    all.uid_mappings = own.uid_mappings.or(all.uid_mappings);
    all.gid_mappings = own.gid_mappings.or(all.gid_mappings);
    all.annotations = own.annotations.or(all.annotations);
    all.ready = own.ready.or(all.ready);
    all.restart = own.restart.or(all.restart);
    all.stop_signal = own.stop_signal.or(all.stop_signal);
    all.stop_timeout = own.stop_timeout.or(all.stop_timeout);

    let working_dir = Some(image.working_dir.trim_start_matches('/')).map(|path| format!("/{path}"));
    all.cwd = said(own.cwd).or(said(all.cwd)).or(working_dir);
    all.hostname = said(own.hostname).or(said(all.hostname));
    all.net = chosen(own.net).or(chosen(all.net));
    all.pid = chosen(own.pid).or(chosen(all.pid));
    all.ipc = chosen(own.ipc).or(chosen(all.ipc));
    all.uts = chosen(own.uts).or(chosen(all.uts));
    all.userns = chosen(own.userns).or(chosen(all.userns));
    all.runtime = Some(runtime(own.runtime.unwrap_or_default(), all.runtime.unwrap_or_default()));
    all
}

/// Each field for itself: a YAML that says something about `mkdir` does not undo what the label says about `mounts`.
fn runtime(own: Runtime, label: Runtime) -> Runtime {
    let paths = |own: NamespacePaths, label: NamespacePaths| NamespacePaths {
        cgroup: own.cgroup.or(label.cgroup),
        ipc: own.ipc.or(label.ipc),
        mnt: own.mnt.or(label.mnt),
        net: own.net.or(label.net),
        pid: own.pid.or(label.pid),
        user: own.user.or(label.user),
        uts: own.uts.or(label.uts),
    };
    Runtime {
        cgroups: own.cgroups.or(label.cgroups),
        mounts: own.mounts.or(label.mounts),
        mkdir: own.mkdir.or(label.mkdir),
        interfaces: own.interfaces.or(label.interfaces),
        bind_ns: Some(paths(own.bind_ns.unwrap_or_default(), label.bind_ns.unwrap_or_default())),
        namespace: own.namespace.or(label.namespace),
    }
}

fn joined<T>(plain: Option<Vec<T>>, more: [Option<Vec<T>>; 2]) -> Option<Vec<T>> {
    let all: Vec<T> = [plain].into_iter().chain(more).flatten().flatten().collect();
    (!all.is_empty()).then_some(all)
}

fn said(text: Option<String>) -> Option<String> {
    text.filter(|text| !text.is_empty())
}

fn chosen(namespace: Option<Namespace>) -> Option<Namespace> {
    namespace.filter(|namespace| *namespace != Namespace::Unset)
}
