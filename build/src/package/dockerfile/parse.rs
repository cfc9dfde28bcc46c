//! What a Dockerfile stands on, told without building it: the images that it names, and whether it runs anything on the
//! architecture that it is for.
//!
//! Only instructions that name images are understood; whatever else stands there is the builder's to judge. A name that
//! cannot be told is left to the builder too.

use std::collections::BTreeMap;

/// Longest Dockerfile that is looked at, in bytes.
pub(super) const DOCKERFILE_BYTES_MAX: u64 = 1 << 20;

/// What the values of build arguments are looked up in.
pub(super) type Arguments = BTreeMap<String, String>;

/// What a Dockerfile needs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Needs {
    /// Images, each once, in the order of their first use.
    pub bases: Vec<Base>,
    /// Whether commands run in a stage for the architecture that is built for, not for the builder's own.
    pub runs_on_target: bool,
}

/// An image that a Dockerfile names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Base {
    /// The reference as it is written, its variables replaced.
    pub name: String,
    /// Go's name of the architecture that is wanted.
    pub architecture: String,
    /// Number of the line, from 1.
    pub line: usize,
}

/// For and on what is built, by Go's names.
#[derive(Debug, Clone, Copy)]
pub(super) struct Architectures<'a> {
    pub target: &'a str,
    pub builder: &'a str,
}

struct Stage {
    name: String,
    architecture: String,
}

/// What the Dockerfile `text` needs when it is built with `arguments`.
pub(super) fn needs(text: &str, arguments: &Arguments, architectures: Architectures<'_>) -> Needs {
    let mut needs = Needs::default();
    let mut known = platform_arguments(architectures);
    let mut stages: Vec<Stage> = Vec::new();
    for (line, instruction) in instructions(text) {
        let mut words = instruction.split_whitespace();
        let keyword = words.next().unwrap_or_default().to_ascii_uppercase();
        match keyword.as_str() {
            "ARG" if stages.is_empty() => {
                for (name, default) in words.map(|word| word.split_once('=').unwrap_or((word, ""))) {
                    let default = expand(unquoted(default), &known).unwrap_or_default();
                    let value = arguments.get(name).cloned().unwrap_or(default);
                    // The platform's own are overridden by nothing but what the user gives.
                    if arguments.contains_key(name) || !known.contains_key(name) {
                        known.insert(name.to_owned(), value);
                    }
                }
            }
            "FROM" => {
                let (stage, base) = from(words, &known, &stages, architectures, line);
                needs.add(base);
                stages.push(stage);
            }
            "COPY" | "RUN" => {
                let sources = words.take_while(|word| word.starts_with("--")).filter_map(source);
                let Some(stage) = stages.last() else { continue };
                needs.runs_on_target |= keyword == "RUN" && stage.architecture == architectures.target;
                for name in sources.filter(|name| is_image(name, &stages)) {
                    let architecture = architectures.target.to_owned();
                    needs.add(Some(Base { name: name.to_owned(), architecture, line }));
                }
            }
            _ => {}
        }
    }
    needs
}

impl Needs {
    fn add(&mut self, base: Option<Base>) {
        let same = |one: &Base, other: &Base| (&one.name, &one.architecture) == (&other.name, &other.architecture);
        self.bases.extend(base.filter(|base| !self.bases.iter().any(|known| same(known, base))));
    }
}

/// The stage that a `FROM` with these words begins, and the image that it needs.
fn from<'a>(
    words: impl Iterator<Item = &'a str>,
    known: &Arguments,
    stages: &[Stage],
    architectures: Architectures<'_>,
    line: usize,
) -> (Stage, Option<Base>) {
    let (flags, words): (Vec<&str>, Vec<&str>) = words.partition(|word| word.starts_with("--"));
    let platform = flags.iter().find_map(|flag| flag.strip_prefix("--platform="));
    let platform = platform.and_then(|platform| expand(unquoted(platform), known));
    let architecture = platform.as_deref().and_then(|platform| platform.split('/').nth(1));
    let mut architecture = architecture.unwrap_or(architectures.target).to_owned();
    let name = words.first().and_then(|word| expand(unquoted(word), known)).unwrap_or_default();
    let mut base = None;
    if let Some(stage) = stages.iter().find(|stage| stage.name.eq_ignore_ascii_case(&name)) {
        architecture.clone_from(&stage.architecture);
    } else if is_image(&name, stages) {
        base = Some(Base { name, architecture: architecture.clone(), line });
    }
    let named = words.get(1).is_some_and(|word| word.eq_ignore_ascii_case("as"));
    let name = words.get(2).filter(|_| named).copied().unwrap_or_default().to_owned();
    (Stage { name, architecture }, base)
}

