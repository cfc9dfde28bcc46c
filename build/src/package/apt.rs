//! Debian packages, fetched by the host's apt: it knows the mirrors and verifies the signatures. It works in folders of
//! our own, with an empty list of installed packages, so it needs no root and changes nothing of the host.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sha2::{Digest as _, Sha256};

use super::build::BuildContext;
use super::error::{PackageError, io_error};
use super::program::{Program, ProgramError};
use crate::cancel::Cancel;
use crate::progress::Progress;

/// Where the host's own apt keeps what the mirrors offer.
const HOST_LISTS: &str = "/var/lib/apt/lists";
/// Our own copy is used this long before it is fetched again.
const LISTS_AGE_MAX: Duration = Duration::from_secs(24 * 3600);
/// Comes after the host's configuration: no hooks, nothing unsigned, no user to change to.
const CONFIGURATION: &str = "#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
#clear DPkg::Pre-Install-Pkgs;
#clear DPkg::Post-Invoke;
#clear APT::Architectures;
#clear Acquire::IndexTargets::deb::DEP-11;
APT::Sandbox::User \"root\";
APT::Install-Recommends \"false\";
APT::Get::AllowUnauthenticated \"false\";
Acquire::AllowInsecureRepositories \"false\";
Acquire::Languages \"none\";
Acquire::Retries \"3\";
Dir::Cache::pkgcache \"\";
Dir::Cache::srcpkgcache \"\";
";

/// apt in a folder of our own.
pub(super) struct Apt<'a> {
    folder: PathBuf,
    architecture: &'a str,
    /// Stops the build that this is for.
    pub cancel: &'a Cancel,
    progress: &'a dyn Progress,
    _lock: File,
}

/// One package file that apt offers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Offer {
    /// Name of the package.
    pub name: String,
    /// Its version.
    version: String,
    /// Name of its file: name, version and architecture.
    file: String,
    /// SHA-256 as the signed lists have it, if apt said it.
    sha256: Option<String>,
}

/// What a package name is resolved to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Closure {
    /// The packages alone.
    Alone,
    /// And all that they depend on.
    WithDepends,
}

impl<'a> Apt<'a> {
    /// apt for the architecture, with everything below the cache folder. Waits for another that is at work there.
    pub fn open(context: &'a BuildContext, progress: &'a dyn Progress) -> Result<Self, PackageError> {
        let (architecture, cancel) = (debian_architecture(&context.platform.architecture), &context.cancel);
        let folder = context.cache_folder.join("apt").join(architecture);
        for name in ["lists/partial", "cache/archives/partial", "debs"] {
            let path = folder.join(name);
            fs::create_dir_all(&path).map_err(|source| io_error("make folder", &path, source))?;
        }
        let _lock = super::lock::wait(&folder.join("lock"), "apt", cancel, progress)?;
        write(&folder.join("status"), "")?;
        let architectures =
            format!("APT::Architecture \"{architecture}\";\nAPT::Architectures {{ \"{architecture}\"; }};\n");
        write(&folder.join("apt.conf"), &format!("{CONFIGURATION}{architectures}"))?;
        Ok(Self { folder, architecture, cancel, progress, _lock })
    }

    /// Files of `packages`, in the order that apt gives them.
    ///
    /// Errors: what apt says, also about signatures; [`PackageError::NoDebianPackage`].
    pub fn fetch(&self, packages: &[String], closure: Closure) -> Result<Vec<PathBuf>, PackageError> {
        self.with_lists(&|lists| {
            let offers = self.offers(lists, packages, closure)?;
            self.download(lists, &offers)
        })
    }

    /// What `packages` and all that they depend on are called.
    pub fn closure(&self, packages: &[String]) -> Result<Vec<Offer>, PackageError> {
        self.with_lists(&|lists| self.offers(lists, packages, Closure::WithDepends))
    }

