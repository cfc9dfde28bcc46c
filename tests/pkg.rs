//! Packages with a Dockerfile: real git, a real builder (buildah), a real registry.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::harness::kiln::{Running, Said, Sandbox, run};
use crate::harness::registry::{Registry, skopeo};

/// A git repository with packages, and a `kiln` that can reach no registry but those on loopback.
struct Repository {
    sandbox: Sandbox,
}

const SHELL: &str = "FROM scratch\nCOPY busybox /bin/sh\n";

impl Repository {
    /// One with the package `shell`, a static shell that others stand on.
    fn new() -> Self {
        let repository = Self { sandbox: Sandbox::new() };
        repository.package("shell", "org: acme\narches: [amd64, arm64]\n", SHELL);
        let busybox = ["/bin/busybox", "/usr/bin/busybox"].into_iter().find(|path| Path::new(path).exists()).unwrap();
        fs::copy(busybox, repository.path("shell/busybox")).unwrap();
        repository.git(&["init", "-q", "."]);
        repository.commit();
        repository
    }

    fn path(&self, name: &str) -> PathBuf {
        self.sandbox.path().join("repo").join(name)
    }

    fn package(&self, name: &str, fields: &str, dockerfile: &str) {
        self.sandbox.write(&format!("repo/{name}/build.yml"), format!("image: {name}\n{fields}"));
        self.sandbox.write(&format!("repo/{name}/Dockerfile"), dockerfile);
    }

    fn git(&self, words: &[&str]) {
        let identity = ["-c", "user.name=n", "-c", "user.email=e@localhost", "-c", "commit.gpgsign=false"];
        run(Command::new("git").args(identity).args(words).current_dir(self.path(""))).ok();
    }

    fn commit(&self) {
        self.git(&["add", "."]);
        self.git(&["commit", "-q", "-m", "x"]);
    }

    fn kiln(&self, words: &[&str]) -> Command {
        let mut kiln = self.sandbox.kiln(words);
        // Nobody listens there: whoever asks Docker's registry is refused at once.
        kiln.current_dir(self.path("")).env("LINUXKIT_MIRROR", "docker.io=http://127.0.0.1:1");
        kiln
    }

    #[track_caller]
    fn ok(&self, words: &[&str]) -> String {
        run(&mut self.kiln(words)).ok().stdout.trim().to_owned()
    }

    #[track_caller]
    fn fails(&self, words: &[&str], wanted: &[&str]) -> Said {
        let said = run(&mut self.kiln(words));
        assert_ne!(said.code(), 0, "{words:?}\n{}", said.stderr);
        for word in wanted {
            assert!(said.stderr.contains(word), "{words:?}: no `{word}` in:\n{}", said.stderr);
        }
        said
    }

    /// What is left of builds: nothing, whatever happened.
    fn left_over(&self) -> Vec<PathBuf> {
        let folder = self.sandbox.path().join("home/.kiln/packages/tmp");
        fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
    }

    /// The files of an image in the store, by `kiln build`.
    fn files(&self, reference: &str) -> Vec<(String, String)> {
        self.sandbox.write("repo/image.yml", format!("init: ['{reference}']\n"));
        self.ok(&["build", "-o", "image.tar", "image.yml"]);
        let bytes = fs::read(self.path("image.tar")).unwrap();
        let mut archive = tar::Archive::new(&bytes[..]);
        let entry = |entry: std::io::Result<tar::Entry<'_, &[u8]>>| {
            let mut entry = entry.unwrap();
            let mut text = vec![];
            std::io::Read::read_to_end(&mut entry, &mut text).unwrap();
            (entry.path().unwrap().display().to_string(), String::from_utf8_lossy(&text).into_owned())
        };
        archive.entries().unwrap().map(entry).collect()
    }

    fn config(&self, reference: &str) -> Value {
        let store = self.sandbox.path().join("home/.kiln/cache");
        let full = format!("docker.io/{reference}");
        let said =
            skopeo(&["inspect", "--config", "--override-arch", "amd64", &format!("oci:{}:{full}", store.display())]);
        serde_json::from_str(&said.ok().stdout).unwrap()
    }
}

fn content<'a>(files: &'a [(String, String)], name: &str) -> &'a str {
    &files.iter().find(|(path, _)| path == name).unwrap_or_else(|| panic!("no {name} in {files:?}")).1
}

