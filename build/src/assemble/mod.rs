//! Images, bundles and files to one tree. The last room that knows there were images.
//!
//! LinuxKit's order: kernel, init images, volumes, onboot, onshutdown, services, files. What comes later wins. Where
//! LinuxKit resets modes that images gave to `dev`, `etc` and the like, or that parents of files have, they stay here
//! (but see [`Compat`]). As there, what a container engine writes over in any case (`etc/hosts`, `etc/resolv.conf`,
//! `etc/hostname`, `.dockerenv` and a few more) is not taken from images: it tells of the machine that made the image.

mod containers;
mod decompress;
mod error;
mod files;
mod init;
mod kernel;
mod layout;

use std::path::Path;

use crate::bundle::Bundle;
use crate::cancel::Cancel;
use crate::compat::Compat;
use crate::config::{Config, Role};
use crate::layer::{LayerLimits, UnpackedLayers};
use crate::oci::Image;
use crate::plan::Plan;
use crate::tree::{Attributes, Kind, Origin, Tree, TreeError, TreePath};

pub use decompress::KernelPacking;
pub use error::AssembleError;
pub use files::{Roots, SourceFiles};
pub use layout::VolumeLayouts;

/// What a tree is made of.
pub struct Ingredients<'a> {
    /// What the user wants.
    pub config: &'a Config,
    /// Its images.
    pub plan: &'a Plan,
    /// Its containers.
    pub bundles: &'a [Bundle],
    /// The layers of all images.
    pub layers: &'a UnpackedLayers,
    /// What OCI volumes hold.
    pub layouts: &'a VolumeLayouts,
    /// What `files:` takes from the host.
    pub sources: &'a SourceFiles,
    /// Where contents go that have to be unpacked.
    pub folder: &'a Path,
    /// What archives in images may do.
    pub limits: &'a LayerLimits,
    /// Time of all that is generated, in seconds since 1970.
    pub source_date_s: i64,
    /// Whose result is wanted.
    pub compat: Compat,
    /// Whether a packed kernel is unpacked.
    pub decompress_kernel: bool,
    /// Is shown the tree of every image before it is used.
    pub on_unpacked: &'a dyn Fn(&Unpacked<'_>),
    /// Stops it.
    pub cancel: &'a Cancel,
}

/// An image's tree, and where it goes.
pub struct Unpacked<'a> {
    /// What the image is for.
    pub role: Role,
    /// The image.
    pub image: &'a Image,
    /// The folder that it goes into, without a slash in front; empty for the root.
    pub folder: &'a str,
    /// Its files.
    pub files: &'a Tree,
}

/// The one tree.
pub fn assemble(ingredients: &Ingredients<'_>) -> Result<Tree, AssembleError> {
    let mut tree = Tree::new(ingredients.source_date_s);
    kernel::add(ingredients, &mut tree)?;
    init::add(ingredients, &mut tree)?;
    containers::add_volumes(ingredients, &mut tree)?;
    containers::add_bundles(ingredients, &mut tree)?;
    files::add(ingredients, &mut tree)?;
    Ok(tree)
}

/// What images have and nobody wants.
const NOT_TAKEN: [&str; 4] = [".dockerenv", "Dockerfile", "dev/console", "etc/hostname"];

/// Where resolvers write, for images that are no container of their own. The mode is LinuxKit's; Linux looks at none.
const RESOLV_LINK: (&str, u32, &[u8]) = ("etc/resolv.conf", 0o644, b"/run/resolvconf/resolv.conf");

impl Ingredients<'_> {
    /// The image that was planned for a place.
    fn image(&self, written: &str, role: Role) -> Result<&Image, AssembleError> {
        self.plan.image(written).ok_or_else(|| AssembleError::NotPlanned { role, image: written.into() })
    }

    /// Its tree, which is to go into `folder`.
    fn image_tree(&self, image: &Image, role: Role, folder: &str) -> Result<Tree, AssembleError> {
        self.cancel.check()?;
        let tree = match self.compat {
            Compat::Right => self.layers.tree(image, self.source_date_s),
            Compat::Linuxkit => self.layers.linuxkit_tree(image, self.source_date_s),
        };
        let mut tree = tree.map_err(|source| AssembleError::Layer {
            role,
            image: image.reference.clone(),
            source: Box::new(source),
        })?;
        tree.set_origin_of_all(origin(image, role));
        for path in NOT_TAKEN {
            tree.remove(&own_path(path));
        }
        (self.on_unpacked)(&Unpacked { role, image, folder, files: &tree });
        Ok(tree)
    }

    fn generated(&self, mode: u32) -> Attributes {
        Attributes::of_root(mode, self.source_date_s)
    }

    /// Puts a generated node at `path`, which is one of ours.
    fn generate(&self, tree: &mut Tree, path: &str, mode: u32, kind: Kind) -> Result<(), TreeError> {
        let path = own_path(path);
        tree.put(&path, self.generated(mode), kind).map(drop)
    }

    /// The same, if there is nothing yet. A file that is there gets the content; its mode and owner stay. LinuxKit gives
    /// files and folders its own mode and owner in any case.
    fn supply(&self, tree: &mut Tree, folder: &str, path: &str, mode: u32, kind: Kind) -> Result<(), TreeError> {
        let path = own_path(&format!("{folder}/{path}"));
        let attributes = match (tree.get(&path).map(|node| (&node.kind, &node.attributes)), &kind) {
            (None, _) => self.generated(mode),
            (Some((Kind::File(_), _)), Kind::File(_)) | (Some((Kind::Directory(_), _)), Kind::Directory(_))
                if self.compat.is_linuxkit() =>
            {
                self.generated(mode)
            }
            (Some((Kind::File(_), attributes)), Kind::File(_)) => attributes.clone(),
            (Some(_), _) => return Ok(()),
        };
        tree.put(&path, attributes, kind).map(drop)
    }

    /// What runtimes mount over or bind, as far as the image does not have it.
    fn supply_mount_points(&self, tree: &mut Tree, folder: &str) -> Result<(), TreeError> {
        const HOSTS: &str = "127.0.0.1       localhost\n::1     localhost ip6-localhost ip6-loopback\n\
                             fe00::0 ip6-localnet\nff00::0 ip6-mcastprefix\n\
                             ff02::1 ip6-allnodes\nff02::2 ip6-allrouters\n";
        for path in ["dev", "dev/pts", "dev/shm", "etc", "proc", "sys"] {
            self.supply(tree, folder, path, 0o755, Kind::directory())?;
        }
        self.supply(tree, folder, "etc/hosts", 0o644, Kind::file(HOSTS))?;
        self.supply(tree, folder, "etc/mtab", 0o755, Kind::Symlink(b"/proc/mounts"[..].into()))
    }
}

fn origin(image: &Image, role: Role) -> Origin {
    Origin { source: image.reference.clone(), location: role.to_string() }
}

/// A path that this crate made from constants and checked names.
fn own_path(path: &str) -> TreePath {
    let path = TreePath::from_user(path);
    debug_assert!(path.is_ok(), "names were checked when the configuration was read");
    path.unwrap_or_default()
}
