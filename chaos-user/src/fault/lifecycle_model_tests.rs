//! A cluster as a model: a controller that looks when it likes and may die between two writes,
//! agents that hear late, fail, die and are cut off, pods that come and go. Whatever happens in
//! whatever order, everything ends, and what the status says is so.

use proptest::prelude::*;

use super::*;
use crate::api::mode::Mode;
use crate::select::fill_up;

const NODES: usize = 3;
const PODS: usize = 4;
/// As the agent and the controller have them, in seconds.
const CUT_OFF: i64 = 30;
const LEASE: i64 = 5;
const SILENT: i64 = 40;

/// What a NodeFault asks for.
#[derive(Clone, Debug, Default, PartialEq)]
struct Ask {
    run: bool,
    until: Option<i64>,
    /// Uid by id.
    pods: BTreeMap<String, u64>,
}

/// A NodeFault.
#[derive(Clone, Debug, Default)]
struct NodeFault {
    generation: i64,
    ask: Ask,
    is_going: bool,
    /// Generation that the answer is about, and what became of each pod.
    answer: (i64, BTreeMap<String, NodeState>),
}

/// A node with its agent.
#[derive(Clone, Debug)]
struct Node {
    is_up: bool,
    is_connected: bool,
    fails: bool,
    renewed: i64,
    died: i64,
    /// Generation, what it was told, and whether that is on its way out.
    heard: Option<(i64, Ask, bool)>,
    /// Uids of pods in which the fault acts.
    acting: BTreeSet<u64>,
}

/// One thing that happens.
#[derive(Clone, Debug)]
enum Moment {
    /// The controller looks; `true`: and dies before it has asked the nodes.
    Look(bool),
    /// An agent hears what is asked and does it.
    Work(usize),
    /// An agent answers.
    Answer(usize),
    AgentUp(usize, bool),
    Connect(usize, bool),
    Fails(usize, bool),
    /// A pod comes, in the place of one that was there.
    Pod(usize, usize),
    PodGoes(usize),
    Pause(bool),
    Delete,
    Force,
    Pass(i64),
}

struct Cluster {
    now: i64,
    follows: bool,
    mode: Mode,
    duration: Option<i64>,
    is_paused: bool,
    is_deleted: bool,
    is_forced: bool,
    status: Status,
    /// The object holds the finalizer; it is gone when it is deleted without.
    exists: bool,
    uids: u64,
    /// Uid and node by id.
    pods: BTreeMap<String, (u64, usize)>,
    faults: BTreeMap<usize, NodeFault>,
    nodes: Vec<Node>,
}

fn id(pod: usize) -> String {
    format!("default/p{pod}")
}

impl Cluster {
    fn new(follows: bool, mode: Mode, duration: Option<i64>) -> Self {
        let node = Node {
            is_up: true,
            is_connected: true,
            fails: false,
            renewed: 0,
            died: 0,
            heard: None,
            acting: BTreeSet::new(),
        };
        Self {
            now: 0,
            follows,
            mode,
            duration,
            is_paused: false,
            is_deleted: false,
            is_forced: false,
            status: Status::default(),
            exists: true,
            uids: 0,
            pods: BTreeMap::new(),
            faults: BTreeMap::new(),
            nodes: vec![node; NODES],
        }
    }

    fn acting(&self) -> BTreeSet<u64> {
        self.nodes.iter().flat_map(|node| node.acting.iter().copied()).collect()
    }

    fn records(&self) -> &[Record] {
        self.status.experiment.container_records.as_deref().unwrap_or_default()
    }

    fn chosen_uid(&self, id: &str) -> Option<u64> {
        self.status.kfault.as_ref()?.chosen.get(id)?.parse().ok()
    }

    fn is(&self, kind: ConditionKind) -> bool {
        let is = |one: &Condition| one.kind == kind && one.status == Answer::True;
        self.status.conditions.iter().any(is)
    }

