//! `kiln cache` and images that do not come from a registry, with the programs that people have: skopeo, umoci, gzip and a
//! real registry.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::harness::kiln::{Running, Said, Sandbox, run};
use crate::harness::registry::{Registry, skopeo};

/// A sandbox with the OCI layout `layout`, made by umoci; its image `img` has one layer with `etc/word`.
fn sandbox() -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.write("files/word", "a word\n");
    let script = "umoci init --layout layout
        umoci new --image layout:img
        umoci insert --rootless --image layout:img files /etc
        umoci config --image layout:img --architecture amd64 --os linux --config.cmd /bin/x";
    run(Command::new("sh").args(["-ec", script]).current_dir(sandbox.path())).ok();
    sandbox
}

/// `kiln cache WORDS` on the sandbox's store.
fn cache(sandbox: &Sandbox, words: &[&str]) -> Said {
    run(sandbox.kiln(["--cache", "store", "cache"]).args(words))
}

fn copy(sandbox: &Sandbox, to: &str) {
    run(Command::new("skopeo").args(["copy", "-q", "oci:layout:img", to]).current_dir(sandbox.path())).ok();
}

fn names(sandbox: &Sandbox) -> Vec<String> {
    let said = cache(sandbox, &["ls", "--json"]).ok();
    let all: serde_json::Value = serde_json::from_str(&said.stdout).unwrap();
    let images = all["images"].as_array().unwrap();
    images.iter().map(|image| image["name"].as_str().unwrap().to_owned()).collect()
}

fn number(sandbox: &Sandbox, field: &str) -> u64 {
    let said = cache(sandbox, &["ls", "--json"]).ok();
    serde_json::from_str::<serde_json::Value>(&said.stdout).unwrap()[field].as_u64().unwrap()
}

/// Builds `image` alone into a tar and gives its members.
fn built(sandbox: &Sandbox, image: &str, flags: &[&str]) -> Said {
    sandbox.write("x.yml", format!("init:\n  - {image}\n"));
    let said = run(sandbox.kiln(["build", "--no-sbom", "-format", "tar", "--cache", "store"]).args(flags).arg("x.yml"));
    match said.code() {
        0 => run(Command::new("tar").args(["-tf", "x.tar"]).current_dir(sandbox.path())),
        _ => said,
    }
}

/// Makes the next build read its blobs, as if there had been no former one.
fn forget(sandbox: &Sandbox) {
    for folder in ["store/kiln-cache", "store/kiln-stamps"] {
        let folder = sandbox.path().join(folder);
        if folder.exists() {
            fs::remove_dir_all(folder).unwrap();
        }
    }
}

#[track_caller]
fn refused(said: &Said, words: &[&str]) {
    assert_eq!(said.code(), 1, "{}", said.stderr);
    for word in words {
        assert!(said.stderr.contains(word), "no `{word}` in:\n{}", said.stderr);
    }
}

#[test]
fn what_the_store_does_not_have_is_said_by_name() {
    let sandbox = Sandbox::new();
    for words in [&["rm", "a:1"][..], &["push", "a:1"], &["export", "a:1", "--outfile", "a.tar"]] {
        refused(&cache(&sandbox, words), &["docker.io/library/a:1"]);
    }
    assert!(!sandbox.path().join("a.tar").exists());
    refused(&cache(&sandbox, &["import", "nothing.tar"]), &["nothing.tar", "No such file"]);
    sandbox.write("text", "no archive, but long enough to be taken for one: ".repeat(100));
    refused(&cache(&sandbox, &["import", "text"]), &["`text`", "no tar header"]);
    let usage = cache(&sandbox, &["pull", "oci:layout"]);
    assert_eq!(usage.code(), 2, "{}", usage.stderr);
    assert_eq!(cache(&sandbox, &["push", "a", "b", "--remote-name", "c"]).code(), 2);
}

