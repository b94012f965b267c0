//! The agent of one node: NodeFaults in, a plan for the engine, answers out.
//!
//! Owns: which pods of this node are meant, one plan for all experiments, what became of each.
//! Refuses: the API server (that is `kube`'s; tasks come and answers go by channels), so that a
//! server which hangs never delays a heartbeat.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::sync::{mpsc, watch};
use tokio::time::{MissedTickBehavior, interval};

use super::NodeError;
use super::counted::{self, told};
use super::drive::{Driver, News, Resolved};
use super::local::Host;
use super::lowering::{Lowered, ended, lower, together};
use super::pods::Pods;
use crate::api::nodefault::{
    Answer, NodeRecord, NodeRule, NodeState, NodeStrain, Status, Task, Tasks,
};
use crate::engine::http::ExchangeReport;
use crate::engine::strain::StrainReport;
use crate::engine::{EngineError, Options, RuleReport, chain};
use crate::fault::on_node::{OnNode, container_name};
use crate::plan::exchange::Exchange;
use crate::plan::strain::Strain;
use crate::plan::{Plan, Rule};

/// How often the node is looked at again: pods start and restart without a word to us.
const LOOK: Duration = Duration::from_secs(2);
/// A PeerSet that comes so soon after the task that names it is not worth a word.
const WAIT: Duration = Duration::from_secs(1);
/// How often counters are told.
const TELL: Duration = Duration::from_secs(5);

/// Why the agent ended.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The engine does not start: another one is at work, or the kernel refuses.
    #[error("the engine does not start: {0}")]
    Closed(EngineError),
    /// The engine's thread has died. Every fault ends with its lease.
    #[error("the engine's thread has died; every fault ends with its lease")]
    Died,
    /// The engine's thread cannot be started.
    #[error("the engine's thread cannot be started: {0}")]
    Thread(std::io::Error),
}

/// The loop's state.
struct Agent {
    driver: Driver,
    tasks: Tasks,
    /// What is in force.
    applied: Plan,
    resolved: Resolved,
    /// Why tasks could not be applied as a whole.
    refused: BTreeMap<String, (Task, String)>,
    /// Those of them of which a device or cgroup went while they were applied: the next look finds
    /// what is there then.
    vanished: BTreeSet<String>,
    /// Why strains could not be applied, by their ids.
    unfit: BTreeMap<String, (Strain, String)>,
    lowered: BTreeMap<String, OnNode>,
    /// Since when tasks have waited for a PeerSet.
    waiting: BTreeMap<String, Instant>,
    /// For how long a task acts, fixed when it is first seen: a rule that is not changed must
    /// look the same every time.
    durations: BTreeMap<String, (Timestamp, Duration)>,
    reports: BTreeMap<String, RuleReport>,
    strains: BTreeMap<String, StrainReport>,
    exchanges: BTreeMap<String, ExchangeReport>,
    /// Since when each strain acts.
    since: BTreeMap<String, (Strain, Timestamp)>,
    /// Counters of rules that were written anew since.
    earlier: BTreeMap<String, [u64; 3]>,
    answers: mpsc::UnboundedSender<Answer>,
    told: BTreeMap<String, Answer>,
    told_at: Instant,
}

