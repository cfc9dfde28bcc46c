//! The builders' command lines. Nothing is started here.

use std::ffi::OsString;
use std::path::Path;

use super::builder::Builder;
use super::parse::Arguments;

/// What a builder is told to build.
#[derive(Debug)]
pub(super) struct Order<'a> {
    /// Go's name of the architecture.
    pub architecture: &'a str,
    /// The build context.
    pub context: &'a Path,
    /// The Dockerfile.
    pub dockerfile: &'a Path,
    /// Build arguments.
    pub arguments: &'a Arguments,
    /// Labels, sorted.
    pub labels: &'a [(String, String)],
    /// Whether commands have a network.
    pub network: bool,
    /// Whether steps may come from the builder's cache.
    pub cache: bool,
    /// Time of everything, in seconds since 1970.
    pub source_date_s: i64,
}

/// A program's name and arguments.
pub(super) type Words = Vec<OsString>;

/// Storage of a builder without a daemon.
#[derive(Debug)]
pub(super) struct Storage<'a> {
    pub builder: Builder,
    pub root: &'a Path,
    pub run_root: &'a Path,
    /// `None`: the environment says which.
    pub driver: Option<&'a str>,
}

impl Storage<'_> {
    /// The program with what it must be told each time, and `words`.
    pub fn call(&self, words: &[&str]) -> Words {
        let mut call: Words = vec![self.builder.name().into(), "--root".into(), self.root.into()];
        call.extend(["--runroot".into(), self.run_root.into()]);
        if let Some(driver) = self.driver {
            call.extend(["--storage-driver".into(), driver.into()]);
        }
        call.extend(words.iter().map(OsString::from));
        call
    }

    /// Builds. The image's id goes to the file `id`. `is_root`: whether this process is root in its user namespace.
    pub fn build(&self, order: &Order<'_>, id: &Path, is_root: bool) -> Words {
        let mut words: Words = Vec::new();
        if !order.network {
            // Commands share the builder's network, so the builder itself gets none. Base images are there already.
            if !is_root {
                words.extend([self.builder.name(), "unshare"].map(OsString::from));
            }
            words.extend(["unshare", "--net", "--"].map(OsString::from));
        }
        words.extend(self.call(&["build", "--isolation", "chroot", "--network", "host", "--format", "oci"]));
        words.extend(["--layers=false", "--pull=false", "--identity-label=false", "--timestamp"].map(OsString::from));
        words.push(order.source_date_s.to_string().into());
        words.extend(["--iidfile".into(), id.into()]);
        words.extend(common(order));
        words
    }
}

/// Docker's buildx, with its result as a layout in the folder `out`. `bases` are names in Dockerfiles and where they
/// lead.
pub(super) fn buildx(order: &Order<'_>, bases: &[(String, OsString)], out: &Path) -> Words {
    let mut words: Words = ["docker", "buildx", "build", "--progress", "plain"].map(OsString::from).to_vec();
    words.extend([
        "--provenance=false".into(),
        "--network".into(),
        if order.network { "default" } else { "none" }.into(),
    ]);
    let mut output = OsString::from("type=oci,tar=false,dest=");
    output.push(out);
    words.extend(["--output".into(), output]);
    words.extend(["--build-arg".into(), format!("SOURCE_DATE_EPOCH={}", order.source_date_s).into()]);
    for (name, place) in bases {
        let mut context = OsString::from(format!("{name}="));
        context.push(place);
        words.extend(["--build-context".into(), context]);
    }
    words.extend(common(order));
    words
}

/// What all builders spell alike.
fn common(order: &Order<'_>) -> Words {
    let mut words: Words = vec!["--platform".into(), format!("linux/{}", order.architecture).into()];
    if !order.cache {
        words.push("--no-cache".into());
    }
    for (name, value) in order.arguments {
        words.extend(["--build-arg".into(), format!("{name}={value}").into()]);
    }
    for (name, value) in order.labels {
        words.extend(["--label".into(), format!("{name}={value}").into()]);
    }
    words.extend(["--file".into(), order.dockerfile.into(), order.context.into()]);
    words
}

/// The words as a shell would take them.
pub(super) fn shown(words: &Words) -> String {
    let word = |word: &OsString| {
        let text = word.to_string_lossy();
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=@%+,".contains(c);
        match !text.is_empty() && text.chars().all(plain) {
            true => text.into_owned(),
            false => format!("'{}'", text.replace('\'', r"'\''")),
        }
    };
    words.iter().map(word).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(arguments: &Arguments, network: bool, test: impl FnOnce(&Order<'_>)) {
        test(&Order {
            architecture: "arm64",
            context: Path::new("/c"),
            dockerfile: Path::new("/c/Dockerfile"),
            arguments,
            labels: &[("l".into(), "it's {}".into())],
            network,
            cache: network,
            source_date_s: 7,
        });
    }

    #[test]
    fn without_a_network_the_builder_has_none() {
        let arguments = Arguments::from([("A".into(), "1".into())]);
        let (root, run_root) = (Path::new("/s"), Path::new("/r"));
        let storage = Storage { builder: Builder::Buildah, root, run_root, driver: Some("vfs") };
        let tail = "buildah --root /s --runroot /r --storage-driver vfs build --isolation chroot --network host --format oci \
                    --layers=false --pull=false --identity-label=false --timestamp 7 --iidfile /id --platform linux/arm64 --no-cache \
                    --build-arg A=1 --label 'l=it'\\''s {}' --file /c/Dockerfile /c";
        order(&arguments, false, |order| {
            let words = shown(&storage.build(order, Path::new("/id"), true));
            assert_eq!(words, format!("unshare --net -- {tail}"));
            let words = shown(&storage.build(order, Path::new("/id"), false));
            assert_eq!(words, format!("buildah unshare unshare --net -- {tail}"));
        });
        order(&arguments, true, |order| {
            let words = shown(&storage.build(order, Path::new("/id"), false));
            assert!(words.starts_with("buildah --root") && !words.contains("--no-cache"), "{words}");
        });
    }

    #[test]
    fn docker_takes_base_images_from_a_layout() {
        let bases = [("alpine:3".to_owned(), OsString::from("oci-layout:///b@sha256:0"))];
        order(&Arguments::new(), false, |order| {
            let expected = "docker buildx build --progress plain --provenance=false --network none --output \
                            type=oci,tar=false,dest=/o --build-arg SOURCE_DATE_EPOCH=7 --build-context \
                            alpine:3=oci-layout:///b@sha256:0 --platform linux/arm64 --no-cache --label 'l=it'\\''s {}' --file \
                            /c/Dockerfile /c";
            assert_eq!(shown(&buildx(order, &bases, Path::new("/o"))), expected);
        });
    }
}