#[test]
fn archives_of_other_programs_come_in_whatever_their_form() {
    let sandbox = sandbox();
    copy(&sandbox, "docker-archive:docker.tar:me/docker:1");
    copy(&sandbox, "oci-archive:oci.tar:me/oci:1");
    copy(&sandbox, "oci-archive:short.tar:word");
    copy(&sandbox, "oci-archive:none.tar");
    run(Command::new("gzip").arg("docker.tar").current_dir(sandbox.path())).ok();
    assert_eq!(cache(&sandbox, &["import", "docker.tar.gz"]).ok().stdout, "docker.io/me/docker:1\n");
    let mut import = sandbox.kiln(["--cache", "store", "cache", "import", "-"]);
    import.stdin(Stdio::from(fs::File::open(sandbox.path().join("oci.tar")).unwrap()));
    assert_eq!(run(&mut import).ok().stdout, "docker.io/me/oci:1\n");
    assert_eq!(cache(&sandbox, &["import", "short.tar"]).ok().stdout, "docker.io/library/word\n");
    refused(&cache(&sandbox, &["import", "none.tar"]), &["has no name", "--name"]);
    assert_eq!(cache(&sandbox, &["import", "none.tar", "--name", "n:1"]).ok().stdout, "docker.io/library/n:1\n");
    let all = ["docker.io/library/n:1", "docker.io/library/word", "docker.io/me/docker:1", "docker.io/me/oci:1"];
    assert_eq!(names(&sandbox), all);
    for name in all {
        let said = built(&sandbox, name, &["--offline"]).ok();
        assert!(said.stdout.contains("etc/word"), "{name}: {}", said.stdout);
    }
    let shown = cache(&sandbox, &["ls"]).ok().stdout;
    assert!(shown.contains("linux/amd64") && shown.contains("shared blobs counted once"), "{shown}");
}

#[test]
fn a_yaml_takes_images_from_where_they_are() {
    let sandbox = sandbox();
    copy(&sandbox, "docker-archive:docker.tar:me/docker:1");
    copy(&sandbox, "oci-archive:oci.tar:me/oci:1");
    for source in [
        "oci:layout",
        "oci:layout:img",
        "oci-archive:oci.tar",
        "docker-archive:docker.tar",
        "docker-archive:docker.tar:me/docker:1",
    ] {
        let said = built(&sandbox, source, &["--offline"]).ok();
        assert!(said.stdout.contains("etc/word"), "{source}: {}", said.stdout);
    }
    for (source, words) in [
        ("oci:nothing", &["x.yml:2", "oci:nothing", "No such file"][..]),
        ("oci:layout:other", &["has no image `other`", "`img`"]),
        ("docker-archive:docker.tar:other", &["has no image `other`", "`docker.io/me/docker:1`"]),
        ("docker-daemon:me/a", &["cannot ask Docker", "docker.sock"]),
        ("containerd:me/a", &["cannot ask containerd", "ctr"]),
        ("me/a", &["docker.io/me/a", "kiln cache pull"]),
    ] {
        refused(&built(&sandbox, source, &["--offline"]), words);
    }
}

#[test]
fn an_image_goes_out_and_comes_in_again_the_same() {
    let sandbox = sandbox();
    cache(&sandbox, &["import", "layout", "--name", "me/a:1"]).ok();
    for (format, prefix) in [("oci", "oci-archive"), ("docker", "docker-archive")] {
        let file = format!("{format}.tar");
        cache(&sandbox, &["export", "me/a:1", "--outfile", &file, "--format", format, "--name", "me/b:2"]).ok();
        let seen = skopeo(&["inspect", &format!("{prefix}:{}", sandbox.path().join(&file).display())]).ok();
        assert!(seen.stdout.contains("\"amd64\""), "{}", seen.stdout);
        let other = Sandbox::new();
        let path = sandbox.path().join(&file).to_string_lossy().into_owned();
        assert_eq!(cache(&other, &["import", &path]).ok().stdout, "docker.io/me/b:2\n");
        cache(&other, &["verify"]).ok();
        cache(&other, &["export", "me/b:2", "--outfile", "again.tar", "--format", format]).ok();
        let (first, second) = (fs::read(path).unwrap(), fs::read(other.path().join("again.tar")).unwrap());
        assert!(first == second, "{format} differs after a round trip");
    }
    cache(&sandbox, &["export", "me/a:1", "--outfile", "fs.tar", "--format", "filesystem"]).ok();
    let seen = run(Command::new("tar").args(["-xOf", "fs.tar", "etc/word"]).current_dir(sandbox.path())).ok();
    assert_eq!(seen.stdout, "a word\n");
    let piped = cache(&sandbox, &["export", "me/a:1", "--outfile", "-"]).ok();
    assert!(piped.stdout.contains("index.json"));
}