/// Serves tasks until `stop` is done; then ends every fault and returns.
///
/// # Errors
/// [`AgentError`]; the faults have ended, or end with their lease.
pub async fn serve(
    mut tasks: watch::Receiver<Tasks>,
    answers: mpsc::UnboundedSender<Answer>,
    stop: impl Future<Output = ()>,
) -> Result<(), AgentError> {
    let driver = Driver::start(Options::default()).map_err(AgentError::Thread)?;
    let mut agent = Agent {
        driver,
        tasks: Tasks::new(),
        applied: Plan::default(),
        resolved: Resolved::new(),
        refused: BTreeMap::new(),
        vanished: BTreeSet::new(),
        unfit: BTreeMap::new(),
        lowered: BTreeMap::new(),
        waiting: BTreeMap::new(),
        durations: BTreeMap::new(),
        reports: BTreeMap::new(),
        strains: BTreeMap::new(),
        exchanges: BTreeMap::new(),
        since: BTreeMap::new(),
        earlier: BTreeMap::new(),
        answers,
        told: BTreeMap::new(),
        told_at: Instant::now(),
    };
    let mut look = interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    tokio::pin!(stop);
    let result = loop {
        let end = agent.next_end();
        let done = tokio::select! {
            () = &mut stop => break Ok(()),
            changed = tasks.changed() => match changed {
                Ok(()) => {
                    agent.tasks = tasks.borrow_and_update().clone();
                    agent.renew().await
                }
                // Nobody will ever ask for anything again.
                Err(_) => break Ok(()),
            },
            news = agent.driver.news.recv() => agent.hear(news),
            _ = look.tick(), if !agent.tasks.is_empty() => agent.renew().await,
            () = tokio::time::sleep(end.unwrap_or(LOOK)), if end.is_some() => agent.renew().await,
        };
        if let Err(error) = done {
            break Err(error);
        }
    };
    agent.finish().await;
    result
}

impl Agent {
    /// When the next task is over by itself.
    fn next_end(&self) -> Option<Duration> {
        let now = Timestamp::now();
        let ends = self.tasks.values().filter(|task| task.spec.run && !task.is_going);
        let ends = ends.filter_map(|task| task.spec.until).filter(|until| *until > now);
        ends.map(|until| Duration::try_from(until.duration_since(now)).unwrap_or_default()).min()
    }

    /// Looks at the node, and makes what is asked true.
    async fn renew(&mut self) -> Result<(), AgentError> {
        let lowered = match self.lower_all() {
            Ok(lowered) => lowered,
            Err(error) => {
                tracing::error!(%error, "cannot look at this node; what is in force stays");
                return Ok(());
            }
        };
        for key in std::mem::take(&mut self.vanished) {
            self.refused.remove(&key);
        }
        self.refused.retain(|key, (task, _)| self.tasks.get(key) == Some(task));
        let strains = || lowered.values().flat_map(|one| &one.on_node.strains);
        self.unfit.retain(|_, (unfit, _)| strains().any(|strain| strain == unfit));
        self.waiting.retain(|key, _| lowered.get(key).is_some_and(|one| one.on_node.waits));
        for (key, _) in lowered.iter().filter(|(_, one)| one.on_node.waits) {
            self.waiting.entry(key.clone()).or_insert_with(Instant::now);
        }
        let keys: Vec<&String> =
            lowered.keys().filter(|key| !self.refused.contains_key(*key)).collect();
        let is_fit = |strain: &Strain| !self.unfit.contains_key(&strain.id);
        let (plan, resolved) = together(&lowered, &keys, is_fit);
        if plan != self.applied || resolved != self.resolved {
            match self.apply(plan, resolved).await? {
                Ok(()) => {}
                Err(error) => self.apply_one_by_one(&lowered, &error).await?,
            }
        }
        self.lowered = lowered.into_iter().map(|(key, one)| (key, one.on_node)).collect();
        self.tell(false);
        Ok(())
    }

    /// What each running task means on this node now.
    fn lower_all(&mut self) -> Result<BTreeMap<String, Lowered>, NodeError> {
        let now = Timestamp::now();
        self.durations.retain(|key, (until, _)| {
            self.tasks.get(key).is_some_and(|task| task.spec.until == Some(*until))
        });
        let mut running = Vec::new();
        for (key, task) in &self.tasks {
            let is_over = task.spec.until.is_some_and(|until| until <= now);
            if task.spec.run && !task.is_going && !is_over {
                running.push((key.clone(), task.clone()));
            }
        }
        if running.is_empty() {
            return Ok(BTreeMap::new());
        }
        let mut host = Host::here()?;
        let cgroups = host.all_cgroups()?;
        let known = Pods::among(&cgroups);
        let mut out = BTreeMap::new();
        for (key, Task { spec, sets, .. }) in running {
            let duration = spec.until.map(|until| {
                let left = Duration::try_from(until.duration_since(now)).unwrap_or_default();
                self.durations.entry(key.clone()).or_insert((until, left)).1
            });
            out.insert(key, lower(&mut host, &known, &cgroups, (&spec, &sets), duration));
        }
        Ok(out)
    }

