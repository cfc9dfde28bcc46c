//! `modules.dep` and `modules.softdep`: what has to be loaded before a module, and in which order.

use std::collections::{HashMap, HashSet};

/// The deepest chain of modules that is followed; real ones have less than ten links.
const DEPTH_LIMIT: usize = 64;

/// What depmod found out about the modules of one kernel.
#[derive(Debug, Default)]
pub struct Dependencies<'a> {
    files: HashMap<String, (&'a str, &'a str)>,
    soft: HashMap<String, Soft<'a>>,
}

#[derive(Debug, Default)]
struct Soft<'a> {
    before: Vec<&'a str>,
    after: Vec<&'a str>,
}

impl<'a> Dependencies<'a> {
    /// Reads the two files' texts. Lines that make no sense are passed over.
    pub fn parse(dep_file: &'a str, softdep_file: &'a str) -> Self {
        let mut dependencies = Self::default();
        for line in dep_file.lines() {
            if let Some((path, needs)) = line.split_once(':') {
                dependencies.files.insert(module_name(path), (path, needs));
            }
        }
        for line in softdep_file.lines() {
            let mut words = line.split_ascii_whitespace();
            let (Some("softdep"), Some(module)) = (words.next(), words.next()) else { continue };
            let soft = dependencies.soft.entry(normal(module)).or_default();
            let mut before = true;
            for word in words {
                match word {
                    "pre:" => before = true,
                    "post:" => before = false,
                    name if before => soft.before.push(name),
                    name => soft.after.push(name),
                }
            }
        }
        dependencies
    }

    /// Whether there is a file for the module.
    pub fn knows(&self, module: &str) -> bool {
        self.files.contains_key(&normal(module))
    }

    /// Names and paths (below the modules' folder) in loading order; empty if the module has no file.
    pub fn order(&self, module: &str) -> Vec<(String, &'a str)> {
        let mut order = Vec::new();
        self.visit(&normal(module), &mut HashSet::new(), &mut order, 0);
        order
    }

    fn visit(&self, name: &str, seen: &mut HashSet<String>, order: &mut Vec<(String, &'a str)>, depth: usize) {
        let Some((path, needs)) = self.files.get(name) else { return };
        if depth > DEPTH_LIMIT || !seen.insert(name.to_owned()) {
            return;
        }
        let soft = self.soft.get(name);
        for before in soft.iter().flat_map(|soft| &soft.before) {
            self.visit(&normal(before), seen, order, depth + 1);
        }
        for needed in needs.split_ascii_whitespace() {
            self.visit(&module_name(needed), seen, order, depth + 1);
        }
        order.push((name.to_owned(), path));
        for after in soft.iter().flat_map(|soft| &soft.after) {
            self.visit(&normal(after), seen, order, depth + 1);
        }
    }
}

/// The kernel writes `_` in names where files have `-`.
pub fn normal(name: &str) -> String {
    name.replace('-', "_")
}

fn module_name(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    normal(file.split_once(".ko").map_or(file, |(stem, _)| stem))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEP: &str = "kernel/a.ko: kernel/b.ko kernel/c-d.ko.xz\nkernel/b.ko: kernel/c-d.ko.xz\nkernel/c-d.ko.xz:\n\
                       kernel/soft.ko:\nkernel/late.ko:\nkernel/loop1.ko: kernel/loop2.ko\nkernel/loop2.ko: kernel/loop1.ko\nnonsense\n";

    fn names(dependencies: &Dependencies, module: &str) -> Vec<String> {
        dependencies.order(module).into_iter().map(|(name, _)| name).collect()
    }

    #[test]
    fn a_module_without_a_file_needs_nothing() {
        let dependencies = Dependencies::parse(DEP, "");
        assert!(names(&dependencies, "nonsense").is_empty());
        assert!(!dependencies.knows("nonsense"));
    }

    #[test]
    fn modules_that_need_each_other_end() {
        assert_eq!(names(&Dependencies::parse(DEP, ""), "loop1"), ["loop2", "loop1"]);
    }

    #[test]
    fn what_is_needed_comes_first_and_once() {
        let dependencies = Dependencies::parse(DEP, "");
        assert_eq!(names(&dependencies, "a"), ["c_d", "b", "a"]);
        assert_eq!(dependencies.order("c-d"), [("c_d".to_owned(), "kernel/c-d.ko.xz")]);
    }

    #[test]
    fn soft_dependencies_surround_a_module_and_may_be_missing() {
        let dependencies = Dependencies::parse(DEP, "softdep b pre: soft missing post: late\nsoftdep\n");
        assert_eq!(names(&dependencies, "b"), ["soft", "c_d", "b", "late"]);
    }
}
