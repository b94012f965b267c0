//! Limits of a target's cgroup, and what was there before.
//!
//! - [`lower`] says which numbers in which files limits come to, [`disks`] for which devices, and
//!   [`refuse`] why not.
//! - [`journal`] has every number on disk before it is written, and [`undo`] puts it back from
//!   there, unless somebody else has changed it: kfault fights no one.
//! - [`guard`] and [`watch`] are the two ends of a process that does so when the engine is dead,
//!   hangs, or when the time is over.

mod disks;
mod guard;
mod journal;
mod knob;
mod lower;
mod refuse;
mod undo;
mod watch;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use procfs::process::Process;

pub use guard::Guard;
pub use watch::watch;

use self::journal::{Entry, Journal, boot, now_ns};
use self::knob::Setting;
use self::undo::{Outcome, State, look, put_back};
use super::meter::{Meter, Reading};
use super::place::Frozen;
use super::{Directories, StrainReport};
use crate::engine::error::EngineError;
use crate::plan::strain::{Limits, Place, Strain};

/// Processes that are in the kernel freeze when they leave it; this long we wait for them.
const FREEZING: Duration = Duration::from_secs(2);

/// Puts back what a crashed run has left; says what there was. The host lock must be held.
///
/// # Errors
/// When the journal cannot be written.
pub fn sweep() -> Result<Vec<String>, EngineError> {
    undo::sweep(&Journal::of_host())
}

/// Sets limits of a cgroup of ours and puts back what was there: whether it can be done. Says what
/// there is to know about it.
///
/// # Errors
/// As [`Held::set`].
pub fn try_out(place: &Place, limits: &Limits) -> Result<String, EngineError> {
    let directories = Directories::of(place)?;
    let chosen = lower::settings(&directories, limits)?;
    for one in &chosen.all {
        one.knob.write(&one.after).map_err(|error| refuse::explain(one, error))?;
        one.knob.write(&one.before).map_err(|error| refuse::explain(one, error))?;
    }
    let files: BTreeSet<&str> = chosen.all.iter().map(|one| one.knob.file.as_str()).collect();
    Ok(files.into_iter().collect::<Vec<_>>().join(", "))
}

/// Limits of one strain.
pub struct Held {
    journal: Journal,
    entries: Vec<Entry>,
    target: Target,
    until_ns: Option<u64>,
    notes: Vec<String>,
    /// What the kernel counts, and had counted when they were set.
    meter: Option<(Meter, Reading)>,
    /// Nothing of it is in force any more.
    is_over: bool,
}

/// Whether the target is still the one that was meant.
struct Target {
    /// Its directory in the hierarchy that names it.
    main: PathBuf,
    inode: u64,
    /// Its first process, and when that was started, in ticks since boot.
    leader: Option<(i32, u64)>,
}

impl Target {
    fn of(strain: &Strain, main: &Path) -> Result<Self, EngineError> {
        let leader = i32::try_from(strain.place.leader).ok().filter(|pid| *pid > 0);
        let gone = || EngineError::Gone { what: format!("the first process of {}", strain.target) };
        let leader =
            leader.map(|pid| started(pid).map(|at| (pid, at)).ok_or_else(gone)).transpose()?;
        Ok(Self { main: main.to_owned(), inode: strain.place.cgroup.id, leader })
    }

    fn is_alive(&self) -> bool {
        fs::metadata(&self.main).is_ok_and(|found| found.ino() == self.inode)
            && self.leader.is_none_or(|(pid, at)| started(pid) == Some(at))
    }
}

/// When a process that has not ended was started.
fn started(pid: i32) -> Option<u64> {
    let stat = Process::new(pid).and_then(|process| process.stat()).ok()?;
    (!matches!(stat.state, 'Z' | 'X')).then_some(stat.starttime)
}

