//! `kiln pkg build` and `kiln pkg push`.

use std::path::PathBuf;

use kiln_build::cancel::Cancel;
use kiln_build::oci::{Platform, Store};
use kiln_build::package::{BuildArgument, BuildContext, Builder, Package, PackageError, PackageOptions, Publishing};
use kiln_build::plan::PullOptions;

use super::Workbench;
use crate::args;
use crate::failure::Failure;
use crate::interrupt::cancel_on_signals;
use crate::printer::Printer;
use crate::progress::Shown;
use crate::surroundings::{self, variable};
use crate::surroundings::{own_architecture, when};

/// Words that cannot be meant.
#[derive(Debug, thiserror::Error)]
enum UsageError {
    /// A platform that is none.
    #[error("`{0}` is no platform; write linux/ARCH, such as linux/arm64")]
    Platform(String),
    /// What only comes with a push.
    #[error("`--{0}` goes with `--push`")]
    OnlyWithPush(&'static str),
}

/// Everything that is the same for all packages of one command.
struct Work<'a> {
    asked: &'a args::PkgBuild,
    push: bool,
    anew: bool,
    store: Store,
    bench: Workbench,
    wanted: Vec<String>,
    skipped: Vec<String>,
    cancel: Cancel,
    progress: Shown,
    printer: &'a Printer,
}

/// Builds each package, even if it is there already with `anew`; prints its reference, and with `push` pushes it.
pub(super) fn build(
    asked: &args::PkgBuild,
    options: PackageOptions,
    push: bool,
    anew: bool,
    global: &args::Global,
    printer: &Printer,
) -> Result<(), Failure> {
    for (flag, is_given) in [("nobuild", asked.nobuild), ("release", asked.release.is_some())] {
        if is_given && !push {
            return Err(Failure::usage(UsageError::OnlyWithPush(flag)));
        }
    }
    let builder = asked.builder.as_deref().map(str::parse::<Builder>).transpose().map_err(Failure::usage)?;
    let mut wanted = architectures(&asked.platforms)?;
    wanted.extend(asked.arch.clone());
    let skipped = architectures(&asked.skip_platforms)?;
    let path = surroundings::store(global, &variable)?;
    let source_date_s = surroundings::source_date_s(&variable)?;
    let cancel = cancel_on_signals()?;
    let pull = PullOptions {
        pull: when("ignore-cached", asked.ignore_cached, global.offline)?,
        registry: surroundings::registries(global, &variable)?,
        ..PullOptions::default()
    };
    let mut bench = Workbench::new(&path, own_architecture(), source_date_s, pull, cancel.clone())?;
    bench.context.dockerfile.builder = builder;
    for file in &asked.build_arg_file {
        bench.context.dockerfile.arguments.extend(BuildArgument::of_file(file)?);
    }
    let given = asked.build_arg.iter().map(|text| BuildArgument { text: text.clone(), folder: PathBuf::from(".") });
    bench.context.dockerfile.arguments.extend(given);
    let (store, progress) = (Store::open(&path)?, Shown::new(printer));
    let work = Work {
        asked,
        push,
        anew: anew || asked.force,
        store,
        bench,
        wanted,
        skipped,
        cancel: cancel.clone(),
        progress,
        printer,
    };
    for folder in &asked.dirs {
        let package = Package::load_with(folder, &options)?;
        work.package(&package).map_err(|failure| match cancel.check() {
            Ok(()) => failure,
            Err(_) => Failure::unless_interrupted(failure.error, &cancel),
        })?;
    }
    Ok(())
}

