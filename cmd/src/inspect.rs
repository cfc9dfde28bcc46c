//! `kiln inspect`: what fills something that was built.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use indicatif::HumanBytes;
use kiln_build::cancel::Cancel;
use kiln_build::inspect::{Folder, InspectError, Listing, Report, treemap};
use kiln_build::output::Outputs;
use serde_json::json;

use crate::args;
use crate::failure::Failure;
use crate::interrupt::cancel_on_signals;
use crate::machines;
use crate::printer::Printer;

/// Lines of each list.
const SHOWN: usize = 15;
/// Folders below are not shown by themselves.
const FOLDER_DEPTH: usize = 4;

/// Nothing of this name.
#[derive(Debug, thiserror::Error)]
#[error("there is no `{0}`, `{0}-initrd.img` or `{0}.tar`")]
struct NotBuilt(String);

/// A picture with no name.
#[derive(Debug, thiserror::Error)]
#[error("`{}` is no file name for a picture", .0.display())]
struct NoFileName(PathBuf);

/// Shows it.
pub fn inspect(asked: &args::Inspect, printer: &Printer) -> Result<(), Failure> {
    if asked.machine || is_machine(asked) {
        return machines::list::inspect(&asked.name, asked.json, printer);
    }
    let cancel = cancel_on_signals()?;
    let found = find(&asked.name)?;
    let report = read(&found, &cancel).map_err(|error| Failure::unless_interrupted(error, &cancel))?;
    for note in &report.notes {
        printer.note(note);
    }
    let name = asked.name.display().to_string();
    if let Some(file) = &asked.svg {
        save(file, treemap(&report, &name).as_bytes())?;
    }
    let shown = match asked.json {
        true => format!("{}\n", json!({"name": name, "on_disk": found.on_disk()?, "contents": report})),
        false => text(&name, &found, &report)?,
    };
    Ok(printer.data(shown.as_bytes())?)
}

/// Whether a machine of this name runs and nothing was built under it.
fn is_machine(asked: &args::Inspect) -> bool {
    asked.svg.is_none() && find(&asked.name).is_err() && machines::connect(&asked.name).is_ok()
}

/// The files that a name stands for.
struct Found {
    archive: PathBuf,
    kernel: Option<PathBuf>,
}

impl Found {
    /// What there is on disk: name and length.
    fn on_disk(&self) -> io::Result<Vec<serde_json::Value>> {
        let length = |file: &PathBuf| Ok(json!({"file": file.display().to_string(), "bytes": file.metadata()?.len()}));
        [&self.archive].into_iter().chain(&self.kernel).map(length).collect()
    }
}

fn find(name: &Path) -> Result<Found, Failure> {
    let with = |end: &str| {
        let mut path = name.as_os_str().to_owned();
        path.push(end);
        Some(PathBuf::from(path)).filter(|path| path.is_file())
    };
    if name.is_file() {
        return Ok(Found { archive: name.into(), kernel: None });
    }
    if let Some(archive) = with("-initrd.img") {
        return Ok(Found { archive, kernel: with("-kernel") });
    }
    let tar = with(".tar").map(|archive| Found { archive, kernel: None });
    tar.ok_or_else(|| Failure::new(NotBuilt(name.display().to_string())).hint("`kiln build` makes one of them"))
}

fn read(found: &Found, cancel: &Cancel) -> Result<Report, InspectError> {
    let path = &found.archive;
    let fail = |path: &Path| {
        let path = path.to_owned();
        |source| InspectError::Read { path, source }
    };
    let file = File::open(path).map_err(fail(path))?;
    let length = file.metadata().map_err(fail(path))?.len();
    let mut listing = Listing::default();
    listing.add_archive(file, path.clone(), length, cancel)?;
    if let Some(kernel) = &found.kernel {
        listing.add_file("boot/kernel", kernel.metadata().map_err(fail(kernel))?.len());
    }
    Ok(Report::new(&listing))
}

