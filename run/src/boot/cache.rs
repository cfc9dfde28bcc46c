//! Keeps unpacked kernels, named by the digest of the image that they came from.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::bzimage::Header;
use super::unpack::{Error, unpack};

/// A folder of unpacked kernels: `DIGEST.vmlinux`, and `FILE.stamp` for each image file seen, which spares reading the
/// image again to know its digest.
#[derive(Debug, Clone)]
pub struct KernelCache {
    folder: PathBuf,
}

/// What a stamp says about an image: the kernel unpacked from it, and its size.
#[derive(Debug, PartialEq, Eq)]
struct Stamp {
    digest: String,
    bytes: u64,
}

impl KernelCache {
    /// A cache in `folder`, which is made when the first kernel is put there.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into() }
    }

    /// The kernel inside the bzImage at `path`, opened for reading; unpacked first if it is not here yet. A failing
    /// cache (no room, no permission) is no error: the kernel then goes to a file without a name.
    pub fn vmlinux(&self, path: &Path, header: &Header) -> Result<File, Error> {
        let failed = |source| Error::Io { path: path.into(), source };
        let image = fs::metadata(path).map_err(failed)?;
        let stamp_path = self.folder.join(stamp_name(&image));
        if let Some(file) = self.find(&stamp_path) {
            return Ok(file);
        }
        let digest = digest_of(path).map_err(failed)?;
        // What has no name is another file at each start. A kernel gets its name here when it is whole.
        if let (0, Ok(file)) = (image.nlink(), File::open(self.kernel_path(&digest))) {
            return Ok(file);
        }
        match self.fill(path, header, &digest, (image.nlink() > 0).then_some(&*stamp_path)) {
            Err(Error::Io { .. }) => super::unpack::to_unnamed_file(path, header),
            other => other,
        }
    }

    /// The kernel that a stamp names, if it is still here and has the size that the stamp tells.
    fn find(&self, stamp_path: &Path) -> Option<File> {
        let stamp = Stamp::parse(&fs::read_to_string(stamp_path).ok()?)?;
        let file = File::open(self.kernel_path(&stamp.digest)).ok()?;
        (file.metadata().ok()?.len() == stamp.bytes).then_some(file)
    }

    /// Puts a kernel here, with a stamp if the image can be met again.
    fn fill(&self, path: &Path, header: &Header, digest: &str, stamp_path: Option<&Path>) -> Result<File, Error> {
        let failed = |source| Error::Io { path: path.into(), source };
        fs::create_dir_all(&self.folder).map_err(failed)?;
        let mut unpacked = tempfile::NamedTempFile::new_in(&self.folder).map_err(failed)?;
        let bytes = unpack(path, header, unpacked.as_file_mut())?;
        unpacked.as_file().sync_all().map_err(failed)?;
        let kernel_path = self.kernel_path(digest);
        unpacked.persist(&kernel_path).map_err(|error| failed(error.error))?;
        if let Some(stamp_path) = stamp_path {
            let mut stamp = tempfile::NamedTempFile::new_in(&self.folder).map_err(failed)?;
            stamp.write_all(format!("{digest} {bytes}\n").as_bytes()).map_err(failed)?;
            stamp.persist(stamp_path).map_err(|error| failed(error.error))?;
        }
        File::open(kernel_path).map_err(failed)
    }

    fn kernel_path(&self, digest: &str) -> PathBuf {
        self.folder.join(format!("{digest}.vmlinux"))
    }
}

impl Stamp {
    fn parse(text: &str) -> Option<Self> {
        let (digest, bytes) = text.trim_end().split_once(' ')?;
        let is_digest = digest.len() == 64 && digest.bytes().all(|byte| byte.is_ascii_hexdigit());
        is_digest.then(|| bytes.parse().ok()).flatten().map(|bytes| Self { digest: digest.into(), bytes })
    }
}