#[test]
fn what_is_pushed_is_what_others_pull() {
    let registry = Registry::start();
    let sandbox = sandbox();
    let name = format!("{}/me/a:1", registry.host);
    cache(&sandbox, &["import", "layout", "--name", &name]).ok();
    let said = cache(&sandbox, &["push", &name]).ok();
    assert!(said.stderr.contains("2 sent"), "{}", said.stderr);
    let said = cache(&sandbox, &["push", &name, "--remote-name", &format!("{}/other:1", registry.host)]).ok();
    assert!(said.stderr.contains("2 mounted"), "{}", said.stderr);
    skopeo(&["inspect", "--tls-verify=false", &format!("docker://{}/other:1", registry.host)]).ok();
    let other = Sandbox::new();
    refused(&cache(&other, &["pull", "--offline", &name]), &["--offline", &name]);
    cache(&other, &["pull", "--all-platforms", &name]).ok();
    cache(&other, &["verify"]).ok();
    let said = cache(&other, &["rm", "--published-only", &name]).ok();
    assert!(said.stderr.contains(&format!("removed {name}")), "{}", said.stderr);
    assert_eq!((names(&other).len(), number(&other, "all_bytes")), (0, 0));
    drop(registry);
    cache(&sandbox, &["rm", "--published-only", &name]).ok();
    assert_eq!(names(&sandbox), [name.as_str()], "what may not be published stays");
}

#[test]
fn what_no_name_reaches_is_removed_and_nothing_else() {
    let sandbox = sandbox();
    sandbox.write("more/other", "another word\n");
    let script = "umoci insert --rootless --image layout:img --tag two more /more";
    run(Command::new("sh").args(["-ec", script]).current_dir(sandbox.path())).ok();
    refused(&cache(&sandbox, &["import", "layout", "--name", "a:1"]), &["several images", "`img`", "`two`"]);
    cache(&sandbox, &["import", "layout"]).ok();
    assert_eq!(names(&sandbox), ["docker.io/library/img", "docker.io/library/two"]);
    let before = number(&sandbox, "all_bytes");
    let said = cache(&sandbox, &["rm", "two"]).ok();
    assert!(said.stderr.contains("removed docker.io/library/two") && said.stderr.contains("freed"), "{}", said.stderr);
    assert!(number(&sandbox, "all_bytes") < before);
    assert!(built(&sandbox, "img", &["--offline"]).ok().stdout.contains("etc/word"));
    sandbox.write(&format!("store/blobs/sha256/{}", "0".repeat(64)), "junk");
    let said = cache(&sandbox, &["gc"]).ok();
    assert!(said.stderr.contains("freed 4 B: 1 blobs"), "{}", said.stderr);
    cache(&sandbox, &["verify"]).ok();
    cache(&sandbox, &["clean"]).ok();
    assert_eq!((names(&sandbox).len(), number(&sandbox, "all_bytes")), (0, 0));
}

#[test]
fn blobs_stay_as_long_as_a_build_may_need_them() {
    let registry = Registry::start();
    let sandbox = sandbox();
    // A build that writes to a full pipe has not ended.
    sandbox.write("big/zeros", vec![0; 8 << 20]);
    let script = "umoci insert --rootless --image layout:img --tag big big /big";
    run(Command::new("sh").args(["-ec", script]).current_dir(sandbox.path())).ok();
    let name = registry.push(&sandbox.path().join("layout"), "big", "big:1");
    sandbox.write("x.yml", format!("init:\n  - {name}\n"));
    let mut build = sandbox.kiln(["build", "--cache", "store", "--o", "-", "x.yml"]);
    let mut build = build.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut output = build.stdout.take().unwrap();
    let mut first = [0; 512];
    std::io::Read::read_exact(&mut output, &mut first).unwrap();
    refused(&cache(&sandbox, &["gc"]), &["in use by another kiln"]);
    std::io::copy(&mut output, &mut std::io::sink()).unwrap();
    assert!(build.wait().unwrap().success());
    cache(&sandbox, &["gc"]).ok();
}

#[test]
fn damage_is_found_named_and_mended() {
    let registry = Registry::start();
    let sandbox = sandbox();
    let name = registry.push(&sandbox.path().join("layout"), "img", "a:1");
    cache(&sandbox, &["pull", &name]).ok();
    let blobs = sandbox.path().join("store/blobs/sha256");
    let files =
        |folder: &Path| -> Vec<_> { fs::read_dir(folder).unwrap().flatten().map(|entry| entry.path()).collect() };
    for blob in files(&blobs) {
        let hex = blob.file_name().unwrap().to_string_lossy().into_owned();
        let mut bytes = fs::read(&blob).unwrap();
        bytes[0] ^= 1;
        fs::write(&blob, bytes).unwrap();
        let said = cache(&sandbox, &["verify"]);
        assert_eq!(said.code(), 1);
        assert!(said.stdout.contains(&hex) && said.stdout.contains(&name), "{}", said.stdout);
        cache(&sandbox, &["verify", "--fix"]).ok();
        forget(&sandbox);
        refused(&built(&sandbox, &name, &["--offline"]), &[&hex, "kiln cache pull"]);
        assert!(built(&sandbox, &name, &[]).ok().stdout.contains("etc/word"), "{hex}");
        cache(&sandbox, &["verify"]).ok();
    }
    // Without the registry the error tells why it was asked at all.
    drop(registry);
    let layer = files(&blobs).into_iter().max_by_key(|path| path.metadata().unwrap().len()).unwrap();
    fs::remove_file(&layer).unwrap();
    forget(&sandbox);
    refused(&built(&sandbox, &name, &[]), &["cannot be pulled", &layer.file_name().unwrap().to_string_lossy()]);
}