    fn happens(&mut self, moment: Moment) {
        match moment {
            Moment::Look(dies) => self.look(dies),
            Moment::Work(node) => self.work(node),
            Moment::Answer(node) => self.answer(node),
            Moment::AgentUp(at, is_up) => {
                let (now, node) = (self.now, &mut self.nodes[at]);
                if node.is_up && !is_up {
                    node.died = now;
                } else if !node.is_up && is_up {
                    // A new process: what the old one had in force is gone with it.
                    node.heard = None;
                    node.acting.clear();
                }
                node.is_up = is_up;
                self.renew(at);
            }
            Moment::Connect(node, is) => {
                self.nodes[node].is_connected = is;
                self.renew(node);
            }
            Moment::Fails(node, fails) => self.nodes[node].fails = fails,
            Moment::Pod(pod, node) => {
                self.pod_goes(pod);
                self.uids += 1;
                self.pods.insert(id(pod), (self.uids, node));
            }
            Moment::PodGoes(pod) => self.pod_goes(pod),
            Moment::Pause(is) => self.is_paused = is,
            Moment::Delete => self.is_deleted = true,
            Moment::Force => (self.is_deleted, self.is_forced) = (true, true),
            Moment::Pass(seconds) => (0..seconds).for_each(|_| self.pass()),
        }
    }

    /// An agent says that it is heard before it hears.
    fn renew(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        if node.is_up && node.is_connected {
            node.renewed = self.now;
        }
    }

    fn pod_goes(&mut self, pod: usize) {
        if let Some((uid, node)) = self.pods.remove(&id(pod)) {
            self.nodes[node].acting.remove(&uid);
        }
    }

    fn pass(&mut self) {
        self.now += 1;
        for node in &mut self.nodes {
            let is_over = node
                .heard
                .as_ref()
                .is_some_and(|(_, ask, _)| ask.until.is_some_and(|until| until <= self.now));
            if node.is_up && node.is_connected {
                node.renewed = self.now;
            } else if node.is_up && self.now - node.renewed >= CUT_OFF {
                node.heard = None;
                node.acting.clear();
            }
            // The kernel knows the end and the lease.
            if is_over || (!node.is_up && self.now - node.died >= LEASE) {
                node.acting.clear();
            }
        }
    }

    fn work(&mut self, at: usize) {
        let fault = self.faults.get(&at);
        let node = &mut self.nodes[at];
        if !node.is_up {
            return;
        }
        if node.is_connected {
            node.heard = fault.map(|fault| (fault.generation, fault.ask.clone(), fault.is_going));
        }
        node.acting.clear();
        let Some((_, ask, is_going)) = &node.heard else { return };
        let is_over = ask.until.is_some_and(|until| until <= self.now);
        if ask.run && !is_going && !is_over && !node.fails {
            let here = |(id, uid): &(&String, &u64)| self.pods.get(*id) == Some(&(**uid, at));
            node.acting = ask.pods.iter().filter(here).map(|(_, uid)| *uid).collect();
        }
    }

    fn answer(&mut self, at: usize) {
        let node = &self.nodes[at];
        let (Some((generation, ask, is_going)), Some(fault)) =
            (&node.heard, self.faults.get_mut(&at))
        else {
            return;
        };
        if !(node.is_up && node.is_connected) {
            return;
        }
        let is_over = ask.until.is_some_and(|until| until <= self.now);
        let state = |uid: &u64| match (node.acting.contains(uid), ask.run && !is_over) {
            (true, _) => NodeState::Injected,
            (false, true) => NodeState::Failed,
            (false, false) => NodeState::Recovered,
        };
        let states = ask.pods.iter().map(|(id, uid)| (id.clone(), state(uid)));
        fault.answer = (*generation, states.collect());
        if *is_going && node.acting.is_empty() {
            self.faults.remove(&at);
        }
    }

    /// Everybody that there shall be, with their uids.
    fn choose(&self) -> Result<BTreeMap<String, u64>, String> {
        let all = self.pods.iter().map(|(id, (uid, _))| (id.clone(), (id.clone(), *uid)));
        let is_first = self.status.experiment.container_records.is_none();
        if is_first && self.pods.is_empty() {
            return Err("no pod is selected".to_owned());
        }
        let kept = self.records().iter().filter_map(|record| {
            let (uid, _) = self.pods.get(&record.id)?;
            (self.chosen_uid(&record.id) == Some(*uid))
                .then(|| (record.id.clone(), (record.id.clone(), *uid)))
        });
        Ok(fill_up(self.mode, kept, all, 5).into_iter().collect())
    }

