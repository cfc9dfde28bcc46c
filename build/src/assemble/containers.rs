//! Volumes and containers: their images' trees and the files around them, as the guest's init expects them.

use super::{AssembleError, Ingredients, RESOLV_LINK, origin, own_path};
use crate::bundle::{Access, Bundle, Root};
use crate::config::{Role, Volume};
use crate::plan::Layout;
use crate::tree::{Kind, Origin, Tree, TreeError};

pub(super) fn add_volumes(ingredients: &Ingredients<'_>, tree: &mut Tree) -> Result<(), AssembleError> {
    for (index, volume) in ingredients.config.volumes.iter().enumerate() {
        add_volume(ingredients, volume, (Role::Volume(index), ingredients.layouts.of(index)), tree)?;
    }
    Ok(())
}

fn add_volume(
    ingredients: &Ingredients<'_>,
    volume: &Volume,
    (role, layout): (Role, Option<&Layout>),
    tree: &mut Tree,
) -> Result<(), AssembleError> {
    let fault = |source| AssembleError::Tree { what: role.to_string(), source };
    let dir = volume.dir();
    let lower = format!("{dir}/lower");
    let own = Origin { source: "linuxkit.volumes".into(), location: role.to_string() };
    tree.set_origin(own.clone());
    match &volume.image {
        None => {
            tree.put(&own_path(&lower), ingredients.generated(0o755), Kind::directory()).map(drop).map_err(fault)?
        }
        Some(written) => {
            if let Some(layout) = layout {
                tree.set_origin(Origin { source: layout.reference.clone(), location: role.to_string() });
                ingredients.layouts.put(layout, &lower, ingredients, tree).map_err(fault)?;
            } else {
                let image = ingredients.image(written, role)?;
                tree.set_origin(origin(image, role));
                let files = ingredients.image_tree(image, role, &lower)?;
                tree.graft(&own_path(&lower), &files).map_err(fault)?;
                ingredients.supply_mount_points(tree, &lower).map_err(fault)?;
                let (path, mode, target) = RESOLV_LINK;
                let link = Kind::Symlink(target.into());
                ingredients.generate(tree, &format!("{lower}/{path}"), mode, link).map_err(fault)?;
            }
            tree.set_origin(own);
        }
    }
    // The guest's init makes a volume writable when it has a `tmp` for what is written.
    let writable = !volume.readonly || ingredients.compat.is_linuxkit();
    for name in ["tmp", "merged"].into_iter().filter(|name| writable || *name != "tmp") {
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
            let files = ingredients.image_tree(image, role, path)?;
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
