//! `kiln cache ls` and `kiln cache verify`: what is there, and whether it is whole.

use std::fmt::Write;

use indicatif::HumanBytes;
use kiln_build::oci::{Stored, WrongBlob};
use serde_json::json;

use super::Bench;
use crate::args;
use crate::failure::Failure;

/// Names that are shown of those that need a damaged blob.
const NAMES_SHOWN: usize = 5;

pub fn ls(bench: &Bench<'_>, asked: &args::CacheLs) -> Result<(), Failure> {
    let stored = bench.store()?.stored()?;
    let text = if asked.json { as_json(&stored) } else { as_table(&stored) };
    Ok(bench.printer.data(text.as_bytes())?)
}

fn as_json(stored: &Stored) -> String {
    let image = |image: &kiln_build::oci::StoredImage| {
        json!({
            "name": image.name,
            "digest": image.digest.to_string(),
            "platforms": image.platforms,
            "size_bytes": image.size_bytes,
            "own_bytes": image.own_bytes,
            "missing_blobs": image.missing,
        })
    };
    let images: Vec<_> = stored.images.iter().map(image).collect();
    let all = json!({"images": images, "reached_bytes": stored.reached_bytes, "all_bytes": stored.all_bytes});
    format!("{all:#}\n")
}

fn as_table(stored: &Stored) -> String {
    let mut rows = vec![["NAME", "PLATFORMS", "SIZE", "OWN", ""].map(String::from)];
    for image in &stored.images {
        let note = match image.missing {
            0 => String::new(),
            1 => "1 blob is missing".into(),
            count => format!("{count} blobs are missing"),
        };
        let (size, own) = (HumanBytes(image.size_bytes).to_string(), HumanBytes(image.own_bytes).to_string());
        let name = if image.name.is_empty() { format!("(no name) {}", image.digest) } else { image.name.clone() };
        rows.push([name, image.platforms.join(","), size, own, note]);
    }
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths = [width(0), width(1), width(2), width(3)];
    let mut text = String::new();
    for [name, platforms, size, own, note] in &rows {
        let line = format!(
            "{name:<0$}  {platforms:<1$}  {size:>2$}  {own:>3$}  {note}",
            widths[0], widths[1], widths[2], widths[3]
        );
        let _ = writeln!(text, "{}", line.trim_end());
    }
    let unneeded = stored.all_bytes.saturating_sub(stored.reached_bytes);
    let _ = writeln!(text, "{} in all, shared blobs counted once", HumanBytes(stored.reached_bytes));
    if unneeded > 0 {
        let _ = writeln!(text, "{} are needed by none; `kiln cache gc` removes them", HumanBytes(unneeded));
    }
    text
}

pub fn verify(bench: &Bench<'_>, asked: &args::CacheVerify) -> Result<(), Failure> {
    let verified = bench.store()?.verify(asked.fix, bench.cancel, bench.progress)??;
    for wrong in &verified.wrong {
        bench.printer.data(format!("{}\n", line(wrong)).as_bytes())?;
    }
    let bytes = HumanBytes(verified.bytes);
    let damaged = verified.wrong.iter().filter(|wrong| wrong.found.is_some()).count();
    let missing = verified.wrong.len() - damaged;
    if verified.wrong.is_empty() {
        bench.printer.note(&format!("{} blobs ({bytes}) are what their names say", verified.blobs));
        return Ok(());
    }
    if asked.fix && missing == 0 {
        bench.printer.note(&format!("{damaged} of {} blobs were damaged and are removed", verified.blobs));
        return Ok(());
    }
    let text = format!("of {} blobs, {damaged} are damaged and {missing} missing", verified.blobs);
    let hint = match asked.fix {
        true => "the damaged ones are removed; `kiln cache pull NAME` gets what is missing",
        false => "`kiln cache verify --fix` removes what is damaged; `kiln cache pull NAME` gets it anew",
    };
    Err(Failure::new(text).hint(hint))
}

fn line(wrong: &WrongBlob) -> String {
    let what = wrong.found.map_or_else(|| "is missing".to_owned(), |found| format!("is damaged (it is {found})"));
    let shown: Vec<_> = wrong.images.iter().take(NAMES_SHOWN).map(String::as_str).collect();
    let more = if wrong.images.len() > NAMES_SHOWN { " and others" } else { "" };
    match shown.is_empty() {
        true => format!("{} {what}; no image needs it", wrong.digest),
        false => format!("{} {what}; needed by {}{more}", wrong.digest, shown.join(", ")),
    }
}
