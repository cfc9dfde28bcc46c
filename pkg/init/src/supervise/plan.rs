//! What a root asks PID 1 to run, in which order.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use kiln_abi::{
    AnnotationError, ONBOOT_DIR, ONSHUTDOWN_DIR, SERVICES_DIR, ServicePolicy, Stage, StartConditions, VOLUMES_DIR,
};

use super::machine::{Machine, Step};
use super::task::{Index, Kind, Readiness, Task};
use crate::bundle;

const INIT_SCRIPTS: &str = "etc/init.d";
const SHUTDOWN_SCRIPTS: &str = "etc/shutdown.d";
/// LinuxKit's own program behind its scripts; what it does is done here.
const REPLACED_PROGRAM: &str = "service";
/// Where PID 1's own steps stand among the scripts, by name.
const VOLUMES_STEP: &str = "005-volumes";
const ONBOOT_STEP: &str = "010-onboot";
const SERVICES_STEP: &str = "020-containerd";
const ONSHUTDOWN_STEP: &str = "010-onshutdown";

/// Looks through `root`. Returns the machine and what was wrong with single bundles.
pub fn plan(root: &Path) -> (Machine, Vec<String>) {
    let mut plan = Plan { root, tasks: Vec::new(), after: Vec::new(), problems: Vec::new() };
    let (init, shutdown) = (scripts(&root.join(INIT_SCRIPTS)), scripts(&root.join(SHUTDOWN_SCRIPTS)));
    let between = |scripts: &[PathBuf], from: &str, to: &str| -> Vec<PathBuf> {
        let inside = |name: &str| from <= name && (to.is_empty() || name < to);
        scripts.iter().filter(|path| inside(&name_of(path))).cloned().collect()
    };

    let mut boot = plan.scripts(&between(&init, "", VOLUMES_STEP));
    if below(root, VOLUMES_DIR).is_dir() {
        boot.push(plan.task(Task::new("volumes".into(), Kind::Volumes, ServicePolicy::default())));
    }
    boot.extend(plan.scripts(&between(&init, VOLUMES_STEP, ONBOOT_STEP)));
    boot.extend(plan.bundles(Stage::Onboot));
    boot.extend(plan.scripts(&between(&init, ONBOOT_STEP, SERVICES_STEP)));
    let mut steps: Vec<Step> = boot.into_iter().map(Step::Run).collect();
    plan.bundles(Stage::Service);
    plan.put_in_order();
    steps.push(Step::Services);
    steps.extend(plan.scripts(&between(&init, SERVICES_STEP, "")).into_iter().map(Step::Run));

    let mut end = plan.scripts(&between(&shutdown, "", ONSHUTDOWN_STEP));
    end.extend(plan.bundles(Stage::Onshutdown));
    end.extend(plan.scripts(&between(&shutdown, ONSHUTDOWN_STEP, "")));
    (Machine::new(plan.tasks, steps, end), plan.problems)
}

struct Plan<'a> {
    root: &'a Path,
    tasks: Vec<Task>,
    /// Services and the names of those that they come after.
    after: Vec<(String, Vec<String>)>,
    problems: Vec<String>,
}

impl Plan<'_> {
    fn task(&mut self, task: Task) -> Index {
        self.tasks.push(task);
        self.tasks.len() - 1
    }

    fn scripts(&mut self, paths: &[PathBuf]) -> Vec<Index> {
        let task = |path: &PathBuf| Task::new(name_of(path), Kind::Script(path.clone()), ServicePolicy::default());
        paths.iter().map(|path| self.task(task(path))).collect()
    }

    fn bundles(&mut self, stage: Stage) -> Vec<Index> {
        let folder = below(self.root, folder_of(stage));
        let bundles = entries(&folder).into_iter().filter(|path| path.is_dir());
        bundles.map(|folder| self.bundle(stage, folder)).collect()
    }

    fn bundle(&mut self, stage: Stage, folder: PathBuf) -> Index {
        let id = name_of(&folder);
        let name = if stage == Stage::Service { id } else { without_number(&id).to_owned() };
        let mut task = Task::new(name, Kind::Container { stage, folder: folder.clone() }, ServicePolicy::default());
        if stage == Stage::Service {
            self.read_wishes(&folder, &mut task);
        }
        self.task(task)
    }

    /// What a service's annotations ask for. What cannot be read is told, and goes as if it were not there.
    fn read_wishes(&mut self, folder: &Path, task: &mut Task) {
        // A bundle without a readable configuration fails when it is started, with the reason.
        let Ok(wishes) = bundle::annotations(folder) else { return };
        let title = task.title();
        let mut told = |error: AnnotationError| self.problems.push(format!("{title}: {error}"));
        task.policy = ServicePolicy::from_annotations(&wishes).map_err(&mut told).unwrap_or_default();
        let conditions = StartConditions::from_annotations(&wishes).map_err(&mut told).unwrap_or_default();
        if let Some(ready) = conditions.ready {
            task.ready_timeout = ready.timeout;
            task.readiness = Readiness::Wanted { until: None };
        }
        self.after.push((task.name.clone(), conditions.after));
    }

    /// Turns names into tasks. One that is no service, or that would have a service wait for itself, is told and left
    /// out.
    fn put_in_order(&mut self) {
        for (name, before) in std::mem::take(&mut self.after) {
            let Some(index) = self.service(&name) else { continue };
            for other in before {
                let problem = match self.service(&other) {
                    None => format!("service {name}: comes after `{other}`, which is no service"),
                    Some(other_index) if self.comes_after(other_index, index) => {
                        format!("service {name}: comes after `{other}`, which comes after it: started without waiting")
                    }
                    Some(other_index) => {
                        self.tasks.get_mut(index).into_iter().for_each(|task| task.after.push(other_index));
                        continue;
                    }
                };
                self.problems.push(problem);
            }
        }
    }

    fn service(&self, name: &str) -> Option<Index> {
        self.tasks.iter().position(|task| task.is_service() && task.name == name)
    }

    /// Whether `task` is `other`, or comes after it, at once or by way of others.
    fn comes_after(&self, task: Index, other: Index) -> bool {
        let mut seen = vec![task];
        let mut next = 0;
        while let Some(index) = seen.get(next).copied() {
            next += 1;
            if index == other {
                return true;
            }
            for before in self.tasks.get(index).map(|task| task.after.as_slice()).unwrap_or_default() {
                if !seen.contains(before) {
                    seen.push(*before);
                }
            }
        }
        false
    }
}

