use super::*;

const NOW: i64 = 1_800_000_000;

pub(super) fn world() -> World {
    World {
        now: at(0),
        created: at(0),
        is_deleted: false,
        is_paused: false,
        is_one_shot: false,
        is_for_nodes: true,
        follows: false,
        duration: None,
        chosen: None,
        identities: BTreeMap::new(),
        reports: BTreeMap::new(),
        counted: Counted::default(),
        warnings: Vec::new(),
    }
}

pub(super) fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(NOW + seconds).unwrap()
}

fn keys() -> Vec<RecordKey> {
    ["a", "b"].map(|pod| (".".to_owned(), format!("default/{pod}"))).to_vec()
}

fn all(report: &Report) -> BTreeMap<RecordKey, Report> {
    keys().into_iter().map(|key| (key, report.clone())).collect()
}

/// Status of an experiment whose two targets were chosen and injected.
fn running() -> Status {
    let chosen = step(&Status::default(), &World { chosen: Some(Ok(keys())), ..world() });
    step(&chosen.status, &World { reports: all(&Report::Injected), ..world() }).status
}

/// What is told, without what was written.
pub(super) fn reasons(step: &Step) -> Vec<&'static str> {
    let told = step.events.iter().filter(|event| !matches!(event.what, What::Updated(_)));
    told.map(Event::reason).collect()
}

/// What is told to be written, in order.
fn written(step: &Step) -> Vec<(&'static str, &'static str)> {
    let fields = step.events.iter().filter_map(|event| match event.what {
        What::Updated(field) => Some((event.component, field)),
        _ => None,
    });
    fields.collect()
}

fn truths(status: &Status) -> Vec<ConditionKind> {
    let is = status.conditions.iter().filter(|one| one.status == Answer::True);
    is.map(|one| one.kind).collect()
}

fn phases(status: &Status) -> Vec<RecordPhase> {
    status.experiment.container_records.iter().flatten().map(|r| r.phase).collect()
}

#[test]
fn a_new_experiment_chooses_waits_and_runs() {
    assert!(needs_choice(&Status::default(), &world()));
    let chosen = step(&Status::default(), &World { chosen: Some(Ok(keys())), ..world() });
    assert_eq!(reasons(&chosen), ["Started"]);
    assert_eq!(truths(&chosen.status), [ConditionKind::Selected]);
    assert_eq!(phases(&chosen.status), [RecordPhase::NotInjectedWait; 2]);
    assert!(!needs_choice(&chosen.status, &world()));
    let running = step(&chosen.status, &World { reports: all(&Report::Injected), ..world() });
    assert_eq!(reasons(&running), ["Applied", "Applied"]);
    assert_eq!(truths(&running.status), [ConditionKind::Selected, ConditionKind::AllInjected]);
    assert_eq!(running.status.kfault.clone().unwrap().phase, "Running");
    // Looking again changes and says nothing.
    let again = step(&running.status, &World { reports: all(&Report::Injected), ..world() });
    assert_eq!((&again.status, again.events.len()), (&running.status, 0));
}

#[test]
fn each_stop_has_its_reason_and_waits_for_the_nodes() {
    let injected = all(&Report::Injected);
    for (stopped, reason) in [
        (World { is_paused: true, ..world() }, "Paused"),
        (World { is_deleted: true, ..world() }, "Deleted"),
        (World { duration: Some(Duration::from_secs(5)), now: at(5), ..world() }, "TimeUp"),
    ] {
        let asked = step(&running(), &World { reports: injected.clone(), ..stopped.clone() });
        assert_eq!(reasons(&asked), [reason]);
        assert_eq!(phases(&asked.status), [RecordPhase::InjectedWait; 2]);
        assert!(asked.holds);
        let ended =
            step(&asked.status, &World { reports: all(&Report::Recovered), ..stopped.clone() });
        assert_eq!(reasons(&ended), ["Recovered", "Recovered"]);
        assert_eq!(ended.holds, !stopped.is_deleted);
        let records = ended.status.experiment.container_records.unwrap();
        assert!(records.iter().all(|r| (r.injected_count, r.recovered_count) == (1, 1)));
    }
}

#[test]
fn a_resumed_experiment_goes_on_with_the_same_records() {
    let paused = World { is_paused: true, reports: all(&Report::Recovered), ..world() };
    let paused = step(&running(), &paused);
    assert_eq!(paused.status.kfault.clone().unwrap().phase, "Paused");
    assert!(!needs_choice(&paused.status, &world()));
    let resumed = step(&paused.status, &World { reports: all(&Report::Injected), ..world() });
    assert_eq!(reasons(&resumed), ["Started", "Applied", "Applied"]);
    let records = resumed.status.experiment.container_records.unwrap();
    assert!(records.iter().all(|r| r.injected_count == 2));
}

