use std::path::PathBuf;

use kiln_abi::{ContainerState, ServicePolicy, Stage};

use super::*;

const POLICY: ServicePolicy = ServicePolicy::DEFAULT;
const OK: Exit = Exit::Code(0);

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
        (0, Event::Begin),
        (1, Event::Started(0, 100)),
        (10, Event::Exited(0, OK)),
        (11, Event::Started(1, 101)),
        (20, Event::Exited(1, OK)),
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
    assert_eq!(acts(machine.take(at(0), Event::Begin)), [Command::Start(0)]);
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
    machine.take(at(0), Event::Begin);
    assert_eq!(acts(machine.take(at(1), Event::Started(0, 9))), []);
    let commands = machine.take(at(12), Event::Exited(0, Exit::Code(3)));
    assert_eq!(said(&commands), ["onboot a: failed: exit code 3 (12 ms)"]);
    assert_eq!(acts(commands), [Command::Remove(0), Command::Start(1)]);
    machine.take(at(13), Event::Started(1, 9));
    let commands = machine.take(at(14), Event::Exited(1, OK));
    assert_eq!(acts(commands), [Command::Remove(1), Command::Start(2), Command::Start(3)]);
}

#[test]
fn a_start_without_an_answer_is_given_up() {
    let mut machine = machine(POLICY);
    machine.take(at(0), Event::Begin);
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
    assert_eq!(acts(machine.take(at(40), Event::Exited(2, Exit::Code(1)))), []);
    assert_eq!(machine.deadline(), Some(at(140)));
    assert_eq!(acts(machine.take(at(139), Event::Tick)), []);
    assert_eq!(acts(machine.take(at(140), Event::Tick)), [Command::Start(2)]);
    machine.take(at(141), Event::Started(2, 200));
    machine.take(at(150), Event::Exited(2, Exit::Signal(9)));
    assert_eq!(machine.deadline(), Some(at(350)));
    assert_eq!((machine.status()[2].restarts, machine.status()[2].exit_code), (1, Some(137)));
}

#[test]
fn a_slow_start_is_no_good_run() {
    let mut machine = up(POLICY);
    machine.take(at(40), Event::Exited(2, Exit::Code(1)));
    machine.take(at(140), Event::Tick);
    machine.take(at(60_000), Event::Started(2, 200));
    machine.take(at(60_001), Event::Exited(2, Exit::Code(1)));
    assert_eq!(machine.deadline(), Some(at(60_201)));
    machine.take(at(60_201), Event::Tick);
    machine.take(at(120_000), Event::NotStarted(2, "broken".into()));
    assert_eq!(machine.deadline(), Some(at(120_400)));
}

#[test]
fn the_policy_decides_who_comes_back() {
    let cases = [
        (RestartPolicy::Always, OK, true),
        (RestartPolicy::Always, Exit::Code(1), true),
        (RestartPolicy::OnFailure, OK, false),
        (RestartPolicy::OnFailure, Exit::Signal(15), true),
        (RestartPolicy::Never, Exit::Code(1), false),
    ];
    for (restart, exit, comes_back) in cases {
        let mut machine = up(ServicePolicy { restart, ..POLICY });
        machine.take(at(40), Event::Exited(2, exit));
        assert_eq!(machine.deadline().is_some(), comes_back, "{restart:?} {exit}");
    }
}

#[test]
fn the_console_names_the_service_how_it_ended_and_what_follows() {
    let limited = ServicePolicy { restart_limit: Some(1), ..POLICY };
    let cases = [
        (POLICY, Exit::Code(255), "service s: failed: exit code 255 (20 ms), again in 100 ms"),
        (POLICY, Exit::Signal(11), "service s: failed: killed by SIGSEGV (20 ms), again in 100 ms"),
        (POLICY, OK, "service s: ended (20 ms)"),
        (ServicePolicy { restart: RestartPolicy::Always, ..POLICY }, OK, "service s: ended (20 ms), again in 100 ms"),
        (
            ServicePolicy { restart: RestartPolicy::Never, ..POLICY },
            Exit::Code(1),
            "service s: failed: exit code 1 (20 ms), stays down",
        ),
        (limited, Exit::Code(1), "service s: failed: exit code 1 (20 ms), again in 100 ms"),
    ];
    for (policy, exit, line) in cases {
        assert_eq!(said(&up(policy).take(at(40), Event::Exited(2, exit))), [line]);
    }
    let mut machine = up(limited);
    machine.take(at(40), Event::Exited(2, Exit::Code(1)));
    machine.take(at(140), Event::Tick);
    let last = machine.take(at(145), Event::NotStarted(2, "broken".into()));
    assert_eq!(said(&last), ["service s: cannot start: broken, stays down"]);
}

