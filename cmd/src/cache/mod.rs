//! `kiln cache`: the image store and what goes into and out of it.

mod list;
mod out;
mod remove;

use std::io;
use std::path::Path;

use indicatif::HumanBytes;
use kiln_build::cancel::Cancel;
use kiln_build::oci::{
    self, Digest, Extent, ImportFrom, NoPlatform, Platform, PushRequest, Reference, Source, Store, StoreError,
};
use kiln_build::plan::{self, ImageUse, PullOptions};
use kiln_build::progress::Progress;

use crate::args::{self, Cache};
use crate::failure::Failure;
use crate::interrupt::cancel_on_signals;
use crate::printer::Printer;
use crate::progress::Shown;
use crate::surroundings::own_architecture;
use crate::surroundings::{self, variable};

/// Does what `kiln cache` asks for.
pub fn cache(asked: &Cache, global: &args::Global, printer: &Printer) -> Result<(), Failure> {
    let cancel = cancel_on_signals()?;
    let progress = Shown::new(printer);
    let bench = Bench { global, printer, progress: &progress, cancel: &cancel };
    let done = match asked {
        Cache::Ls(asked) => list::ls(&bench, asked),
        Cache::Pull(asked) => pull(&bench, asked),
        Cache::Push(asked) => push(&bench, asked),
        Cache::Import(asked) => import(&bench, asked),
        Cache::Export(asked) => out::export(&bench, asked),
        Cache::Rm(asked) => remove::rm(&bench, asked),
        Cache::Clean(asked) => remove::clean(&bench, asked),
        Cache::Gc => remove::gc(&bench),
        Cache::Verify(asked) => list::verify(&bench, asked),
    };
    done.map_err(|failure| match cancel.check() {
        Ok(()) => failure,
        Err(_) => Failure::unless_interrupted(failure.error, &cancel),
    })
}

/// What every one of these commands needs.
struct Bench<'a> {
    global: &'a args::Global,
    printer: &'a Printer,
    progress: &'a dyn Progress,
    cancel: &'a Cancel,
}

impl Bench<'_> {
    fn store(&self) -> Result<Store, Failure> {
        Ok(Store::open(&surroundings::store(self.global, &variable)?)?)
    }

    /// The store, when nobody else uses it.
    fn store_alone(&self) -> Result<Store, Failure> {
        Ok(Store::open_alone(&surroundings::store(self.global, &variable)?)?)
    }
}

/// A name that is typed, in full.
fn name(text: &str) -> Result<Reference, Failure> {
    text.parse().map_err(Failure::usage)
}

/// `linux/arm64/v8`, or only `arm64`.
pub fn platform(text: &str) -> Result<Platform, Failure> {
    let full = if text.contains('/') { text.to_owned() } else { format!("linux/{text}") };
    full.parse().map_err(|_| Failure::usage(NoPlatform { written: text.into() }))
}

fn own_platform() -> Platform {
    Platform::linux(own_architecture())
}

fn pull(bench: &Bench<'_>, asked: &args::CachePull) -> Result<(), Failure> {
    let sources: Result<Vec<Source>, Failure> =
        asked.names.iter().map(|text| text.parse().map_err(Failure::usage)).collect();
    let sources = sources?;
    let mut platforms = asked.platform.iter().map(|text| platform(text)).collect::<Result<Vec<_>, _>>()?;
    if platforms.is_empty() {
        platforms.push(own_platform());
    }
    let registry = surroundings::registries(bench.global, &variable)?;
    let store = bench.store()?;
    for (source, text) in sources.iter().zip(&asked.names) {
        let digest = match source {
            Source::Registry(reference) => {
                let extent = if asked.all_platforms { Extent::All } else { Extent::Platforms(&platforms) };
                oci::pull(reference, extent, &store, &registry, bench.cancel, bench.progress)?
            }
            Source::Files(files) => {
                let text = format!("`{files}` is not pulled: a build reads it where it is");
                let path = files.path.display();
                return Err(Failure::usage(text).hint(format!("`kiln cache import {path}` takes it over for good")));
            }
            Source::Docker(_) | Source::Containerd(_) => {
                let sources = surroundings::sources(&variable);
                let options = PullOptions { sources, cancel: bench.cancel.clone(), ..PullOptions::default() };
                let uses = [ImageUse { reference: text.clone(), place: "command line".into() }];
                let mut digest = None;
                for platform in &platforms {
                    let plan = plan::pin(&uses, platform, &store, &options, bench.progress)?;
                    digest = plan.image(text).map(|image| image.manifest);
                }
                let Some(digest) = digest else { continue };
                if let Source::Docker(reference) | Source::Containerd(reference) = source {
                    store.tag_stored(reference, digest)?;
                }
                digest
            }
        };
        bench.printer.note(&format!("{source} is {digest}"));
    }
    Ok(())
}

fn push(bench: &Bench<'_>, asked: &args::CachePush) -> Result<(), Failure> {
    if asked.remote_name.is_some() && asked.names.len() > 1 {
        return Err(Failure::usage("`--remote-name` is for one image"));
    }
    let names = asked.names.iter().map(|text| name(text)).collect::<Result<Vec<_>, _>>()?;
    let remote = asked.remote_name.as_deref().map(name).transpose()?;
    let only = asked.platform.as_deref().map(platform).transpose()?;
    let registry = surroundings::registries(bench.global, &variable)?;
    let store = bench.store()?;
    for from in &names {
        let root = root(&store, from)?;
        let target = remote.as_ref().unwrap_or(from);
        let request = PushRequest { root, target, platform: only.as_ref() };
        let pushed = oci::push(&request, &store, &registry, bench.cancel, bench.progress)?;
        let digest = pushed.digest.unwrap_or(root);
        bench.printer.note(&format!(
            "{target} is {digest}: {} sent ({}), {} mounted, {} there already",
            pushed.sent,
            HumanBytes(pushed.sent_bytes),
            pushed.mounted,
            pushed.skipped
        ));
    }
    Ok(())
}

/// What a name in the store means.
fn root(store: &Store, name: &Reference) -> Result<Digest, Failure> {
    let unknown = || StoreError::Unnamed { reference: name.to_string() };
    let root = store.root_digest(name)?;
    root.ok_or_else(|| Failure::new(unknown()).hint("`kiln cache ls` lists what is there"))
}

fn import(bench: &Bench<'_>, asked: &args::CacheImport) -> Result<(), Failure> {
    let name = asked.name.as_deref().map(name).transpose()?;
    let store = bench.store()?;
    let mut stdin;
    let from = match asked.file == Path::new("-") {
        true => {
            stdin = io::stdin().lock();
            ImportFrom::Stream(&mut stdin)
        }
        false => ImportFrom::Path(&asked.file),
    };
    for imported in oci::import(from, name.as_ref(), &store, bench.cancel, bench.progress)? {
        for name in imported.names {
            bench.printer.data(format!("{name}\n").as_bytes())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_platform_is_wrong_usage() {
        for text in ["", "/", "linux/", "/amd64", "a/b/c/d"] {
            assert_eq!(platform(text).unwrap_err().status, 2, "{text}");
        }
        assert_eq!(platform("arm64").unwrap(), Platform::linux("arm64"));
        assert_eq!(platform("linux/arm/v7").unwrap().to_string(), "linux/arm/v7");
    }
}
