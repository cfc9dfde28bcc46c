//! The common keys of cloud-init's `#cloud-config`: read here, done in `apply`. Each fault names its key, and the rest counts.

use std::path::{Component, Path, PathBuf};

use kiln_guest::host_name;

use super::encoding::{self, Room};
use super::yaml::{self, Yaml, YamlError};

/// The first line.
const MARK: &str = "#cloud-config";
/// Keys that mean nothing on a machine of containers, and that nobody misses.
const PASSED_OVER: [&str; 13] = [
    "merge_how",
    "merge_type",
    "preserve_hostname",
    "manage_etc_hosts",
    "prefer_fqdn_over_hostname",
    "disable_root",
    "ssh_pwauth",
    "package_update",
    "package_upgrade",
    "output",
    "version",
    "instance-id",
    "growpart",
];
const ACCOUNT_LIMIT_BYTES: usize = 32;
/// Numbers of users that get none; the first one is what systems give to the first user.
const FIRST_ID: u32 = 1000;

/// What user data asks for.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct CloudConfig {
    pub host_name: Option<String>,
    /// Who may log in as root.
    pub keys: Vec<String>,
    pub files: Vec<WriteFile>,
    pub users: Vec<User>,
    /// Lines of a shell's program.
    pub commands: Vec<String>,
    /// What is not done, and why.
    pub faults: Vec<String>,
}

/// A file that is wanted.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct WriteFile {
    pub path: PathBuf,
    pub content: Vec<u8>,
    pub mode: u32,
    /// Names or numbers.
    pub owner: Option<(String, String)>,
    pub append: bool,
}

/// Somebody who logs in.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct User {
    pub name: String,
    pub id: u32,
    pub comment: String,
    pub keys: Vec<String>,
}

/// Whether the data says that it is one.
pub(super) fn is_one(data: &[u8]) -> bool {
    let first = data.split(|byte| *byte == b'\n').next().unwrap_or_default();
    first.trim_ascii() == MARK.as_bytes()
}

/// Reads it, and adds it to what is in `config` already: of names the last one counts.
///
/// # Errors
/// It is no YAML.
pub(super) fn add(data: &[u8], config: &mut CloudConfig, room: &mut Room) -> Result<(), YamlError> {
    let Yaml::Map(entries) = yaml::read(&String::from_utf8_lossy(data))? else { return Ok(()) };
    let (mut host_name, mut full_name) = (None, None);
    for (key, value) in &entries {
        match key.as_str() {
            "hostname" => host_name = name(value, "hostname", &mut config.faults),
            "fqdn" => full_name = name(value, "fqdn", &mut config.faults),
            "ssh_authorized_keys" => config.keys.extend(texts(value)),
            "write_files" => write_files(value, config, room),
            "users" => users(value, config),
            "runcmd" => config.commands.extend(commands(value, &mut config.faults)),
            known if PASSED_OVER.contains(&known) => {}
            other => config.faults.push(format!("`{other}` is not done here")),
        }
    }
    config.host_name = host_name.or(full_name).or(config.host_name.take());
    Ok(())
}

fn name(value: &Yaml, key: &str, faults: &mut Vec<String>) -> Option<String> {
    let name = value.text().and_then(|text| host_name::plain(text.as_bytes()));
    if name.is_none() {
        faults.push(format!("{key}: this is no name of a machine"));
    }
    name
}

/// Texts of a list; a text alone is a list of its lines.
fn texts(value: &Yaml) -> Vec<String> {
    match value {
        Yaml::Text(text) => text.lines().map(str::to_owned).collect(),
        Yaml::List(items) => items.iter().filter_map(|item| item.text().map(str::to_owned)).collect(),
        _ => vec![],
    }
}

fn write_files(value: &Yaml, config: &mut CloudConfig, room: &mut Room) {
    let Yaml::List(items) = value else { return config.faults.push("write_files: this is no list".into()) };
    for (number, item) in items.iter().enumerate() {
        match write_file(item, room) {
            Ok(file) => config.files.push(file),
            Err(why) => config.faults.push(format!("write_files[{number}]: {why}")),
        }
    }
}

