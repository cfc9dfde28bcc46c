//! `kiln cache export`: an image as a file.

use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use kiln_build::oci::{self, ArchiveKind, ExportRequest, Store};
use kiln_build::output::Outputs;
use kiln_build::rootfs;

use super::{Bench, name, own_platform, platform, root};
use crate::args::{self, ExportFormat};
use crate::failure::Failure;
use crate::surroundings::{self, variable};

const BUFFER_BYTES: usize = 256 << 10;

pub fn export(bench: &Bench<'_>, asked: &args::CacheExport) -> Result<(), Failure> {
    let store = bench.store()?;
    if asked.outfile == Path::new("-") {
        let mut to = BufWriter::with_capacity(BUFFER_BYTES, io::stdout().lock());
        write(bench, asked, &store, &mut to)?;
        return Ok(to.flush()?);
    }
    let file_name = asked.outfile.file_name().and_then(|name| name.to_str()).map(str::to_owned);
    let file_name =
        file_name.ok_or_else(|| Failure::usage(format!("`{}` is no file name", asked.outfile.display())))?;
    let folder = asked.outfile.parent().filter(|folder| !folder.as_os_str().is_empty());
    let mut outputs = Outputs::begin(folder.unwrap_or(&PathBuf::from(".")))?;
    let mut to = BufWriter::with_capacity(BUFFER_BYTES, outputs.create(&file_name, 0)?);
    write(bench, asked, &store, &mut to)?;
    let file = to.into_inner().map_err(|error| outputs.failed(error.into_error()))?;
    outputs.complete(&file)?;
    outputs.commit()?;
    Ok(())
}

fn write(bench: &Bench<'_>, asked: &args::CacheExport, store: &Store, to: &mut dyn Write) -> Result<(), Failure> {
    let image = name(&asked.name)?;
    let called = asked.exported_name.as_deref().map(name).transpose()?;
    let called = called.as_ref().unwrap_or(&image);
    let mut only = asked.platform.as_deref().map(platform).transpose()?;
    if only.is_none() && asked.format != ExportFormat::Oci {
        only = Some(own_platform());
    }
    let kind = match (asked.format, only.as_ref()) {
        (ExportFormat::Oci, _) => ArchiveKind::Oci,
        (ExportFormat::Filesystem, Some(platform)) => {
            let found = store.resolve(&image, root(store, &image)?, platform)?;
            let date = surroundings::source_date_s(&variable)?;
            return Ok(rootfs::write_rootfs(&found, store, to, date, bench.cancel, bench.progress)?);
        }
        _ => ArchiveKind::Docker,
    };
    let request = ExportRequest { image: &image, name: called, platform: only.as_ref(), kind };
    Ok(oci::export(&request, store, to, bench.cancel, bench.progress)?)
}
