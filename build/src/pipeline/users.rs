//! Users by the images' own names, once the images are unpacked.

use std::error::Error;

use crate::bundle::{self, Bundle, BundleError, Manner};
use crate::config::Config;
use crate::layer::UnpackedLayers;
use crate::oci::Image;
use crate::plan::Plan;
use crate::tree::{Kind, TreePath};

/// Longest list of users or groups that is read.
const LIST_BYTES: u64 = 4 << 20;
/// Most links from one list to where it is.
const LINKS: usize = 8;

/// `bundles` as they are, or made once more if one of them needs its image's users.
pub(super) fn look_up(
    bundles: Vec<Bundle>,
    config: &Config,
    manner: &Manner,
    plan: &Plan,
    layers: &UnpackedLayers,
) -> Result<Vec<Bundle>, BundleError> {
    if !bundles.iter().any(|bundle| bundle.needs_user) {
        return Ok(bundles);
    }
    bundle::bundles_with_users(config, manner, |written| plan.image(written), &|image, path| file(layers, image, path))
}

type AnyError = Box<dyn Error + Send + Sync>;

fn file(layers: &UnpackedLayers, image: &Image, path: &str) -> Result<Option<Vec<u8>>, AnyError> {
    let tree = layers.tree(image, 0)?;
    let mut path = TreePath::from_member(path.as_bytes()).map_err(|fault| fault.to_string())?;
    for _ in 0..LINKS {
        let Some(node) = tree.get(&path) else { return Ok(None) };
        match &node.kind {
            Kind::File(body) => {
                let content = body.read_up_to(LIST_BYTES)?;
                return content.map(Some).ok_or_else(|| format!("it is longer than {LIST_BYTES} bytes").into());
            }
            Kind::Symlink(target) => {
                let start = if target.starts_with(b"/") { TreePath::root() } else { parent(&path) };
                path = target.split(|&byte| byte == b'/').fold(start, |at, name| match name {
                    b"" | b"." => at,
                    b".." => parent(&at),
                    name => at.join(name),
                });
            }
            _ => return Ok(None),
        }
    }
    Ok(None)
}

fn parent(path: &TreePath) -> TreePath {
    path.split().map(|(folder, _)| folder).unwrap_or_default()
}