fn write_file(item: &Yaml, room: &mut Room) -> Result<WriteFile, String> {
    let text = |key: &str| item.get(key).and_then(Yaml::text);
    let path = text("path").ok_or("`path` is missing")?;
    let plain = |part: Component<'_>| matches!(part, Component::RootDir | Component::Normal(_));
    let path = Path::new(path);
    if !path.is_absolute() || path.file_name().is_none() || !path.components().all(plain) {
        return Err(format!("`{}` is no path from the root to a file", path.display()));
    }
    let content = match item.get("content") {
        None | Some(Yaml::Null) => vec![],
        Some(Yaml::Text(content)) => decode(content, text("encoding").unwrap_or("text/plain"), room)?,
        Some(Yaml::Binary(content)) => decode(content, "b64", room)?,
        Some(_) => return Err("`content` is no text".into()),
    };
    let mode = match text("permissions") {
        None => 0o644,
        Some(digits) => u32::from_str_radix(digits.trim_start_matches("0o"), 8)
            .ok()
            .filter(|mode| *mode <= 0o7777)
            .ok_or_else(|| format!("permissions `{digits}` are no octal number"))?,
    };
    let owner = text("owner").map(|owner| {
        let (user, group) = owner.split_once(':').unwrap_or((owner, owner));
        (user.to_owned(), group.to_owned())
    });
    let append = matches!(text("append"), Some("true" | "True" | "TRUE" | "yes" | "on"));
    Ok(WriteFile { path: path.to_owned(), content, mode, owner, append })
}

fn decode(content: &str, encoding: &str, room: &mut Room) -> Result<Vec<u8>, String> {
    let from_base64 =
        || encoding::base64(content.as_bytes()).map_err(|error| format!("`content` is no base64: {error}"));
    match encoding {
        "text/plain" | "plain" | "" => Ok(content.as_bytes().to_vec()),
        "b64" | "base64" => from_base64(),
        "gz" | "gzip" => Err("gzip cannot be in a text; the encoding is `gz+b64`".into()),
        "gz+b64" | "gz+base64" | "gzip+b64" | "gzip+base64" => {
            room.unpack(&from_base64()?).map_err(|error| format!("`content` cannot be unpacked: {error}"))
        }
        other => Err(format!("encoding `{other}` is not known")),
    }
}

fn users(value: &Yaml, config: &mut CloudConfig) {
    let Yaml::List(items) = value else { return config.faults.push("users: this is no list".into()) };
    for (number, item) in items.iter().enumerate() {
        // The distribution's own user, of which there is none here.
        if item.text() == Some("default") {
            continue;
        }
        let name = item.text().or_else(|| item.get("name")?.text()).unwrap_or_default();
        let keys = item.get("ssh_authorized_keys").or_else(|| item.get("ssh-authorized-keys")).map(texts);
        let keys = keys.unwrap_or_default();
        if name == "root" {
            config.keys.extend(keys);
            continue;
        }
        let taken = config.users.iter().any(|user| user.name == name);
        if !is_account(name) || taken || ["sshd", "nobody"].contains(&name) {
            config.faults.push(format!("users[{number}]: `{name}` is no name for a user, or taken"));
            continue;
        }
        let next = config.users.iter().map(|user| user.id + 1).max().unwrap_or(FIRST_ID).max(FIRST_ID);
        let id =
            item.get("uid").and_then(Yaml::text).and_then(|id| id.parse().ok()).filter(|id| *id > 0 && *id < 60_000);
        let comment = item.get("gecos").and_then(Yaml::text).unwrap_or_default();
        let comment = comment.replace([':', '\n', '\r'], " ");
        config.users.push(User { name: name.to_owned(), id: id.unwrap_or(next), comment, keys });
    }
}

fn is_account(name: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_' || byte == b'-';
    name.len() <= ACCOUNT_LIMIT_BYTES
        && name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
        && name.bytes().all(inner)
}

