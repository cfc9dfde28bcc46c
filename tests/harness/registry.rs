//! A real registry on loopback: Debian's `docker-registry`, on a port of its own choosing.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::kiln::{Running, Said, run};

/// A registry with nothing in it. Ends with its owner.
pub struct Registry {
    _server: Running,
    /// `127.0.0.1:PORT`
    pub host: String,
    _data: tempfile::TempDir,
}

impl Registry {
    pub fn start() -> Self {
        Self::configured("", None)
    }

    /// One that wants a name and a password.
    pub fn with_password(user: &str, password: &str) -> Self {
        let script = "print crypt($ARGV[0], q{$2y$05$abcdefghijklmnopqrstuu})";
        let hash = run(Command::new("perl").args(["-e", script, password])).ok().stdout;
        assert!(hash.starts_with("$2y$"), "perl's crypt makes no bcrypt: {hash}");
        Self::configured("", Some(&format!("{user}:{hash}\n")))
    }

    /// One that speaks https with a certificate for 127.0.0.1, which `cert.pem` in `folder` then is.
    pub fn with_tls(folder: &Path) -> Self {
        let script = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj /CN=test \
            -addext subjectAltName=IP:127.0.0.1 -addext basicConstraints=critical,CA:FALSE \
            -keyout key.pem -out cert.pem";
        run(Command::new("sh").args(["-ec", script]).current_dir(folder)).ok();
        let (certificate, key) = (folder.join("cert.pem"), folder.join("key.pem"));
        let tls = format!(", tls: {{certificate: {}, key: {}}}", certificate.display(), key.display());
        Self::configured(&tls, None)
    }

    fn configured(http: &str, users: Option<&str>) -> Self {
        let data = tempfile::tempdir().expect("a temp folder can be made");
        let config = data.path().join("config.yml");
        let more = users.map_or(String::new(), |users| {
            let path = data.path().join("htpasswd");
            std::fs::write(&path, users).expect("the temp folder is writable");
            format!("auth: {{htpasswd: {{realm: test, path: {}}}}}\n", path.display())
        });
        let text = format!(
            "version: 0.1\nlog: {{level: info}}\nstorage: {{filesystem: {{rootdirectory: {}}}, delete: {{enabled: true}}}}\n\
             http: {{addr: '127.0.0.1:0'{http}}}\n{more}",
            data.path().join("data").display()
        );
        std::fs::write(&config, text).expect("the temp folder is writable");
        let mut server = Running::start(Command::new("docker-registry").arg("serve").arg(&config));
        let line = server.wait_for("listening on", Duration::from_secs(30));
        let host = line
            .split("listening on ")
            .nth(1)
            .and_then(|rest| rest.split(['"', ' ', ',', '\n']).next())
            .expect("the registry names its address")
            .to_owned();
        Self { _server: server, host, _data: data }
    }

    /// Copies the image called `name` out of the OCI layout `store` to `TARGET` here; gives its reference.
    pub fn push(&self, store: &Path, name: &str, target: &str) -> String {
        let reference = format!("{}/{target}", self.host);
        run(Command::new("skopeo")
            .args(["copy", "--quiet", "--dest-tls-verify=false"])
            .args([format!("oci:{}:{name}", store.display()), format!("docker://{reference}")]))
        .ok();
        reference
    }
}

/// `skopeo WORDS`.
pub fn skopeo(words: &[&str]) -> Said {
    run(Command::new("skopeo").args(words))
}
