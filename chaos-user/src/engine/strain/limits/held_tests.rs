//! Limits over plain files in place of a cgroup's.

use super::journal::tests::entry;
use super::knob::Knob;
use super::*;

struct Fake {
    cgroup: tempfile::TempDir,
    state: tempfile::TempDir,
}

impl Fake {
    fn new() -> Self {
        let (cgroup, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        // As long as what is written: a plain file keeps what is not written over.
        fs::write(cgroup.path().join("pids.max"), "max").unwrap();
        fs::write(cgroup.path().join("cgroup.freeze"), "0").unwrap();
        Self { cgroup, state }
    }

    fn journal(&self) -> Journal {
        Journal::at(self.state.path())
    }

    fn holds(&self, file: &str) -> String {
        fs::read_to_string(self.cgroup.path().join(file)).unwrap()
    }

    fn change(&self, file: &str, value: &str) {
        fs::write(self.cgroup.path().join(file), value).unwrap();
    }

    fn settings(&self, files: &[(&str, &'static str, &str)]) -> (Vec<Entry>, Vec<Setting>) {
        let path = self.cgroup.path();
        let entries = files.iter().map(|(f, before, after)| entry(path, f, before, after));
        let setting = |e: &Entry| Setting {
            knob: e.knob.clone(),
            field: "test",
            before: e.before.clone(),
            after: e.after.clone(),
        };
        let entries: Vec<Entry> = entries.collect();
        let settings = entries.iter().map(setting).collect();
        (entries, settings)
    }

    fn held(&self) -> Held {
        let both = [("pids.max", "max", "111"), ("cgroup.freeze", "0", "1")];
        let (mut entries, settings) = self.settings(&both);
        write(&self.journal(), &mut entries, &settings).unwrap();
        let main = self.cgroup.path().to_owned();
        let inode = fs::metadata(&main).unwrap().ino();
        Held {
            journal: self.journal(),
            entries,
            target: Target { main, inode, leader: None },
            until_ns: None,
            notes: Vec::new(),
            meter: None,
            is_over: false,
        }
    }
}

#[test]
fn numbers_are_written_and_come_back() {
    let fake = Fake::new();
    let held = fake.held();
    assert_eq!((fake.holds("pids.max"), fake.holds("cgroup.freeze")), ("111".into(), "1".into()));
    assert_eq!(held.report("a").figures.limits_set, 2);
    assert!(held.report("a").is_alive && held.report("a").notes.is_empty());
    assert_eq!(fake.journal().read().len(), 2);
    held.restore().unwrap();
    assert_eq!((fake.holds("pids.max"), fake.holds("cgroup.freeze")), ("max".into(), "0".into()));
    assert_eq!(fake.journal().read(), []);
}

#[test]
fn a_number_that_cannot_be_written_takes_the_earlier_ones_back() {
    let fake = Fake::new();
    let (mut entries, mut settings) =
        fake.settings(&[("pids.max", "max", "111"), ("cgroup.freeze", "0", "1")]);
    settings[1].knob = Knob { file: "no/such".into(), ..settings[1].knob.clone() };
    let error = write(&fake.journal(), &mut entries, &settings).unwrap_err();
    assert!(matches!(error, EngineError::Gone { .. }), "{error}");
    assert_eq!(fake.holds("pids.max"), "max");
    assert_eq!(fake.journal().read(), []);
}

#[test]
fn what_somebody_changes_is_said_once_and_left() {
    let fake = Fake::new();
    let mut held = fake.held();
    fake.change("pids.max", "7\n");
    held.tend();
    held.tend();
    let report = held.report("a");
    assert_eq!(report.notes.len(), 1, "{:?}", report.notes);
    assert!(report.notes[0].contains("changed to \"7\" by somebody else"));
    assert_eq!(report.figures.limits_set, 1);
    held.restore().unwrap();
    assert_eq!((fake.holds("pids.max"), fake.holds("cgroup.freeze")), ("7\n".into(), "0".into()));
    assert_eq!(fake.journal().read(), []);
}

#[test]
fn what_the_guard_has_put_back_is_set_again_unless_others_have_changed_it() {
    let fake = Fake::new();
    let mut held = fake.held();
    fake.change("pids.max", "7\n");
    let serve = |e: &Entry| e.engine == "1-1";
    undo::put_back_all(&fake.journal(), undo::Listener::Later, serve).unwrap();
    assert_eq!(fake.holds("cgroup.freeze"), "0");
    held.tend();
    assert_eq!((fake.holds("pids.max"), fake.holds("cgroup.freeze")), ("7\n".into(), "1".into()));
    let notes = held.report("a").notes;
    assert!(notes.iter().any(|n| n.contains("stood still")), "{notes:?}");
    assert!(notes.iter().any(|n| n.contains("\"7\" by somebody else")), "{notes:?}");
    held.restore().unwrap();
    assert_eq!(fake.holds("cgroup.freeze"), "0");
    assert_eq!(fake.journal().read(), []);
}

/// Two files of v1 stand for one number: what is written to the one, the other tells.
#[test]
fn the_freezer_of_v1_is_thawed_unless_somebody_else_has_done_so() {
    let fake = Fake::new();
    let tells = |on: &str| fake.change("freezer.self_freezing", on);
    for is_changed in [false, true] {
        fake.change("freezer.state", "THAWED");
        // The kernel changes it with what is written next.
        tells("1\n");
        let (mut entries, settings) = fake.settings(&[("freezer.state", "THAWED", "FROZEN")]);
        write(&fake.journal(), &mut entries, &settings).unwrap();
        assert_eq!(fake.holds("freezer.state"), "FROZEN");
        // As one whose processes are on their way reads.
        fake.change("freezer.state", "FREEZING");
        tells(if is_changed { "0\n" } else { "1\n" });
        let (_, outcome) =
            undo::put_back_all(&fake.journal(), undo::Listener::Later, |_| true).unwrap().remove(0);
        assert!(matches!(outcome, Outcome::Back), "{outcome:?}");
        let holds = fake.holds("freezer.state");
        assert_eq!(holds.starts_with("THAWED"), !is_changed, "{holds}");
        assert_eq!(fake.journal().read(), []);
    }
}

#[test]
fn time_and_target_end_them() {
    let fake = Fake::new();
    let mut held = fake.held();
    held.until_ns = Some(now_ns());
    held.tend();
    assert_eq!(fake.holds("pids.max"), "max");
    assert_eq!(held.report("a").figures.limits_set, 0);
    let mut held = fake.held();
    held.target.leader = Some((i32::MAX, 1));
    held.tend();
    assert_eq!(fake.holds("pids.max"), "max");
    assert!(!held.report("a").is_alive);
}
