//! Lays out what was found: files below `/run/config`, the machine's name, and what a `#cloud-config` asks for.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use kiln_guest::host_name;

use crate::Voice;

use super::cloud_config::{self, CloudConfig, User, WriteFile};
use super::encoding::Room;
use super::multipart::{self, Part};
use super::place::{self, Owner};
use super::{Found, tree};

/// Longest key, and most of them.
const KEY_LIMIT_BYTES: usize = 16 << 10;
const KEY_COUNT_LIMIT: usize = 256;

/// Forms of cloud-init's that would have to be fetched or run before anything else is there.
const NOT_READ: [&str; 7] = [
    "#include",
    "#cloud-config-archive",
    "#cloud-config-jsonp",
    "#cloud-boothook",
    "#part-handler",
    "#upstart-job",
    "## template:",
];

/// Where things go.
#[derive(Debug)]
pub(super) struct Places {
    config: PathBuf,
    /// What `write_files` takes for the root.
    root: PathBuf,
    /// Names the machine.
    set_name: fn(&str) -> io::Result<()>,
}

impl Places {
    /// The machine's own.
    pub fn of_machine() -> Self {
        Self { config: "/run/config".into(), root: "/".into(), set_name: host_name::set }
    }

    /// Those of a machine whose root is a folder, and which nobody names.
    pub fn below(root: &Path) -> Self {
        Self { config: root.join("run/config"), root: root.to_owned(), set_name: |_| Ok(()) }
    }
}

/// Says what it cannot do, and does the rest.
struct Work<'w, 'v> {
    places: &'w Places,
    say: Voice<'v>,
    failed: usize,
}

/// Does all of it; gives how many things were not done.
pub(super) fn apply(found: &Found, places: &Places, say: Voice<'_>) -> usize {
    let mut work = Work { places, say, failed: 0 };
    work.all(found);
    work.failed
}

impl Work<'_, '_> {
    fn all(&mut self, found: &Found) {
        let config = &self.places.config;
        self.done("provider", place::folder(config, 0o755));
        self.file("provider", found.provider.as_bytes(), 0o644);
        let (mut name, mut keys) = (found.host_name.clone(), found.keys.clone());
        if let Some(packed) = &found.user_data {
            let mut room = Room::new();
            let data = match room.unpacked(packed) {
                Ok(data) => data,
                Err(error) => return self.fail(&format!("user data cannot be unpacked: {error}")),
            };
            // A script can be run where it is.
            self.file("userdata", &data, if data.starts_with(b"#!") { 0o755 } else { 0o644 });
            let wanted = self.user_data(&data, &mut room);
            self.cloud_config(&wanted);
            name = wanted.host_name.or(name);
            keys.extend(wanted.keys);
        }
        self.keys("ssh/authorized_keys", &keys);
        self.name(name);
    }

    /// Lays out what is only files, and gives the rest.
    fn user_data(&mut self, data: &[u8], room: &mut Room) -> CloudConfig {
        let mut wanted = CloudConfig::default();
        let not_read = |mark: &&&str| data.starts_with(mark.as_bytes());
        if multipart::is_one(data) {
            let (parts, faults) = multipart::read(data, room);
            faults.iter().for_each(|fault| self.fail(&format!("user data: {fault}")));
            parts.iter().for_each(|part| self.part(part, &mut wanted, room));
        } else if cloud_config::is_one(data) {
            self.add(data, "user data", &mut wanted, room);
        } else if let Some(mark) = NOT_READ.iter().find(not_read) {
            self.fail(&format!("user data: `{mark}` is not read here; it is kept as it is"));
        } else if let Some((items, errors)) = tree::read(data) {
            errors.iter().for_each(|error| self.fail(&format!("user data: {error}")));
            items.iter().for_each(|item| self.item(item));
        }
        wanted
    }

    fn part(&mut self, part: &Part, wanted: &mut CloudConfig, room: &mut Room) {
        let (name, body) = (&part.name, part.body.as_slice());
        match part.kind.as_str() {
            "text/cloud-config" => self.add(body, name, wanted, room),
            "text/x-shellscript" => self.file(&format!("scripts/{name}"), body, 0o755),
            // Who packed it did not say what it is.
            "text/plain" | "application/octet-stream" if cloud_config::is_one(body) => {
                self.add(body, name, wanted, room);
            }
            "text/plain" | "application/octet-stream" if body.starts_with(b"#!") => {
                self.file(&format!("scripts/{name}"), body, 0o755);
            }
            other => self.fail(&format!("user data: {name}: a part of kind `{other}` is not read here")),
        }
    }