#[test]
fn an_end_by_duration_is_known_in_advance() {
    let world = World { duration: Some(Duration::from_secs(30)), now: at(10), ..world() };
    let next = step(&running(), &World { reports: all(&Report::Injected), ..world });
    assert_eq!(next.again, Some(Duration::from_secs(20)));
}

#[test]
fn a_failure_is_told_once_and_tried_again() {
    let failed = World { reports: all(&Report::Failed("no fq".to_owned())), ..world() };
    let chosen = step(&Status::default(), &World { chosen: Some(Ok(keys())), ..world() });
    let first = step(&chosen.status, &failed);
    assert_eq!(reasons(&first), ["Failed", "Failed"]);
    assert!(first.again.is_some());
    let second = step(&first.status, &failed);
    assert_eq!(second.events, []);
    assert_eq!(first.status, second.status);
    // What failed holds nothing: it can be deleted.
    let gone = World { is_deleted: true, reports: all(&Report::Recovered), ..world() };
    assert!(!step(&second.status, &gone).holds);
}

#[test]
fn nothing_to_choose_from_is_tried_again() {
    let empty = World { chosen: Some(Err("no pod is selected".to_owned())), ..world() };
    let next = step(&Status::default(), &empty);
    assert_eq!(reasons(&next), ["Started", "Failed"]);
    assert_eq!(truths(&next.status), []);
    assert!(next.again.is_some());
    assert!(needs_choice(&next.status, &world()));
}

#[test]
fn a_target_that_is_gone_counts_as_recovered() {
    let gone = World { reports: all(&Report::Gone), ..world() };
    let next = step(&running(), &gone);
    assert_eq!(phases(&next.status), [RecordPhase::NotInjected; 2]);
    assert!(!step(&next.status, &World { is_deleted: true, ..gone }).holds);
}

#[test]
fn a_one_shot_stays_injected_and_holds_nothing() {
    let one = World { is_one_shot: true, is_for_nodes: false, ..world() };
    let chosen = step(&Status::default(), &World { chosen: Some(Ok(keys())), ..one.clone() });
    let done = step(&chosen.status, &World { reports: all(&Report::Injected), ..one.clone() });
    assert_eq!(done.status.kfault.clone().unwrap().phase, "Finished");
    for later in [
        World { is_paused: true, ..one.clone() },
        World { duration: Some(Duration::from_secs(1)), now: at(9), ..one.clone() },
    ] {
        let next = step(&done.status, &later);
        assert_eq!(next.status.experiment.desired_phase, Some(DesiredPhase::Run));
        assert!(truths(&next.status).contains(&ConditionKind::AllInjected));
    }
    assert!(!step(&done.status, &World { is_deleted: true, ..one }).holds);
}

mod random {
    use proptest::prelude::*;

    use super::*;

    /// One moment in the life of an experiment.
    #[derive(Clone, Debug)]
    enum Moment {
        Pause(bool),
        Report(usize, Report),
        Pass(i64),
    }

    fn moment() -> impl Strategy<Value = Moment> {
        let report = prop_oneof![
            Just(Report::Injected),
            Just(Report::Recovered),
            Just(Report::Gone),
            Just(Report::Failed("x".to_owned())),
        ];
        prop_oneof![
            any::<bool>().prop_map(Moment::Pause),
            (0..2usize, report).prop_map(|(which, report)| Moment::Report(which, report)),
            (1..20i64).prop_map(Moment::Pass),
        ]
    }

    proptest! {
        #[test]
        fn whatever_happens_a_deleted_experiment_ends_when_its_nodes_say_so(
            moments in proptest::collection::vec(moment(), 0..40),
            seconds in proptest::option::of(1..60u64),
        ) {
            let duration = seconds.map(Duration::from_secs);
            let mut world = World { chosen: Some(Ok(keys())), duration, ..world() };
            let mut status = step(&Status::default(), &world).status;
            let mut clock = 0;
            for moment in moments {
                match moment {
                    Moment::Pause(is_paused) => world.is_paused = is_paused,
                    Moment::Report(which, report) => {
                        world.reports.insert(keys()[which].clone(), report);
                    }
                    Moment::Pass(seconds) => clock += seconds,
                }
                world.now = at(clock);
                let next = step(&status, &world);
                // An injected target is never let go.
                prop_assert!(next.holds);
                for record in next.status.experiment.container_records.iter().flatten() {
                    let open = record.injected_count - record.recovered_count;
                    prop_assert_eq!(open, i64::from(record.phase.is_injected()));
                    prop_assert!(record.events.len() <= Record::EVENTS);
                }
                status = next.status;
            }
            world.is_deleted = true;
            world.reports = all(&Report::Recovered);
            prop_assert!(!step(&status, &world).holds);
        }
    }
}