impl Work<'_> {
    fn package(&self, package: &Package) -> Result<(), Failure> {
        let architectures = self.architectures(package);
        if self.asked.dry_run {
            return self.show(package, &architectures);
        }
        if self.push && package.is_dirty() {
            return Err(PackageError::Dirty { folder: package.folder().to_owned() }.into());
        }
        let mut made = Vec::new();
        let mut hindrance = None;
        for architecture in &architectures {
            let context = self.context(architecture);
            match self.one(package, &context)? {
                None => made.push(architecture.clone()),
                // What was asked for by name is no more than missing; what only might be built is left out.
                Some(why) if self.wanted.is_empty() => {
                    self.printer.note(&format!("`{}` is not built for {architecture}: {why}", package.reference()));
                    hindrance = Some(self.unable(package, architecture, why));
                }
                Some(why) => return Err(self.unable(package, architecture, why).into()),
            }
        }
        if let (true, Some(error)) = (made.is_empty(), hindrance) {
            return Err(error.into());
        }
        if self.asked.docker {
            for architecture in &made {
                package.load_into_docker(&self.store, &self.context(architecture))?;
            }
        }
        if self.push {
            self.publish(package, &made)?;
        }
        Ok(self.printer.data(format!("{}\n", package.reference()).as_bytes())?)
    }

    /// Has the image for one platform in the store afterwards. Why not, if nothing here can build it.
    fn one(&self, package: &Package, context: &BuildContext) -> Result<Option<String>, PackageError> {
        if self.asked.nobuild {
            return match package.find(&self.store, context)? {
                Some(_) => Ok(None),
                None => Ok(Some("it is not in the store".into())),
            };
        }
        // Without a hash the name says nothing of the content.
        let anew = self.anew || !package.is_named_for_content();
        if !anew && package.find_or_pull(&self.store, context, &self.progress)?.is_some() {
            return Ok(None);
        }
        if let Some(why) = package.hindrance(context)? {
            return Ok(Some(why));
        }
        let built = match anew {
            true => package.build(&self.store, context, &self.progress),
            false => package.build_missing(&self.store, context, &self.progress),
        };
        match built {
            Ok(_) => Ok(None),
            Err(error) if error.is_platform_missing() && self.wanted.is_empty() => Ok(Some(error.to_string())),
            Err(error) => Err(error),
        }
    }

    /// Pushes what the registry does not have.
    fn publish(&self, package: &Package, architectures: &[String]) -> Result<(), PackageError> {
        let registry = &self.bench.context.pull.registry;
        let with = Publishing { registry, cancel: &self.cancel, progress: &self.progress };
        if self.asked.release.is_none() && package.is_published(&self.store, with)? {
            self.printer.note(&format!("`{}` is in the registry already", package.reference()));
            return Ok(());
        }
        package.push(&self.store, architectures, self.asked.release.as_deref(), with)
    }

    /// Prints what would be run.
    fn show(&self, package: &Package, architectures: &[String]) -> Result<(), Failure> {
        for architecture in architectures {
            let context = self.context(architecture);
            let line = match (package.hindrance(&context)?, package.dry_run(&context)?) {
                (Some(why), _) => format!("# {} is not built for {architecture}: {why}\n", package.reference()),
                (None, Some(line)) => format!("{line}\n"),
                (None, None) => format!("# {} for {architecture}: native, nothing else is run\n", package.reference()),
            };
            self.printer.data(line.as_bytes())?;
        }
        Ok(())
    }

    fn architectures(&self, package: &Package) -> Vec<String> {
        let all = match (&self.wanted[..], package.recipe().is_native()) {
            ([_, ..], _) => self.wanted.clone(),
            ([], true) => vec![own_architecture().to_owned()],
            ([], false) => package.recipe().arches.clone(),
        };
        all.into_iter().filter(|architecture| !self.skipped.contains(architecture)).collect()
    }

    fn context(&self, architecture: &str) -> BuildContext {
        BuildContext { platform: Platform::linux(architecture), ..self.bench.context.clone() }
    }

    fn unable(&self, package: &Package, architecture: &str, why: String) -> PackageError {
        PackageError::Unable { folder: package.folder().to_owned(), architecture: architecture.to_owned(), why }
    }
}

/// The architectures of platforms.
fn architectures(platforms: &[String]) -> Result<Vec<String>, Failure> {
    let architecture = |platform: &String| {
        let parsed = platform.trim().parse().ok();
        let linux = parsed.filter(|found: &Platform| found.os == "linux" && found.variant.is_empty());
        linux.map(|found| found.architecture).ok_or_else(|| Failure::usage(UsageError::Platform(platform.clone())))
    };
    platforms.iter().map(architecture).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn platforms_are_linux_and_an_architecture() {
        for wrong in ["", "arm64", "linux/", "windows/amd64", "linux/arm/v7"] {
            assert_eq!(architectures(&[wrong.into()]).unwrap_err().status, 2, "{wrong}");
        }
        assert_eq!(architectures(&["linux/arm64".into(), " linux/amd64".into()]).unwrap(), ["arm64", "amd64"]);
    }
}
