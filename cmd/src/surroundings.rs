//! What the environment says where no flag does, and about this machine. Read here and nowhere else.

use std::ffi::OsString;
use std::path::PathBuf;

use kiln_build::compat::{Compat, UnknownCompat};
use kiln_build::oci::{DockerHost, Mirror, MirrorError, RegistryOptions, SourceOptions};
use kiln_build::pipeline::DEFAULT_SOURCE_DATE_S;
use kiln_build::plan::Pull;

use crate::args::Global;
use crate::failure::Failure;

/// Environment variables, by name; those that are set and empty count as not set.
pub type Variables<'a> = &'a dyn Fn(&str) -> Option<OsString>;

/// This process's own.
pub fn variable(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

/// Something in the environment that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SurroundingsError {
    /// No flag, no variable and no home.
    #[error("there is no folder for the image store: HOME is not set")]
    NoHome,
    /// A mirror that is none.
    #[error("{origin} cannot be used")]
    Mirror {
        /// The flag or variable.
        origin: &'static str,
        /// Why.
        #[source]
        source: MirrorError,
    },
    /// `KILN_COMPAT` names nothing that is known.
    #[error("KILN_COMPAT cannot be used")]
    Compat(#[source] UnknownCompat),
    /// A date that is none.
    #[error("SOURCE_DATE_EPOCH is `{0}`; it should be a whole number of seconds since 1970")]
    SourceDate(String),
}

/// Whose result a build gives: the flag's, or `KILN_COMPAT`'s.
pub fn compat(flag: Option<Compat>, variables: Variables) -> Result<Compat, Failure> {
    let Some(named) = variables("KILN_COMPAT").filter(|_| flag.is_none()) else { return Ok(flag.unwrap_or_default()) };
    named.to_string_lossy().parse().map_err(|source| Failure::usage(SurroundingsError::Compat(source)))
}

/// Whether LinuxKit's ways are asked for, told from the words themselves: they may be wrong usage.
pub fn asks_for_linuxkit(words: impl Iterator<Item = OsString>, variables: Variables) -> bool {
    let words: Vec<String> = words.map(|word| word.to_string_lossy().trim_start_matches('-').to_owned()).collect();
    let flag = words.windows(2).any(|pair| pair == ["compat", "linuxkit"]);
    flag || words.iter().any(|word| word == "compat=linuxkit")
        || variables("KILN_COMPAT").is_some_and(|name| name == "linuxkit")
}

/// The user's home.
pub fn home(variables: Variables) -> Option<PathBuf> {
    variables("HOME").map(PathBuf::from)
}

/// Folder of the image store: the flag, `KILN_CACHE`, `LINUXKIT_CACHE`, or `~/.kiln/cache`.
pub fn store(global: &Global, variables: Variables) -> Result<PathBuf, Failure> {
    let named = global.cache.clone().or_else(|| variables("KILN_CACHE").map(PathBuf::from));
    let named = named.or_else(|| variables("LINUXKIT_CACHE").map(PathBuf::from));
    named
        .or_else(|| home(variables).map(|home| home.join(".kiln/cache")))
        .ok_or_else(|| Failure::new(SurroundingsError::NoHome).hint("`-cache DIR` or KILN_CACHE names one"))
}

/// `~/.kiln/NAME`: a folder of what can be made again.
pub fn kept(name: &str, variables: Variables) -> Option<PathBuf> {
    home(variables).map(|home| home.join(".kiln").join(name))
}

/// Folder of the networks that machines share: the user's own, and gone with the last session where there is such a place.
pub fn networks(variables: Variables) -> Option<PathBuf> {
    let runtime = variables("XDG_RUNTIME_DIR").map(|folder| PathBuf::from(folder).join("kiln"));
    runtime.or_else(|| home(variables).map(|home| home.join(".kiln"))).map(|folder| folder.join("net"))
}

/// Folder of the names of this user's machines that run: where sockets of sessions are, which is empty after the host's start.
pub fn machines(variables: Variables) -> Option<PathBuf> {
    let runtime = variables("XDG_RUNTIME_DIR").map(PathBuf::from);
    let runtime = runtime.or_else(|| rustix::process::geteuid().is_root().then(|| "/run".into()));
    let folder = runtime.map(|folder| folder.join("kiln")).or_else(|| home(variables).map(|home| home.join(".kiln")));
    folder.map(|folder| folder.join("machines"))
}

/// How registries are reached: mirrors from the flags, else from `LINUXKIT_MIRROR`; Docker's file with credentials.
pub fn registries(global: &Global, variables: Variables) -> Result<RegistryOptions, Failure> {
    let listed = variables("LINUXKIT_MIRROR").unwrap_or_default().to_string_lossy().into_owned();
    let (origin, words): (_, Vec<&str>) = if global.mirror.is_empty() {
        ("LINUXKIT_MIRROR", listed.split([',', ' ', '\n', '\t']).filter(|word| !word.is_empty()).collect())
    } else {
        ("-mirror", global.mirror.iter().map(String::as_str).collect())
    };
    let mirrors: Result<Vec<Mirror>, _> = words.into_iter().map(str::parse).collect();
    let mirrors = mirrors.map_err(|source| Failure::usage(SurroundingsError::Mirror { origin, source }))?;
    let docker = variables("DOCKER_CONFIG").map(PathBuf::from).or_else(|| Some(home(variables)?.join(".docker")));
    Ok(RegistryOptions {
        mirrors,
        offline: global.offline,
        certificates: global.cert_file.clone(),
        docker_config: docker.map(|folder| folder.join("config.json")).filter(|file| file.exists()),
        ..RegistryOptions::default()
    })
}

/// Where other programs' images are looked for: Docker where `DOCKER_HOST` says, else at one of its usual sockets.
pub fn sources(variables: Variables) -> SourceOptions {
    let own = variables("XDG_RUNTIME_DIR").map(|folder| PathBuf::from(folder).join("docker.sock"));
    let docker = match (variables("DOCKER_HOST"), own.filter(|socket| socket.exists())) {
        (Some(host), _) => DockerHost::from(&*host.to_string_lossy()),
        (None, Some(socket)) if !std::path::Path::new("/var/run/docker.sock").exists() => DockerHost::Socket(socket),
        _ => DockerHost::default(),
    };
    SourceOptions { docker, ..SourceOptions::default() }
}

/// The time of everything that a build generates, in seconds since 1970.
pub fn source_date_s(variables: Variables) -> Result<i64, Failure> {
    let Some(text) = variables("SOURCE_DATE_EPOCH") else { return Ok(DEFAULT_SOURCE_DATE_S) };
    let text = text.to_string_lossy();
    let refuse = || Failure::usage(SurroundingsError::SourceDate(text.clone().into_owned()));
    text.parse().ok().filter(|seconds| *seconds >= 0).ok_or_else(refuse)
}

/// When registries are asked: `flag`, which may be given, wants them asked always.
pub fn when(flag: &str, is_given: bool, offline: bool) -> Result<Pull, Failure> {
    match (is_given, offline) {
        (true, true) => Err(Failure::usage(format!("`--{flag}` and `--offline` contradict each other"))),
        (true, false) => Ok(Pull::Always),
        (false, true) => Ok(Pull::Never),
        (false, false) => Ok(Pull::Missing),
    }
}

/// This machine's architecture by Go's name.
pub fn own_architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn global() -> Global {
        Global {
            cache: None,
            mirror: vec![],
            cert_file: vec![],
            offline: false,
            quiet: false,
            verbose: 1,
            detached_child: false,
        }
    }

    fn env<'a>(set: &'a [(&'a str, &'a str)]) -> impl Fn(&str) -> Option<OsString> + 'a {
        |name| set.iter().find(|(known, _)| *known == name).map(|(_, value)| OsString::from(value))
    }

    #[test]
    fn what_cannot_be_used_is_refused_by_name() {
        assert_eq!(store(&global(), &env(&[])).unwrap_err().status, 1);
        let mirrors = registries(&global(), &env(&[("LINUXKIT_MIRROR", "nonsense")])).unwrap_err();
        assert_eq!((mirrors.status, mirrors.error.to_string()), (2, "LINUXKIT_MIRROR cannot be used".into()));
        for date in ["", "-1", "1.5", "yesterday", "99999999999999999999"] {
            assert_eq!(source_date_s(&env(&[("SOURCE_DATE_EPOCH", date)])).unwrap_err().status, 2, "{date}");
        }
    }

    #[test]
    fn a_flag_wins_over_variables_and_they_over_home() {
        let all =
            [("KILN_CACHE", "/k"), ("LINUXKIT_CACHE", "/l"), ("HOME", "/h"), ("LINUXKIT_MIRROR", "http://a, http://b")];
        let flags = Global { cache: Some("/f".into()), mirror: vec!["https://c".into()], ..global() };
        let folder = |global: &Global, from| store(global, &env(&all[from..])).unwrap();
        assert_eq!(folder(&flags, 0), PathBuf::from("/f"));
        assert_eq!(folder(&global(), 0), PathBuf::from("/k"));
        assert_eq!(folder(&global(), 1), PathBuf::from("/l"));
        assert_eq!(folder(&global(), 2), PathBuf::from("/h/.kiln/cache"));
        let hosts = |global: &Global| {
            let options = registries(global, &env(&all)).unwrap();
            options.mirrors.into_iter().map(|mirror| mirror.host).collect::<Vec<_>>()
        };
        assert_eq!(hosts(&global()), ["a", "b"]);
        assert_eq!(hosts(&flags), ["c"]);
        assert_eq!(source_date_s(&env(&[("SOURCE_DATE_EPOCH", "0")])).unwrap(), 0);
        assert_eq!(source_date_s(&env(&[])).unwrap(), DEFAULT_SOURCE_DATE_S);
    }
}