    /// Does `work` with the lists at hand; if they turn out to be too old, with new ones.
    fn with_lists<T>(&self, work: &dyn Fn(&Path) -> Result<T, PackageError>) -> Result<T, PackageError> {
        let own = self.folder.join("lists");
        let age = fs::metadata(self.stamp()).and_then(|meta| meta.modified()).ok().and_then(|time| time.elapsed().ok());
        let lists = match age {
            Some(age) if age < LISTS_AGE_MAX => own.clone(),
            _ if has_lists(Path::new(HOST_LISTS), self.architecture) => HOST_LISTS.into(),
            _ => {
                self.update(&own)?;
                return work(&own);
            }
        };
        match work(&lists) {
            Err(PackageError::Program(ProgramError::Failed { .. }) | PackageError::NoDebianPackage { .. }) => {
                self.update(&own)?;
                work(&own)
            }
            other => other,
        }
    }

    fn update(&self, lists: &Path) -> Result<(), PackageError> {
        let _meter = self.progress.begin("apt-get update", None);
        self.apt(lists).args(["update", "--error-on=any"]).run().or_else(|error| {
            // One broken source of many need not be the one that is wanted; what is missing is told by the next step.
            if matches!(error, ProgramError::Cancelled(_)) || !has_lists(lists, self.architecture) {
                return Err(error);
            }
            self.progress.note("apt-get update had errors; going on with what it could fetch");
            Ok(Vec::new())
        })?;
        write(&self.stamp(), "")
    }

    fn stamp(&self) -> PathBuf {
        self.folder.join("updated")
    }

    fn apt(&self, lists: &Path) -> Program {
        let set = |key: &str, path: &Path| format!("{key}={}", path.display());
        Program::new("apt-get", "apt")
            .until(self.cancel)
            .folder(&self.folder)
            .arg("-qq")
            .arg(format!("--config-file={}", self.folder.join("apt.conf").display()))
            .args(["-o", &set("Dir::State::lists", lists)])
            .args(["-o", &set("Dir::State::status", &self.folder.join("status"))])
            .args(["-o", &set("Dir::State::extended_states", &self.folder.join("extended_states"))])
            .args(["-o", &set("Dir::Cache", &self.folder.join("cache"))])
            .env("DEBIAN_FRONTEND", "noninteractive")
    }

    fn offers(&self, lists: &Path, packages: &[String], closure: Closure) -> Result<Vec<Offer>, PackageError> {
        let call = self.apt(lists).arg("--print-uris");
        let call = match closure {
            Closure::Alone => call.arg("download"),
            Closure::WithDepends => call.args(["--yes", "install"]),
        };
        let out = call.arg("--").args(packages).run()?;
        let offers: Vec<Offer> = String::from_utf8_lossy(&out).lines().filter_map(offer).collect();
        for package in packages {
            let name = package.split(['=', '/']).next().unwrap_or_default();
            if !offers.iter().any(|offer| offer.name == name) {
                let architecture = self.architecture.to_owned();
                return Err(PackageError::NoDebianPackage { package: package.clone(), architecture });
            }
        }
        Ok(offers)
    }

    /// The files of `offers`; what is kept from earlier is verified against the signed lists.
    fn download(&self, lists: &Path, offers: &[Offer]) -> Result<Vec<PathBuf>, PackageError> {
        let exact: Vec<String> = offers.iter().map(|offer| format!("{}={}", offer.name, offer.version)).collect();
        let offers = self.offers(lists, &exact, Closure::Alone)?;
        let kept = self.folder.join("debs");
        let missing: Vec<&Offer> = offers.iter().filter(|offer| !is_intact(&kept.join(&offer.file), offer)).collect();
        if !missing.is_empty() {
            let _meter = self.progress.begin(&format!("apt-get download {}", shown(&missing)), None);
            let fresh = tempfile::tempdir_in(&self.folder)
                .map_err(|source| io_error("make a temporary folder in", &self.folder, source))?;
            let exact = missing.iter().map(|offer| format!("{}={}", offer.name, offer.version));
            self.apt(lists).folder(fresh.path()).args(["download", "--"]).args(exact).run()?;
            for offer in &missing {
                let (from, to) = (fresh.path().join(&offer.file), kept.join(&offer.file));
                fs::rename(&from, &to).map_err(|source| io_error("keep", &to, source))?;
            }
        }
        Ok(offers.iter().map(|offer| kept.join(&offer.file)).collect())
    }
}