fn folder_of(stage: Stage) -> &'static str {
    match stage {
        Stage::Onboot => ONBOOT_DIR,
        Stage::Service => SERVICES_DIR,
        Stage::Onshutdown => ONSHUTDOWN_DIR,
    }
}

fn below(root: &Path, absolute: &str) -> PathBuf {
    root.join(absolute.trim_start_matches('/'))
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> =
        fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    paths.sort();
    paths
}

/// Executable files of a folder in name order, without those that only lead to LinuxKit's own program.
fn scripts(folder: &Path) -> Vec<PathBuf> {
    let replaced = |path: &Path| fs::read_link(path).is_ok_and(|target| name_of(&target) == REPLACED_PROGRAM);
    let runs = |path: &Path| fs::metadata(path).is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0);
    entries(folder).into_iter().filter(|path| runs(path) && !replaced(path)).collect()
}

fn name_of(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// `000-sysctl` is `sysctl`.
fn without_number(id: &str) -> &str {
    match id.split_once('-') {
        Some((number, name)) if !name.is_empty() && number.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => id,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::time::Duration;

    use super::*;
    use crate::supervise::machine::{Command, Event};
    use crate::supervise::task::Exit;

    fn names(machine: &mut Machine) -> Vec<String> {
        let mut names = Vec::new();
        let mut commands = machine.take(Duration::ZERO, Event::Begin);
        while let Some(command) = commands.pop() {
            if let Command::Start(index) = command {
                let task = machine.task(index).unwrap();
                names.push(task.title());
                if !task.is_service() {
                    machine.take(Duration::ZERO, Event::Started(index, 1));
                    commands.extend(machine.take(Duration::ZERO, Event::Exited(index, Exit::Code(0))));
                }
            }
        }
        names
    }

    #[test]
    fn scripts_of_others_run_among_the_own_steps_and_linuxkits_service_does_not() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        for path in ["containers/onboot/000-one", "containers/services/web", "containers/volumes/v", "etc/init.d"] {
            fs::create_dir_all(root.join(path)).unwrap();
        }
        for script in ["000-issue", "002-logging", "015-between", "030-late", "040-not-executable"] {
            let path = root.join(INIT_SCRIPTS).join(script);
            fs::write(&path, "").unwrap();
            let mode = if script.starts_with("040") { 0o644 } else { 0o755 };
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        }
        for (target, link) in [("000-issue", "usr-service"), ("/usr/bin/service", "005-volumes")] {
            symlink(target, root.join(INIT_SCRIPTS).join(link)).unwrap();
        }
        fs::remove_file(root.join(INIT_SCRIPTS).join("usr-service")).unwrap();

        let (mut machine, problems) = plan(root);

        let script = |name: &str| root.join(INIT_SCRIPTS).join(name).display().to_string();
        let expected = [
            script("000-issue"),
            script("002-logging"),
            "volumes".into(),
            "onboot one".into(),
            script("015-between"),
            script("030-late"),
            "service web".into(),
        ];
        assert_eq!(names(&mut machine), expected);
        assert!(problems.is_empty());
    }

    #[test]
    fn an_annotation_without_meaning_is_told_with_its_container() {
        let folder = tempfile::tempdir().unwrap();
        let bundle = folder.path().join("containers/services/web");
        fs::create_dir_all(&bundle).unwrap();
        fs::write(bundle.join("config.json"), r#"{"annotations":{"org.kiln.restart":"maybe"}}"#).unwrap();
        let (_, problems) = plan(folder.path());
        assert!(problems[0].starts_with("service web: annotation `org.kiln.restart` is `maybe`"), "{problems:?}");
    }

    #[test]
    fn services_that_wait_for_themselves_or_for_nobody_are_told_and_started() {
        let folder = tempfile::tempdir().unwrap();
        for (name, after) in [("a", "b, gone"), ("b", "c"), ("c", "a"), ("d", "d"), ("e", "a,b")] {
            let bundle = folder.path().join("containers/services").join(name);
            fs::create_dir_all(&bundle).unwrap();
            let config = format!(r#"{{"annotations":{{"org.kiln.after":"{after}"}}}}"#);
            fs::write(bundle.join("config.json"), config).unwrap();
        }
        let (machine, problems) = plan(folder.path());
        let expected = [
            "service a: comes after `gone`, which is no service",
            "service c: comes after `a`, which comes after it: started without waiting",
            "service d: comes after `d`, which comes after it: started without waiting",
        ];
        assert_eq!(problems, expected);
        let after: Vec<&[Index]> = (0..5).map(|index| machine.task(index).unwrap().after.as_slice()).collect();
        assert_eq!(after, [&[1][..], &[2], &[], &[], &[0, 1]]);
    }

    #[test]
    fn only_a_leading_number_is_taken_off() {
        for (id, name) in [("000-a-b", "a-b"), ("a-b", "a-b"), ("12", "12"), ("007-", "007-")] {
            assert_eq!(without_number(id), name);
        }
    }
}
