//! What names a package's build: LinuxKit's hash of a folder in git, and the tag that it goes into.
//!
//! The hash is git's tree hash of the package's folder in a commit. With further folders it is the SHA-1 of all tree
//! hashes, one behind another. When something differs from `HEAD`, `-dirty-` and the first digits of a SHA-256 follow:
//! of the content of all files, one behind another, first those that git knows and then the new ones. Outside of git
//! there is no hash.

use std::io;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use super::git::{HEAD, Repository, read_all};
use super::{PackageError, hex};

/// LinuxKit's number of digits behind `-dirty-`.
pub(super) const DIRTY_DIGITS: usize = 7;
/// The tag of a package that has no hash.
const NO_HASH_TAG: &str = "latest";

/// What the hash is made from.
#[derive(Debug)]
pub(super) struct Question<'a> {
    /// The package's folder.
    pub folder: &'a Path,
    /// The folder whose tree is hashed: the package's, or one above it.
    pub hash_folder: &'a Path,
    /// Further folders.
    pub extra: &'a [PathBuf],
    /// The commit.
    pub commit: &'a str,
    /// The hash is known already; only whether something changed is asked.
    pub hash: Option<&'a str>,
    /// The package counts as changed even if it is not.
    pub force_dirty: bool,
}

/// The answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Identity {
    /// Empty outside of git.
    pub hash: String,
    /// Whether something differs from `HEAD`.
    pub is_dirty: bool,
}

/// The hash that LinuxKit gives a package.
///
/// Errors: a folder that is in a repository and not in the commit; `git` is missing or fails; a file cannot be read.
pub(super) fn of_folder(question: &Question<'_>) -> Result<Identity, PackageError> {
    let Question { folder, hash_folder, extra, commit, .. } = *question;
    let Some(repository) = Repository::around(folder)? else {
        let hash = question.hash.unwrap_or_default().to_owned();
        return Ok(Identity { hash, is_dirty: question.force_dirty });
    };
    let mut changed = Vec::new();
    if commit == HEAD {
        if repository.is_changed(hash_folder)? {
            changed.push(folder);
        }
        for folder in extra {
            if Repository::around(folder)?.map_or(Ok(false), |repository| repository.is_changed(folder))? {
                changed.push(folder);
            }
        }
    }
    let is_dirty = question.force_dirty || !changed.is_empty();
    if let Some(hash) = question.hash {
        return Ok(Identity { hash: hash.into(), is_dirty });
    }
    let mut hash = tree(&repository, hash_folder, commit)?;
    if !extra.is_empty() {
        for folder in extra {
            let refuse = || PackageError::NotInGit { folder: folder.clone() };
            hash += &tree(&Repository::around(folder)?.ok_or_else(refuse)?, folder, commit)?;
        }
        hash = hex(&sha1::Sha1::digest(&hash));
    }
    if is_dirty {
        let mut content = Sha256::new();
        read_all(&repository.files(folder)?, &mut content)?;
        // LinuxKit looks no further than the package; a change elsewhere would keep the tag of another image.
        for extra in changed.iter().filter(|changed| **changed != folder) {
            read_all(&repository.files(extra)?, &mut content)?;
        }
        let digits = hex(&content.finalize());
        hash = format!("{hash}-dirty-{}", digits.get(..DIRTY_DIGITS).unwrap_or(&digits));
    }
    Ok(Identity { hash, is_dirty })
}

fn tree(repository: &Repository, folder: &Path, commit: &str) -> Result<String, PackageError> {
    let refuse = || PackageError::NotCommitted { folder: folder.to_owned(), commit: commit.to_owned() };
    repository.tree(folder, commit)?.ok_or_else(refuse)
}

/// `template` with `hash` in the place of every `{{.Hash}}`; `latest` if nothing is left. `None` for any other template.
pub(super) fn tag(template: &str, hash: &str) -> Option<String> {
    let mut tag = String::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once("{{") {
        let (action, behind) = after.split_once("}}")?;
        (action.trim() == ".Hash").then_some(())?;
        tag.extend([before, hash]);
        rest = behind;
    }
    tag.push_str(rest);
    Some(if tag.is_empty() { NO_HASH_TAG.into() } else { tag })
}

/// `path` below or at `above`, both as they are on disk.
pub(super) fn is_within(path: &Path, above: &Path) -> io::Result<bool> {
    Ok(std::fs::canonicalize(path)?.starts_with(std::fs::canonicalize(above)?))
}

#[cfg(test)]
mod tests {
    use super::super::git::git;
    use super::*;
    use std::fs;