#[test]
fn who_was_chosen_stays_on_record() {
    let identities: BTreeMap<String, String> =
        keys().into_iter().map(|(_, id)| (id.clone(), format!("uid of {id}"))).collect();
    let now = World { chosen: Some(Ok(keys())), identities: identities.clone(), ..world() };
    let chosen = step(&Status::default(), &now).status;
    assert_eq!(chosen.kfault.as_ref().map(|k| &k.chosen), Some(&identities));
    let later = step(&chosen, &World { reports: all(&Report::Injected), ..world() }).status;
    assert_eq!(later.kfault.map(|k| k.chosen), Some(identities));
}

#[test]
fn what_is_written_is_told_once_each() {
    let chosen = step(&Status::default(), &World { chosen: Some(Ok(keys())), ..world() });
    let all =
        [("desiredphase", "desiredPhase"), ("records", "records"), ("condition", "conditions")];
    assert_eq!(written(&chosen), all);
    let injected = World { reports: all_injected(), ..world() };
    let running = step(&chosen.status, &injected);
    assert_eq!(written(&running), all[1..]);
    let counted =
        World { counted: Counted { matched: 7, injected: 5, ..Counted::default() }, ..injected };
    assert_eq!(step(&running.status, &counted).events, [], "counters are no news");
}

fn all_injected() -> BTreeMap<RecordKey, Report> {
    all(&Report::Injected)
}

#[test]
fn only_nodes_are_waited_for() {
    let server = World { is_for_nodes: false, ..world() };
    let chosen = step(&Status::default(), &World { chosen: Some(Ok(keys())), ..server.clone() });
    assert_eq!(phases(&chosen.status), [RecordPhase::NotInjected; 2]);
    let running = World { reports: all_injected(), ..server.clone() };
    let running = step(&chosen.status, &running).status;
    let stuck = World { is_deleted: true, reports: all_injected(), ..server };
    let stuck = step(&running, &stuck);
    assert_eq!(phases(&stuck.status), [RecordPhase::Injected; 2]);
    assert!(stuck.holds);
}

#[test]
fn an_experiment_that_chose_nobody_ends_all_the_same() {
    let nobody = World { chosen: Some(Ok(Vec::new())), ..world() };
    let phase = |step: Step| step.status.kfault.unwrap().phase;
    let one_shot = World { is_one_shot: true, ..nobody.clone() };
    assert_eq!(phase(step(&Status::default(), &one_shot)), "Finished");
    let chosen = step(&Status::default(), &nobody);
    assert_eq!(truths(&chosen.status), [ConditionKind::Selected]);
    let over = World { duration: Some(Duration::from_secs(5)), now: at(5), ..world() };
    assert_eq!(phase(step(&chosen.status, &over)), "Finished");
    // Nor does one wait for ever that never found anybody.
    assert_eq!(phase(step(&Status::default(), &over)), "Finished");
}

#[test]
fn a_record_keeps_its_last_hundred_events() {
    let mut status = running();
    for turn in 0..120 {
        let world = World { is_paused: turn % 2 == 0, ..world() };
        let report = if world.is_paused { Report::Recovered } else { Report::Injected };
        status = step(&status, &World { reports: all(&report), ..world }).status;
    }
    for record in status.experiment.container_records.iter().flatten() {
        assert_eq!(record.events.len(), 100);
        assert_eq!((record.injected_count, record.recovered_count), (61, 60));
        assert_eq!(record.events[99].operation, Operation::Apply);
    }
}

#[test]
fn a_protocol_that_is_not_spoken_is_told_once_and_stays_a_warning() {
    let counted = |passed: &[(&str, u64)]| {
        let passed = passed.iter().map(|(reason, count)| ((*reason).to_owned(), *count)).collect();
        Counted { passed, ..Counted::default() }
    };
    let seen = World {
        counted: counted(&[("early", 2), ("tls", 1)]),
        warnings: vec!["other".to_owned()],
        reports: all_injected(),
        ..world()
    };
    let met = step(&running(), &seen);
    assert_eq!(reasons(&met), ["Failed", "NotSupported"]);
    let words = "spec.port: TLS is spoken there, which is not supported by this version: it passes \
                 untouched; name a port where HTTP/1 is spoken in the clear";
    let told = format!("Failed to act on what speaks TLS: {words}");
    assert_eq!(met.events[0].message(), told);
    assert_eq!(met.events[1].message(), "TLS is not supported");
    let summary = met.status.kfault.clone().unwrap();
    assert_eq!(summary.warnings, ["other", words]);
    assert_eq!(summary.passed, [("early".to_owned(), 2), ("tls".to_owned(), 1)].into());
    // It does act on others, and the same again is no news.
    assert!(truths(&met.status).contains(&ConditionKind::AllInjected));
    let more = World { counted: counted(&[("early", 2), ("tls", 7)]), ..seen.clone() };
    assert_eq!(step(&met.status, &more).events, []);
    let other = World { counted: counted(&[("http2", 1), ("tls", 7)]), ..seen };
    let other = step(&met.status, &other);
    assert_eq!(reasons(&other), ["Failed", "NotSupported"]);
    assert_eq!(other.events[1].message(), "HTTP/2 is not supported");
}