/// A text is a line of a shell's program, a list one command with its arguments.
fn commands(value: &Yaml, faults: &mut Vec<String>) -> Vec<String> {
    let Yaml::List(items) = value else {
        faults.push("runcmd: this is no list".into());
        return vec![];
    };
    let mut lines = vec![];
    for (number, item) in items.iter().enumerate() {
        match item {
            Yaml::Text(line) => lines.push(line.clone()),
            Yaml::List(_) => lines.push(texts(item).iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" ")),
            Yaml::Null => {}
            _ => faults.push(format!("runcmd[{number}]: this is neither a line nor a list of words")),
        }
    }
    lines
}

fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> CloudConfig {
        let mut config = CloudConfig::default();
        add(format!("{MARK}\n{text}").as_bytes(), &mut config, &mut Room::new()).unwrap();
        config
    }

    #[test]
    fn what_is_wrong_is_named_by_its_key_and_the_rest_counts() {
        let config = config(
            "hostname: bad name\nwrite_files:\n- {path: relative, content: x}\n- {path: /a/../b}\n- {content: x}\n\
             - {path: /x, content: '%%', encoding: b64}\n- {path: /x, content: x, encoding: rot13}\n\
             - {path: /x, permissions: '888'}\n- {path: /run/fine, content: yes}\nusers: [default, Bad, {name: sshd}]\n\
             runcmd: [{a: b}, echo]\npackages: [vim]\nmerge_how: x\n",
        );
        let wanted = [
            "hostname: this is no name",
            "write_files[0]: `relative` is no path",
            "write_files[1]: `/a/../b` is no path",
            "write_files[2]: `path` is missing",
            "write_files[3]: `content` is no base64",
            "write_files[4]: encoding `rot13`",
            "write_files[5]: permissions `888`",
            "users[1]: `Bad`",
            "users[2]: `sshd`",
            "runcmd[0]: this is neither",
            "`packages` is not done here",
        ];
        assert_eq!(config.faults.len(), wanted.len(), "{:?}", config.faults);
        for (fault, wanted) in config.faults.iter().zip(wanted) {
            assert!(fault.starts_with(wanted), "{fault}");
        }
        assert_eq!(config.files.len(), 1);
        assert_eq!(config.commands, ["echo"]);
        assert!(!is_one(b"#cloud-configuration\n") && is_one(b"#cloud-config \r\n"));
    }

    #[test]
    fn the_common_keys_are_read() {
        let config = config(
            "fqdn: web.example.org\nssh_authorized_keys:\n- ssh-ed25519 AAAA me\nusers:\n- name: root\n  ssh_authorized_keys: [k2]\n\
             - {name: ada, gecos: 'Ada: L', ssh_authorized_keys: [k3], sudo: ALL}\n- {name: bob, uid: 1500}\n- carl\n\
             write_files:\n- path: /etc/motd\n  content: |\n    hello\n- {path: /run/b, content: aGk, encoding: b64, \
             permissions: '0600', owner: 'ada:ada', append: true}\n- {path: /run/c, content: !!binary aGk=}\n\
             - path: /run/d\n  encoding: gz+b64\n  content: H4sIAAAAAAAAA8vIBACsKpPYAgAAAA==\n\
             runcmd:\n- echo a > /run/x\n- [touch, \"it's\"]\n",
        );
        assert_eq!(config.faults, Vec::<String>::new());
        assert_eq!(config.host_name.as_deref(), Some("web.example.org"));
        assert_eq!(config.keys, ["ssh-ed25519 AAAA me", "k2"]);
        let users: Vec<(&str, u32, &str)> =
            config.users.iter().map(|user| (user.name.as_str(), user.id, user.comment.as_str())).collect();
        assert_eq!(users, [("ada", 1000, "Ada  L"), ("bob", 1500, ""), ("carl", 1501, "")]);
        let contents: Vec<&[u8]> = config.files.iter().map(|file| file.content.as_slice()).collect();
        assert_eq!(contents, [&b"hello\n"[..], b"hi", b"hi", b"hi"]);
        let second = &config.files[1];
        assert_eq!((second.mode, second.append, second.owner.is_some()), (0o600, true, true));
        assert_eq!(config.commands, ["echo a > /run/x", r"'touch' 'it'\''s'"]);
    }
}
