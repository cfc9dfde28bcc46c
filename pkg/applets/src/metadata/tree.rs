//! LinuxKit's form of user data: a JSON object whose keys are names of files (`{"content": …, "perm": "0644"}`) and folders
//! (`{"entries": {…}}`).

use serde_json::{Map, Value};

/// Deepest folder.
const DEPTH_LIMIT: usize = 32;
/// Longest name of a file or folder (NAME_MAX of `linux/limits.h`).
const NAME_LIMIT_BYTES: usize = 255;
/// What `perm` may say: no bits that change who a program runs as.
const MODE_LIMIT: u32 = 0o777;

/// Something that is laid out, in the order in which it is made.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Item {
    /// Names of the folders on the way, then its own.
    pub path: Vec<String>,
    pub mode: u32,
    /// Of a file.
    pub content: Option<String>,
}

/// What is wrong with one entry.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{path}`: {why}")]
pub(super) struct TreeError {
    path: String,
    why: &'static str,
}

/// An item, and what is in it if it is a folder.
type Made<'v> = (Item, Option<&'v Map<String, Value>>);

/// The items of user data that is a JSON object, and what is wrong with others; `None` if it is no JSON object.
pub(super) fn read(data: &[u8]) -> Option<(Vec<Item>, Vec<TreeError>)> {
    let Value::Object(entries) = serde_json::from_slice(data).ok()? else { return None };
    let (mut items, mut errors) = (vec![], vec![]);
    walk(&entries, &mut vec![], &mut items, &mut errors);
    Some((items, errors))
}

fn walk(entries: &Map<String, Value>, path: &mut Vec<String>, items: &mut Vec<Item>, errors: &mut Vec<TreeError>) {
    for (name, entry) in entries {
        path.push(name.clone());
        match item(name, entry, path) {
            Err(why) => errors.push(TreeError { path: path.join("/"), why }),
            Ok((item, inside)) => {
                items.push(item);
                if let Some(inside) = inside {
                    walk(inside, path, items, errors);
                }
            }
        }
        path.pop();
    }
}

fn item<'v>(name: &str, entry: &'v Value, path: &[String]) -> Result<Made<'v>, &'static str> {
    if name.is_empty() || name.len() > NAME_LIMIT_BYTES || name == "." || name == ".." || name.contains(['/', '\0']) {
        return Err("this is no name of a file or folder");
    }
    if path.len() > DEPTH_LIMIT {
        return Err("the folders are too deep");
    }
    let entry = entry.as_object().ok_or("this is neither a file (`content`) nor a folder (`entries`)")?;
    let mode = |default| match entry.get("perm") {
        None => Ok(default),
        Some(Value::String(digits)) if digits.is_empty() => Ok(default),
        Some(Value::String(digits)) => {
            let mode = u32::from_str_radix(digits, 8).ok().filter(|mode| *mode <= MODE_LIMIT);
            mode.ok_or("`perm` is no octal number up to 0777")
        }
        Some(_) => Err("`perm` is no text"),
    };
    match (entry.get("content"), entry.get("entries")) {
        (Some(Value::String(content)), None) => {
            Ok((Item { path: path.to_vec(), mode: mode(0o644)?, content: Some(content.clone()) }, None))
        }
        (None, Some(Value::Object(entries))) => {
            Ok((Item { path: path.to_vec(), mode: mode(0o755)?, content: None }, Some(entries)))
        }
        (Some(_), Some(_)) => Err("`content` and `entries` exclude each other"),
        _ => Err("this is neither a file (`content`) nor a folder (`entries`)"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_leads_out_or_makes_no_sense_is_named_and_the_rest_is_read() {
        assert_eq!(read(b"#cloud-config\n"), None);
        assert_eq!(read(b"[1]"), None);
        let (items, errors) = read(
            br#"{"..": {"content": "x"}, "a/b": {"content": "x"}, "": {"entries": {}}, "n": 1, "e": {},
                "both": {"content": "x", "entries": {}}, "p": {"content": "x", "perm": "9"},
                "s": {"content": "x", "perm": "4755"}, "d": {"entries": {"..": {"content": ""}, "ok": {"content": "y"}}}}"#,
        )
        .unwrap();
        let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(texts.len(), 9, "{texts:?}");
        assert!(texts.contains(&"`d/..`: this is no name of a file or folder".to_owned()), "{texts:?}");
        let paths: Vec<String> = items.iter().map(|item| item.path.join("/")).collect();
        assert_eq!(paths, ["d", "d/ok"]);
    }

    #[test]
    fn files_and_folders_have_linuxkits_modes() {
        let text = br#"{"ssh": {"entries": {"sshd_config": {"perm": "0600", "content": "a"}, "k": {"content": ""}}},
                        "secret": {"perm": "0700", "entries": {}}}"#;
        let (items, errors) = read(text).unwrap();
        assert_eq!(errors, []);
        let modes: Vec<(String, u32, bool)> =
            items.iter().map(|item| (item.path.join("/"), item.mode, item.content.is_some())).collect();
        let wanted =
            [("ssh", 0o755, false), ("ssh/sshd_config", 0o600, true), ("ssh/k", 0o644, true), ("secret", 0o700, false)];
        assert_eq!(modes, wanted.map(|(path, mode, file)| (path.to_owned(), mode, file)));
    }
}
