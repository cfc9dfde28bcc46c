//! `kiln build`: files and flags to a build request, and what came of it.

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use indicatif::HumanBytes;
use kiln_build::compat::Compat;
use kiln_build::config::ReadOptions;
use kiln_build::format::boot::Signer;
use kiln_build::format::{Format, SquashfsOptions, SquashfsOrderError};
use kiln_build::pipeline::{self, BuildRequest, Built, Destination, SbomRequest, YamlSource};
use kiln_build::plan::PullOptions;
use kiln_build::source::SourceReader;

use crate::args;
use crate::failure::Failure;
use crate::interrupt::cancel_on_signals;
use crate::pkg;
use crate::printer::Printer;
use crate::progress::Shown;
use crate::surroundings::{self, variable};
use crate::timings;

/// Output name of a build from standard input, as LinuxKit has it.
const STDIN_NAME: &str = "moby";

/// Builds what was asked for.
pub fn build(asked: &args::Build, global: &args::Global, printer: &Printer) -> Result<(), Failure> {
    let compat = surroundings::compat(asked.linuxkit.compat, &variable)?;
    let formats = formats(asked, compat)?;
    let destination = destination(asked);
    let store = surroundings::store(global, &variable)?;
    let source_date_s = surroundings::source_date_s(&variable)?;
    let registries = surroundings::registries(global, &variable)?;
    let reader = SourceReader {
        certificates: registries.certificates.clone(),
        offline: global.offline,
        working_folder: std::env::current_dir()?,
    };
    let sources = asked.files.iter().map(|file| reader.read(file)).collect::<Result<Vec<_>, _>>()?;
    let include = |from: &YamlSource, name: &str| Ok(reader.include(from, name)?);
    let environment = |name: &str| variable(name)?.into_string().ok();
    let cancel = cancel_on_signals()?;
    printer.detail(&format!("image store: {}", store.display()));
    let progress = Shown::new(printer);
    let architecture = asked.arch.clone().unwrap_or_else(|| surroundings::own_architecture().into());
    let pull = PullOptions {
        docker_first: asked.linuxkit.docker,
        pull: surroundings::when("pull", asked.pull, global.offline)?,
        registry: registries,
        sources: surroundings::sources(&variable),
        ..PullOptions::default()
    };
    let packages = pkg::Workbench::new(&store, &architecture, source_date_s, pull.clone(), cancel.clone())?;
    let packages = packages.like(compat);
    let resolve = |folder: &Path| match asked.yaml.dry_run {
        true => Ok(packages.reference(folder)?),
        false => Ok(packages.resolve(folder, &progress)?),
    };
    let request = BuildRequest {
        sources,
        destination,
        formats,
        architecture,
        store,
        working_folder: reader.working_folder.clone(),
        home_folder: surroundings::home(&variable),
        source_date_s,
        cancel,
        pull,
        packages: Some(&resolve),
        yaml: ReadOptions {
            include: Some(&include),
            set: asked.yaml.set.iter().cloned().collect(),
            environment: Some(&environment),
            ..ReadOptions::default()
        },
        compat,
        decompress_kernel: asked.linuxkit.decompress_kernel,
        input_tar: asked.linuxkit.input_tar.clone(),
        disk_bytes: asked.linuxkit.size,
        erofs: asked.erofs.erofs,
        disk_root: asked.root,
        verity: asked.verity,
        squashfs: squashfs(&asked.squashfs)?,
        secure_boot: signer(&asked.secure_boot)?,
        sbom: sbom(asked, source_date_s)?,
    };
    carry_out(asked, &request, &progress, printer)
}

fn carry_out(
    asked: &args::Build,
    request: &BuildRequest<'_>,
    progress: &Shown,
    printer: &Printer,
) -> Result<(), Failure> {
    let failed = |error| Failure::unless_interrupted(error, &request.cancel);
    if asked.yaml.dry_run {
        let text = pipeline::resolved_yaml(request).map_err(failed)?;
        return Ok(printer.data(text.as_bytes())?);
    }
    let built = pipeline::build(request, progress).map_err(failed)?;
    tell(&built, printer);
    if let Some(form) = asked.timings {
        printer.asked(&timings::shown(&built.phases, form));
    }
    Ok(())
}

fn signer(asked: &args::SecureBoot) -> Result<Option<Signer>, Failure> {
    let files = asked.secure_boot_key.as_ref().zip(asked.secure_boot_cert.as_ref());
    Ok(files.map(|(key, certificate)| Signer::read(key, certificate)).transpose()?)
}

fn squashfs(asked: &args::Squashfs) -> Result<SquashfsOptions, Failure> {
    let mut options = asked.squashfs.clone().unwrap_or_default();
    if let Some(path) = &asked.squashfs_sort {
        let refuse =
            |why: &dyn std::fmt::Display| Failure::usage(format!("`-squashfs-sort {}`: {why}", path.display()));
        let text = std::fs::read_to_string(path).map_err(|error| refuse(&error))?;
        options.order = text.parse().map_err(|error: SquashfsOrderError| refuse(&error))?;
    }
    Ok(options)
}

fn sbom(asked: &args::Build, source_date_s: i64) -> Result<Option<SbomRequest>, Failure> {
    let args::Sbom { no_sbom, sbom_output, sbom_current_time } = &asked.sbom;
    if *no_sbom {
        return Ok(None);
    }
    let created_s = match sbom_current_time {
        true => SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs().cast_signed()),
        false => source_date_s,
    };
    let path = sbom_output.to_str().ok_or_else(|| Failure::usage("`-sbom-output` is no UTF-8 text"))?.to_owned();
    Ok(Some(SbomRequest { path, created_s }))
}

