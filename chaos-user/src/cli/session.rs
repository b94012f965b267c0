//! One run from the finished plan to the recovered host.

use std::io;
use std::time::{Duration, Instant};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval_at};

use super::engine_exit;
use super::exit::{Exit, Stop};
use super::names::{self, Answers};
use super::plot::Time;
use super::report::Reporter;
use super::state::State;
use super::watch::{self, Watch};
use crate::engine::{EngineError, Options, chain};
use crate::node::drive::{Driver, News, Resolved};
use crate::plan::{Plan, Rule, peers};

/// Heartbeats in a row that may fail before the run ends: by then the lease has run out.
const TROUBLES: u32 = 5;

/// SIGINT, SIGTERM and SIGHUP: all of them mean "end this in good order".
pub struct Signals {
    all: [Signal; 3],
}

impl Signals {
    /// From now on these signals do not kill us.
    pub fn catch() -> io::Result<Self> {
        let of = |kind| signal(kind);
        Ok(Self {
            all: [
                of(SignalKind::interrupt())?,
                of(SignalKind::terminate())?,
                of(SignalKind::hangup())?,
            ],
        })
    }

    /// Waits for one.
    pub async fn next(&mut self) {
        let [interrupt, terminate, hangup] = &mut self.all;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}

/// From here on a signal ends the process as if nobody had ever listened to it.
pub fn release_signals() {
    for number in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
        // SAFETY: the default disposition runs no code of ours.
        unsafe { libc::signal(number, libc::SIG_DFL) };
    }
}

/// Why a run that was applied came to its end.
enum Cause {
    Over,
    Gone,
    Interrupted,
    Failed(Stop),
}

impl Cause {
    fn reason(&self) -> &'static str {
        match self {
            Self::Over => "its duration is over",
            Self::Gone => "its targets are gone",
            Self::Interrupted => "interrupted",
            Self::Failed(_) => "failed",
        }
    }
}

/// Runs the plan; returns what became of its rules.
pub async fn session(
    plan: &Plan,
    state: &mut State,
    reporter: &mut Reporter,
) -> Result<Exit, Stop> {
    let failed = |e: io::Error| Stop::one(Exit::Failed, format!("cannot start the run: {e}"));
    let mut signals = Signals::catch().map_err(failed)?;
    let names = names::names(plan);
    let answers = tokio::select! {
        answers = names::look_up(names.clone()) => answers,
        () = signals.next() => return Ok(Exit::Interrupted),
    };
    let resolved = resolved_or_refused(plan, answers)?;

    let watch = Watch::of(plan, reporter);
    if !watch.is_empty() {
        for _ in 0..watch::BEFORE {
            watch.look(Time::Before, reporter);
            tokio::select! {
                () = tokio::time::sleep(watch::EVERY) => {}
                () = signals.next() => return Ok(Exit::Interrupted),
            }
        }
    }
    let mut driver = Driver::start(Options::default()).map_err(failed)?;
    let start = Instant::now();
    driver.apply(plan.clone(), resolved.clone());
    let interrupted = until_applied(&mut driver, &mut signals, reporter).await?;
    let applied = Instant::now();
    state.applied(applied);
    // What was used up to here belongs to the time before.
    watch.look(Time::Before, reporter);
    reporter.applied(state, applied.duration_since(start));

    let cause = if interrupted {
        Cause::Interrupted
    } else {
        let mut live =
            Live { plan, driver: &mut driver, names, resolved, lookup: None, watch: &watch };
        live.run(state, reporter, &mut signals).await
    };
    if let Cause::Failed(stop) = &cause {
        reporter.failed(stop);
    }
    watch.look(Time::During, reporter);
    recover(plan, driver, signals, state, reporter, &cause).await?;
    if !watch.is_empty() {
        for _ in 0..watch::AFTER {
            tokio::time::sleep(watch::EVERY).await;
            watch.look(Time::After, reporter);
        }
    }
    reporter.recovered(state, cause.reason(), applied.elapsed());
    Ok(match cause {
        Cause::Over | Cause::Gone => Exit::Done,
        Cause::Interrupted => Exit::Interrupted,
        Cause::Failed(stop) => stop.exit,
    })
}

/// Every name needs an address, and every peer set has to fit, before anything is touched.
fn resolved_or_refused(plan: &Plan, answers: Answers) -> Result<Resolved, Stop> {
    let Answers { resolved, failed } = answers;
    let no_address = |(name, reason): &(String, String)| {
        let rule = plan.rules.iter().find(|r| r.peers.names.iter().any(|n| n.host == *name));
        format!(
            "{}: spec.externalTargets: {name:?} has no address: {reason}; correct the name, give \
             an address instead, or repair name resolution on this host",
            rule.map_or("", |rule| rule.experiment.as_str()),
        )
    };
    let mut messages: Vec<String> = failed.iter().map(no_address).collect();
    if messages.is_empty() {
        let unfit = |rule: &Rule| {
            let error = peers::compile(&rule.peers, &resolved).err()?;
            Some(format!("{}: spec.externalTargets: {error}", rule.experiment))
        };
        messages = plan.rules.iter().filter_map(unfit).collect();
        messages.dedup();
    }
    if messages.is_empty() {
        return Ok(resolved);
    }
    Err(Stop { exit: Exit::Refused, messages })
}

