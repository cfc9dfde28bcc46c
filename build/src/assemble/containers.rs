//! Volumes and containers: their images' trees and the files around them, as the guest's init expects them.

use super::{AssembleError, Ingredients, origin, own_path};
use crate::bundle::{Access, Bundle, Root};
use crate::config::{Role, Volume, VolumeFormat};
use crate::tree::{Kind, Origin, Tree, TreeError};

pub(super) fn add_volumes(ingredients: &Ingredients<'_>, tree: &mut Tree) -> Result<(), AssembleError> {
    for (index, volume) in ingredients.config.volumes.iter().enumerate() {
        add_volume(ingredients, volume, Role::Volume(index), tree)?;
    }
    Ok(())
}

fn add_volume(
    ingredients: &Ingredients<'_>,
    volume: &Volume,
    role: Role,
    tree: &mut Tree,
) -> Result<(), AssembleError> {
    let place = || volume.place.clone();
    if volume.format == VolumeFormat::Oci {
        return Err(AssembleError::Unsupported { what: "a volume of `format: oci`", place: place() });
    }
    let fault = |source| AssembleError::Tree { what: role.to_string(), source };
    let dir = volume.dir();
    let lower = own_path(&format!("{dir}/lower"));
    tree.set_origin(Origin { source: "linuxkit.volumes".into(), location: role.to_string() });
    if let Some(written) = &volume.image {
        let image = ingredients.image(written, role)?;
        tree.set_origin(origin(image, role));
        let files = ingredients.image_tree(image, role)?;
        tree.graft(&lower, &files).map_err(fault)?;
    } else {
        tree.put(&lower, ingredients.generated(0o755), Kind::directory()).map_err(fault)?;
    }
    for name in ["tmp", "merged"] {
        ingredients.generate(tree, &format!("{dir}/{name}"), 0o755, Kind::directory()).map_err(fault)?;
    }
    Ok(())
}

pub(super) fn add_bundles(ingredients: &Ingredients<'_>, tree: &mut Tree) -> Result<(), AssembleError> {
    for bundle in ingredients.bundles {
        let role = bundle.role;
        let image = ingredients.image(&bundle.image, role)?;
        tree.set_origin(origin(image, role));
        let fault = |source| AssembleError::Tree { what: role.to_string(), source };
        if let Root::Own { tree: path } = &bundle.root {
            let files = ingredients.image_tree(image, role)?;
            tree.graft(&own_path(path), &files).map_err(fault)?;
            supply_in_container(ingredients, tree, path).map_err(fault)?;
        }
        add_bundle(ingredients, bundle, tree).map_err(fault)?;
    }
    Ok(())
}

fn supply_in_container(ingredients: &Ingredients<'_>, tree: &mut Tree, folder: &str) -> Result<(), TreeError> {
    ingredients.supply_mount_points(tree, folder)?;
    let resolv = Kind::file("\n# no resolv.conf configured\n");
    ingredients.supply(tree, folder, "etc/resolv.conf", 0o644, resolv)
}

/// The files and folders beside the image's.
fn add_bundle(ingredients: &Ingredients<'_>, bundle: &Bundle, tree: &mut Tree) -> Result<(), TreeError> {
    let folders: &[&str] = match bundle.access {
        Access::Writable => &["tmp", "rootfs"],
        Access::ReadOnly => &["rootfs"],
    };
    for name in folders {
        ingredients.supply(tree, &bundle.dir, name, 0o755, Kind::directory())?;
    }
    for (name, content) in [("config.json", &bundle.config_json), ("runtime.json", &bundle.runtime_json)] {
        ingredients.generate(tree, &format!("{}/{name}", bundle.dir), 0o644, Kind::file(content))?;
    }
    Ok(())
}