/// What `--from=X` or `--mount=…,from=X,…` names.
fn source(flag: &str) -> Option<&str> {
    let from = flag
        .strip_prefix("--from=")
        .or_else(|| flag.strip_prefix("--mount=")?.split(',').find_map(|option| option.strip_prefix("from=")));
    from.map(unquoted)
}

fn is_image(name: &str, stages: &[Stage]) -> bool {
    let is_stage = stages.iter().any(|stage| stage.name.eq_ignore_ascii_case(name));
    let is_number = name.bytes().all(|byte| byte.is_ascii_digit());
    !(is_stage || is_number || name.eq_ignore_ascii_case("scratch") || name.contains('$'))
}

fn platform_arguments(architectures: Architectures<'_>) -> Arguments {
    let mut known = Arguments::new();
    for (side, architecture) in [("TARGET", architectures.target), ("BUILD", architectures.builder)] {
        for (what, value) in [
            ("PLATFORM", format!("linux/{architecture}")),
            ("OS", "linux".into()),
            ("ARCH", architecture.into()),
            ("VARIANT", String::new()),
        ] {
            known.insert(format!("{side}{what}"), value);
        }
    }
    known
}

/// Every instruction on one line, with the number of its first line. Comments and here-documents are left out.
fn instructions(text: &str) -> Vec<(usize, String)> {
    let directive = text.lines().map(str::trim).take_while(|line| line.starts_with('#'));
    let mut escapes = directive.filter_map(|line| {
        let (name, value) = line.trim_start_matches('#').split_once('=')?;
        name.trim().eq_ignore_ascii_case("escape").then_some(value.trim() == "`")
    });
    let escape = if escapes.next() == Some(true) { '`' } else { '\\' };
    let mut instructions = Vec::new();
    let mut open: Option<(usize, String)> = None;
    let mut lines = text.lines().enumerate();
    while let Some((index, line)) = lines.next() {
        let line = line.trim();
        if line.starts_with('#') || line.is_empty() {
            continue;
        }
        let (number, mut joined) = open.take().unwrap_or((index + 1, String::new()));
        match line.strip_suffix(escape) {
            Some(start) => {
                joined.push_str(start);
                open = Some((number, joined));
            }
            None => {
                joined.push_str(line);
                for end in here_documents(&joined) {
                    lines.by_ref().find(|(_, line)| line.trim_start_matches('\t') == end);
                }
                instructions.push((number, joined));
            }
        }
    }
    instructions.extend(open);
    instructions
}

/// The words that end the here-documents of an instruction.
fn here_documents(instruction: &str) -> Vec<String> {
    let takes_some = ["RUN", "COPY", "ADD"]
        .iter()
        .any(|keyword| instruction.get(..keyword.len()).is_some_and(|start| start.eq_ignore_ascii_case(keyword)));
    let words = instruction.split_whitespace().filter(|_| takes_some);
    let end = |word: &str| {
        let end = unquoted(word.split_once("<<")?.1.trim_start_matches('-'));
        let is_name = !end.is_empty() && end.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        is_name.then(|| end.to_owned())
    };
    words.filter_map(end).collect()
}

fn unquoted(word: &str) -> &str {
    let inside = |quote: char| word.strip_prefix(quote)?.strip_suffix(quote);
    inside('"').or_else(|| inside('\'')).unwrap_or(word)
}

