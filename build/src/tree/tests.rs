use super::*;

fn path(text: &str) -> TreePath {
    TreePath::from_user(text).unwrap()
}

fn mode(mode: u32) -> Attributes {
    Attributes::of_root(mode, 7)
}

fn link(target: &str) -> Kind {
    Kind::Symlink(target.as_bytes().into())
}

/// `d755 name`, `f name=content`, `l name>target`, one a name; a further name of a node is `h name=first`.
fn listing(tree: &Tree) -> Vec<String> {
    let mut seen = std::collections::HashMap::new();
    let line = |(path, id)| {
        let node = tree.node(id);
        match (&node.kind, seen.get(&id)) {
            (Kind::Directory(_), _) => format!("d{:o} {path}", node.attributes.mode),
            (_, Some(first)) => format!("h {path}={first}"),
            (kind, None) => {
                let line = match kind {
                    Kind::File(body) => {
                        format!("f {path}={}", printable(&body.read_up_to(99).unwrap().unwrap()))
                    }
                    Kind::Symlink(target) => format!("l {path}>{}", printable(target)),
                    _ => format!("? {path}"),
                };
                seen.insert(id, path);
                line
            }
        }
    };
    tree.walk().skip(1).map(line).collect()
}

#[test]
fn a_link_that_climbs_out_of_the_root_is_refused() {
    let mut tree = Tree::new(0);
    tree.put(&path("a/out"), mode(0o777), link("../../etc")).unwrap();
    let error = tree.put(&path("a/out/passwd"), mode(0o644), Kind::file("x")).unwrap_err();
    assert!(matches!(error, TreeError::Escape { .. }), "{error}");
    assert_eq!(listing(&tree), ["d755 a", "l a/out>../../etc"]);
}

#[test]
fn a_link_to_itself_ends() {
    let mut tree = Tree::new(0);
    tree.put(&path("a"), mode(0o777), link("b")).unwrap();
    tree.put(&path("b"), mode(0o777), link("a")).unwrap();
    let error = tree.put(&path("a/x"), mode(0o644), Kind::file("x")).unwrap_err();
    assert!(matches!(error, TreeError::SymlinkLoop { .. }), "{error}");
}

#[test]
fn links_longer_than_any_real_ones_are_refused() {
    let mut tree = Tree::new(0);
    let deep = "a/".repeat(2000);
    tree.put(&path("l0"), mode(0o777), link(&deep)).unwrap();
    tree.put(&path("l1"), mode(0o777), link(&format!("l0/{deep}"))).unwrap();
    let error = tree.put(&path("l1/x"), mode(0o644), Kind::file("x")).unwrap_err();
    assert!(matches!(error, TreeError::LongLinks { .. }), "{error}");
}

#[test]
fn a_file_is_no_folder() {
    let mut tree = Tree::new(0);
    tree.put(&path("a"), mode(0o644), Kind::file("x")).unwrap();
    let error = tree.put(&path("a/b"), mode(0o644), Kind::file("x")).unwrap_err();
    assert_eq!(error.to_string(), "`a` in the path `a` is no folder");
    assert!(matches!(tree.put(&TreePath::root(), mode(0), Kind::Fifo), Err(TreeError::Root)));
}

#[test]
fn a_hard_link_needs_a_file() {
    let mut tree = Tree::new(0);
    tree.put(&path("folder"), mode(0o755), Kind::directory()).unwrap();
    for target in ["nothing", "folder", ""] {
        let error = tree.link(&path("x"), &path(target)).unwrap_err();
        assert!(matches!(error, TreeError::LinkTarget { .. }), "{error}");
    }
}

