//! The root as a context for `docker build`: a tar of it with a `Dockerfile` that makes an image of all the rest.

use super::{FormatError, Sink, Watch, tar};
use crate::tree::{Attributes, Kind, Origin, Tree, TreePath};

const NAME: &str = "Dockerfile";

/// LinuxKit's: the image's program is its init, which tells that it runs in a container.
const TEXT: &str = "\nFROM scratch\n\nCOPY . ./\n\nENTRYPOINT [\"/bin/rc.init\"]\n";

pub(super) fn write(tree: &Tree, sink: &mut dyn Sink, watch: Watch<'_>) -> Result<(), FormatError> {
    let mut tree = tree.clone();
    tree.set_origin(Origin::default());
    let path = TreePath::from_user(NAME).unwrap_or_default();
    let attributes = Attributes::of_root(0o644, tree.implied_mtime_s());
    tree.put(&path, attributes, Kind::file(TEXT)).map_err(|source| FormatError::Tree { path: NAME, source })?;
    tar::write(&tree, sink, watch)
}
