//! Puts back what was there before kfault wrote: only where what it wrote is still there.
//!
//! Three do it with the same rule: the engine when a strain ends, its guard when the engine has
//! died or hangs or the deadline is over, and the sweep of the next start.

use std::io;

use super::journal::{Entry, Journal};
use crate::engine::error::EngineError;

/// What a number holds, as seen from a journal's entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// What kfault wrote.
    Ours,
    /// What was there before.
    Before,
    /// Something else: somebody's decision.
    Changed(String),
    /// Nothing: its cgroup or its controller has gone, and the limit with it.
    Gone,
}

/// Looks at a number.
///
/// # Errors
/// When it cannot be read.
pub fn look(entry: &Entry) -> io::Result<State> {
    Ok(match entry.knob.read()? {
        None => State::Gone,
        Some(now) if entry.knob.means_same(&now, &entry.after) => State::Ours,
        Some(now) if entry.knob.means_same(&now, &entry.before) => State::Before,
        Some(now) => State::Changed(now),
    })
}

/// What came of one entry.
#[derive(Debug)]
pub enum Outcome {
    /// What was there before is there again.
    Back,
    /// There is nothing to put back.
    Gone,
    /// Somebody else has changed it, to this; it stays.
    Left(String),
    /// It could not be put back. The entry stays in the journal.
    Failed(io::Error),
}

impl Outcome {
    /// For people.
    #[must_use]
    pub fn describe(&self, entry: &Entry) -> String {
        let (knob, before) = (entry.knob.describe(), &entry.before);
        match self {
            Self::Back => format!("limit {knob}, which is \"{before}\" again"),
            Self::Gone => format!("note of {knob}, which has gone"),
            Self::Left(now) => format!(
                "note of {knob}: changed to \"{now}\" by somebody else meanwhile; left as it is \
                 (it was \"{before}\" before {})",
                entry.experiment
            ),
            Self::Failed(error) => format!("cannot set {knob} to \"{before}\" again: {error}"),
        }
    }
}

/// Puts one number back. The journal's lock must be held.
pub fn put_back(entry: &Entry) -> Outcome {
    match look(entry) {
        Ok(State::Ours) => match entry.knob.write(&entry.before) {
            Ok(()) => Outcome::Back,
            // It can go at any time.
            Err(error) if super::knob::is_gone(&error) => Outcome::Gone,
            Err(error) => Outcome::Failed(error),
        },
        Ok(State::Before) => Outcome::Back,
        Ok(State::Changed(now)) => Outcome::Left(now),
        Ok(State::Gone) => Outcome::Gone,
        Err(error) => Outcome::Failed(error),
    }
}

/// Whether somebody is there to be told what has been left as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listener {
    /// The caller says it.
    Here,
    /// Nobody: the words stay in the journal for the next kfault.
    Later,
}

/// Puts back all entries of the journal that are meant, the last one first: what was frozen last
/// thaws first. Says what came of each.
///
/// # Errors
/// When the journal cannot be written.
pub fn put_back_all(
    journal: &Journal,
    listener: Listener,
    is_meant: impl Fn(&Entry) -> bool,
) -> Result<Vec<(Entry, Outcome)>, EngineError> {
    let _lock = journal.lock()?;
    let all = journal.read();
    let (mut kept, mut done) = (Vec::new(), Vec::new());
    for entry in all.iter().rev() {
        if entry.said.is_some() && listener == Listener::Later || !is_meant(entry) {
            kept.push(entry.clone());
            continue;
        }
        let outcome = put_back(entry);
        match &outcome {
            Outcome::Failed(_) => kept.push(entry.clone()),
            Outcome::Left(_) if listener == Listener::Later => {
                let said = Some(outcome.describe(entry));
                kept.push(Entry { said, ..entry.clone() });
            }
            _ => {}
        }
        done.push((entry.clone(), outcome));
    }
    kept.reverse();
    if kept != all {
        journal.write(&kept)?;
    }
    Ok(done)
}

