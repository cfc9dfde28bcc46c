//! Opens the disks of a machine: makes the files that are missing, locks them against others, grows them, and finds what
//! images are overlays of.

pub(crate) mod chain;
mod lock;

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use self::chain::Below;
pub use self::chain::ChainError;
use self::lock::{Refusal, Use};
use crate::block::{
    BlockBackend, HostFile, Layer, Qcow2Disk, RawDisk, check_tables, grow, image_layer, new_layer, raw_layer,
};
use crate::config::{Disk, DiskCache, DiskFormat};
use crate::host::holder::Holder;

/// An open disk. It stays open, and locked, over resets.
pub struct OpenDisk {
    /// Its bytes.
    pub backend: Arc<dyn BlockBackend>,
    /// A write is not done before it is safe; the guest need not ask for that.
    pub is_write_through: bool,
    /// The file that has what the guest writes, if that is thrown away. It has no name.
    pub overlay: Option<File>,
}

impl fmt::Debug for OpenDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenDisk").field("overlay", &self.overlay).finish_non_exhaustive()
    }
}

/// A disk that cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// The system refused something.
    #[error("cannot {action} disk `{}`", path.display())]
    System {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Somebody else has it.
    #[error("disk `{}` is in use by {}, {}", path.display(), by_whom(holder.as_ref()), way_out(*writes))]
    InUse {
        /// The file.
        path: PathBuf,
        /// Who has it, if that can be seen.
        holder: Option<Holder>,
        /// Whether he writes to it.
        writes: bool,
    },
    /// Its file system cannot do without the page cache.
    #[error("disk `{}` is on a file system that cannot do `cache=none`; leave that out", path.display())]
    NoDirect {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// An image, or what is below it.
    #[error(transparent)]
    Chain(#[from] ChainError),
}

fn by_whom(holder: Option<&Holder>) -> String {
    match holder {
        Some(Holder { pid, name }) => format!("process {pid} (`{name}`)"),
        None => "another process".into(),
    }
}

fn way_out(writes: bool) -> &'static str {
    if writes {
        "which may write to it; only one machine at a time may have it"
    } else {
        "which reads it; `--ephemeral` or `readonly` shares it"
    }
}

/// Opens all disks, in order. `state_dir` is there.
pub fn open_all(disks: &[Disk], state_dir: &Path) -> Result<Vec<OpenDisk>, DiskError> {
    disks.iter().map(|disk| open(disk, state_dir)).collect()
}

fn open(disk: &Disk, state_dir: &Path) -> Result<OpenDisk, DiskError> {
    let failed = |action| move |source| DiskError::System { action, path: disk.path.clone(), source };
    if let Some(contents) = &disk.contents {
        write_anew(&disk.path, contents).map_err(failed("write"))?;
    }
    let file = open_or_make(disk)?;
    let host_file = |file| host_file(disk, file);
    let is_throw_away = disk.ephemeral && !disk.read_only;
    let syncs = disk.cache != DiskCache::Unsafe;
    let is_write_through = disk.cache == DiskCache::Writethrough;
    let layer = match disk.layout() {
        DiskFormat::Raw if !is_throw_away => {
            let file = host_file(file)?;
            if let Some(bytes) = disk.size_bytes.filter(|_| !disk.read_only) {
                file.grow(bytes).map_err(failed("grow"))?;
            }
            let backend = RawDisk::new(file, disk.read_only, syncs).map_err(failed("open"))?;
            return Ok(OpenDisk { backend: Arc::new(backend), is_write_through, overlay: None });
        }
        DiskFormat::Raw => raw_layer(host_file(file)?).map_err(failed("open"))?,
        DiskFormat::Qcow2 => {
            let (_, files) = chain::of(disk)?;
            let below = layers_below(&files)?;
            let file = host_file(file)?;
            if !disk.keeps_file() {
                check_tables(&file).map_err(|source| ChainError::Image { path: disk.path.clone(), source })?;
            }
            image_layer(file, below, disk.keeps_file()).map_err(failed("open"))?
        }
    };
    if !is_throw_away {
        if let Some(bytes) = disk.size_bytes.filter(|bytes| !disk.read_only && *bytes > layer.size()) {
            grow(&layer, bytes).map_err(failed("grow"))?;
        }
        let backend = Arc::new(Qcow2Disk::new(layer, disk.read_only, syncs));
        return Ok(OpenDisk { backend, is_write_through, overlay: None });
    }
    let bytes = layer.size().max(disk.size_bytes.unwrap_or(0));
    let overlay = tempfile::tempfile_in(state_dir).map_err(failed("make a throw-away file for"))?;
    let upper = overlay.try_clone().map_err(failed("make a throw-away file for"))?;
    let layer = new_layer(HostFile::cached(upper), Some(layer), bytes).map_err(failed("make a throw-away file for"))?;
    Ok(OpenDisk { backend: Arc::new(Qcow2Disk::new(layer, false, false)), is_write_through, overlay: Some(overlay) })
}

/// The file, made if it is missing and has a size, and locked.
fn open_or_make(disk: &Disk) -> Result<File, DiskError> {
    let failed = |action| move |source| DiskError::System { action, path: disk.path.clone(), source };
    let keeps_file = disk.keeps_file();
    let mut options = File::options();
    options.read(true).write(!keeps_file);
    let wanted = if keeps_file { Use::Read } else { Use::Write };
    match (options.open(&disk.path), disk.size_bytes) {
        (Err(error), Some(bytes)) if error.kind() == io::ErrorKind::NotFound => {
            let file = make(disk, bytes).map_err(failed("make"))?;
            lock(&disk.path, &file, wanted)?;
            Ok(file)
        }
        (opened, _) => {
            let file = opened.map_err(failed("open"))?;
            lock(&disk.path, &file, wanted)?;
            Ok(file)
        }
    }
}

fn lock(path: &Path, file: &File, wanted: Use) -> Result<(), DiskError> {
    lock::take(file, wanted).map_err(|refusal| match refusal {
        Refusal::InUse { holder, writes } => DiskError::InUse { path: path.into(), holder, writes },
        Refusal::Failed(source) => DiskError::System { action: "lock", path: path.into(), source },
    })
}

/// Makes an empty disk that takes no room yet. One that cannot get its size does not stay behind.
fn make(disk: &Disk, bytes: u64) -> io::Result<File> {
    let file = File::options().read(true).write(true).create_new(true).open(&disk.path)?;
    let made = match disk.layout() {
        DiskFormat::Raw => file.set_len(bytes),
        DiskFormat::Qcow2 => file.try_clone().and_then(|file| new_layer(HostFile::cached(file), None, bytes).map(drop)),
    };
    if let Err(error) = made {
        // The first error is the one to tell; an empty file that cannot be removed is told of by the next run.
        let _left_behind = fs::remove_file(&disk.path);
        return Err(error);
    }
    Ok(file)
}

/// Puts a file with these contents in the place of what is there.
fn write_anew(path: &Path, contents: &[u8]) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(contents)?;
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
}

fn host_file(disk: &Disk, file: File) -> Result<HostFile, DiskError> {
    if disk.cache != DiskCache::None {
        return Ok(HostFile::cached(file));
    }
    HostFile::direct(file, disk.keeps_file()).map_err(|source| match source.kind() {
        io::ErrorKind::InvalidInput => DiskError::NoDirect { path: disk.path.clone(), source },
        _ => DiskError::System { action: "open", path: disk.path.clone(), source },
    })
}

/// The files below an image, from the lowest up, each locked against writers.
fn layers_below(files: &[Below]) -> Result<Option<Layer>, DiskError> {
    let mut layer = None;
    for Below { path, format } in files.iter().rev() {
        let failed = |source| DiskError::System { action: "open", path: path.clone(), source };
        let file = File::open(path).map_err(failed)?;
        lock(path, &file, Use::Read)?;
        let file = HostFile::cached(file);
        layer = Some(match format {
            DiskFormat::Raw => raw_layer(file).map_err(failed)?,
            DiskFormat::Qcow2 => image_layer(file, layer, true).map_err(failed)?,
        });
    }
    Ok(layer)
}

#[cfg(test)]
mod tests;