#[test]
fn paths_follow_links_as_in_a_chroot() {
    let mut tree = Tree::new(0);
    tree.put(&path("usr/lib"), mode(0o700), Kind::directory()).unwrap();
    tree.put(&path("lib"), mode(0o777), link("usr/lib")).unwrap();
    tree.put(&path("var/run"), mode(0o777), link("/run")).unwrap();
    tree.put(&path("lib/a"), mode(0o644), Kind::file("1")).unwrap();
    tree.put(&path("var/run/b"), mode(0o644), Kind::file("2")).unwrap();
    tree.link(&path("c"), &path("lib/a")).unwrap();
    let expected = ["f c=1", "l lib>usr/lib", "d755 run", "f run/b=2", "d755 usr", "d700 usr/lib", "h usr/lib/a=c"];
    assert_eq!(listing(&tree), [&expected[..], &["d755 var", "l var/run>/run"]].concat());
    assert_eq!(tree.link_counts().of(tree.find(&path("c")).unwrap()), 2);
}

#[test]
fn a_folder_over_a_folder_keeps_the_children_and_a_file_over_it_does_not() {
    let mut tree = Tree::new(0);
    tree.put(&path("d/x"), mode(0o644), Kind::file("1")).unwrap();
    tree.put(&path("d"), mode(0o1777), Kind::directory()).unwrap();
    assert_eq!(listing(&tree), ["d1777 d", "f d/x=1"]);
    tree.put(&path("d"), mode(0o644), Kind::file("2")).unwrap();
    assert_eq!(listing(&tree), ["f d=2"]);
    tree.put(&path("d"), mode(0o755), Kind::directory()).unwrap();
    assert_eq!(listing(&tree), ["d755 d"]);
}

#[test]
fn the_order_is_folders_first_and_bytes() {
    let mut tree = Tree::new(0);
    for name in ["a.b", "a/z", "a-b", "B", "a/b/c", "é"] {
        tree.put(&path(name), mode(0o644), Kind::file("")).unwrap();
    }
    let names: Vec<_> = tree.walk().map(|(path, _)| path.to_string()).collect();
    assert_eq!(names, [".", "B", "a", "a/b", "a/b/c", "a/z", "a-b", "a.b", "é"]);
}

#[test]
fn a_graft_keeps_hard_links_and_the_first_link_to_a_folder() {
    let mut image = Tree::new(0);
    image.put(&path("bin/a"), mode(0o755), Kind::file("A")).unwrap();
    image.link(&path("bin/b"), &path("bin/a")).unwrap();
    image.put(&path("lib/new"), mode(0o644), Kind::file("N")).unwrap();
    let mut root = Tree::new(0);
    root.put(&path("lib"), mode(0o777), link("usr/lib")).unwrap();
    root.put(&path("bin/a"), mode(0o755), Kind::file("old")).unwrap();
    root.put(&path("bin/c"), mode(0o755), Kind::file("C")).unwrap();
    root.graft(&TreePath::root(), &image).unwrap();
    let bin = ["d755 bin", "f bin/a=A", "h bin/b=bin/a", "f bin/c=C"];
    assert_eq!(listing(&root), [&bin[..], &["l lib>usr/lib", "d755 usr", "d755 usr/lib", "f usr/lib/new=N"]].concat());
}

#[test]
fn a_link_over_a_folder_gives_the_folders_files_through_the_link() {
    let mut image = Tree::new(0);
    image.put(&path("lib"), mode(0o777), link("usr/lib")).unwrap();
    image.put(&path("usr/lib/same"), mode(0o644), Kind::file("image")).unwrap();
    let mut root = Tree::new(0);
    root.put(&path("lib/modules/m.ko"), mode(0o644), Kind::file("M")).unwrap();
    root.put(&path("lib/same"), mode(0o644), Kind::file("kernel")).unwrap();
    root.graft(&TreePath::root(), &image).unwrap();
    let expected = ["l lib>usr/lib", "d755 usr", "d755 usr/lib", "d755 usr/lib/modules", "f usr/lib/modules/m.ko=M"];
    assert_eq!(listing(&root), [&expected[..], &["f usr/lib/same=image"]].concat());
}
