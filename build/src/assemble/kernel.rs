//! The kernel's image: of it only the kernel, the tar with its modules and the microcode are used.

use super::decompress::unpacked;
use super::{AssembleError, Ingredients, origin, own_path};
use crate::config::Role;
use crate::layer::Archive;
use crate::oci::Image;
use crate::tree::{Body, CMDLINE_PATH, KERNEL_PATH, Kind, Tree, TreePath, UCODE_PATH};

pub(super) fn add(ingredients: &Ingredients<'_>, tree: &mut Tree) -> Result<(), AssembleError> {
    let kernel = &ingredients.config.kernel;
    let Some(written) = &kernel.image else { return Ok(()) };
    let image = ingredients.image(written, Role::Kernel)?;
    let files = ingredients.image_tree(image, Role::Kernel, "")?;
    tree.set_origin(origin(image, Role::Kernel));
    let fault = |source| AssembleError::Tree { what: Role::Kernel.to_string(), source };

    let (mode, mut binary) = find(&files, image, kernel.binary_name(), "binary")?;
    if ingredients.decompress_kernel {
        binary = unpacked(&binary, ingredients.folder).map_err(|source| AssembleError::KernelPacking {
            image: image.reference.clone(),
            file: kernel.binary_name().into(),
            source: Box::new(source),
        })?;
    }
    // LinuxKit copies the member of the archive, which of a hard link holds nothing.
    if ingredients.compat.is_linuxkit() && files.is_later_name(&own_path(kernel.binary_name())) {
        binary = Body::Inline([].into());
    }
    ingredients.generate(tree, KERNEL_PATH, mode, Kind::File(binary)).map_err(fault)?;
    let cmdline = Kind::file(kernel.cmdline.as_deref().unwrap_or_default());
    ingredients.generate(tree, CMDLINE_PATH, 0o644, cmdline).map_err(fault)?;
    if let Some(name) = kernel.ucode_name() {
        let (mode, ucode) = find(&files, image, name, "ucode")?;
        ingredients.generate(tree, UCODE_PATH, mode, Kind::File(ucode)).map_err(fault)?;
    }
    if let Some(name) = kernel.tar_name() {
        let (_, content) = find(&files, image, name, "tar")?;
        let Ingredients { folder, limits, cancel, .. } = ingredients;
        Archive::open(content, folder, limits, cancel).and_then(|archive| archive.extract(tree)).map_err(|source| {
            AssembleError::KernelTar { image: image.reference.clone(), file: name.into(), source: Box::new(source) }
        })?;
    }
    Ok(())
}

/// Mode and content of a file, through links that stay below the link's own folder.
fn find(files: &Tree, image: &Image, name: &str, field: &'static str) -> Result<(u32, Body), AssembleError> {
    const LINKS: usize = 8;
    let mut path = TreePath::from_user(name).ok();
    for _ in 0..LINKS {
        let Some(node) = path.as_ref().and_then(|path| files.get(path)) else { break };
        match &node.kind {
            Kind::File(body) => return Ok((node.attributes.mode, body.clone())),
            Kind::Symlink(target) => {
                let folder = path.as_ref().and_then(TreePath::split).map(|(folder, _)| folder).unwrap_or_default();
                let folder = if target.starts_with(b"/") { own_path("") } else { folder };
                let target = target.strip_prefix(b"/").unwrap_or(target);
                path = TreePath::from_member(target).ok().map(|target| folder.append(&target));
            }
            _ => break,
        }
    }
    Err(AssembleError::KernelFile { image: image.reference.clone(), file: name.into(), field })
}