impl Held {
    /// Sets them: all, or none.
    ///
    /// # Errors
    /// [`EngineError::Gone`] where the target has vanished; [`EngineError::Unsupported`] with the
    /// field's name where a controller or a file is missing, where the kernel refuses a value, or
    /// where others would be hit.
    pub fn set(guard: &mut Guard, strain: &Strain, limits: &Limits) -> Result<Self, EngineError> {
        let directories = Directories::of(&strain.place)?;
        let target = Target::of(strain, directories.main())?;
        let mut chosen = lower::settings(&directories, limits)?;
        chosen.notes.extend(refuse::others(&directories, &chosen.all)?);
        let span = strain.duration.map(|one| u64::try_from(one.as_nanos()).unwrap_or(u64::MAX));
        let meter = Meter::of(&directories);
        let start = meter.read();
        let mut held = Self {
            journal: Journal::of_host(),
            entries: Vec::new(),
            target,
            until_ns: span.map(|span| now_ns().saturating_add(span)),
            notes: chosen.notes,
            meter: Some((meter, start)),
            is_over: strain.dry_run,
        };
        if strain.dry_run {
            return Ok(held);
        }
        guard.ensure()?;
        let boot = boot();
        let entry = |one: &Setting| Entry {
            knob: one.knob.clone(),
            before: one.before.clone(),
            after: one.after.clone(),
            strain: strain.id.clone(),
            experiment: strain.experiment.clone(),
            engine: guard.engine().to_owned(),
            boot: boot.clone(),
            until_ns: held.until_ns,
            said: None,
        };
        held.entries = chosen.all.iter().map(entry).collect();
        write(&held.journal, &mut held.entries, &chosen.all)?;
        // The guard learns of the deadline.
        guard.beat();
        if limits.freeze {
            held.wait_until_frozen(&directories, FREEZING);
        }
        Ok(held)
    }

    /// Puts back what was there, unless somebody else has changed it: then it is said and left.
    ///
    /// # Errors
    /// The first number that cannot be put back. It stays in the journal, for the guard and the
    /// next start.
    pub fn restore(mut self) -> Result<(), EngineError> {
        self.put_back()
    }

    fn put_back(&mut self) -> Result<(), EngineError> {
        if self.is_over {
            return Ok(());
        }
        self.is_over = true;
        let _lock = self.journal.lock()?;
        let (mut done, mut first) = (Vec::new(), None);
        for entry in self.entries.iter().rev() {
            let outcome = put_back(entry);
            let words = outcome.describe(entry);
            match outcome {
                Outcome::Failed(error) => {
                    let doing =
                        format!("set {} to {:?} again", entry.knob.describe(), entry.before);
                    first.get_or_insert(EngineError::os(doing, error));
                    continue;
                }
                Outcome::Left(_) => tracing::warn!("{words}"),
                Outcome::Back | Outcome::Gone => tracing::debug!("put back: {words}"),
            }
            done.push(entry.clone());
        }
        self.journal.forget(&done)?;
        first.map_or(Ok(()), Err)
    }

    /// Looks after them: ends them with their target and their time, sets them again when the
    /// guard has put them back because the engine hung, and notes what others have changed.
    pub fn tend(&mut self) {
        if self.is_over {
            return;
        }
        let is_late = self.is_late();
        if is_late || !self.target.is_alive() {
            if let Err(error) = self.put_back() {
                tracing::error!(%error, "cannot put a limit back");
            }
            return;
        }
        if let Err(error) = self.resume() {
            tracing::error!(%error, "cannot set a limit again");
        }
        for note in self.changes() {
            self.note(note);
        }
    }

    /// Every note once.
    fn note(&mut self, note: String) {
        if !self.notes.contains(&note) {
            self.notes.push(note);
        }
    }

    /// After a hang: what is not in the journal any more has been put back by the guard.
    fn resume(&mut self) -> Result<(), EngineError> {
        let known = self.journal.read();
        let is_noted =
            |entry: &Entry| known.iter().any(|one| one.is_same(entry) && one.said.is_none());
        if self.entries.iter().all(is_noted) {
            return Ok(());
        }
        let _lock = self.journal.lock()?;
        self.note(
            "kfault stood still for more than 5 s; its limits had ended meanwhile, and are set \
             again"
                .into(),
        );
        // The guard's words about what others have changed are ours to say.
        let settled: Vec<Entry> = known
            .into_iter()
            .filter(|one| one.said.is_some() && self.entries.iter().any(|e| e.is_same(one)))
            .collect();
        self.journal.forget(&settled)?;
        for one in &settled {
            self.note(one.said.clone().unwrap_or_default());
        }
        self.entries.retain(|entry| !settled.iter().any(|one| one.is_same(entry)));
        self.journal.note(&self.entries)?;
        for entry in &self.entries {
            if matches!(look(entry), Ok(State::Before)) {
                let doing = || format!("set {} again", entry.knob.describe());
                entry.knob.write(&entry.after).map_err(|e| EngineError::os(doing(), e))?;
            }
        }
        Ok(())
    }

