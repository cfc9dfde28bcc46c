//! `kiln cache rm`, `clean` and `gc`: what goes, and how much room that makes.

use indicatif::HumanBytes;
use kiln_build::oci::{self, Freed, Reference, Store, StoreError};

use super::{Bench, name};
use crate::args;
use crate::failure::Failure;
use crate::surroundings::{self, variable};

pub fn rm(bench: &Bench<'_>, asked: &args::CacheRm) -> Result<(), Failure> {
    let references = asked.names.iter().map(|text| name(text)).collect::<Result<Vec<_>, _>>()?;
    let store = bench.store_alone()?;
    let mut names = Vec::new();
    for reference in &references {
        let known = store.names_of(reference)?;
        if known.is_empty() {
            let unknown = StoreError::Unnamed { reference: reference.to_string() };
            return Err(Failure::new(unknown).hint("`kiln cache ls` lists what is there"));
        }
        names.extend(known);
    }
    if asked.published_only {
        names = published(bench, &store, names)?;
    }
    remove(bench, &store, &names)
}

pub fn clean(bench: &Bench<'_>, asked: &args::CacheClean) -> Result<(), Failure> {
    let store = bench.store_alone()?;
    if asked.published_only {
        let names = store.stored()?.images.into_iter().map(|image| image.name).collect();
        let names = published(bench, &store, names)?;
        return remove(bench, &store, &names);
    }
    tell(bench, store.clear()?);
    Ok(())
}

pub fn gc(bench: &Bench<'_>) -> Result<(), Failure> {
    tell(bench, bench.store_alone()?.collect_garbage()?);
    Ok(())
}

fn remove(bench: &Bench<'_>, store: &Store, names: &[String]) -> Result<(), Failure> {
    store.untag(names)?;
    for name in names {
        bench.printer.note(&format!("removed {name}"));
    }
    tell(bench, store.collect_garbage()?);
    Ok(())
}

/// Those of the names that mean the same at their registries.
fn published(bench: &Bench<'_>, store: &Store, names: Vec<String>) -> Result<Vec<String>, Failure> {
    let registry = surroundings::registries(bench.global, &variable)?;
    let mut published = Vec::new();
    for name in names {
        let Ok(reference) = name.parse::<Reference>() else { continue };
        let here = store.root_digest(&reference)?;
        let there = match oci::remote_manifest(&reference, &registry, bench.cancel, bench.progress) {
            Ok(there) => there.map(|manifest| manifest.digest),
            Err(error) => {
                bench.cancel.check()?;
                bench.printer.note(&format!("{name} stays: {error}: {}", error.fault));
                continue;
            }
        };
        match here.is_some() && here == there {
            true => published.push(name),
            false => bench.printer.note(&format!("{name} stays: its registry does not have it")),
        }
    }
    Ok(published)
}

fn tell(bench: &Bench<'_>, freed: Freed) {
    let bytes = HumanBytes(freed.blob_bytes + freed.kept_bytes);
    let kept = match freed.kept {
        0 => String::new(),
        count => format!(" and {count} files that builds kept"),
    };
    bench.printer.note(&format!("freed {bytes}: {} blobs{kept}", freed.blobs));
}