    fn add(&mut self, data: &[u8], what: &str, wanted: &mut CloudConfig, room: &mut Room) {
        if let Err(error) = cloud_config::add(data, wanted, room) {
            self.fail(&format!("{what}: {error}"));
        }
    }

    /// The file counts, whoever wrote it, as with LinuxKit.
    fn name(&mut self, name: Option<String>) {
        if let Some(name) = &name {
            self.file("hostname", name.as_bytes(), 0o644);
        }
        let written = std::fs::read(self.places.config.join("hostname")).ok();
        let Some(written) = written.filter(|name| !name.is_empty()) else { return };
        let Some(name) = host_name::plain(written.trim_ascii()) else {
            return self.fail("hostname: this is no name of a machine");
        };
        let set = (self.places.set_name)(&name);
        if self.done("hostname", set) {
            (self.say)(&format!("this machine is {name}"));
        }
    }

    /// Adds to the keys that are there, from a JSON tree or an earlier start.
    fn keys(&mut self, name: &str, keys: &[String]) {
        let path = self.places.config.join(name);
        let before = std::fs::read_to_string(&path).unwrap_or_default();
        let mut lines: Vec<&str> = before.lines().collect();
        for key in keys.iter().map(|key| key.trim()).filter(|key| !key.is_empty()) {
            if key.len() > KEY_LIMIT_BYTES || key.contains(['\n', '\r', '\0']) || lines.len() >= KEY_COUNT_LIMIT {
                self.fail("an ssh key has several lines or is too long, or there are too many");
            } else if !lines.contains(&key) {
                lines.push(key);
            }
        }
        let text: String = lines.iter().flat_map(|line| [*line, "\n"]).collect();
        if text != before {
            self.file(name, text.as_bytes(), 0o600);
        }
    }

    fn item(&mut self, item: &tree::Item) {
        let (name, mut path) = (item.path.join("/"), self.places.config.clone());
        path.extend(&item.path);
        let made = match &item.content {
            Some(content) => place::file(&path, content.as_bytes(), item.mode, None),
            None => place::folder(&path, item.mode),
        };
        self.done(&name, made);
    }

    fn cloud_config(&mut self, config: &CloudConfig) {
        config.faults.iter().for_each(|fault| self.fail(fault));
        config.files.iter().for_each(|file| self.write_file(file, &config.users));
        if !config.users.is_empty() {
            let line = |user: &User| format!("{0}:x:{1}:{1}:{2}:/home/{0}:/bin/sh\n", user.name, user.id, user.comment);
            self.file("users/passwd", config.users.iter().map(line).collect::<String>().as_bytes(), 0o644);
            let line = |user: &User| format!("{0}:x:{1}:\n", user.name, user.id);
            self.file("users/group", config.users.iter().map(line).collect::<String>().as_bytes(), 0o644);
            for user in &config.users {
                self.keys(&format!("ssh/users/{}", user.name), &user.keys);
                // The one who logs in is told by it, and it is theirs to read.
                let path = self.places.config.join("ssh/users").join(&user.name);
                if path.exists() {
                    let readable = std::fs::Permissions::from_mode(0o644);
                    self.done(&user.name, std::fs::set_permissions(&path, readable));
                }
            }
        }
        if !config.commands.is_empty() {
            let mut script = String::from("#!/bin/sh\n");
            config.commands.iter().for_each(|line| script.extend([line, "\n"]));
            self.file("runcmd", script.as_bytes(), 0o700);
        }
    }

    fn write_file(&mut self, file: &WriteFile, users: &[User]) {
        let shown = file.path.display();
        let owner = match file.owner.as_ref().map(|owner| ids(owner, users)) {
            Some(None) => return self.fail(&format!("write_files: `{shown}`: its owner is not known here")),
            Some(owner) => owner,
            None => None,
        };
        let path = self.places.root.join(file.path.strip_prefix("/").unwrap_or(&file.path));
        let write = if file.append { place::append } else { place::file };
        match write(&path, &file.content, file.mode, owner) {
            Err(error) if error.kind() == io::ErrorKind::ReadOnlyFilesystem => {
                self.fail(&format!(
                    "write_files: `{shown}`: only below /run, /tmp and /var can be written in this machine"
                ));
            }
            written => {
                self.done(&format!("write_files: `{shown}`"), written);
            }
        }
    }