    /// The example of LinuxKit's own outputs: a folder `pkg` with three files, all committed.
    fn repository() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("pkg")).unwrap();
        for (name, text) in [
            ("pkg/Dockerfile", "FROM scratch\nCOPY f /\n"),
            ("pkg/f", "content\n"),
            ("pkg/build.yml", "image: thing\n"),
        ] {
            fs::write(root.path().join(name), text).unwrap();
        }
        run_git(root.path(), &["init", "-q"]);
        run_git(root.path(), &["add", "pkg"]);
        run_git(root.path(), &["commit", "-q", "-m", "x"]);
        root
    }

    fn run_git(folder: &Path, args: &[&str]) -> String {
        let identity = ["-c", "user.name=n", "-c", "user.email=e@localhost", "-c", "commit.gpgsign=false"];
        String::from_utf8(git(folder).args(identity).args(args).run().unwrap()).unwrap().trim().to_owned()
    }

    fn question(folder: &Path) -> Question<'_> {
        Question { folder, hash_folder: folder, extra: &[], commit: HEAD, hash: None, force_dirty: false }
    }

    fn ask(folder: &Path) -> Result<Identity, PackageError> {
        of_folder(&question(folder))
    }

    const CLEAN: &str = "45757048133c6be498ee578a36a1b56122a11e75";

    #[test]
    fn what_git_does_not_have_is_refused_by_name() {
        let root = repository();
        let new = root.path().join("new");
        fs::create_dir(&new).unwrap();
        assert!(matches!(ask(&new), Err(PackageError::NotCommitted { folder, .. }) if folder == new));
        let pkg = root.path().join("pkg");
        let error = of_folder(&Question { commit: "--exec=x", ..question(&pkg) }).unwrap_err().to_string();
        assert!(error.contains("`--exec=x`"), "{error}");
        let elsewhere = [tempfile::tempdir().unwrap().keep()];
        assert!(matches!(
            of_folder(&Question { extra: &elsewhere, ..question(&pkg) }),
            Err(PackageError::NotInGit { .. })
        ));
        fs::remove_dir(&elsewhere[0]).unwrap();
        fs::remove_dir_all(root.path().join(".git/objects")).unwrap();
        assert!(matches!(ask(&pkg), Err(PackageError::Program(_))), "a damaged repository is none to ignore");
    }

    #[test]
    fn a_clean_folder_has_gits_tree_hash_wherever_else_something_changed() {
        let root = repository();
        let pkg = root.path().join("pkg");
        fs::write(root.path().join("elsewhere"), "x").unwrap();
        assert_eq!(ask(&pkg).unwrap(), Identity { hash: CLEAN.into(), is_dirty: false });
        assert_eq!(of_folder(&Question { hash: Some("abc"), ..question(&pkg) }).unwrap().hash, "abc");
    }

    #[test]
    fn a_changed_folder_has_linuxkits_dirty_digits() {
        let root = repository();
        let pkg = root.path().join("pkg");
        let forced = of_folder(&Question { force_dirty: true, ..question(&pkg) }).unwrap();
        assert!(forced.is_dirty && forced.hash.starts_with(&format!("{CLEAN}-dirty-")), "{forced:?}");
        fs::write(pkg.join("f"), "changed\n").unwrap();
        assert_eq!(ask(&pkg).unwrap().hash, format!("{CLEAN}-dirty-bfa56c7"));
        let old = of_folder(&Question { commit: "HEAD~0", ..question(&pkg) }).unwrap();
        assert_eq!(old, Identity { hash: CLEAN.into(), is_dirty: false }, "only HEAD can be dirty");
        run_git(root.path(), &["checkout", "-q", "."]);
        fs::write(pkg.join(".gitignore"), "ignored\n").unwrap();
        let with_new = ask(&pkg).unwrap();
        assert!(with_new.is_dirty);
        fs::write(pkg.join("ignored"), "x").unwrap();
        std::os::unix::fs::symlink("f", pkg.join("link")).unwrap();
        assert_eq!(ask(&pkg).unwrap(), with_new, "neither ignored files nor links count");
    }

    #[test]
    fn new_files_count_behind_those_that_git_knows() {
        let root = repository();
        let pkg = root.path().join("pkg");
        fs::write(pkg.join("a"), "new\n").unwrap();
        let content = Sha256::digest("FROM scratch\nCOPY f /\nimage: thing\ncontent\nnew\n");
        assert_eq!(ask(&pkg).unwrap().hash, format!("{CLEAN}-dirty-{}", &hex(&content)[..DIRTY_DIGITS]));
    }

    #[test]
    fn further_folders_are_hashed_with_it_and_can_make_it_dirty() {
        let root = repository();
        let pkg = root.path().join("pkg");
        let extra = [pkg.clone()];
        let twice = of_folder(&Question { extra: &extra, ..question(&pkg) }).unwrap();
        assert_eq!(twice.hash, hex(&sha1::Sha1::digest(format!("{CLEAN}{CLEAN}"))));
        let shared = root.path().join("shared");
        fs::create_dir(&shared).unwrap();
        fs::write(shared.join("s"), "s").unwrap();
        run_git(root.path(), &["add", "shared"]);
        run_git(root.path(), &["commit", "-q", "-m", "y"]);
        let extra = [shared.clone()];
        fs::write(shared.join("s"), "1").unwrap();
        let one = of_folder(&Question { extra: &extra, ..question(&pkg) }).unwrap();
        fs::write(shared.join("s"), "2").unwrap();
        let two = of_folder(&Question { extra: &extra, ..question(&pkg) }).unwrap();
        assert!(one.is_dirty && two.is_dirty && one != two);
    }

    #[test]
    fn outside_of_git_there_is_no_hash() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(ask(folder.path()).unwrap(), Identity::default());
    }

    #[test]
    fn a_tag_takes_the_hash_and_nothing_else() {
        for (template, hash, expected) in [
            ("{{.Hash}}", "abc", Some("abc")),
            ("{{ .Hash }}", "", Some("latest")),
            ("", "abc", Some("latest")),
            ("v1-{{.Hash}}-x", "", Some("v1--x")),
            ("{{.Hash}}{{ .Hash}}", "a", Some("aa")),
            ("fixed", "a", Some("fixed")),
            ("{{.Date}}", "a", None),
            ("{{.Hash", "a", None),
        ] {
            assert_eq!(tag(template, hash).as_deref(), expected, "{template}");
        }
    }
}