fn save(file: &Path, picture: &[u8]) -> Result<(), Failure> {
    let name =
        file.file_name().and_then(|name| name.to_str()).ok_or_else(|| Failure::usage(NoFileName(file.into())))?;
    let mut outputs = Outputs::begin(file.parent().unwrap_or(Path::new("")))?;
    let mut out = outputs.create(name, picture.len() as u64)?;
    out.write_all(picture).map_err(|error| outputs.failed(error))?;
    outputs.complete(&out)?;
    outputs.commit()?;
    Ok(())
}

fn text(name: &str, found: &Found, report: &Report) -> io::Result<String> {
    let mut out = format!("{name}: {} in {} files\n", HumanBytes(report.bytes), report.files);
    for file in [&found.archive].into_iter().chain(&found.kernel) {
        let _ = writeln!(out, "  {} on disk: {}", file.display(), HumanBytes(file.metadata()?.len()));
    }
    let mut list = |head: &str, lines: Vec<(u64, String)>| {
        if lines.is_empty() {
            return;
        }
        let _ = writeln!(out, "\n{head}");
        for (bytes, what) in lines.iter().take(SHOWN) {
            let _ = writeln!(
                out,
                "{:>12} {:>5.1} %  {what}",
                HumanBytes(*bytes).to_string(),
                percent(*bytes, report.bytes)
            );
        }
        if let Some(more) = lines.len().checked_sub(SHOWN).filter(|more| *more > 0) {
            let rest = lines.iter().skip(SHOWN).map(|(bytes, _)| bytes).sum();
            let _ = writeln!(out, "{:>12}          and {more} more", HumanBytes(rest).to_string());
        }
    };
    let section = |section: &kiln_build::inspect::Section| {
        (section.bytes, format!("{}  {}", section.name, section.images.join(" ")).trim_end().to_owned())
    };
    list("by image", report.sections.iter().map(section).collect());
    let package = |package: &kiln_build::inspect::Package| {
        let root = if package.root.is_empty() { String::new() } else { format!("  in {}", package.root) };
        (package.bytes, format!("{} ({}){root}", package.name, package.system))
    };
    let mut packages: Vec<_> = report.packages.iter().map(package).collect();
    if !packages.is_empty() {
        packages.insert(0, (report.bytes_without_package, "in no package".into()));
    }
    list("by package", packages);
    let mut folders = Vec::new();
    walk(&report.root, "", 0, &mut folders);
    folders.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
    folders.truncate(SHOWN);
    list("by folder", folders);
    list("largest files", report.largest.iter().take(SHOWN).map(|file| (file.bytes, file.path.clone())).collect());
    Ok(out)
}

/// Folders near the root with their bytes. One that holds nothing but another is left out for that.
fn walk(folder: &Folder, path: &str, depth: usize, out: &mut Vec<(u64, String)>) {
    for child in folder.children.iter().filter(|child| child.files > 1) {
        let path = if path.is_empty() { child.name.clone() } else { format!("{path}/{}", child.name) };
        if !child.children.iter().any(|below| below.files == child.files) {
            out.push((child.bytes, format!("{path}/")));
        }
        if depth < FOLDER_DEPTH {
            walk(child, &path, depth + 1, out);
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "a share with one digit behind the point")]
fn percent(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { 100.0 * part as f64 / whole as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_stands_for_what_was_built() {
        let folder = tempfile::tempdir().unwrap();
        let name = folder.path().join("x");
        let error = find(&name).err().unwrap();
        assert!(error.error.to_string().contains("x-initrd.img"), "{}", error.error);
        let make = |end: &str| std::fs::write(folder.path().join(end), "").unwrap();
        make("x.tar");
        assert_eq!(find(&name).unwrap().archive, folder.path().join("x.tar"));
        make("x-initrd.img");
        assert_eq!(find(&name).unwrap().kernel, None);
        make("x-kernel");
        assert_eq!(find(&name).unwrap().kernel, Some(folder.path().join("x-kernel")));
        make("x");
        assert_eq!(find(&name).unwrap().archive, name);
    }

    #[test]
    fn a_file_that_is_no_archive_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("x");
        std::fs::write(&file, "no archive").unwrap();
        let error = read(&find(&file).unwrap(), &Cancel::default()).unwrap_err();
        assert!(error.to_string().contains(&file.display().to_string()), "{error}");
    }
}