/// How many processes have `word` in their command line.
fn running(word: &str) -> usize {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let lines = processes.filter_map(|process| fs::read(process.path().join("cmdline")).ok());
    lines.filter(|line| line.windows(word.len()).any(|part| part == word.as_bytes())).count()
}

#[test]
fn words_that_cannot_be_meant_are_wrong_usage() {
    let repository = Repository::new();
    for (words, wanted) in [
        (&["pkg", "build", "-builder", "kaniko", "shell"][..], "`buildah`, `docker` or `podman`"),
        (&["pkg", "build", "-platforms", "arm64", "shell"], "linux/ARCH"),
        (&["pkg", "build", "-release", "v1", "shell"], "`--push`"),
        (&["pkg", "build", "-nobuild", "-force", "shell"], "cannot be used with"),
        (&["pkg", "-network", "-nonetwork", "show-tag", "shell"], "cannot be used with"),
        (&["pkg", "remote-tag", "a b", "c"], "a b"),
    ] {
        assert_eq!(repository.fails(words, &[wanted]).code(), 2, "{words:?}");
    }
    repository.fails(&["pkg", "remote-tag", "acme/a:1", "acme/b:1"], &["one repository"]);
}

#[test]
fn a_dockerfile_is_built_on_images_of_the_store_without_any_network() {
    let repository = Repository::new();
    repository.sandbox.write("repo/shared/x", "shared\n");
    let fields = "org: acme\narches: [amd64, arm64]\nextra-sources: ['../shared:/extra']\ngitrepo: https://example.org/x\n\
                  config: {binds: ['/a:/b']}\nbuildArgs: ['BASE=@lkt:pkg:../shell', 'A=1']\n";
    repository.package(
        "app",
        fields,
        "ARG BASE\nFROM ${BASE} AS made\nARG A B C PKG_IMAGE PKG_HASH SOURCE\nSHELL [\"/bin/sh\", \"-c\"]\n\
         RUN echo $A $B $C $PKG_IMAGE $PKG_HASH $SOURCE > /made; cut -d: -f1 /proc/net/dev | tail -n +3 > /net\n\
         FROM scratch\nCOPY --from=made /made /net /\nCOPY extra/x /x\n",
    );
    repository.commit();
    repository.sandbox.write("repo/arguments", "B=2\nC=no\n");
    let shell = repository.ok(&["pkg", "build", "-platforms", "linux/amd64", "shell"]);
    assert_eq!(shell, repository.ok(&["pkg", "show-tag", "shell"]));
    let words = ["pkg", "build", "-build-arg-file", "arguments", "-build-arg", "C=3", "app"];
    let said = run(&mut repository.kiln(&words)).ok();
    let app = said.stdout.trim();
    let hash = app.split(':').next_back().unwrap();
    assert!(said.stderr.contains("not built for arm64"), "{}", said.stderr);
    assert_eq!(repository.left_over(), Vec::<PathBuf>::new());
    let files = repository.files(app);
    assert_eq!(content(&files, "made"), format!("1 2 3 acme/app {hash} https://example.org/x\n"));
    assert_eq!(content(&files, "net").trim(), "lo", "commands have no network unless they are given one");
    assert_eq!(content(&files, "x"), "shared\n");
    let labels = &repository.config(app)["config"]["Labels"];
    assert_eq!(labels["org.mobyproject.config"], r#"{"binds":["/a:/b"]}"#);
    assert_eq!(labels["org.opencontainers.image.source"], "https://example.org/x");
    assert_eq!(labels["org.opencontainers.image.revision"].as_str().map(str::len), Some(40));
}

#[test]
fn a_package_in_a_yaml_is_built_on_the_way_and_only_once() {
    let repository = Repository::new();
    repository.sandbox.write("repo/x.yml", "init: ['@pkg:./shell']\n");
    let first = run(&mut repository.kiln(&["build", "-o", "x.tar", "x.yml"])).ok();
    assert!(first.stderr.contains("COPY busybox"), "{}", first.stderr);
    let second = run(&mut repository.kiln(&["build", "-o", "y.tar", "x.yml"])).ok();
    assert!(!second.stderr.contains("COPY busybox"), "{}", second.stderr);
    let forced = run(&mut repository.kiln(&["pkg", "build", "-arch", "amd64", "-force", "shell"])).ok();
    assert!(forced.stderr.contains("COPY busybox"), "{}", forced.stderr);
    assert_eq!(fs::read(repository.path("x.tar")).unwrap(), fs::read(repository.path("y.tar")).unwrap());
}

#[test]
fn the_same_package_gives_the_same_image_twice() {
    let repository = Repository::new();
    let digest = |cache: &str| {
        let words = ["pkg", "build", "-arch", "amd64", "-cache", cache, "shell"];
        repository.ok(&words);
        fs::read_to_string(repository.path(cache).join("index.json")).unwrap()
    };
    assert_eq!(digest("one"), digest("two"));
}

#[test]
fn a_failed_build_shows_its_last_words_and_leaves_nothing() {
    let repository = Repository::new();
    repository.ok(&["pkg", "build", "-arch", "amd64", "shell"]);
    let base = repository.ok(&["pkg", "show-tag", "shell"]);
    let fails = format!("FROM {base}\nRUN echo to stdout; echo to stderr >&2; exit 7\n");
    repository.package("broken", "arches: [amd64]\n", &fails);
    repository.package("baseless", "arches: [amd64]\n", "FROM acme/none:1\n");
    repository.package("elsewhere", "arches: [amd64]\ndockerfile: ../Dockerfile\n", "");
    repository.package("unknown", "arches: [s390x]\n", &format!("FROM {base}\nRUN true\n"));
    repository.commit();
    repository.fails(&["pkg", "build", "broken"], &["to stdout\n", "to stderr\n", "exit status 7"]);
    repository.fails(&["pkg", "build", "baseless"], &["baseless/Dockerfile:1", "acme/none:1", "127.0.0.1:1"]);
    repository.fails(&["pkg", "build", "elsewhere"], &["should be in it", ".."]);
    repository.fails(&["pkg", "build", "unknown"], &["cannot be built for s390x"]);
    repository.fails(&["pkg", "build", "-arch", "riscv64", "shell"], &["`arches` are amd64, arm64"]);
    repository.fails(&["pkg", "-hash-commit", "HEAD~1", "build", "shell"], &["another commit"]);
    assert_eq!(repository.left_over(), Vec::<PathBuf>::new());
}

#[test]
fn without_any_builder_the_message_says_what_to_install() {
    let repository = Repository::new();
    let bin = repository.path("bin");
    fs::create_dir(&bin).unwrap();
    let git = run(Command::new("sh").args(["-c", "command -v git"])).ok().stdout;
    std::os::unix::fs::symlink(git.trim(), bin.join("git")).unwrap();
    let said = run(repository.kiln(&["pkg", "build", "-arch", "amd64", "shell"]).env("PATH", &bin));
    assert_eq!(said.code(), 1);
    for word in ["buildah: not installed", "podman: not installed", "apt-get install buildah"] {
        assert!(said.stderr.contains(word), "no `{word}` in:\n{}", said.stderr);
    }
    fs::remove_file(bin.join("git")).unwrap();
    let said = run(repository.kiln(&["pkg", "show-tag", "shell"]).env("PATH", &bin));
    assert!(said.code() == 1 && said.stderr.contains("program `git` is missing"), "{}", said.stderr);
}

#[test]
fn a_dry_run_prints_the_command_and_does_nothing() {
    let repository = Repository::new();
    let line = repository.ok(&["pkg", "-nonetwork", "build", "-dry-run", "-platforms", "linux/arm64", "shell"]);
    assert!(line.starts_with("unshare --net -- buildah") && line.contains("--platform linux/arm64"), "{line}");
    let line = repository.ok(&["pkg", "-network", "-disable-cache", "build", "-dry", "-arch", "amd64", "shell"]);
    assert!(line.starts_with("buildah") && line.contains("--no-cache"), "{line}");
    assert!(!repository.sandbox.path().join("home/.kiln/packages/tmp").exists());
}

#[test]
fn an_interrupted_build_ends_its_builder_and_leaves_nothing() {
    let repository = Repository::new();
    repository.ok(&["pkg", "build", "-arch", "amd64", "shell"]);
    let base = repository.ok(&["pkg", "show-tag", "shell"]);
    repository.package("slow", "arches: [amd64]\n", &format!("FROM {base}\nRUN echo begun; sleep 987654\n"));
    repository.commit();
    let mut kiln = Running::start(&mut repository.kiln(&["pkg", "build", "slow"]));
    kiln.wait_for("begun", Duration::from_secs(60));
    run(Command::new("kill").args(["-INT", &kiln.pid().to_string()])).ok();
    let (status, said) = kiln.wait(Duration::from_secs(60));
    assert_eq!(status.code(), Some(130), "{said}");
    assert_eq!(repository.left_over(), Vec::<PathBuf>::new());
    assert_eq!(running("987654"), 0, "the command in the image runs on");
}

#[test]
fn packages_are_pushed_by_architecture_indexed_and_tagged_again() {
    let repository = Repository::new();
    let registry = Registry::start();
    let org = format!("{}/acme", registry.host);
    let tag = repository.ok(&["pkg", "-org", &org, "show-tag", "shell"]);
    let inspect = |reference: &str| {
        let said = skopeo(&["inspect", "--raw", "--tls-verify=false", &format!("docker://{reference}")]);
        serde_json::from_str::<Value>(&said.ok().stdout).unwrap()
    };
    repository.fails(&["pkg", "-org", &org, "manifest", "shell"], &["-ARCH"]);
    repository
        .fails(&["pkg", "-org", &org, "build", "-push", "-nobuild", "-arch", "amd64", "shell"], &["not in the store"]);
    // Each architecture by itself, as two machines would.
    repository.ok(&["pkg", "-org", &org, "build", "-push", "-arch", "amd64", "shell"]);
    assert_eq!(inspect(&tag)["manifests"].as_array().unwrap().len(), 1);
    repository.ok(&["pkg", "-org", &org, "push", "-cache", "other", "-arch", "arm64", "-release", "v1", "shell"]);
    let index = inspect(&tag);
    let architectures: Vec<_> =
        index["manifests"].as_array().unwrap().iter().map(|entry| entry["platform"]["architecture"].clone()).collect();
    assert_eq!(architectures, ["amd64", "arm64"]);
    assert!(inspect(&format!("{tag}-arm64"))["layers"].is_array());
    assert_eq!(inspect(&format!("{org}/shell:v1"))["manifests"].as_array().unwrap().len(), 1);
    repository.ok(&["pkg", "-org", &org, "index", "-release", "v1", "shell"]);
    repository.ok(&["pkg", "remote-tag", &tag, &format!("{org}/shell:again")]);
    assert_eq!(inspect(&format!("{org}/shell:again")), index);
    repository.fails(&["pkg", "remote-tag", &format!("{org}/shell:none"), &format!("{org}/shell:x")], &["shell:none"]);
    // Another machine takes it from there instead of building it.
    let said =
        run(&mut repository.kiln(&["pkg", "-org", &org, "build", "-cache", "third", "-arch", "amd64", "shell"])).ok();
    assert!(said.stderr.contains("pull") && !said.stderr.contains("COPY busybox"), "{}", said.stderr);
    let said =
        run(&mut repository.kiln(&["pkg", "-org", &org, "push", "-cache", "third", "-arch", "amd64", "shell"])).ok();
    assert!(said.stderr.contains("already"), "{}", said.stderr);
}

#[test]
fn what_is_not_committed_is_not_pushed() {
    let repository = Repository::new();
    let registry = Registry::start();
    let org = format!("{}/acme", registry.host);
    fs::write(repository.path("shell/new"), "").unwrap();
    let said = repository.fails(&["pkg", "-org", &org, "push", "shell"], &["differs from what is committed"]);
    assert!(!said.stderr.contains("COPY"), "it is refused before it is built:\n{}", said.stderr);
    repository.fails(&["pkg", "-org", &org, "manifest", "shell"], &["differs from what is committed"]);
    let tag = repository.ok(&["pkg", "build", "-arch", "amd64", "shell"]);
    assert!(tag.contains("-dirty-"), "{tag}");
}

#[test]
fn images_that_a_package_depends_on_are_saved_into_its_context() {
    let repository = Repository::new();
    let registry = Registry::start();
    let org = format!("{}/acme", registry.host);
    repository.ok(&["pkg", "-org", &org, "push", "-arch", "amd64", "shell"]);
    let tag = repository.ok(&["pkg", "-org", &org, "show-tag", "shell"]);
    let raw = skopeo(&["inspect", "--raw", "--tls-verify=false", &format!("docker://{tag}-amd64")]).ok().stdout;
    let digest =
        Command::new("sh").arg("-c").arg("printf %s \"$0\" | sha256sum | cut -d' ' -f1").arg(&raw).output().unwrap();
    let digest = format!("sha256:{}", String::from_utf8_lossy(&digest.stdout).trim());
    let depends = |what: &str| format!("arches: [amd64]\ndepends: {{docker-images: {{{what}}}}}\n");
    let dockerfile = "FROM scratch\nCOPY images /images\n";
    let named = format!("{org}/shell@{digest}");
    repository.package("one", &depends(&format!("list: ['{named}'], target: images/all.tar")), dockerfile);
    repository.package("dir", &depends("from-file: list, target-dir: images"), dockerfile);
    repository.sandbox.write("repo/dir/list", format!("# one\n{named}\n"));
    repository.sandbox.write("repo/dir/images/stale", "");
    repository.package("loose", &depends(&format!("list: ['{tag}'], target: x.tar")), dockerfile);
    repository.package("outside", &depends(&format!("list: ['{named}'], target: ../x.tar")), dockerfile);
    repository.package("both", &depends(&format!("list: ['{named}'], target: x, target-dir: y")), dockerfile);
    repository.commit();
    repository.fails(&["pkg", "build", "loose"], &["its digest"]);
    repository.fails(&["pkg", "build", "outside"], &["in it"]);
    repository.fails(&["pkg", "build", "both"], &["`target-dir`"]);
    let files = repository.files(&repository.ok(&["pkg", "build", "dir"]));
    assert!(files.iter().all(|(name, _)| name != "images/stale"), "what was there before goes away");
    content(&files, &format!("images/shell@{digest}.tar"));
    repository.ok(&["pkg", "build", "one"]);
    run(Command::new("tar").args(["-xf", "image.tar"]).current_dir(repository.path(""))).ok();
    let saved = repository.path("saved.tar"); // a name without a colon, for skopeo
    fs::rename(repository.path(&format!("images/shell@{digest}.tar")), &saved).unwrap();
    let inspected = skopeo(&["inspect", &format!("docker-archive:{}", saved.display())]).ok().stdout;
    assert!(inspected.contains("amd64"), "{inspected}");
    assert!(!repository.path("one/images").exists(), "the package's own folder stays as it is");
    assert_eq!(repository.left_over(), Vec::<PathBuf>::new());
}

#[test]
fn storage_of_a_killed_build_is_removed_by_the_next() {
    let repository = Repository::new();
    repository.ok(&["pkg", "build", "-arch", "amd64", "shell"]);
    let base = repository.ok(&["pkg", "show-tag", "shell"]);
    repository.package("slow", "arches: [amd64]\n", &format!("FROM {base}\nRUN echo begun; sleep 987653\n"));
    repository.commit();
    let mut kiln = Running::start(&mut repository.kiln(&["pkg", "build", "slow"]));
    kiln.wait_for("begun", Duration::from_secs(60));
    run(Command::new("kill").args(["-KILL", &kiln.pid().to_string()])).ok();
    kiln.wait(Duration::from_secs(60));
    assert_eq!(repository.left_over().len(), 1);
    let until = Instant::now() + Duration::from_secs(60);
    while running("987653") > 0 || running(&repository.left_over()[0].to_string_lossy()) > 0 {
        assert!(Instant::now() < until, "the builder outlives its owner");
        std::thread::sleep(Duration::from_millis(20));
    }
    repository.ok(&["pkg", "build", "-arch", "amd64", "-force", "shell"]);
    assert_eq!(repository.left_over(), Vec::<PathBuf>::new());
}

#[test]
fn a_readable_folder_that_git_refuses_is_no_reason_to_forget_git() {
    let repository = Repository::new();
    fs::write(repository.path(".git/HEAD"), "nonsense").unwrap();
    repository.fails(&["pkg", "show-tag", "shell"], &["git"]);
    fs::set_permissions(repository.path("shell"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::remove_dir_all(repository.path(".git")).unwrap();
    assert_eq!(repository.ok(&["pkg", "show-tag", "shell"]), "acme/shell:latest");
}