/// Debian's name of Go's architecture.
pub(super) fn debian_architecture(architecture: &str) -> &str {
    match architecture {
        "386" => "i386",
        "arm" => "armhf",
        "ppc64le" => "ppc64el",
        other => other,
    }
}

fn has_lists(folder: &Path, architecture: &str) -> bool {
    let wanted = format!("_binary-{architecture}_Packages");
    let names = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.file_name());
    names.into_iter().any(|name| name.to_string_lossy().contains(&wanted))
}

/// One line of `--print-uris`: `'URI' FILE SIZE [HASH]`.
fn offer(line: &str) -> Option<Offer> {
    let mut words = line.strip_prefix('\'')?.split_once("' ")?.1.split(' ');
    let file = words.next().filter(|file| file.ends_with(".deb") && !file.contains('/'))?;
    let sha256 = words.nth(1).and_then(|hash| hash.strip_prefix("SHA256:")).map(String::from);
    let mut parts = file.trim_end_matches(".deb").split('_');
    let name = parts.next()?.to_owned();
    let version = parts.next()?.replace("%3a", ":").replace("%25", "%");
    Some(Offer { name, version, file: file.to_owned(), sha256 })
}

fn is_intact(path: &Path, offer: &Offer) -> bool {
    let hash = File::open(path).and_then(|mut file| {
        let mut hash = Sha256::new();
        io::copy(&mut file, &mut hash)?;
        Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect::<String>())
    });
    hash.is_ok_and(|hash| offer.sha256.as_deref() == Some(&hash))
}

fn shown(offers: &[&Offer]) -> String {
    const SHOWN: usize = 3;
    let names: Vec<&str> = offers.iter().take(SHOWN).map(|offer| offer.name.as_str()).collect();
    match offers.len().checked_sub(SHOWN).filter(|more| *more > 0) {
        Some(more) => format!("{} and {more} more", names.join(" ")),
        None => names.join(" "),
    }
}

fn write(path: &Path, text: &str) -> Result<(), PackageError> {
    fs::write(path, text).map_err(|source| io_error("write", path, source))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_offer_no_package_file_are_passed_over() {
        for line in ["", "Reading lists", "'http://x/a.deb'", "'http://x' ../a_1_all.deb 1", "'http://x' a.deb 1"] {
            assert_eq!(offer(line), None, "{line}");
        }
    }

    #[test]
    fn an_offer_has_name_version_and_hash() {
        let line =
            "'http://x/busybox-static_1.35%2bb1.deb' busybox-static_1%3a1.35.0-4+b1_amd64.deb 928188 SHA256:3d3f";
        let expected = Offer {
            name: "busybox-static".into(),
            version: "1:1.35.0-4+b1".into(),
            file: "busybox-static_1%3a1.35.0-4+b1_amd64.deb".into(),
            sha256: Some("3d3f".into()),
        };
        assert_eq!(offer(line), Some(expected));
        assert_eq!(offer("'http://x/a' a_1_all.deb 9 MD5Sum:00").unwrap().sha256, None);
    }

    #[test]
    fn a_kept_file_without_the_signed_hash_is_not_taken() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a_1_all.deb");
        fs::write(&path, "abc").unwrap();
        let right = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let offer =
            |hash: Option<&str>| Offer { sha256: hash.map(String::from), ..offer("'u' a_1_all.deb 3").unwrap() };
        assert!(is_intact(&path, &offer(Some(right))));
        assert!(!is_intact(&path, &offer(Some(&right.replace('b', "c")))));
        assert!(!is_intact(&path, &offer(None)));
        assert!(!is_intact(&folder.path().join("none"), &offer(Some(right))));
    }
}