    /// Asks the engine and waits for its answer, at which the faults act or have ended.
    async fn apply(
        &mut self,
        plan: Plan,
        resolved: Resolved,
    ) -> Result<Result<(), EngineError>, AgentError> {
        self.driver.apply(plan.clone(), resolved.clone());
        loop {
            match self.driver.news.recv().await {
                Some(News::Applied(Ok(()))) => {
                    self.keep_counters(&plan);
                    self.note_beginnings(&plan);
                    self.applied = plan;
                    self.resolved = resolved;
                    return Ok(Ok(()));
                }
                Some(News::Applied(Err(error))) => return Ok(Err(error)),
                other => self.hear(other)?,
            }
        }
    }

    /// One experiment that cannot be applied must not keep the others from it. What is in force as
    /// it shall be goes on without a break; then comes what is changed or new, one by one.
    async fn apply_one_by_one(
        &mut self,
        lowered: &BTreeMap<String, Lowered>,
        first: &EngineError,
    ) -> Result<(), AgentError> {
        tracing::warn!(error = %first, "the plan as a whole was refused; trying experiment by experiment");
        let (mut good, mut rest) = self.settled(lowered);
        let in_force = self.applied.strains.clone();
        let (plan, resolved) = together(lowered, &good, |one| in_force.contains(one));
        let mut fit: BTreeSet<String> = plan.strains.iter().map(|one| one.id.clone()).collect();
        if let Err(error) = self.apply(plan, resolved).await? {
            tracing::warn!(%error, "what is in force cannot stay as it is");
            rest.splice(0..0, good.drain(..));
            fit.clear();
        }
        let strains =
            |key: &String| lowered.get(key).into_iter().flat_map(|one| &one.on_node.strains);
        let mut order: Vec<&String> = good.clone();
        order.append(&mut rest);
        for key in order {
            if !good.contains(&key) {
                good.push(key);
                let (plan, resolved) = together(lowered, &good, |one| fit.contains(&one.id));
                if let Err(error) = self.apply(plan, resolved).await? {
                    good.pop();
                    if let Some(task) = self.tasks.get(key) {
                        if matches!(error, EngineError::Gone { .. }) {
                            self.vanished.insert(key.clone());
                        }
                        let refusal = (task.clone(), chain(&error));
                        self.refused.insert(key.clone(), refusal);
                    }
                    continue;
                }
            }
            // A target that cannot be strained must not keep the experiment's others from it.
            for strain in strains(key) {
                if self.unfit.contains_key(&strain.id) || !fit.insert(strain.id.clone()) {
                    continue;
                }
                let (plan, resolved) = together(lowered, &good, |one| fit.contains(&one.id));
                if let Err(error) = self.apply(plan, resolved).await? {
                    fit.remove(&strain.id);
                    self.unfit.insert(strain.id.clone(), (strain.clone(), chain(&error)));
                }
            }
        }
        Ok(())
    }

