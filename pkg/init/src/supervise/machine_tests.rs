use std::path::PathBuf;

use kiln_abi::{ContainerState, ServicePolicy, Stage};

use super::*;

const POLICY: ServicePolicy = ServicePolicy::DEFAULT;

fn container(stage: Stage, name: &str, policy: ServicePolicy) -> Task {
    Task::new(name.into(), Kind::Container { stage, folder: PathBuf::from(name) }, policy)
}

/// Tasks: 0 and 1 onboot, 2 and 3 services, 4 onshutdown.
fn machine(policy: ServicePolicy) -> Machine {
    let tasks = vec![
        container(Stage::Onboot, "a", POLICY),
        container(Stage::Onboot, "b", POLICY),
        container(Stage::Service, "s", policy),
        container(Stage::Service, "t", policy),
        container(Stage::Onshutdown, "z", POLICY),
    ];
    Machine::new(tasks, vec![Step::Run(0), Step::Run(1), Step::Services], vec![4])
}

fn at(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Commands without what is said.
fn acts(commands: Vec<Command>) -> Vec<Command> {
    commands.into_iter().filter(|command| !matches!(command, Command::Say(..))).collect()
}

fn said(commands: &[Command]) -> Vec<&str> {
    commands.iter().filter_map(|c| if let Command::Say(_, text) = c { Some(text.as_str()) } else { None }).collect()
}

/// A machine whose services run since 30 ms.
fn up(policy: ServicePolicy) -> Machine {
    let mut machine = machine(policy);
    for (ms, event) in [
        (0, Event::Ready),
        (1, Event::Started(0, 100)),
        (10, Event::Exited(0, 0)),
        (11, Event::Started(1, 101)),
        (20, Event::Exited(1, 0)),
        (30, Event::Started(2, 102)),
        (30, Event::Started(3, 103)),
    ] {
        machine.take(at(ms), event);
    }
    machine
}

#[test]
fn a_container_that_cannot_start_does_not_hold_up_the_next() {
    let mut machine = machine(POLICY);
    assert_eq!(acts(machine.take(at(0), Event::Ready)), [Command::Start(0)]);
    let commands = machine.take(at(5), Event::NotStarted(0, "no such image".into()));
    assert_eq!(said(&commands), ["onboot a: cannot start: no such image"]);
    assert_eq!(acts(commands), [Command::Remove(0), Command::Start(1)]);
    let status = machine.status();
    assert_eq!(status[0].state, ContainerState::Failed);
    assert_eq!(status.len(), 2);
}

#[test]
fn onboot_runs_in_order_then_all_services_start() {
    let mut machine = machine(POLICY);
    machine.take(at(0), Event::Ready);
    assert_eq!(acts(machine.take(at(1), Event::Started(0, 9))), []);
    let commands = machine.take(at(12), Event::Exited(0, 3));
    assert_eq!(said(&commands), ["onboot a: failed: exit code 3 (12 ms)"]);
    assert_eq!(acts(commands), [Command::Remove(0), Command::Start(1)]);
    machine.take(at(13), Event::Started(1, 9));
    let commands = machine.take(at(14), Event::Exited(1, 0));
    assert_eq!(acts(commands), [Command::Remove(1), Command::Start(2), Command::Start(3)]);
}

#[test]
fn a_start_without_an_answer_is_given_up() {
    let mut machine = machine(POLICY);
    machine.take(at(0), Event::Ready);
    assert_eq!(machine.deadline(), Some(START_LIMIT));
    let commands = acts(machine.take(START_LIMIT, Event::Tick));
    assert_eq!(commands, [Command::Abandon(0), Command::Remove(0), Command::Start(1)]);
    // The answer that comes too late changes nothing.
    assert_eq!(acts(machine.take(START_LIMIT, Event::Started(0, 7))), []);
    assert_eq!(machine.status()[0].state, ContainerState::Failed);
}

#[test]
fn a_service_that_fails_is_started_again_after_a_growing_wait() {
    let mut machine = up(POLICY);
    assert_eq!(acts(machine.take(at(40), Event::Exited(2, 1))), []);
    assert_eq!(machine.deadline(), Some(at(140)));
    assert_eq!(acts(machine.take(at(139), Event::Tick)), []);
    assert_eq!(acts(machine.take(at(140), Event::Tick)), [Command::Start(2)]);
    machine.take(at(141), Event::Started(2, 200));
    machine.take(at(150), Event::Exited(2, 137));
    assert_eq!(machine.deadline(), Some(at(350)));
    assert_eq!((machine.status()[2].restarts, machine.status()[2].exit_code), (1, Some(137)));
}

#[test]
fn the_policy_decides_who_comes_back() {
    let cases = [
        (RestartPolicy::Always, 0, true),
        (RestartPolicy::Always, 1, true),
        (RestartPolicy::OnFailure, 0, false),
        (RestartPolicy::OnFailure, 143, true),
        (RestartPolicy::Never, 1, false),
    ];
    for (restart, code, comes_back) in cases {
        let mut machine = up(ServicePolicy { restart, ..POLICY });
        machine.take(at(40), Event::Exited(2, code));
        assert_eq!(machine.deadline().is_some(), comes_back, "{restart:?} {code}");
    }
}

#[test]
fn services_stop_in_reverse_after_onshutdown_and_the_end_comes_with_the_last() {
    let mut machine = up(POLICY);
    assert_eq!(acts(machine.take(at(100), Event::Stop(Power::Off))), [Command::Start(4)]);
    machine.take(at(101), Event::Started(4, 300));
    let commands = acts(machine.take(at(110), Event::Exited(4, 0)));
    assert_eq!(commands, [Command::Terminate(3), Command::Terminate(2)]);
    assert_eq!(acts(machine.take(at(111), Event::Exited(2, 143))), []);
    assert_eq!(acts(machine.take(at(112), Event::Exited(3, 0))), [Command::End(Power::Off)]);
    assert_eq!(acts(machine.take(at(113), Event::Stop(Power::Reboot))), []);
}

#[test]
fn a_service_that_does_not_stop_is_killed_after_its_own_time() {
    let mut machine = up(ServicePolicy { stop_timeout: at(500), ..POLICY });
    machine.take(at(100), Event::Stop(Power::Reboot));
    machine.take(at(100), Event::NotStarted(4, "broken".into()));
    assert_eq!(machine.deadline(), Some(at(600)));
    assert_eq!(acts(machine.take(at(600), Event::Tick)), [Command::Kill(2), Command::Kill(3)]);
    machine.take(at(601), Event::Exited(2, 137));
    assert_eq!(acts(machine.take(at(601), Event::Exited(3, 137))), [Command::End(Power::Reboot)]);
}

#[test]
fn a_service_being_started_when_the_machine_stops_is_stopped_once_it_runs() {
    let mut machine = machine(POLICY);
    machine.take(at(0), Event::Ready);
    machine.take(at(1), Event::Stop(Power::Off));
    assert_eq!(acts(machine.take(at(2), Event::NotStarted(4, "broken".into()))), []);
    assert_eq!(acts(machine.take(at(3), Event::Started(0, 5))), [Command::Terminate(0)]);
    assert_eq!(acts(machine.take(at(4), Event::Exited(0, 143))), [Command::End(Power::Off)]);
}

#[test]
fn onshutdown_cannot_hold_the_machine_up_for_ever() {
    let mut machine = up(POLICY);
    machine.take(at(100), Event::Stop(Power::Off));
    machine.take(at(100), Event::Started(4, 300));
    let commands = acts(machine.take(at(100) + SHUTDOWN_LIMIT, Event::Tick));
    assert_eq!(commands, [Command::Kill(4)]);
}

#[test]
fn a_machine_without_containers_says_so() {
    let mut machine = Machine::new(Vec::new(), vec![Step::Services], Vec::new());
    let commands = machine.take(at(0), Event::Ready);
    assert!(said(&commands)[0].starts_with("nothing to run"), "{commands:?}");
    assert_eq!(acts(machine.take(at(1), Event::Stop(Power::Off))), [Command::End(Power::Off)]);
}

#[test]
fn the_machine_is_up_once_every_service_was_started_or_has_failed() {
    let mut machine = machine(POLICY);
    for (ms, event) in [(0, Event::Ready), (1, Event::NotStarted(0, "a".into())), (2, Event::NotStarted(1, "b".into()))]
    {
        machine.take(at(ms), event);
    }
    let first = machine.take(at(3), Event::NotStarted(2, "c".into()));
    assert!(!said(&first).iter().any(|text| text.starts_with("up ")), "{first:?}");
    assert!(said(&machine.take(at(40), Event::Started(3, 9))).contains(&"up after 40 ms"));
    machine.take(at(50), Event::Exited(3, 1));
    let later = machine.take(at(200), Event::Tick);
    assert!(!said(&later).iter().any(|text| text.starts_with("up ")), "{later:?}");
}