fn formats(asked: &args::Build, compat: Compat) -> Result<Vec<Format>, Failure> {
    let mut formats = Vec::new();
    for name in &asked.format {
        let format: Format = name.parse().map_err(Failure::usage)?;
        if !formats.contains(&format) {
            formats.push(format);
        }
    }
    if formats.is_empty() {
        formats.push(if asked.output.is_some() { Format::Tar } else { Format::KernelInitrd });
    }
    if asked.output.is_some() && formats.iter().any(|format| formats.len() > 1 || !format.is_stream()) {
        let names: Vec<_> = formats.iter().map(|format| format.name()).collect();
        let streams: Vec<_> = Format::ALL.iter().filter(|f| f.is_stream()).map(|f| format!("`{f}`")).collect();
        let text = format!("`-o` takes one format that is one file, not {}", names.join(" and "));
        return Err(Failure::usage(text).hint(format!("such formats are: {}", streams.join(", "))));
    }
    check_roots(asked, &formats)?;
    if compat.is_linuxkit()
        && formats.len() > 1
        && formats.iter().any(|format| ["tar", "docker"].contains(&format.name()))
    {
        let text = "with `--compat linuxkit` the formats `tar` and `docker` stand alone";
        return Err(Failure::usage(text).hint("leave `--compat` out, or build twice"));
    }
    Ok(formats)
}

fn check_roots(asked: &args::Build, formats: &[Format]) -> Result<(), Failure> {
    let those = |has: fn(&Format) -> bool| {
        let names: Vec<_> =
            Format::ALL.iter().filter(|format| has(format)).map(|format| format!("`{format}`")).collect();
        names.join(", ")
    };
    if let Some(format) = formats.iter().find(|format| asked.root.is_some() && !format.takes_root()) {
        let failure = Failure::usage(format!("`--root` does nothing for `{format}`"));
        return Err(failure.hint(format!("disks that take a root are: {}", those(|format| format.takes_root()))));
    }
    if let Some(format) =
        formats.iter().find(|format| asked.verity && asked.root.is_none() && format.root_on().is_none())
    {
        let failure = Failure::usage(format!("`--verity` does nothing for `{format}`"));
        let roots = those(|format| format.root_on().is_some());
        return Err(
            failure.hint(format!("formats whose root dm-verity can check are: {roots}, and with `--root` disks"))
        );
    }
    Ok(())
}

fn destination(asked: &args::Build) -> Destination {
    match &asked.output {
        Some(file) if file == Path::new("-") => Destination::Stdout,
        Some(file) => Destination::File(file.clone()),
        None => Destination::Folder {
            folder: asked.dir.clone().unwrap_or_else(|| PathBuf::from(".")),
            name: asked.name.clone().unwrap_or_else(|| default_name(asked.files.last())),
        },
    }
}

fn default_name(last: Option<&PathBuf>) -> String {
    let stem = last.filter(|file| *file != Path::new("-")).and_then(|file| file.file_stem());
    stem.map_or_else(|| STDIN_NAME.into(), |stem| stem.to_string_lossy().into_owned())
}

fn tell(built: &Built, printer: &Printer) {
    for file in &built.files {
        let size = file.metadata().map(|metadata| format!(" ({})", HumanBytes(metadata.len()))).unwrap_or_default();
        let how = if built.up_to_date { ", unchanged" } else { "" };
        let shown = file.strip_prefix(".").unwrap_or(file);
        printer.note(&format!("{}{size}{how}", shown.display()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(words: &str) -> args::Build {
        let words = format!("kiln build {words}");
        let cli = args::parse(words.split_whitespace().map(Into::into)).unwrap();
        let args::Command::Build(asked) = cli.command else { panic!("no build") };
        asked
    }

    #[test]
    fn formats_that_do_not_exist_or_do_not_fit_are_wrong_usage() {
        for words in [
            "-format kernel+qcow x.yml",
            "-verity x.yml",
            "-f tar,iso x.yml",
            "-o x -f kernel+initrd x.yml",
            "-o x -f tar,kernel+initrd x",
        ] {
            assert_eq!(formats(&asked(words), Compat::Right).unwrap_err().status, 2, "{words}");
        }
        for (words, expected) in [
            ("x.yml", vec![Format::KernelInitrd]),
            ("-o - x.yml", vec![Format::Tar]),
            ("-f tar,kernel+initrd -f tar x.yml", vec![Format::Tar, Format::KernelInitrd]),
        ] {
            assert_eq!(formats(&asked(words), Compat::Right).unwrap(), expected, "{words}");
        }
        assert!(formats(&asked("-f tar,kernel+initrd x.yml"), Compat::Linuxkit).is_err());
        assert!(formats(&asked("-f tar x.yml"), Compat::Linuxkit).is_ok());
    }

    #[test]
    fn outputs_are_named_for_the_last_file() {
        let named = |words| match destination(&asked(words)) {
            Destination::Folder { folder, name } => (folder.to_string_lossy().into_owned(), name),
            other => panic!("{other:?}"),
        };
        assert_eq!(named("examples/a.yml examples/b.c.yml"), (".".into(), "b.c".into()));
        assert_eq!(named("-"), (".".into(), "moby".into()));
        assert_eq!(named("-dir out -name n a.yml"), ("out".into(), "n".into()));
        assert_eq!(destination(&asked("-o - a.yml")), Destination::Stdout);
    }
}