    fn is_late(&self) -> bool {
        self.until_ns.is_some_and(|until| until <= now_ns())
    }

    /// What others have changed, in words.
    fn changes(&self) -> Vec<String> {
        let is_late = self.is_late();
        let changed = |entry: &Entry| {
            let knob = entry.knob.describe();
            let now = match look(entry).ok()? {
                State::Changed(now) => now,
                // After the deadline it is the guard that has put it back.
                State::Before
                    if !is_late && !entry.knob.means_same(&entry.before, &entry.after) =>
                {
                    entry.before.clone()
                }
                State::Gone if self.target.is_alive() => {
                    return Some(format!("{knob} has gone, and the limit with it"));
                }
                _ => return None,
            };
            Some(format!(
                "{knob} was set to \"{}\" and has been changed to \"{now}\" by somebody else; it is \
                 left as it is",
                entry.after
            ))
        };
        self.entries.iter().filter_map(changed).collect()
    }

    fn wait_until_frozen(&mut self, directories: &Directories, patience: Duration) {
        let start = Instant::now();
        while directories.frozen() != Frozen::Whole {
            if start.elapsed() > patience {
                self.note(format!(
                    "not everything of {} was frozen within {} s: some process is in the kernel \
                     and freezes when it leaves it",
                    directories.main().display(),
                    patience.as_secs()
                ));
                return;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// What has become of them.
    pub fn report(&self, id: &str) -> StrainReport {
        let mut report = StrainReport::of(id);
        report.is_alive = self.target.is_alive();
        report.notes.clone_from(&self.notes);
        if let Some((meter, start)) = &self.meter {
            meter.read().since(start, &mut report.figures);
        }
        if !self.is_over {
            // At the end nobody tends them before the last look.
            let fresh = self.changes();
            report.notes.extend(fresh.into_iter().filter(|note| !self.notes.contains(note)));
            let is_ours = |entry: &&Entry| matches!(look(entry), Ok(State::Ours));
            let ours = self.entries.iter().filter(is_ours).count();
            report.figures.limits_set = u32::try_from(ours).unwrap_or(u32::MAX);
        }
        report
    }
}

impl Drop for Held {
    /// A strain that nobody ended is ended.
    fn drop(&mut self) {
        if let Err(error) = self.put_back() {
            tracing::error!(%error, "cannot put a limit back");
        }
    }
}

/// Notes all entries down, then writes all numbers, or none.
fn write(
    journal: &Journal,
    entries: &mut [Entry],
    settings: &[Setting],
) -> Result<(), EngineError> {
    let _lock = journal.lock()?;
    journal.note(entries)?;
    let take_back = |done: usize| {
        let done = entries.iter().take(done).rev();
        done.map(put_back).filter(|outcome| matches!(outcome, Outcome::Failed(_))).count()
    };
    for (done, setting) in settings.iter().enumerate() {
        let Err(error) = setting.knob.write(&setting.after) else { continue };
        // What cannot be taken back stays in the journal.
        if take_back(done) == 0 {
            journal.forget(entries)?;
        }
        return Err(refuse::explain(setting, error));
    }
    let mut is_rounded = false;
    for entry in entries.iter_mut() {
        let now = entry.knob.read().ok().flatten();
        if let Some(now) = now.filter(|now| !entry.knob.means_same(now, &entry.after)) {
            // The kernel rounds in ways that we do not know of.
            (entry.after, is_rounded) = (now, true);
        }
    }
    // An engine that stood still meanwhile had its entries served by the guard, in part before
    // the numbers were written.
    let known = journal.read();
    if !entries.iter().all(|entry| known.iter().any(|one| one.is_same(entry))) {
        let failed = entries.iter().rev().filter(|one| matches!(put_back(one), Outcome::Failed(_)));
        let left = failed.count();
        return Err(EngineError::bpf(
            "set limits",
            format!("kfault stood still while it set them ({left} could not be taken back)"),
        ));
    }
    if is_rounded { journal.note(entries) } else { Ok(()) }
}

#[cfg(test)]
mod held_tests;
