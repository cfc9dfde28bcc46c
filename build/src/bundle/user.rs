//! Users and groups by the image's own names: its `/etc/passwd` and `/etc/group` (`passwd(5)`, `group(5)`).

use std::error::Error;

use super::BundleError;
use super::document::Subject;
use super::spec::User as SpecUser;
use crate::config::{ContainerOptions, User, shown};
use crate::oci::Image;

/// Most groups that a process can be in: Linux's `NGROUPS_MAX`.
const GROUPS_MAX: usize = 65_536;

/// Reads a small file of an image, by its path without a slash in front; [`None`] if the image has none there.
pub type ImageFiles<'a> = dyn Fn(&Image, &str) -> Result<Option<Vec<u8>>, Box<dyn Error + Send + Sync>> + 'a;

impl Subject<'_> {
    /// The process's user. Without `files`, one that only the image's files tell is root for the time being.
    pub(super) fn user(
        &self,
        options: &ContainerOptions,
        image: &Image,
        files: Option<&ImageFiles<'_>>,
    ) -> Result<SpecUser, BundleError> {
        let Some(text) = wanted(options, image) else {
            let gids = options.additional_gids.clone().unwrap_or_default();
            return Ok(SpecUser {
                uid: self.id("uid", &options.uid.clone().unwrap_or_default())?,
                gid: self.id("gid", &options.gid.clone().unwrap_or_default())?,
                additional_gids: gids.iter().map(|gid| self.id("additionalGids", gid)).collect::<Result<_, _>>()?,
            });
        };
        if let Some((uid, gid)) = numbers(text) {
            return Ok(SpecUser { uid, gid, additional_gids: Vec::new() });
        }
        let Some(files) = files else { return Ok(SpecUser { uid: 0, gid: 0, additional_gids: Vec::new() }) };
        let read = |path: &'static str| {
            let found = files(image, path).map_err(|source| BundleError::UserFile {
                path,
                image: self.container.image.clone(),
                source,
            })?;
            Ok(String::from_utf8_lossy(&found.unwrap_or_default()).into_owned())
        };
        let (passwd, group) = (read("etc/passwd")?, read("etc/group")?);
        found(text, &passwd, &group).map_err(|missing| BundleError::UnknownUser {
            missing,
            image: self.container.image.clone(),
            place: self.container.place.clone(),
        })
    }
}

/// `USER[:GROUP]` that the container asks for; [`None`]: by numbers of its own, or none at all.
fn wanted<'a>(options: &'a ContainerOptions, image: &'a Image) -> Option<&'a str> {
    let text = match options.user.as_ref()? {
        User::Image => image.config.user.as_str(),
        User::Named(text) => text,
    };
    Some(if text.is_empty() { "0:0" } else { text })
}

/// Whether the image's files are needed to tell the user.
pub(super) fn needs_files(options: &ContainerOptions, image: &Image) -> bool {
    wanted(options, image).is_some_and(|text| numbers(text).is_none())
}

/// Both numbers of `UID:GID`.
fn numbers(text: &str) -> Option<(u32, u32)> {
    let (user, group) = text.split_once(':')?;
    Some((user.parse().ok()?, group.parse().ok()?))
}

/// One line of `/etc/passwd` or `/etc/group`: name, password, number, and what follows.
struct Line<'a> {
    name: &'a str,
    number: u32,
    rest: &'a str,
}

fn lines(text: &str) -> impl Iterator<Item = Line<'_>> {
    text.lines().filter_map(|line| {
        let mut fields = line.trim().splitn(4, ':');
        let (name, _password, number) = (fields.next()?, fields.next()?, fields.next()?);
        Some(Line { name, number: number.parse().ok()?, rest: fields.next().unwrap_or_default() })
    })
}

/// The user of `USER[:GROUP]`. An error names the part that is not there.
fn found(text: &str, passwd: &str, group: &str) -> Result<SpecUser, String> {
    let (user, wanted_group) = text.split_once(':').map_or((text, None), |(user, group)| (user, Some(group)));
    let number: Option<u32> = user.parse().ok();
    // A name first, as it is written; a name may consist of digits.
    let line = lines(passwd).find(|line| line.name == user);
    let line = line.or_else(|| lines(passwd).find(|line| Some(line.number) == number));
    let missing = |what: &str, name: &str, file: &str| format!("{what} `{}` is not in its /etc/{file}", shown(name));
    let uid = line.as_ref().map(|line| line.number).or(number).ok_or_else(|| missing("user", user, "passwd"))?;
    if let Some(name) = wanted_group {
        let gid = lines(group).find(|line| line.name == name).map(|line| line.number).or_else(|| name.parse().ok());
        let gid = gid.ok_or_else(|| missing("group", name, "group"))?;
        return Ok(SpecUser { uid, gid, additional_gids: Vec::new() });
    }
    let Some(line) = line else { return Ok(SpecUser { uid, gid: 0, additional_gids: Vec::new() }) };
    let gid = line.rest.split(':').next().and_then(|gid| gid.parse().ok()).unwrap_or_default();
    let lists = |members: &str| members.split(',').any(|member| member.trim() == line.name);
    let mut additional_gids: Vec<u32> =
        lines(group).filter(|group| lists(group.rest)).map(|group| group.number).take(GROUPS_MAX).collect();
    additional_gids.sort_unstable();
    additional_gids.dedup();
    additional_gids.retain(|other| *other != gid);
    Ok(SpecUser { uid, gid, additional_gids })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nbroken\n:::\nwww:x:33:44:www:/var/www:/bin/false\n+::x:\n\
                          1000:x:7:8::/:\nlast:x:9";
    const GROUP: &str = "root:x:0:\nwww:x:44:www\ntty:x:5:www,root\naudio:x:29:other, www\nstaff:x:50:wwww\n5:x:6:www";

    #[test]
    fn who_is_not_listed_is_named() {
        for (text, expected) in [
            ("nobody", "user `nobody` is not in its /etc/passwd"),
            ("www:wheel", "group `wheel` is not in its /etc/group"),
            ("4294967296", "user `4294967296` is not in"),
            ("-1", "user `-1` is not in"),
            ("broken", "user `broken` is not in"),
        ] {
            let error = found(text, PASSWD, GROUP).err().unwrap_or_default();
            assert!(error.starts_with(expected), "{text}: {error}");
        }
    }

    #[test]
    fn names_and_numbers_lead_to_user_and_groups() {
        for (text, uid, gid, groups) in [
            ("root", 0, 0, &[5][..]),
            ("www", 33, 44, &[5, 6, 29]),
            ("33", 33, 44, &[5, 6, 29]),
            ("www:tty", 33, 5, &[]),
            ("www:77", 33, 77, &[]),
            ("www:5", 33, 6, &[]),
            ("1000", 7, 8, &[]),
            ("123", 123, 0, &[]),
            ("last", 9, 0, &[]),
        ] {
            let user = found(text, PASSWD, GROUP).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!((user.uid, user.gid, &user.additional_gids[..]), (uid, gid, groups), "{text}");
        }
    }
}