/// What changes whenever the image file is replaced or written to.
fn stamp_name(image: &fs::Metadata) -> String {
    let mut name = String::new();
    for part in [image.dev(), image.ino(), image.len()] {
        let _infallible = write!(name, "{part:x}-");
    }
    for part in [image.mtime(), image.mtime_nsec(), image.ctime(), image.ctime_nsec()] {
        let _infallible = write!(name, "{part}-");
    }
    name + "stamp"
}

fn digest_of(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 256 * 1024];
    loop {
        let len = file.read(&mut buffer)?;
        if len == 0 {
            break;
        }
        hash.update(buffer.get(..len).unwrap_or_default());
    }
    Ok(hash.finalize().iter().fold(String::new(), |mut text, byte| {
        let _infallible = write!(text, "{byte:02x}");
        text
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::boot::bzimage::tests::bzimage;
    use crate::boot::unpack::tests::legacy_lz4;

    fn kernel(folder: &Path, contents: &[u8]) -> (PathBuf, Header) {
        let image = bzimage(&legacy_lz4(contents));
        let path = folder.join("vmlinuz");
        fs::write(&path, &image).unwrap();
        (path, Header::parse(&image).unwrap())
    }

    fn read(mut file: File) -> Vec<u8> {
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn a_cached_kernel_of_the_wrong_size_is_unpacked_again() {
        let folder = tempfile::tempdir().unwrap();
        let cache = KernelCache::new(folder.path().join("kernels"));
        let (path, header) = kernel(folder.path(), b"one kernel");
        assert_eq!(read(cache.vmlinux(&path, &header).unwrap()), b"one kernel");
        let cached = cache.kernel_path(&digest_of(&path).unwrap());
        fs::write(&cached, b"cut").unwrap();
        assert_eq!(read(cache.vmlinux(&path, &header).unwrap()), b"one kernel");
        assert_eq!(fs::read(&cached).unwrap(), b"one kernel");
    }

    #[test]
    fn a_replaced_image_is_not_mistaken_for_the_old_one() {
        let folder = tempfile::tempdir().unwrap();
        let cache = KernelCache::new(folder.path().join("kernels"));
        let (path, header) = kernel(folder.path(), b"one kernel");
        cache.vmlinux(&path, &header).unwrap();
        fs::remove_file(&path).unwrap();
        let (path, header) = kernel(folder.path(), b"another kernel");
        assert_eq!(read(cache.vmlinux(&path, &header).unwrap()), b"another kernel");
    }

    #[test]
    fn a_cache_that_cannot_be_written_is_no_obstacle() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("file"), "").unwrap();
        let cache = KernelCache::new(folder.path().join("file"));
        let (path, header) = kernel(folder.path(), b"one kernel");
        assert_eq!(read(cache.vmlinux(&path, &header).unwrap()), b"one kernel");
    }

    #[test]
    fn an_image_without_a_name_finds_its_kernel_and_leaves_no_stamp() {
        let folder = tempfile::tempdir().unwrap();
        let cache = KernelCache::new(folder.path().join("kernels"));
        let (path, header) = kernel(folder.path(), b"one kernel");
        let file = File::open(&path).unwrap();
        fs::remove_file(&path).unwrap();
        let path = PathBuf::from(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file)));
        for _ in 0..2 {
            assert_eq!(read(cache.vmlinux(&path, &header).unwrap()), b"one kernel");
        }
        assert_eq!(fs::read_dir(&cache.folder).unwrap().count(), 1);
    }

    #[test]
    fn a_second_boot_finds_the_kernel_without_reading_the_image() {
        let folder = tempfile::tempdir().unwrap();
        let cache = KernelCache::new(folder.path().join("kernels"));
        let (path, header) = kernel(folder.path(), b"one kernel");
        cache.vmlinux(&path, &header).unwrap();
        let stamp_path = cache.folder.join(stamp_name(&fs::metadata(&path).unwrap()));
        assert_eq!(read(cache.find(&stamp_path).unwrap()), b"one kernel");
    }
}
