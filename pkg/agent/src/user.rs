//! Who a program runs as: `USER[:GROUP]`, by the files of the root that it runs in.

use std::fs;
use std::path::Path;

/// A user, and the groups he is in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) groups: Vec<u32>,
    pub(crate) home: String,
}

/// Nobody of that name.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no {what} `{name}` there")]
pub(crate) struct Nobody {
    what: &'static str,
    name: String,
}

/// Finds the user; root if none is named. Numbers need no entry in any file.
pub(crate) fn find(root: &Path, wanted: Option<&str>) -> Result<User, Nobody> {
    let read = |file: &str| fs::read_to_string(root.join("etc").join(file)).unwrap_or_default();
    look(wanted.unwrap_or("0"), &read("passwd"), &read("group"))
}

fn look(wanted: &str, passwd: &str, group: &str) -> Result<User, Nobody> {
    let (name, group_name) = wanted.split_once(':').map_or((wanted, None), |(user, group)| (user, Some(group)));
    let number = name.parse::<u32>().ok();
    // name:password:uid:gid:comment:home:shell
    let users = passwd.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let (uid, gid) = (fields.nth(1)?.parse::<u32>().ok()?, fields.next()?.parse::<u32>().ok()?);
        Some((name, uid, gid, fields.nth(1).unwrap_or("/")))
    });
    let entry = users.into_iter().find(|(known, uid, ..)| number.map_or(*known == name, |number| number == *uid));
    let (known, uid, own_gid, home) = match (entry, number) {
        (Some(entry), _) => entry,
        (None, Some(uid)) => (name, uid, 0, "/"),
        (None, None) => return Err(Nobody { what: "user", name: name.into() }),
    };
    // name:password:gid:member,member
    let groups: Vec<(&str, u32, &str)> = group
        .lines()
        .filter_map(|line| {
            let mut fields = line.split(':');
            Some((fields.next()?, fields.nth(1)?.parse().ok()?, fields.next().unwrap_or("")))
        })
        .collect();
    let gid = match group_name {
        None => own_gid,
        Some(wanted) => {
            let named = groups.iter().find(|(name, ..)| *name == wanted).map(|(_, gid, _)| *gid);
            let gid = wanted.parse().ok().or(named);
            gid.ok_or_else(|| Nobody { what: "group", name: wanted.into() })?
        }
    };
    let is_member = |members: &str| members.split(',').any(|member| member == known);
    let mut all: Vec<u32> = groups.iter().filter(|(.., members)| is_member(members)).map(|(_, gid, _)| *gid).collect();
    all.retain(|other| *other != gid);
    all.insert(0, gid);
    Ok(User { uid, gid, groups: all, home: home.into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str =
        "root:x:0:0:root:/root:/bin/sh\nredis:x:100:101::/var/lib/redis:/bin/false\nbroken\nhalf:x:1\n";
    const GROUP: &str = "root:x:0:\nredis:x:101:\nlogs:x:7:adm,redis\nbroken\n";

    #[test]
    fn nobody_is_told_by_name() {
        for (wanted, what, name) in [("ghost", "user", "ghost"), ("", "user", ""), ("redis:ghosts", "group", "ghosts")]
        {
            let Nobody { what: told, name: named } = look(wanted, PASSWD, GROUP).unwrap_err();
            assert_eq!((told, named.as_str()), (what, name));
        }
        assert!(look("half", PASSWD, GROUP).is_err() && look("broken", PASSWD, GROUP).is_err());
    }

    #[test]
    fn a_user_is_a_name_or_a_number_and_may_have_another_group() {
        let user = |uid, gid, groups: &[u32], home: &str| User { uid, gid, groups: groups.into(), home: home.into() };
        for (wanted, expected) in [
            ("0", user(0, 0, &[0], "/root")),
            ("redis", user(100, 101, &[101, 7], "/var/lib/redis")),
            ("100", user(100, 101, &[101, 7], "/var/lib/redis")),
            ("redis:root", user(100, 0, &[0, 7], "/var/lib/redis")),
            ("4000:4001", user(4000, 4001, &[4001], "/")),
            ("4000", user(4000, 0, &[0], "/")),
        ] {
            assert_eq!(look(wanted, PASSWD, GROUP), Ok(expected), "{wanted}");
        }
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(find(folder.path(), None), Ok(user(0, 0, &[0], "/")));
    }
}