    fn world(&self) -> World {
        let at = |seconds: i64| Timestamp::from_second(1_800_000_000 + seconds).unwrap();
        let mut world = World {
            now: at(self.now),
            created: at(0),
            is_deleted: self.is_deleted,
            is_paused: self.is_paused,
            is_one_shot: false,
            is_for_nodes: true,
            follows: self.follows,
            duration: self.duration.map(|seconds| Duration::from_secs(seconds as u64)),
            chosen: None,
            identities: BTreeMap::new(),
            reports: BTreeMap::new(),
            counted: Counted::default(),
            warnings: Vec::new(),
        };
        let mut wanted: BTreeMap<String, Option<u64>> = self
            .records()
            .iter()
            .map(|record| (record.id.clone(), self.chosen_uid(&record.id)))
            .collect();
        if needs_choice(&self.status, &world) {
            let chosen = self.choose();
            if let Ok(chosen) = &chosen {
                wanted = chosen.iter().map(|(id, uid)| (id.clone(), Some(*uid))).collect();
                world.identities =
                    chosen.iter().map(|(id, uid)| (id.clone(), uid.to_string())).collect();
            }
            let keyed = |all: BTreeMap<String, u64>| {
                all.into_keys().map(|id| (".".to_owned(), id)).collect()
            };
            world.chosen = Some(chosen.map(keyed));
        }
        let desired = desired(&world);
        for (id, uid) in wanted {
            let asked = self.faults.iter().find_map(|(at, fault)| {
                (fault.ask.pods.get(&id).copied() == uid && uid.is_some()).then_some((*at, fault))
            });
            let asked = asked.map(|(at, fault)| Asked {
                node: "n",
                silent: (self.now - self.nodes[at].renewed > SILENT).then_some(SILENT as u64),
                answer: (fault.answer.0 == fault.generation)
                    .then(|| fault.answer.1.get(&id))
                    .flatten()
                    .map(|state| (*state, "x")),
            });
            let lives = self.pods.get(&id).map(|(uid, _)| *uid) == uid && uid.is_some();
            if let Some(report) = heard(&Known { lives, asked }, desired) {
                world.reports.insert((".".to_owned(), id), report);
            }
        }
        world
    }

    /// As the controller does it: what is to begin is on record first, what is to end is asked
    /// for first.
    fn look(&mut self, dies: bool) {
        if !self.exists {
            return;
        }
        let world = self.world();
        let Step { status, holds, .. } = step(&self.status, &world);
        let is_running = desired(&world) == DesiredPhase::Run;
        let keeps = (holds || (self.is_deleted && !self.faults.is_empty()))
            && !(self.is_deleted && self.is_forced);
        if !is_running {
            self.ask(&status, &world);
            if dies {
                return;
            }
        }
        self.status = status;
        self.exists = keeps;
        self.check(&world);
        if is_running && !dies {
            let status = self.status.clone();
            self.ask(&status, &world);
        }
        if !self.exists {
            // The garbage collector.
            self.faults.values_mut().for_each(|fault| fault.is_going = true);
        }
    }

    fn ask(&mut self, status: &Status, world: &World) {
        if self.is_deleted {
            self.faults.values_mut().for_each(|fault| fault.is_going = true);
            let is_silent = |at: &usize| self.now - self.nodes[*at].renewed > SILENT;
            self.faults.retain(|at, _| !is_silent(at));
            return;
        }
        let mut wanted: BTreeMap<usize, Ask> = BTreeMap::new();
        if desired(world) == DesiredPhase::Run {
            let chosen = status.kfault.as_ref().map(|summary| summary.chosen.clone());
            for record in status.experiment.container_records.iter().flatten() {
                let uid = chosen.as_ref().and_then(|all| all.get(&record.id)?.parse().ok());
                let here = self.pods.get(&record.id).filter(|(now, _)| Some(*now) == uid);
                let Some((uid, at)) = here else { continue };
                let ask = wanted.entry(*at).or_default();
                ask.pods.insert(record.id.clone(), *uid);
                (ask.run, ask.until) = (true, self.duration);
            }
        }
        for (at, ask) in &wanted {
            let fault = self.faults.entry(*at).or_default();
            if fault.ask != *ask {
                fault.ask = ask.clone();
                fault.generation += 1;
            }
        }
        for (_, fault) in self.faults.iter_mut().filter(|(at, _)| !wanted.contains_key(at)) {
            fault.generation += i64::from(fault.ask.run);
            fault.ask.run = false;
        }
    }