/// `text` with `$NAME`, `${NAME}`, `${NAME:-WORD}` and `${NAME:+WORD}` replaced. `None` for what is not understood.
fn expand(text: &str, known: &Arguments) -> Option<String> {
    let mut expanded = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        expanded.push_str(before);
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
        if let Some(after) = after.strip_prefix('{') {
            let (inside, behind) = after.split_once('}')?;
            let end = inside.find(|c| !is_name(c)).unwrap_or(inside.len());
            let (name, operator) = inside.split_at(end);
            let value = known.get(name).map(String::as_str).filter(|value| !value.is_empty());
            expanded.push_str(match operator.get(..2) {
                None if operator.is_empty() => value.unwrap_or_default(),
                Some(":-") => value.unwrap_or(&operator[2..]),
                Some(":+") => value.map_or("", |_| &operator[2..]),
                _ => return None,
            });
            rest = behind;
        } else {
            let end = after.find(|c| !is_name(c)).unwrap_or(after.len());
            let (name, behind) = after.split_at(end);
            expanded.push_str(known.get(name).map(String::as_str).unwrap_or_default());
            rest = behind;
        }
    }
    expanded.push_str(rest);
    Some(expanded)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(text: &str, given: &[(&str, &str)]) -> Needs {
        let given = given.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        needs(text, &given, Architectures { target: "arm64", builder: "amd64" })
    }

    fn bases(text: &str, given: &[(&str, &str)]) -> Vec<String> {
        let name = |base: Base| format!("{}:{} {}", base.line, base.name, base.architecture);
        look(text, given).bases.into_iter().map(name).collect()
    }

    #[test]
    fn text_that_is_no_dockerfile_names_nothing() {
        for text in
            ["", "\0", "FROM", "FROM --platform=", "COPY --from=x", "ARG", "RUN <<", "FROM ${", "FROM ${A:?x}", "\\"]
        {
            assert_eq!(bases(text, &[]), Vec::<String>::new(), "{text}");
        }
        assert_eq!(bases(&"FROM a\\\n".repeat(10_000), &[]).len(), 1);
    }

    #[test]
    fn images_are_told_from_stages() {
        let text = "# escape=\\\nFROM alpine:3 AS build\nRUN true\nfrom build\nCOPY --from=build /a /a\nCOPY --from=0 /a /a\n\
                    COPY --chown=0 --from=docker.io/x/y:1 /b \\\n  # between\n  /b\nRUN --mount=type=bind,from=tools,target=/t t\n\
                    FROM scratch\nCOPY --from=alpine:3 / /\n";
        assert_eq!(bases(text, &[]), ["2:alpine:3 arm64", "7:docker.io/x/y:1 arm64", "10:tools arm64"]);
    }

    #[test]
    fn arguments_before_the_first_stage_are_replaced() {
        let text = "ARG A=alpine\nARG V=\"3\" W\nARG BOTH=$A:${V}\nFROM ${BOTH}\nARG A=no\nFROM $A-${W:-none}\nFROM ${X:-x}${V:+y}\n";
        assert_eq!(bases(text, &[]), ["4:alpine:3 arm64", "6:alpine-none arm64", "7:xy arm64"]);
        assert_eq!(bases(text, &[("A", "b"), ("W", "w")])[..2], ["4:b:3 arm64", "6:b-w arm64"]);
    }

    #[test]
    fn stages_for_the_builder_run_there() {
        let cross = "FROM --platform=$BUILDPLATFORM golang AS b\nRUN go build\nFROM scratch\nCOPY --from=b /x /x\n";
        let needs = look(cross, &[]);
        assert_eq!((needs.bases[0].architecture.as_str(), needs.runs_on_target), ("amd64", false));
        assert!(!look("FROM --platform=linux/amd64 a AS b\nFROM b\nRUN x\n", &[]).runs_on_target);
        assert!(look("FROM scratch\nrun [\"/x\"]\n", &[]).runs_on_target);
    }

    #[test]
    fn here_documents_and_comments_are_no_instructions() {
        let text =
            "FROM a\nRUN <<EOF cat\nFROM b\nEOF\nCOPY <<-\"END\" /x\nFROM c\n\tEND\n# FROM d\nLABEL x=<<Y\nFROM e\n";
        assert_eq!(bases(text, &[]), ["1:a arm64", "10:e arm64"]);
        assert_eq!(bases("# escape=`\nFROM `\n a\n", &[]), ["2:a arm64"]);
    }
}