#[test]
fn services_stop_in_reverse_then_onshutdown_runs_and_the_end_comes_with_the_last() {
    let mut machine = up(POLICY);
    let commands = acts(machine.take(at(100), Event::Stop(Power::Off)));
    assert_eq!(commands, [Command::Terminate(3), Command::Terminate(2)]);
    assert_eq!(acts(machine.take(at(111), Event::Exited(2, Exit::Signal(15)))), []);
    assert_eq!(acts(machine.take(at(112), Event::Exited(3, OK))), [Command::Start(4)]);
    machine.take(at(113), Event::Started(4, 300));
    assert_eq!(acts(machine.take(at(114), Event::Stop(Power::Reboot))), []);
    assert_eq!(acts(machine.take(at(115), Event::Exited(4, OK))), [Command::End(Power::Off)]);
}

#[test]
fn a_service_that_does_not_stop_is_killed_after_its_own_time() {
    let mut machine = up(ServicePolicy { stop_timeout: at(500), ..POLICY });
    machine.take(at(100), Event::Stop(Power::Reboot));
    assert_eq!(machine.deadline(), Some(at(600)));
    assert_eq!(acts(machine.take(at(600), Event::Tick)), [Command::Kill(2), Command::Kill(3)]);
    machine.take(at(601), Event::Exited(2, Exit::Signal(9)));
    assert_eq!(acts(machine.take(at(601), Event::Exited(3, Exit::Signal(9)))), [Command::Start(4)]);
    let end = acts(machine.take(at(602), Event::NotStarted(4, "broken".into())));
    assert_eq!(end, [Command::End(Power::Reboot)]);
}

#[test]
fn a_killed_process_that_stays_does_not_keep_the_machine_up() {
    let mut machine = up(POLICY);
    machine.take(at(0), Event::Stop(Power::Off));
    machine.take(at(1), Event::Exited(2, OK));
    assert_eq!(acts(machine.take(POLICY.stop_timeout, Event::Tick)), [Command::Kill(3)]);
    let given_up = machine.take(POLICY.stop_timeout + KILL_LIMIT, Event::Tick);
    assert_eq!(said(&given_up), ["service t: does not end although killed, given up"]);
    assert_eq!(acts(given_up), [Command::Start(4)]);
}

#[test]
fn what_is_being_started_when_the_machine_stops_is_stopped_once_it_runs() {
    let mut machine = machine(POLICY);
    machine.take(at(0), Event::Begin);
    assert_eq!(acts(machine.take(at(1), Event::Stop(Power::Off))), []);
    assert_eq!(acts(machine.take(at(3), Event::Started(0, 5))), [Command::Terminate(0)]);
    assert_eq!(acts(machine.take(at(4), Event::Exited(0, Exit::Signal(15)))), [Command::Start(4)]);
}

#[test]
fn onshutdown_cannot_hold_the_machine_up_for_ever() {
    let mut machine = machine(POLICY);
    machine.take(at(0), Event::Begin);
    machine.take(at(0), Event::NotStarted(0, "broken".into()));
    machine.take(at(0), Event::Stop(Power::Off));
    machine.take(at(0), Event::NotStarted(1, "broken".into()));
    machine.take(at(100), Event::Started(4, 300));
    assert_eq!(acts(machine.take(at(100) + SHUTDOWN_LIMIT, Event::Tick)), [Command::Kill(4)]);
}

#[test]
fn a_machine_without_containers_says_so() {
    let mut machine = Machine::new(Vec::new(), vec![Step::Services], Vec::new());
    let commands = machine.take(at(0), Event::Begin);
    assert!(said(&commands)[0].starts_with("nothing to run"), "{commands:?}");
    assert_eq!(acts(machine.take(at(1), Event::Stop(Power::Off))), [Command::End(Power::Off)]);
}

#[test]
fn the_machine_is_up_once_every_service_was_started_or_has_failed() {
    let mut machine = machine(POLICY);
    for (ms, event) in [(0, Event::Begin), (1, Event::NotStarted(0, "a".into())), (2, Event::NotStarted(1, "b".into()))]
    {
        machine.take(at(ms), event);
    }
    let first = machine.take(at(3), Event::NotStarted(2, "c".into()));
    assert!(!said(&first).iter().any(|text| text.starts_with("up ")), "{first:?}");
    assert!(said(&machine.take(at(40), Event::Started(3, 9))).contains(&"up after 40 ms"));
    machine.take(at(50), Event::Exited(3, Exit::Code(1)));
    let later = machine.take(at(200), Event::Tick);
    assert!(!said(&later).iter().any(|text| text.starts_with("up ")), "{later:?}");
}

/// Services 0, 1 after 0, 2 after 0 and 1; the first has a readiness check of one second.
fn ordered() -> Machine {
    let mut tasks: Vec<Task> = ["db", "api", "web"].map(|name| container(Stage::Service, name, POLICY)).into();
    tasks[0].ready_timeout = at(1000);
    tasks[0].readiness = Readiness::Wanted { until: None };
    tasks[1].after = vec![0];
    tasks[2].after = vec![0, 1];
    Machine::new(tasks, vec![Step::Services], Vec::new())
}

/// All of [`ordered`] run since 30 ms.
fn ordered_up() -> Machine {
    let mut machine = ordered();
    for (ms, event) in [
        (0, Event::Begin),
        (10, Event::Started(0, 100)),
        (20, Event::Checked(0, Ok(()))),
        (25, Event::Started(1, 101)),
        (30, Event::Started(2, 102)),
    ] {
        machine.take(at(ms), event);
    }
    machine
}