    /// What must hold after every look.
    fn check(&self, world: &World) {
        let records = self.records();
        for record in records {
            let open = record.injected_count - record.recovered_count;
            assert_eq!(open, i64::from(record.phase.is_injected()), "{record:?}");
        }
        let key = |record: &Record| (record.selector_key.clone(), record.id.clone());
        if self.is(ConditionKind::AllInjected) {
            let acts = |r: &Record| world.reports.get(&key(r)) == Some(&Report::Injected);
            assert!(!records.is_empty() && records.iter().all(acts), "{:?}", world.reports);
        }
        let is_stopped = desired(world) == DesiredPhase::Stop;
        if is_stopped && self.is(ConditionKind::AllRecovered) {
            assert!(self.acting().is_empty(), "AllRecovered, and it acts: {:?}", self.nodes);
        }
        if !self.exists && !self.is_forced {
            assert!(self.acting().is_empty(), "let go, and it acts: {:?}", self.nodes);
        }
    }

    /// Nobody dies or fails any more, and everybody gets their turn.
    fn is_fair_for_a_while(&mut self) {
        for node in 0..NODES {
            self.happens(Moment::Connect(node, true));
            self.happens(Moment::AgentUp(node, true));
            self.happens(Moment::Fails(node, false));
        }
        for _ in 0..6 {
            self.pass();
            // Time may just have run out: one more look sees the answers.
            for _ in 0..2 {
                self.happens(Moment::Look(false));
                (0..NODES).for_each(|node| self.work(node));
                (0..NODES).for_each(|node| self.answer(node));
            }
            self.happens(Moment::Look(false));
        }
    }
}

fn moment() -> impl Strategy<Value = Moment> {
    let node = 0..NODES;
    prop_oneof![
        6 => any::<bool>().prop_map(Moment::Look),
        6 => node.clone().prop_map(Moment::Work),
        6 => node.clone().prop_map(Moment::Answer),
        2 => (node.clone(), any::<bool>()).prop_map(|(node, is)| Moment::AgentUp(node, is)),
        2 => (node.clone(), any::<bool>()).prop_map(|(node, is)| Moment::Connect(node, is)),
        1 => (node.clone(), any::<bool>()).prop_map(|(node, is)| Moment::Fails(node, is)),
        4 => (0..PODS, node).prop_map(|(pod, node)| Moment::Pod(pod, node)),
        1 => (0..PODS).prop_map(Moment::PodGoes),
        2 => any::<bool>().prop_map(Moment::Pause),
        1 => Just(Moment::Delete),
        1 => Just(Moment::Force),
        3 => (1..60i64).prop_map(Moment::Pass),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    #[test]
    fn whatever_happens_everything_ends_and_the_status_tells_the_truth(
        follows: bool,
        one_of in prop_oneof![Just(Mode::All), Just(Mode::Fixed(2)), Just(Mode::One)],
        duration in proptest::option::of(1..90i64),
        moments in proptest::collection::vec(moment(), 0..60),
    ) {
        let mut cluster = Cluster::new(follows, one_of, duration);
        for moment in moments {
            cluster.happens(moment);
            // No fault acts past its end, whoever is dead.
            if duration.is_some_and(|duration| cluster.now >= duration) {
                prop_assert!(cluster.acting().is_empty());
            }
        }
        cluster.is_fair_for_a_while();
        let world = cluster.world();
        if cluster.exists && desired(&world) == DesiredPhase::Run {
            // Everybody who lives is reached, and nobody else.
            let wanted: BTreeSet<u64> =
                cluster.records().iter().filter_map(|one| cluster.chosen_uid(&one.id)).collect();
            let living: BTreeSet<u64> = cluster.pods.values().map(|(uid, _)| *uid).collect();
            prop_assert_eq!(cluster.acting(), wanted.intersection(&living).copied().collect());
            if follows && !cluster.pods.is_empty() {
                prop_assert!(cluster.is(ConditionKind::AllInjected), "{:?}", cluster.status);
            }
        }
        if cluster.exists && desired(&world) == DesiredPhase::Stop {
            prop_assert!(cluster.acting().is_empty());
            let is_recovered = cluster.is(ConditionKind::AllRecovered);
            prop_assert!(is_recovered || cluster.records().is_empty(), "{:?}", cluster.status);
        }
        cluster.happens(Moment::Delete);
        cluster.is_fair_for_a_while();
        prop_assert!(!cluster.exists && cluster.acting().is_empty() && cluster.faults.is_empty());
    }
}