/// Waits for the plan to be applied. True: a signal has arrived meanwhile.
async fn until_applied(
    driver: &mut Driver,
    signals: &mut Signals,
    reporter: &Reporter,
) -> Result<bool, Stop> {
    let mut interrupted = false;
    loop {
        tokio::select! {
            news = driver.news.recv() => match news {
                Some(News::Applied(Ok(()))) => return Ok(interrupted),
                Some(News::Applied(Err(error))) => return Err(stop(&error)),
                Some(News::Closed(error)) => return Err(closed(&error)),
                Some(News::Report(_) | News::Trouble(_) | News::Finished(..)) => {}
                None => return Err(died()),
            },
            () = signals.next() => {
                if !interrupted {
                    reporter.note("interrupted while the faults are being applied, undoing them");
                }
                interrupted = true;
            }
        }
    }
}

fn stop(error: &EngineError) -> Stop {
    Stop::one(engine_exit(error), chain(error))
}

/// The engine could not be opened, so nothing was touched.
fn closed(error: &EngineError) -> Stop {
    match error.errno() {
        Some(libc::EPERM | libc::EACCES) => {
            Stop::one(Exit::Unable, format!("{}; run kfault as root", chain(error)))
        }
        _ => stop(error),
    }
}

fn died() -> Stop {
    Stop::one(
        Exit::Failed,
        "the engine's thread has died; every fault ends with its lease, at most 5 s from now; \
         `kfault sweep` removes what is left",
    )
}

/// The time while the faults act.
struct Live<'a> {
    plan: &'a Plan,
    driver: &'a mut Driver,
    names: Vec<String>,
    resolved: Resolved,
    lookup: Option<JoinHandle<Answers>>,
    watch: &'a Watch,
}

impl Live<'_> {
    async fn run(
        &mut self,
        state: &mut State,
        reporter: &mut Reporter,
        signals: &mut Signals,
    ) -> Cause {
        let mut again = interval_at(tokio::time::Instant::now() + names::AGAIN, names::AGAIN);
        again.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut troubles = 0;
        loop {
            let left = state.all_left(Instant::now());
            if left == Some(Duration::ZERO) {
                return if state.is_all_gone() { Cause::Gone } else { Cause::Over };
            }
            tokio::select! {
                () = signals.next() => {
                    reporter.note("interrupted, recovering");
                    return Cause::Interrupted;
                }
                // None: until interrupted; the sleep only has to be long.
                () = tokio::time::sleep(left.unwrap_or(Duration::from_secs(3600))) => {}
                news = self.driver.news.recv() => match news {
                    Some(News::Report(report)) => {
                        troubles = 0;
                        let now = Instant::now();
                        for news in state.take(report, now) {
                            reporter.note(&news);
                        }
                        self.watch.look(Time::During, reporter);
                        reporter.progress(state, now);
                    }
                    Some(News::Trouble(error)) => {
                        troubles += 1;
                        if troubles == 1 {
                            reporter.note(&format!("the heartbeat failed: {}", chain(&error)));
                        }
                        if troubles >= TROUBLES {
                            return Cause::Failed(stop(&error));
                        }
                    }
                    Some(News::Applied(Ok(()))) => {}
                    Some(News::Applied(Err(error))) => reporter.note(&format!(
                        "warning: new addresses were not applied, the last ones stay in force: {}",
                        chain(&error)
                    )),
                    Some(News::Closed(error)) => return Cause::Failed(stop(&error)),
                    Some(News::Finished(..)) | None => return Cause::Failed(died()),
                },
                _ = again.tick(), if !self.names.is_empty() && self.lookup.is_none() => {
                    self.lookup = Some(tokio::spawn(names::look_up(self.names.clone())));
                }
                answers = finished(&mut self.lookup), if self.lookup.is_some() => {
                    self.lookup = None;
                    self.take_answers(answers, reporter);
                }
            }
        }
    }

    fn take_answers(&mut self, answers: Option<Answers>, reporter: &Reporter) {
        let Some(answers) = answers else { return };
        for (name, reason) in &answers.failed {
            reporter.note(&format!(
                "warning: {name:?} could not be looked up again, its last addresses stay in \
                 force: {reason}"
            ));
        }
        let resolved = answers.or_last(&self.resolved);
        if resolved != self.resolved {
            self.resolved = resolved.clone();
            self.driver.apply(self.plan.clone(), resolved);
        }
    }
}

async fn finished(lookup: &mut Option<JoinHandle<Answers>>) -> Option<Answers> {
    match lookup {
        Some(handle) => handle.await.ok(),
        None => std::future::pending().await,
    }
}

/// Ends everything. A signal from here on stops the wait for packets that are still held back.
async fn recover(
    plan: &Plan,
    mut driver: Driver,
    mut signals: Signals,
    state: &mut State,
    reporter: &mut Reporter,
    cause: &Cause,
) -> Result<(), Stop> {
    driver.finish();
    let longest = plan.rules.iter().map(|rule| rule.effects.longest_ns()).max().unwrap_or(0);
    let longest = Duration::from_nanos(longest);
    let patience = tokio::time::sleep(Duration::from_secs(1));
    tokio::pin!(patience);
    let mut is_said = false;
    loop {
        tokio::select! {
            news = driver.news.recv() => match news {
                Some(News::Finished(report, result)) => {
                    for news in state.take(report, Instant::now()) {
                        reporter.note(&news);
                    }
                    return result.map_err(|error| Stop::one(Exit::Failed, format!(
                        "not everything was recovered: {}; the faults themselves have ended; \
                         `kfault sweep` removes what is left", chain(&error)
                    )));
                }
                Some(_) => {}
                None => return match cause {
                    Cause::Failed(stop) => Err(stop.clone()),
                    _ => Err(died()),
                },
            },
            () = &mut patience, if !is_said => {
                is_said = true;
                reporter.note(&format!(
                    "the faults have ended; waiting for packets that are held back, at most {}; \
                     Ctrl-C stops waiting", super::clock::for_people(longest)
                ));
            }
            () = signals.next() => driver.give_up(),
        }
    }
}