    fn file(&mut self, name: &str, content: &[u8], mode: u32) {
        let written = place::file(&self.places.config.join(Path::new(name)), content, mode, None);
        self.done(name, written);
    }

    fn done(&mut self, what: &str, result: io::Result<()>) -> bool {
        if let Err(error) = &result {
            self.fail(&format!("{what}: {error}"));
        }
        result.is_ok()
    }

    fn fail(&mut self, text: &str) {
        self.failed += 1;
        (self.say)(text);
    }
}

/// Numbers of an owner; names are root's and those of the users that come along.
fn ids((user, group): &(String, String), users: &[User]) -> Option<Owner> {
    let id = |name: &str| match name {
        "root" => Some(0),
        name => name.parse().ok().or_else(|| users.iter().find(|user| user.name == name).map(|user| user.id)),
    };
    Some((id(user)?, id(group)?))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    struct Machine {
        folder: tempfile::TempDir,
        said: Vec<String>,
        failed: usize,
    }

    impl Machine {
        fn with(found: &Found) -> Self {
            let folder = tempfile::tempdir().unwrap();
            let places = Places::below(folder.path());
            let mut said = vec![];
            let failed = apply(found, &places, &mut |text| said.push(text.to_owned()));
            Self { folder, said, failed }
        }

        fn of(data: &str) -> Self {
            Self::with(&Found { user_data: Some(data.into()), ..Found::default() })
        }

        fn read(&self, name: &str) -> String {
            fs::read_to_string(self.folder.path().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
        }

        fn mode(&self, name: &str) -> u32 {
            fs::metadata(self.folder.path().join(name)).unwrap().permissions().mode() & 0o7777
        }
    }

    #[test]
    fn what_cannot_be_done_is_told_and_the_rest_is_done() {
        let machine = Machine::of(
            "#cloud-config\nwrite_files:\n- {path: /run/config, content: x}\n- {path: /var/x, owner: 'nobody:nobody'}\n\
             - {path: /var/y, content: y}\nssh_authorized_keys: [\"a\\nb\", good]\nsnap: {}\n",
        );
        assert_eq!((machine.failed, machine.said.len()), (4, 4), "{:?}", machine.said);
        assert_eq!(
            (machine.read("var/y"), machine.read("run/config/ssh/authorized_keys")),
            ("y".into(), "good\n".into())
        );
        assert_eq!(Machine::of("#cloud-config\na: [\n").failed, 1);
        assert_eq!(Machine::with(&Found { user_data: Some(vec![0x1f, 0x8b, 0]), ..Found::default() }).failed, 1);
    }

    #[test]
    fn hostile_data_makes_nothing_outside_and_nothing_without_end() {
        for mark in NOT_READ {
            let machine = Machine::of(&format!("{mark}\nhttp://192.0.2.1/x\n"));
            assert!(machine.failed == 1 && machine.said[0].contains(mark), "{:?}", machine.said);
        }
        let keys: String = (0..=KEY_COUNT_LIMIT).map(|key| format!("- k{key}\n")).collect();
        let machine = Machine::of(&format!(
            "#cloud-config\nssh_authorized_keys:\n{keys}- {}\nusers:\n- {{name: ../../var/x, ssh_authorized_keys: [k]}}\n\
             - {{name: \"a\\nroot::0:0:::\"}}\n- {{name: bob, gecos: \"b:0:0\\nroot\", uid: 0}}\n- {{name: bob}}\n\
             write_files:\n- {{path: /var/../../outside}}\n- {{path: \"/var/nul\\0\"}}\n- {{path: /var/suid, permissions: '17777'}}\n\
             - {{path: /var/run}}\n- {{path: /var/run/below, content: x}}\n- {{path: /var/{}, content: x}}\n",
            "k".repeat(KEY_LIMIT_BYTES + 1),
            "n".repeat(300),
        ));
        assert_eq!(machine.read("run/config/ssh/authorized_keys").lines().count(), KEY_COUNT_LIMIT);
        assert_eq!(machine.read("run/config/users/passwd"), "bob:x:1000:1000:b 0 0 root:/home/bob:/bin/sh\n");
        assert_eq!((machine.failed, machine.said.len()), (10, 10), "{:#?}", machine.said);
        let mut there: Vec<_> =
            fs::read_dir(&machine.folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        there.sort();
        assert_eq!(there, ["run", "var"]);
        assert!(!machine.folder.path().parent().unwrap().join("outside").exists());
        let deep = format!("{}{}", "{\"d\": {\"entries\": ".repeat(60), "{}".to_owned() + &"}}".repeat(60));
        assert_eq!(Machine::of(&deep).failed, 1);
    }

    #[test]
    fn parts_become_one_cloud_config_and_scripts() {
        let machine = Machine::of(
            "MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=b\n\n--b\nContent-Type: text/cloud-config\n\n\
             #cloud-config\nhostname: one\nusers: [ada]\nruncmd: [date]\n--b\n\n#cloud-config\nhostname: two\nusers: [bob]\n\
             runcmd: [id]\n--b\nContent-Type: text/x-shellscript\nContent-Disposition: attachment; filename=\"go.sh\"\n\n\
             #!/bin/sh\necho\n--b\nContent-Type: text/jinja2\n\nx\n--b--\n",
        );
        assert_eq!(
            machine.said,
            ["user data: part-004: a part of kind `text/jinja2` is not read here", "this machine is two"]
        );
        let passwd = "ada:x:1000:1000::/home/ada:/bin/sh\nbob:x:1001:1001::/home/bob:/bin/sh\n";
        assert_eq!(machine.read("run/config/users/passwd"), passwd);
        assert_eq!(machine.read("run/config/runcmd"), "#!/bin/sh\ndate\nid\n");
        assert_eq!(
            (machine.read("run/config/scripts/go.sh"), machine.mode("run/config/scripts/go.sh")),
            ("#!/bin/sh\necho".into(), 0o755)
        );
    }

    #[test]
    fn linuxkits_tree_and_plain_data_are_where_linuxkit_has_them() {
        let text = r#"{"ssh": {"entries": {"authorized_keys": {"perm": "0600", "content": "k0\n"}}}, "hostname": {"content": "box"}}"#;
        let found = Found {
            provider: "CDROM /dev/vdb".into(),
            user_data: Some(text.into()),
            host_name: None,
            keys: vec!["k1".into(), "k0".into()],
        };
        let machine = Machine::with(&found);
        assert_eq!(machine.said, ["this machine is box"]);
        assert_eq!(machine.read("run/config/provider"), "CDROM /dev/vdb");
        assert_eq!(machine.read("run/config/userdata"), text);
        assert_eq!(machine.read("run/config/ssh/authorized_keys"), "k0\nk1\n");
        let script = Machine::of("#!/bin/sh\necho\n");
        assert_eq!((script.failed, script.mode("run/config/userdata")), (0, 0o755));
        let plain = Machine::of("{broken");
        assert_eq!(
            (plain.failed, plain.mode("run/config/userdata"), plain.read("run/config/userdata")),
            (0, 0o644, "{broken".into())
        );
    }

    #[test]
    fn a_cloud_config_is_laid_out() {
        let machine = Machine::of(
            "#cloud-config\nhostname: web\nusers: [{name: ada, ssh_authorized_keys: [k]}]\nruncmd: [[echo, hi], date]\n\
             write_files:\n- {path: /var/a/b, content: one, permissions: '0640'}\n- {path: /var/a/b, content: two, append: true}\n",
        );
        assert_eq!((machine.failed, machine.said.as_slice()), (0, &["this machine is web".to_owned()][..]));
        assert_eq!((machine.read("run/config/hostname"), machine.read("var/a/b")), ("web".into(), "onetwo".into()));
        assert_eq!(machine.read("run/config/users/passwd"), "ada:x:1000:1000::/home/ada:/bin/sh\n");
        assert_eq!(machine.read("run/config/users/group"), "ada:x:1000:\n");
        assert_eq!(
            (machine.read("run/config/ssh/users/ada"), machine.mode("run/config/ssh/users/ada")),
            ("k\n".into(), 0o644)
        );
        assert_eq!(
            (machine.read("run/config/runcmd"), machine.mode("run/config/runcmd")),
            ("#!/bin/sh\n'echo' 'hi'\ndate\n".into(), 0o700)
        );
    }
}