#[test]
fn a_registry_that_wants_a_password_gets_it_for_pulls_and_pushes() {
    let registry = Registry::with_password("tester", "secret");
    let sandbox = sandbox();
    let name = format!("{}/me/a:1", registry.host);
    cache(&sandbox, &["import", "layout", "--name", &name]).ok();
    refused(&cache(&sandbox, &["push", &name]), &["access is denied (401", "docker login"]);
    // `tester:secret`
    let auth = serde_json::json!({"auths": {&registry.host: {"auth": "dGVzdGVyOnNlY3JldA=="}}});
    sandbox.write("home/.docker/config.json", auth.to_string());
    cache(&sandbox, &["push", &name]).ok();
    cache(&sandbox, &["rm", &name]).ok();
    cache(&sandbox, &["pull", &name]).ok();
    assert_eq!(names(&sandbox), [name.as_str()]);
}

#[test]
fn a_registry_behind_an_own_certificate_is_a_mirror() {
    let sandbox = sandbox();
    let registry = Registry::with_tls(sandbox.path());
    let to = format!("docker://{}/library/img:1", registry.host);
    run(Command::new("skopeo")
        .args(["copy", "-q", "--dest-tls-verify=false", "oci:layout:img", &to])
        .current_dir(sandbox.path()))
    .ok();
    let mirror = format!("https://{}", registry.host);
    refused(&cache(&sandbox, &["pull", "--mirror", &mirror, "img:1"]), &["--cert-file"]);
    cache(&sandbox, &["pull", "--mirror", &mirror, "--cert-file", "cert.pem", "img:1"]).ok();
    assert_eq!(names(&sandbox), ["docker.io/library/img:1"]);
}

#[test]
fn a_running_docker_gives_its_images() {
    let sandbox = sandbox();
    copy(&sandbox, "docker-archive:docker.tar:me/a:1");
    let archive = sandbox.path().join("docker.tar");
    let socket = sandbox.path().join("docker.sock");
    let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            use std::io::{BufRead, BufReader, Write};
            let lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
            let request: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
            let known = request.first().is_some_and(|line| line.contains("/images/docker.io/me/a:1/get"));
            let body = if known { fs::read(&archive).unwrap() } else { br#"{"message":"No such image"}"#.to_vec() };
            let status = if known { "200 OK" } else { "404 Not Found" };
            let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
            stream.write_all(&[head.as_bytes(), &body].concat()).unwrap();
        }
    });
    let build = |image: &str, flags: &[&str]| {
        sandbox.write("x.yml", format!("init:\n  - {image}\n"));
        let mut build = sandbox.kiln(["build", "--no-sbom", "--offline", "-format", "tar", "--cache", "store"]);
        run(build.args(flags).arg("x.yml").env("DOCKER_HOST", format!("unix://{}", socket.display())))
    };
    build("docker:me/a:1", &[]).ok();
    refused(&build("docker:me/b:1", &[]), &["Docker has no image `docker.io/me/b:1`: No such image"]);
    refused(&build("me/a:1", &[]), &["is not in the store"]);
    build("me/a:1", &["--docker"]).ok();
    refused(&build("me/b:1", &["--docker"]), &["is not in the store"]);
}

#[test]
fn a_registry_that_hangs_is_given_up_when_the_user_says_so() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let name = format!("{}/a:1", listener.local_addr().unwrap());
    let sandbox = Sandbox::new();
    let mut pull =
        Running::start(sandbox.kiln(["--cache", "store", "cache", "pull", "-v", "2", &name]).env("LC_ALL", "C"));
    let (_asked, _) = listener.accept().unwrap();
    run(Command::new("kill").args(["-INT", &pull.pid().to_string()])).ok();
    pull.type_in("");
    let (status, said) = pull.wait(Duration::from_secs(20));
    assert_eq!(status.code(), Some(130), "{said}");
}