#[test]
fn a_service_starts_when_those_before_it_are_ready() {
    let mut machine = ordered();
    let begun = machine.take(at(0), Event::Begin);
    assert_eq!(said(&begun), ["service api: waits for `db`", "service web: waits for `db`, `api`"]);
    assert_eq!(acts(begun), [Command::Start(0)]);
    assert_eq!(machine.status()[1].state, ContainerState::Held);
    assert_eq!(acts(machine.take(at(10), Event::Started(0, 100))), [Command::Check(0, at(990))]);
    let ready = machine.take(at(20), Event::Checked(0, Ok(())));
    assert_eq!(said(&ready), ["service db: ready (20 ms)"]);
    assert_eq!(acts(ready), [Command::Start(1)]);
    let last = machine.take(at(25), Event::Started(1, 101));
    assert_eq!(acts(last), [Command::Start(2)]);
    assert!(said(&machine.take(at(30), Event::Started(2, 102))).contains(&"up after 30 ms"));
}

#[test]
fn a_service_that_is_never_ready_delays_the_others_and_no_more() {
    let mut machine = ordered();
    machine.take(at(0), Event::Begin);
    machine.take(at(10), Event::Started(0, 100));
    let late = machine.take(at(1010), Event::Checked(0, Err("cannot connect".into())));
    let text = "service db: not ready (1010 ms): cannot connect; what comes after it waits no longer";
    assert_eq!(said(&late), [text]);
    assert_eq!(acts(late), [Command::EndCheck(0), Command::Start(1)]);
}

#[test]
fn a_service_that_fails_again_and_again_before_it_is_ready_is_waited_for_as_long() {
    let mut machine = ordered();
    machine.take(at(0), Event::Begin);
    let mut now = 0;
    let mut started = false;
    while now < 5000 && !started {
        machine.take(at(now), Event::Started(0, 100));
        assert!(machine.take(at(now + 1), Event::Exited(0, Exit::Code(1))).contains(&Command::EndCheck(0)), "{now}");
        while machine.task(0).is_some_and(|task| matches!(task.phase, Phase::Waiting { .. })) {
            now = u64::try_from(machine.deadline().unwrap().as_millis()).unwrap();
            started |= machine.take(at(now), Event::Tick).contains(&Command::Start(1));
        }
    }
    assert!(started && (1000..=4000).contains(&now), "{started} {now}");
}

#[test]
fn one_that_ended_for_good_is_not_waited_for() {
    for exit in [OK, Exit::Code(1)] {
        let mut machine = ordered();
        machine.tasks[0].policy.restart = RestartPolicy::Never;
        machine.take(at(0), Event::Begin);
        machine.take(at(10), Event::Started(0, 100));
        let commands = acts(machine.take(at(20), Event::Exited(0, exit)));
        assert_eq!(commands, [Command::EndCheck(0), Command::Remove(0), Command::Start(1)]);
    }
}

#[test]
fn a_service_that_comes_back_waits_again_and_one_that_runs_stays() {
    let mut machine = ordered_up();
    machine.take(at(40), Event::Exited(0, Exit::Code(1)));
    machine.take(at(41), Event::Exited(1, Exit::Code(1)));
    assert_eq!(acts(machine.take(at(140), Event::Tick)), [Command::Start(0)]);
    assert_eq!(acts(machine.take(at(141), Event::Tick)), []);
    assert_eq!(acts(machine.take(at(150), Event::Started(0, 200))), [Command::Check(0, at(990))]);
    assert_eq!(acts(machine.take(at(160), Event::Checked(0, Ok(())))), [Command::Start(1)]);
    assert_eq!(machine.status()[2].restarts, 0);
}

#[test]
fn services_stop_before_those_that_they_come_after() {
    let mut machine = ordered_up();
    assert_eq!(acts(machine.take(at(100), Event::Stop(Power::Off))), [Command::Terminate(2)]);
    assert_eq!(acts(machine.take(at(110), Event::Exited(2, OK))), [Command::Terminate(1)]);
    // Each has its own time from then on.
    assert_eq!(machine.deadline(), Some(at(110) + POLICY.stop_timeout));
    assert_eq!(acts(machine.take(at(120), Event::Exited(1, OK))), [Command::Terminate(0)]);
    assert_eq!(acts(machine.take(at(130), Event::Exited(0, OK))), [Command::End(Power::Off)]);
}

#[test]
fn what_waits_when_the_machine_stops_never_starts() {
    let mut machine = ordered();
    machine.take(at(0), Event::Begin);
    machine.take(at(10), Event::Started(0, 100));
    let commands = acts(machine.take(at(20), Event::Stop(Power::Off)));
    assert_eq!(commands, [Command::EndCheck(0), Command::Terminate(0)]);
    assert_eq!(acts(machine.take(at(21), Event::Exited(0, OK))), [Command::End(Power::Off)]);
}
