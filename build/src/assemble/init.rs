//! The init images: unpacked over one another into the root.

use super::{AssembleError, Ingredients, RESOLV_LINK, own_path};
use crate::config::Role;
use crate::tree::{Kind, Origin, Tree, TreeError, TreePath};

/// Alpine's list of installed packages. With several images of it, the root has the packages of all.
const APK_DATABASE: &str = "lib/apk/db/installed";

/// Longest such list, per image: Alpine's whole archive has about 30 MiB of them.
const APK_DATABASE_LIMIT_BYTES: u64 = 64 << 20;

pub(super) fn add(ingredients: &Ingredients<'_>, tree: &mut Tree) -> Result<(), AssembleError> {
    let images = &ingredients.config.init;
    let mut databases = Vec::new();
    for (index, entry) in images.iter().enumerate() {
        let role = Role::Init(index);
        let image = ingredients.image(&entry.image, role)?;
        let files = ingredients.image_tree(image, role, "")?;
        databases.extend(apk_database(&files)?);
        let fault = |source| AssembleError::Tree { what: role.to_string(), source };
        tree.graft(&TreePath::root(), &files).map_err(fault)?;
        tree.set_origin(super::origin(image, role));
    }
    if images.is_empty() {
        return Ok(());
    }
    let fault = |source: TreeError| AssembleError::Tree { what: "the mount points of the init images".into(), source };
    ingredients.supply_mount_points(tree, "").map_err(fault)?;
    let (path, mode, target) = RESOLV_LINK;
    ingredients.generate(tree, path, mode, Kind::Symlink(target.into())).map_err(fault)?;
    if databases.len() > 1 {
        tree.set_origin(Origin { source: "LINUXKIT.apkinit".into(), location: "init".into() });
        let union: Vec<u8> = databases.into_iter().flat_map(|database| [database, b"\n\n".to_vec()].concat()).collect();
        ingredients.generate(tree, APK_DATABASE, 0o644, Kind::file(union)).map_err(fault)?;
    }
    Ok(())
}

fn apk_database(files: &Tree) -> Result<Option<Vec<u8>>, AssembleError> {
    match files.get(&own_path(APK_DATABASE)).map(|node| &node.kind) {
        Some(Kind::File(body)) => body.read_up_to(APK_DATABASE_LIMIT_BYTES).map_err(AssembleError::ReadBack),
        _ => Ok(None),
    }
}
