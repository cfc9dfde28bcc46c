//! `--input-tar`: the tar of a former build. LinuxKit copies what has not changed out of it; here it is only looked at, and
//! then everything is built: unpacked layers are kept, so that this costs as little and cannot be wrong. What LinuxKit
//! copies although it did change is taken over with `--compat linuxkit`.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use super::{BuildRequest, Destination};
use crate::config::{self, Config, Container, FileContent, MetadataFormat, Role};
use crate::layer::{Archive, ArchiveFault, LayerLimits};
use crate::plan::Plan;
use crate::tree::{Attributes, Body, CMDLINE_PATH, KERNEL_PATH, Kind, Spool, Tree, TreeError, TreePath};

/// Longest configuration in a former tar.
const CONFIG_BYTES: u64 = 16 << 20;

/// Why a former tar is of no use.
#[derive(Debug, thiserror::Error)]
pub enum FormerError {
    /// It would be overwritten.
    #[error("`--input-tar` is `{}`, and that is the output too; write the new tar to another file", .0.display())]
    IsOutput(PathBuf),
    /// It cannot be read.
    #[error("cannot read `{}` of `--input-tar`", path.display())]
    Unreadable {
        /// The tar.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It is no tar.
    #[error("`{}` of `--input-tar` is no tar of a build", path.display())]
    NoTar {
        /// The tar.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<ArchiveFault>,
    },
    /// The configuration does not write itself into the tar.
    #[error("`--input-tar` needs an entry of `files` with `metadata: yaml`, in this build and in the one before")]
    NoMetadata,
    /// The former build had no such entry, or elsewhere.
    #[error("`{}` of `--input-tar` has no configuration at `{member}`, where `files` wants it", path.display())]
    NotInTar {
        /// The tar.
        path: PathBuf,
        /// Where it should be.
        member: String,
    },
    /// The former command line cannot be where it belongs.
    #[error("cannot take over the former command line")]
    Tree(#[from] TreeError),
}

/// A former build.
pub(super) struct Former {
    tree: Tree,
    /// What it was built from, if that can be read.
    config: Option<Config>,
}

impl Former {
    /// Reads it, if there is one. Nothing is read of it but names and its configuration.
    pub fn read(request: &BuildRequest<'_>, config: &Config) -> Result<Option<Self>, FormerError> {
        let Some(path) = &request.input_tar else { return Ok(None) };
        if outputs(request).iter().any(|output| is_same(output, path)) {
            return Err(FormerError::IsOutput(path.clone()));
        }
        let is_yaml = |content: &FileContent| *content == FileContent::Metadata(MetadataFormat::Yaml);
        let entry = config.files.iter().find(|entry| is_yaml(&entry.content)).ok_or(FormerError::NoMetadata)?;
        let unreadable = |source| FormerError::Unreadable { path: path.clone(), source };
        let no_tar = |source| FormerError::NoTar { path: path.clone(), source: Box::new(source) };
        let file = File::open(path).map_err(unreadable)?;
        let len = file.metadata().map_err(unreadable)?.len();
        let content = Body::Spooled { spool: Spool::of(file).into(), start: 0, len };
        let mut tree = Tree::new(request.source_date_s);
        Archive::open(content, &request.store, &LayerLimits::default(), &request.cancel)
            .and_then(|archive| archive.extract(&mut tree))
            .map_err(no_tar)?;
        let missing = || FormerError::NotInTar { path: path.clone(), member: entry.path.clone() };
        let text = text(&tree, &entry.path).ok_or_else(missing)?;
        let source = config::Source { name: &entry.path, text: &text };
        let config = config::parse(source, &mut |folder| Ok(format!("@pkg:{folder}"))).ok();
        Ok(Some(Self { tree, config }))
    }

    /// Containers that LinuxKit copies.
    pub fn copied(&self, config: &Config, plan: &Plan) -> BTreeSet<Role> {
        let Some(former) = &self.config else { return BTreeSet::new() };
        let same = |(role, container): &(Role, &Container)| {
            former.containers().any(|(old_role, old)| {
                let image = plan.image(&container.image).map_or(container.image.as_str(), |image| &image.reference);
                old_role == *role
                    && old.name == container.name
                    && old.image == image
                    && old.options == container.options
            })
        };
        config.containers().filter(same).map(|(role, _)| role).collect()
    }

    /// Takes over the command line if the kernel's image is the same, as LinuxKit does.
    pub fn put_cmdline(&self, config: &Config, plan: &Plan, tree: &mut Tree) -> Result<(), FormerError> {
        let full = |written: &String| plan.image(written).map(|image| image.reference.clone());
        let image = config.kernel.image.as_ref().and_then(full);
        let former = self.config.as_ref().and_then(|former| former.kernel.image.clone());
        let (true, Some(text)) = (image.is_some() && image == former, text(&self.tree, CMDLINE_PATH)) else {
            return Ok(());
        };
        let origin = tree.get(&path(KERNEL_PATH)).map(|node| (*node.origin).clone()).unwrap_or_default();
        tree.set_origin(origin);
        tree.put(&path(CMDLINE_PATH), Attributes::of_root(0o644, tree.implied_mtime_s()), Kind::file(text))?;
        Ok(())
    }
}

fn path(text: &str) -> TreePath {
    TreePath::from_user(text).unwrap_or_default()
}

fn text(tree: &Tree, file: &str) -> Option<String> {
    match &tree.get(&path(file))?.kind {
        Kind::File(body) => String::from_utf8(body.read_up_to(CONFIG_BYTES).ok()??).ok(),
        _ => None,
    }
}

fn outputs(request: &BuildRequest<'_>) -> Vec<PathBuf> {
    match &request.destination {
        Destination::Stdout => Vec::new(),
        Destination::File(file) => vec![file.clone()],
        Destination::Folder { folder, name } => {
            let parts = request.formats.iter().flat_map(|format| format.parts(&Tree::new(0)));
            parts.map(|part| folder.join(part.file_name(name))).collect()
        }
    }
}

fn is_same(output: &Path, input: &Path) -> bool {
    match (fs::canonicalize(output), fs::canonicalize(input)) {
        (Ok(output), Ok(input)) => output == input,
        _ => output == input,
    }
}