    /// The tasks whose rules and exchanges are all in force as they shall be, and the others: those that were
    /// asked for before come first. What was refused stays refused until it is changed.
    fn settled<'a>(
        &self,
        lowered: &'a BTreeMap<String, Lowered>,
    ) -> (Vec<&'a String>, Vec<&'a String>) {
        let is_known = |key: &&String| self.lowered.contains_key(*key);
        let is_settled = |key: &&String| {
            let Some(Lowered { on_node: one, .. }) = lowered.get(*key) else { return false };
            is_known(key)
                && one.rules.iter().all(|rule| self.applied.rules.contains(rule))
                && one.exchanges.iter().all(|one| self.applied.exchanges.contains(one))
        };
        let keys = lowered.keys().filter(|key| !self.refused.contains_key(*key));
        let (settled, others): (Vec<_>, Vec<_>) = keys.partition(is_settled);
        let (changed, new): (Vec<_>, Vec<_>) = others.into_iter().partition(is_known);
        (settled, [changed, new].concat())
    }

    fn note_beginnings(&mut self, plan: &Plan) {
        self.since.retain(|_, (known, _)| plan.strains.contains(known));
        self.strains.retain(|id, _| self.since.contains_key(id));
        for strain in &plan.strains {
            let now = || (strain.clone(), Timestamp::now());
            self.since.entry(strain.id.clone()).or_insert_with(now);
        }
    }

    /// A rule that is written anew counts from zero; what it counted before is kept.
    fn keep_counters(&mut self, plan: &Plan) {
        let same = |rule: &Rule| self.applied.rules.iter().any(|old| old == rule);
        let ids: BTreeSet<&str> = plan.rules.iter().map(|rule| rule.id.as_str()).collect();
        self.earlier.retain(|id, _| ids.contains(id.as_str()));
        for rule in plan.rules.iter().filter(|rule| !same(rule)) {
            if let Some(report) = self.reports.remove(&rule.id) {
                let earlier = self.earlier.entry(rule.id.clone()).or_default();
                for (sum, more) in earlier.iter_mut().zip(told(&report.counters)) {
                    *sum += more;
                }
            }
        }
        self.reports.retain(|id, _| ids.contains(id.as_str()));
    }

    fn hear(&mut self, news: Option<News>) -> Result<(), AgentError> {
        match news {
            Some(News::Report(report)) => {
                self.reports = report.rules.into_iter().map(|r| (r.id.clone(), r)).collect();
                self.strains = report.strains.into_iter().map(|s| (s.id.clone(), s)).collect();
                self.exchanges = report.exchanges.into_iter().map(|e| (e.id.clone(), e)).collect();
                if self.told_at.elapsed() >= TELL {
                    self.told_at = Instant::now();
                    self.tell(true);
                }
                Ok(())
            }
            // One failed beat is no trouble; the lease bridges four more.
            Some(News::Trouble(error)) => {
                tracing::warn!(%error, "the heartbeat was not renewed");
                Ok(())
            }
            Some(News::Applied(_)) => Ok(()),
            Some(News::Closed(error)) => Err(AgentError::Closed(error)),
            Some(News::Finished(..)) | None => Err(AgentError::Died),
        }
    }

    /// Answers every task whose answer has changed. Counters change all the time: they are told
    /// when something else is, and now and then.
    fn tell(&mut self, counters: bool) {
        self.told.retain(|key, _| self.tasks.contains_key(key));
        for key in self.tasks.keys().cloned().collect::<Vec<_>>() {
            let Some(answer) = self.answer(&key) else { continue };
            let is_news = self.told.get(&key).is_none_or(|told| {
                let mut status = told.status.clone();
                if !counters {
                    status.rules.clone_from(&answer.status.rules);
                    status.strains.clone_from(&answer.status.strains);
                }
                (told.is_over, status) != (answer.is_over, answer.status.clone())
            });
            if is_news {
                self.told.insert(key, answer.clone());
                // Nobody listens only when the process is ending.
                let _ = self.answers.send(answer);
            }
        }
    }

    fn answer(&self, key: &str) -> Option<Answer> {
        let task = self.tasks.get(key)?;
        let mut status = Status { observed_generation: task.generation, ..Status::default() };
        let lowered = self.lowered.get(key);
        if self.waiting.get(key).is_some_and(|since| since.elapsed() < WAIT) {
            return None;
        }
        match (lowered, self.refused.get(key)) {
            (Some(one), Some((_, reason))) => {
                let failed = |record: &NodeRecord| NodeRecord {
                    state: NodeState::Failed,
                    message: reason.clone(),
                    ..record.clone()
                };
                status.records = one.records.iter().map(failed).collect();
            }
            (Some(one), None) => {
                status.records =
                    one.records.iter().map(|record| self.record(one, record)).collect();
                status.rules = one.rules.iter().map(|rule| self.rule(rule)).collect();
                status.rules.extend(one.exchanges.iter().map(|one| self.exchange(one)));
                status.strains =
                    one.strains.iter().filter_map(|strain| self.strain(strain)).collect();
            }
            (None, _) => {
                status.records = ended(&task.spec);
                // The last counters stay readable.
                let told = self.told.get(key).map(|answer| &answer.status);
                status.rules = told.map(|told| told.rules.clone()).unwrap_or_default();
                status.strains = told.map(|told| told.strains.clone()).unwrap_or_default();
            }
        }
        let is = |state| status.records.iter().filter(|record| record.state == state).count();
        status.phase = match (is(NodeState::Injected), is(NodeState::Failed)) {
            (0, 0) => "Recovered",
            (_, 0) => "Injected",
            (0, _) => "Failed",
            _ => "Partly",
        }
        .to_owned();
        Some(Answer { key: key.to_owned(), status, is_over: lowered.is_none() })
    }

    /// What became of a target, its strain included. Another experiment's strain on the same
    /// target is no concern of this one.
    fn record(&self, one: &OnNode, record: &NodeRecord) -> NodeRecord {
        let target = container_name(&record.id);
        let own = one.strains.iter().find(|strain| strain.target == target);
        let unfit = own.and_then(|strain| self.unfit.get(&strain.id));
        match unfit {
            Some((_, reason)) if record.state == NodeState::Injected => {
                NodeRecord { state: NodeState::Failed, message: reason.clone(), ..record.clone() }
            }
            _ => record.clone(),
        }
    }

    fn strain(&self, strain: &Strain) -> Option<NodeStrain> {
        let (_, since) = self.since.get(&strain.id)?;
        let report = self.strains.get(&strain.id);
        Some(NodeStrain {
            strain: strain.id.clone(),
            record: strain.target.trim_start_matches("container:").to_owned(),
            describes: strain.describes.clone(),
            notes: report.map(|report| report.notes.clone()).unwrap_or_default(),
            since: Some(*since),
            figures: report.map(|report| report.figures.clone()).unwrap_or_default(),
        })
    }

    fn exchange(&self, exchange: &Exchange) -> NodeRule {
        let counters = self.exchanges.get(&exchange.id).map(|report| report.counters);
        counted::of_exchange(exchange, counters.unwrap_or_default())
    }

    fn rule(&self, rule: &Rule) -> NodeRule {
        let earlier = self.earlier.get(&rule.id).copied().unwrap_or_default();
        let now = self.reports.get(&rule.id).map(|report| told(&report.counters));
        counted::of_rule(rule, earlier, now.unwrap_or_default())
    }

    /// Ends every fault. Packets that are held back leave first, at most for some seconds: the
    /// container's grace period is short.
    async fn finish(mut self) {
        const PATIENCE: Duration = Duration::from_secs(5);
        self.driver.finish();
        let patience = tokio::time::sleep(PATIENCE);
        tokio::pin!(patience);
        loop {
            tokio::select! {
                news = self.driver.news.recv() => match news {
                    Some(News::Finished(_, Ok(()))) | None => return,
                    Some(News::Finished(_, Err(error))) => {
                        tracing::error!(%error, "not everything was recovered; the next start sweeps it");
                        return;
                    }
                    Some(_) => {}
                },
                () = &mut patience => self.driver.give_up(),
            }
        }
    }
}
