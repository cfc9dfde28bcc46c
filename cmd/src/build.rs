//! `kiln build`: files and flags to a build request, and what came of it.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{SystemTime, UNIX_EPOCH};

use indicatif::HumanBytes;
use kiln_build::cancel::Cancel;
use kiln_build::format::Format;
use kiln_build::pipeline::{self, BuildRequest, Built, Destination, SbomRequest, YamlSource};
use kiln_build::plan::{Pull, PullOptions};
use signal_hook::consts::{SIGINT, SIGTERM};

use crate::args;
use crate::failure::{Failure, INTERRUPTED};
use crate::pkg;
use crate::printer::Printer;
use crate::progress::Shown;
use crate::surroundings::{self, variable};
use crate::timings;

/// Longest YAML that is read. Configurations have some kilobytes; `contents:` of files may be long.
const YAML_BYTES: u64 = 16 << 20;
/// Output name of a build from standard input, as LinuxKit has it.
const STDIN_NAME: &str = "moby";

/// A file that cannot be a configuration.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// It cannot be read.
    #[error("cannot read `{name}`")]
    Unreadable {
        /// As the user named it.
        name: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// It is too long.
    #[error("`{0}` is longer than {YAML_BYTES} bytes, so it is no configuration")]
    TooLong(String),
    /// It is no text.
    #[error("`{0}` is no UTF-8 text, so it is no configuration")]
    NoText(String),
    /// It is on the network.
    #[error("`{0}` is a URL, which is not supported yet")]
    Url(String),
}

/// Builds what was asked for.
pub fn build(asked: &args::Build, global: &args::Global, printer: &Printer) -> Result<(), Failure> {
    let formats = formats(asked)?;
    let destination = destination(asked);
    let store = surroundings::store(global, &variable)?;
    let compat = surroundings::compat(asked.linuxkit.compat, &variable)?;
    let source_date_s = surroundings::source_date_s(&variable)?;
    let registries = surroundings::registries(global, &variable)?;
    let sources = asked.files.iter().map(|file| source(file)).collect::<Result<Vec<_>, _>>()?;
    let cancel = cancel_on_signals()?;
    printer.detail(&format!("image store: {}", store.display()));
    let progress = Shown::new(printer);
    let architecture = asked.arch.clone().unwrap_or_else(|| own_architecture().into());
    let packages = pkg::Workbench::new(&store, &architecture, source_date_s, cancel.clone())?;
    let resolve = |folder: &Path| Ok(packages.resolve(folder, &progress)?);
    let request = BuildRequest {
        sources,
        destination,
        formats,
        architecture,
        store,
        working_folder: std::env::current_dir()?,
        home_folder: surroundings::home(&variable),
        source_date_s,
        cancel: cancel.clone(),
        pull: PullOptions {
            docker_first: asked.linuxkit.docker,
            pull: if asked.pull { Pull::Always } else { Pull::Missing },
            registry: registries,
            ..PullOptions::default()
        },
        packages: Some(&resolve),
        compat,
        decompress_kernel: asked.linuxkit.decompress_kernel,
        input_tar: asked.linuxkit.input_tar.clone(),
        disk_bytes: asked.linuxkit.size,
        sbom: sbom(asked, source_date_s)?,
    };
    match pipeline::build(&request, &progress) {
        Ok(built) => {
            tell(&built, printer);
            if let Some(form) = asked.timings {
                printer.asked(&timings::shown(&built.phases, form));
            }
            Ok(())
        }
        Err(error) => Err(Failure::unless_interrupted(error, &cancel)),
    }
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

/// A flag that the first SIGINT or SIGTERM sets; the second ends the process at once.
pub fn cancel_on_signals() -> io::Result<Cancel> {
    let flag = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        // In this order: the second sees what the first did.
        signal_hook::flag::register_conditional_shutdown(signal, INTERRUPTED.into(), Arc::clone(&flag))?;
        signal_hook::flag::register(signal, Arc::clone(&flag))?;
    }
    Ok(Cancel::on(flag))
}

/// This machine's architecture by Go's name.
pub fn own_architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn formats(asked: &args::Build) -> Result<Vec<Format>, Failure> {
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
    Ok(formats)
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

fn source(file: &Path) -> Result<YamlSource, SourceError> {
    let name = file.to_string_lossy().into_owned();
    if name.starts_with("http://") || name.starts_with("https://") {
        return Err(SourceError::Url(name));
    }
    let is_stdin = file == Path::new("-");
    let mut bytes = Vec::new();
    let read = |from: &mut dyn Read, bytes: &mut Vec<u8>| from.take(YAML_BYTES + 1).read_to_end(bytes);
    let done = if is_stdin {
        read(&mut io::stdin().lock(), &mut bytes)
    } else {
        File::open(file).and_then(|mut file| read(&mut file, &mut bytes))
    };
    done.map_err(|source| SourceError::Unreadable { name: name.clone(), source })?;
    if bytes.len() as u64 > YAML_BYTES {
        return Err(SourceError::TooLong(name));
    }
    let text = String::from_utf8(bytes).map_err(|_| SourceError::NoText(name.clone()))?;
    let folder = file
        .parent()
        .filter(|_| !is_stdin)
        .map(|folder| if folder.as_os_str().is_empty() { PathBuf::from(".") } else { folder.to_path_buf() });
    Ok(YamlSource { name, text, folder })
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
        for words in
            ["-format qcow2 x.yml", "-f tar,iso x.yml", "-o x -f kernel+initrd x.yml", "-o x -f tar,kernel+initrd x"]
        {
            assert_eq!(formats(&asked(words)).unwrap_err().status, 2, "{words}");
        }
        for (words, expected) in [
            ("x.yml", vec![Format::KernelInitrd]),
            ("-o - x.yml", vec![Format::Tar]),
            ("-f tar,kernel+initrd -f tar x.yml", vec![Format::Tar, Format::KernelInitrd]),
        ] {
            assert_eq!(formats(&asked(words)).unwrap(), expected, "{words}");
        }
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

    #[test]
    fn what_is_no_configuration_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("x.yml");
        assert!(matches!(source(&file), Err(SourceError::Unreadable { .. })));
        std::fs::write(&file, b"\xff").unwrap();
        assert!(matches!(source(&file), Err(SourceError::NoText(_))));
        File::create(&file).unwrap().set_len(YAML_BYTES + 1).unwrap();
        assert!(matches!(source(&file), Err(SourceError::TooLong(_))));
        assert!(matches!(source(Path::new("https://x/y.yml")), Err(SourceError::Url(_))));
        assert!(matches!(source(folder.path()), Err(SourceError::Unreadable { .. })));
    }
}