/// Puts back what a crashed run has left, and says what there was. The host lock must be held:
/// no engine is at work.
///
/// # Errors
/// When the journal cannot be written. What cannot be put back is logged and stays in it.
pub fn sweep(journal: &Journal) -> Result<Vec<String>, EngineError> {
    let mut said = Vec::new();
    let settled: Vec<Entry> = journal.read().into_iter().filter(|e| e.said.is_some()).collect();
    if !settled.is_empty() {
        let _lock = journal.lock()?;
        journal.forget(&settled)?;
        said.extend(settled.into_iter().filter_map(|entry| entry.said));
    }
    for (entry, outcome) in put_back_all(journal, Listener::Here, |_| true)? {
        match &outcome {
            Outcome::Failed(_) => tracing::warn!("{}", outcome.describe(&entry)),
            _ => said.push(outcome.describe(&entry)),
        }
    }
    Ok(said)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::super::journal::tests::entry;
    use super::*;

    struct Fake {
        cgroup: tempfile::TempDir,
        _state: tempfile::TempDir,
        journal: Journal,
    }

    impl Fake {
        fn new(entries: &[(&str, &str, &str)]) -> Self {
            let (cgroup, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
            let journal = Journal::at(state.path());
            let entry = |(file, before, after): &(&str, &str, &str)| {
                fs::write(cgroup.path().join(file), after).unwrap();
                entry(cgroup.path(), file, before, after)
            };
            let entries: Vec<Entry> = entries.iter().map(entry).collect();
            journal.write(&entries).unwrap();
            Self { cgroup, _state: state, journal }
        }

        fn path(&self) -> &Path {
            self.cgroup.path()
        }

        fn holds(&self, file: &str) -> String {
            fs::read_to_string(self.path().join(file)).unwrap()
        }
    }

    const CPU: (&str, &str, &str) = ("cpu.max", "max 100000", "20000 100000");
    const PIDS: (&str, &str, &str) = ("pids.max", "max", "5");

    #[test]
    fn what_was_there_comes_back() {
        let fake = Fake::new(&[CPU, PIDS]);
        let said = sweep(&fake.journal).unwrap();
        // A real file is written over; the fake keeps what is longer.
        assert!(fake.holds("cpu.max").starts_with("max 100000"), "{}", fake.holds("cpu.max"));
        assert!(fake.holds("pids.max").starts_with("max"));
        assert_eq!(said.len(), 2, "{said:?}");
        assert!(said[0].contains("pids.max"), "the last one first: {said:?}");
        assert_eq!(fake.journal.read(), []);
        assert_eq!(sweep(&fake.journal).unwrap(), Vec::<String>::new());
    }

    #[test]
    fn what_somebody_else_has_changed_stays_and_is_said_once() {
        let fake = Fake::new(&[CPU, PIDS]);
        fs::write(fake.path().join("pids.max"), "77\n").unwrap();
        let said = sweep(&fake.journal).unwrap();
        assert_eq!(fake.holds("pids.max"), "77\n");
        assert!(said[0].contains("\"77\" by somebody else"), "{said:?}");
        assert_eq!(sweep(&fake.journal).unwrap(), Vec::<String>::new());
    }

    #[test]
    fn where_nobody_listens_the_words_wait_for_the_next_one() {
        let fake = Fake::new(&[PIDS]);
        fs::write(fake.path().join("pids.max"), "77\n").unwrap();
        put_back_all(&fake.journal, Listener::Later, |_| true).unwrap();
        put_back_all(&fake.journal, Listener::Later, |_| true).unwrap();
        // Even if what kfault wrote is there again, it is somebody else's by now.
        fs::write(fake.path().join("pids.max"), "5\n").unwrap();
        let said = sweep(&fake.journal).unwrap();
        assert!(said.len() == 1 && said[0].contains("\"77\" by somebody else"), "{said:?}");
        assert_eq!(fake.holds("pids.max"), "5\n");
    }

    #[test]
    fn nothing_was_written_yet_or_the_cgroup_has_gone() {
        let fake = Fake::new(&[PIDS]);
        fs::write(fake.path().join("pids.max"), "max\n").unwrap();
        let entry = fake.journal.read().remove(0);
        assert!(matches!(put_back(&entry), Outcome::Back));
        assert_eq!(fake.holds("pids.max"), "max\n");
        fs::remove_file(fake.path().join("pids.max")).unwrap();
        assert!(matches!(put_back(&entry), Outcome::Gone));
    }

    #[test]
    fn others_entries_stay() {
        let fake = Fake::new(&[CPU, PIDS]);
        put_back_all(&fake.journal, Listener::Here, |entry| entry.knob.file == "cpu.max").unwrap();
        assert_eq!(fake.holds("pids.max"), "5");
        assert_eq!(fake.journal.read().len(), 1);
    }
}
