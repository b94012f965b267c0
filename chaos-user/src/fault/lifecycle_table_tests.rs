//! The state machine as a table: what is wanted × where a record stands × what is heard of it →
//! where it stands then, and what is told.

use super::tests::{at, reasons, world};
use super::*;
use crate::api::status::RecordPhase::{Injected, InjectedWait, NotInjected, NotInjectedWait};

/// For each phase: what follows from silence, `Injected`, `Recovered`, `Gone` and `Failed`.
type Row = (RecordPhase, [(RecordPhase, &'static str); 5]);

/// For an experiment that nodes carry out.
const RUN: [Row; 4] = [
    (
        NotInjected,
        [
            (NotInjectedWait, ""),
            (Injected, "Applied"),
            (NotInjectedWait, ""),
            (NotInjected, ""),
            (NotInjected, "Failed"),
        ],
    ),
    (
        NotInjectedWait,
        [
            (NotInjectedWait, ""),
            (Injected, "Applied"),
            (NotInjectedWait, ""),
            (NotInjected, ""),
            (NotInjected, "Failed"),
        ],
    ),
    (
        Injected,
        [
            (InjectedWait, ""),
            (Injected, ""),
            (NotInjectedWait, "Recovered"),
            (NotInjected, "Recovered"),
            (NotInjected, "Failed"),
        ],
    ),
    (
        InjectedWait,
        [
            (InjectedWait, ""),
            (Injected, ""),
            (NotInjectedWait, "Recovered"),
            (NotInjected, "Recovered"),
            (NotInjected, "Failed"),
        ],
    ),
];

const STOP: [Row; 4] = [
    (
        NotInjected,
        [
            (NotInjectedWait, ""),
            (InjectedWait, "Applied"),
            (NotInjected, ""),
            (NotInjected, ""),
            (NotInjected, "Failed"),
        ],
    ),
    (
        NotInjectedWait,
        [
            (NotInjectedWait, ""),
            (InjectedWait, "Applied"),
            (NotInjected, ""),
            (NotInjected, ""),
            (NotInjectedWait, "Failed"),
        ],
    ),
    (
        Injected,
        [
            (InjectedWait, ""),
            (InjectedWait, ""),
            (NotInjected, "Recovered"),
            (NotInjected, "Recovered"),
            (Injected, "Failed"),
        ],
    ),
    (
        InjectedWait,
        [
            (InjectedWait, ""),
            (InjectedWait, ""),
            (NotInjected, "Recovered"),
            (NotInjected, "Recovered"),
            (InjectedWait, "Failed"),
        ],
    ),
];

fn reports() -> [Option<Report>; 5] {
    let failed = Report::Failed("no fq".to_owned());
    [None, Some(Report::Injected), Some(Report::Recovered), Some(Report::Gone), Some(failed)]
}

/// An experiment with one record, of which the desired phase is known.
fn status(phase: RecordPhase, desired: DesiredPhase) -> Status {
    let open = i64::from(phase.is_injected());
    let record = Record { phase, injected_count: open, ..Record::new("default/a", ".") };
    let mut status = Status::default();
    status.experiment.desired_phase = Some(desired);
    status.experiment.container_records = Some(vec![record]);
    status
}

#[test]
fn a_record_moves_as_the_table_says() {
    let paused = World { is_paused: true, ..world() };
    for (rows, now, desired) in
        [(RUN, world(), DesiredPhase::Run), (STOP, paused, DesiredPhase::Stop)]
    {
        for (phase, outcomes) in rows {
            for (report, (expected, event)) in reports().into_iter().zip(outcomes) {
                let key = (".".to_owned(), "default/a".to_owned());
                let reports = report.clone().into_iter().map(|report| (key.clone(), report));
                let now = World { reports: reports.collect(), ..now.clone() };
                let next = step(&status(phase, desired), &now);
                let record = next.status.experiment.container_records.clone().unwrap().remove(0);
                let case = format!("{desired:?} × {phase:?} × {report:?}");
                assert_eq!(record.phase, expected, "{case}");
                assert_eq!(reasons(&next).join(" "), event, "{case}");
                let open = record.injected_count - record.recovered_count;
                assert_eq!(open, i64::from(expected.is_injected()), "{case}");
            }
        }
    }
}

/// What is the case → what is wanted, and what is told when the opposite was wanted before.
#[test]
fn the_first_reason_to_stop_decides() {
    let limited = World { duration: Some(Duration::from_secs(5)), ..world() };
    let over = World { now: at(5), ..limited.clone() };
    let one_shot = |world: World| World { is_one_shot: true, ..world };
    let (run, stop) = (DesiredPhase::Run, DesiredPhase::Stop);
    let deleted = |world: World| World { is_deleted: true, ..world };
    let paused = |world: World| World { is_paused: true, ..world };
    for (case, world, wanted, reason) in [
        ("nothing", world(), run, "Started"),
        ("some time left", limited, run, "Started"),
        ("no time left", over.clone(), stop, "TimeUp"),
        ("paused", paused(world()), stop, "Paused"),
        ("paused, no time left", paused(over.clone()), stop, "TimeUp"),
        ("deleted", deleted(world()), stop, "Deleted"),
        ("deleted, no time left", deleted(over.clone()), stop, "Deleted"),
        ("one-shot, paused, no time left", one_shot(paused(over)), run, "Started"),
        ("one-shot, deleted", one_shot(deleted(world())), stop, "Deleted"),
    ] {
        assert_eq!(desired(&world), wanted, "{case}");
        let before = if wanted == run { stop } else { run };
        let mut status = Status::default();
        status.experiment.desired_phase = Some(before);
        let next = step(&status, &world);
        assert_eq!(next.status.experiment.desired_phase, Some(wanted), "{case}");
        assert_eq!(reasons(&next), [reason], "{case}");
        // It is told once.
        assert_eq!(step(&next.status, &world).events, [], "{case}");
    }
}

#[test]
fn what_is_done_once_stays_done() {
    let once = World { is_one_shot: true, ..world() };
    for report in [None, Some(Report::Injected), Some(Report::Failed("silent".to_owned()))] {
        let key = (".".to_owned(), "default/a".to_owned());
        let reports = report.clone().into_iter().map(|report| (key.clone(), report));
        let now = World { reports: reports.collect(), ..once.clone() };
        let next = step(&status(Injected, DesiredPhase::Run), &now);
        let records = next.status.experiment.container_records.unwrap();
        assert_eq!(records[0].phase, Injected, "{report:?}");
        assert_eq!(next.again, None, "{report:?}");
    }
}
