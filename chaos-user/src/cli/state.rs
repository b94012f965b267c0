//! What a run knows about its rules, strains and exchanges while it goes on. Pure: the clock comes in as an argument.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use chaos_abi::counter::Counters;
use chaos_abi::http::HttpCounters;

use crate::api::figures::Figures;
use crate::engine::{Report, RuleReport};
use crate::plan::exchange::Exchange;
use crate::plan::strain::Strain;
use crate::plan::{Plan, Rule};

/// One rule and what became of it.
#[derive(Clone, Debug)]
pub struct RuleState {
    /// The rule as planned.
    pub rule: Rule,
    /// The last counters.
    pub counters: Counters,
    /// Matched packets per second, over the last two reports.
    pub rate: f64,
    /// How it acts: `fq`, `line`, `direct`.
    pub path: &'static str,
    /// Its target is gone.
    pub is_gone: bool,
    /// When its counters were last read.
    read_at: Option<Instant>,
}

/// One strain and what became of it.
#[derive(Clone, Debug)]
pub struct StrainState {
    /// The strain as planned.
    pub strain: Strain,
    /// The last figures.
    pub figures: Figures,
    /// What there is to say about it now.
    pub notes: Vec<String>,
    /// Its target is gone.
    pub is_gone: bool,
}

/// One exchange and what became of it.
#[derive(Clone, Debug)]
pub struct ExchangeState {
    /// The exchange as planned.
    pub exchange: Exchange,
    /// The last counters.
    pub counters: HttpCounters,
    /// Its target is gone.
    pub is_gone: bool,
}

/// What one experiment does, in the plan's order.
#[derive(Clone, Debug, Default)]
pub struct Share<'a> {
    /// Its rules.
    pub rules: Vec<&'a RuleState>,
    /// Its strains.
    pub strains: Vec<&'a StrainState>,
    /// Its exchanges.
    pub exchanges: Vec<&'a ExchangeState>,
}

/// Everything of a run.
#[derive(Clone, Debug)]
pub struct State {
    /// In the plan's order.
    pub rules: Vec<RuleState>,
    /// In the plan's order.
    pub strains: Vec<StrainState>,
    /// In the plan's order.
    pub exchanges: Vec<ExchangeState>,
    applied_at: Option<Instant>,
}

impl State {
    /// Nothing has happened yet.
    #[must_use]
    pub fn new(plan: &Plan) -> Self {
        let rules = plan.rules.iter().map(|rule| RuleState {
            rule: rule.clone(),
            counters: Counters::default(),
            rate: 0.0,
            path: "",
            is_gone: false,
            read_at: None,
        });
        let strains = plan.strains.iter().map(|strain| StrainState {
            strain: strain.clone(),
            figures: Figures::default(),
            notes: Vec::new(),
            is_gone: false,
        });
        let exchanges = plan.exchanges.iter().map(|exchange| ExchangeState {
            exchange: exchange.clone(),
            counters: HttpCounters::default(),
            is_gone: false,
        });
        Self {
            rules: rules.collect(),
            strains: strains.collect(),
            exchanges: exchanges.collect(),
            applied_at: None,
        }
    }

    /// The plan is true from now on.
    pub fn applied(&mut self, now: Instant) {
        self.applied_at = Some(now);
    }

    /// True once the plan was true.
    #[must_use]
    pub fn is_applied(&self) -> bool {
        self.applied_at.is_some()
    }

    /// Takes in counters and figures; returns what is new and worth a word: targets that have
    /// gone, and what strains have to say.
    pub fn take(&mut self, report: Report, now: Instant) -> Vec<String> {
        let mut news = Vec::new();
        for report in report.strains {
            let Some(state) = self.strains.iter_mut().find(|one| one.strain.id == report.id) else {
                continue;
            };
            let target = &state.strain.target;
            let new = report.notes.iter().filter(|note| !state.notes.contains(note));
            news.extend(new.map(|note| format!("{target}: {note}")));
            if !report.is_alive && !state.is_gone {
                state.is_gone = true;
                news.push(format!("{target} is gone, strain {} has ended", state.strain.id));
            }
            state.notes = report.notes;
            state.figures = report.figures;
        }
        for report in report.exchanges {
            let known = self.exchanges.iter_mut().find(|one| one.exchange.id == report.id);
            let Some(state) = known else { continue };
            state.counters = report.counters;
            if !report.is_alive && !state.is_gone {
                state.is_gone = true;
                let Exchange { target, id, .. } = &state.exchange;
                news.push(format!("{target} is gone, exchange {id} has ended"));
            }
        }
        for RuleReport { id, counters, path, alive, .. } in report.rules {
            let Some(state) = self.rules.iter_mut().find(|state| state.rule.id == id) else {
                continue;
            };
            if let Some(before) = state.read_at {
                let seconds = now.duration_since(before).as_secs_f64();
                if seconds > 0.0 {
                    let more = counters.matched.saturating_sub(state.counters.matched);
                    state.rate = more as f64 / seconds;
                }
            }
            state.counters = counters;
            state.path = path;
            state.read_at = Some(now);
            if !alive && !state.is_gone {
                state.is_gone = true;
                let Rule { target, id, .. } = &state.rule;
                news.push(format!("{target} is gone, rule {id} has ended"));
            }
        }
        news
    }

    /// How long the rule goes on; `None` = until it is interrupted.
    #[must_use]
    pub fn left(&self, rule: &RuleState, now: Instant) -> Option<Duration> {
        self.left_of(rule.is_gone, rule.rule.duration, now)
    }

    /// How long the strain goes on; `None` = until it is interrupted.
    #[must_use]
    pub fn strain_left(&self, strain: &StrainState, now: Instant) -> Option<Duration> {
        self.left_of(strain.is_gone, strain.strain.duration, now)
    }

    /// How long the exchange goes on; `None` = until it is interrupted.
    #[must_use]
    pub fn exchange_left(&self, exchange: &ExchangeState, now: Instant) -> Option<Duration> {
        self.left_of(exchange.is_gone, exchange.exchange.duration, now)
    }

    fn left_of(&self, is_gone: bool, duration: Option<Duration>, now: Instant) -> Option<Duration> {
        if is_gone {
            return Some(Duration::ZERO);
        }
        let since = self.applied_at.map_or(Duration::ZERO, |at| now.duration_since(at));
        Some(duration?.saturating_sub(since))
    }

    /// True when there was something to act on, and all of it has gone.
    #[must_use]
    pub fn is_all_gone(&self) -> bool {
        let Self { rules, strains, exchanges, .. } = self;
        let is_anything = !rules.is_empty() || !strains.is_empty() || !exchanges.is_empty();
        is_anything
            && self.rules.iter().all(|rule| rule.is_gone)
            && self.strains.iter().all(|strain| strain.is_gone)
            && self.exchanges.iter().all(|exchange| exchange.is_gone)
    }

    /// How long until everything is over; `None` = until it is interrupted.
    #[must_use]
    pub fn all_left(&self, now: Instant) -> Option<Duration> {
        let mut longest = Duration::ZERO;
        for rule in &self.rules {
            longest = longest.max(self.left(rule, now)?);
        }
        for strain in &self.strains {
            longest = longest.max(self.strain_left(strain, now)?);
        }
        for exchange in &self.exchanges {
            longest = longest.max(self.exchange_left(exchange, now)?);
        }
        Some(longest)
    }

    /// The experiments by name, each with its share.
    #[must_use]
    pub fn experiments(&self) -> BTreeMap<&str, Share<'_>> {
        let mut experiments: BTreeMap<&str, Share<'_>> = BTreeMap::new();
        for state in &self.rules {
            experiments.entry(&state.rule.experiment).or_default().rules.push(state);
        }
        for state in &self.strains {
            experiments.entry(&state.strain.experiment).or_default().strains.push(state);
        }
        for state in &self.exchanges {
            experiments.entry(&state.exchange.experiment).or_default().exchanges.push(state);
        }
        experiments
    }

    /// All of it.
    #[must_use]
    pub fn all(&self) -> Share<'_> {
        Share {
            rules: self.rules.iter().collect(),
            strains: self.strains.iter().collect(),
            exchanges: self.exchanges.iter().collect(),
        }
    }
}

impl Share<'_> {
    /// The targets, sorted, each once.
    #[must_use]
    pub fn targets(&self) -> Vec<String> {
        let rules = self.rules.iter().map(|state| state.rule.target.clone());
        let strains = self.strains.iter().map(|state| state.strain.target.clone());
        let exchanges = self.exchanges.iter().map(|state| state.exchange.target.clone());
        let mut targets: Vec<String> = rules.chain(strains).chain(exchanges).collect();
        targets.sort_unstable();
        targets.dedup();
        targets
    }
}

#[cfg(test)]
pub mod sample {
    use super::*;
    use crate::plan::{Device, Direction, Effects, Hook, Peers};

    /// A rule that acts on everything leaving `netns:web`.
    pub fn rule(id: &str, duration: Option<Duration>) -> Rule {
        Rule {
            id: id.into(),
            experiment: "NetworkChaos/default/web-delay".into(),
            target: "netns:web".into(),
            hook: Hook {
                device: Device { netns: "/run/netns/web".into(), inode: 7, name: "eth0".into() },
                direction: Direction::Egress,
                cgroup: None,
            },
            peers: Peers::default(),
            effects: Effects::default(),
            describes: "delay 500 ms ± 0 ms at egress of netns:web towards everyone".into(),
            declared: Some(1.0),
            seed: 1,
            duration,
            dry_run: false,
        }
    }

    /// Counters of a rule that acted on every second packet.
    pub fn report(id: &str, matched: u64, alive: bool) -> Report {
        let counters = Counters { matched, injected: matched / 2, ..Counters::default() };
        let rule = RuleReport { id: id.into(), counters, path: "fq", alive };
        Report { rules: vec![rule], ..Report::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(durations: &[(&str, Option<u64>)]) -> State {
        let rules = durations
            .iter()
            .map(|(id, seconds)| sample::rule(id, seconds.map(Duration::from_secs)))
            .collect();
        State::new(&Plan { rules, ..Plan::default() })
    }

    #[test]
    fn a_run_ends_when_its_last_rule_does() {
        let start = Instant::now();
        let mut state = state(&[("a", Some(10)), ("b", Some(30))]);
        state.applied(start);
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(state.all_left(at(5)), Some(Duration::from_secs(25)));
        assert_eq!(state.left(&state.rules[0], at(15)), Some(Duration::ZERO));
        assert_eq!(state.all_left(at(31)), Some(Duration::ZERO));
    }

    #[test]
    fn a_rule_without_duration_goes_on_until_its_target_is_gone() {
        let start = Instant::now();
        let mut state = state(&[("a", None), ("b", None)]);
        state.applied(start);
        assert_eq!(state.all_left(start), None);
        let gone = state.take(sample::report("a", 4, false), start);
        assert_eq!(gone.len(), 1);
        assert_eq!(state.all_left(start), None);
        assert!(state.take(sample::report("a", 4, false), start).is_empty(), "said once");
        state.take(sample::report("b", 4, false), start);
        assert_eq!(state.all_left(start), Some(Duration::ZERO));
    }

    #[test]
    fn the_rate_is_that_of_the_last_interval() {
        let start = Instant::now();
        let mut state = state(&[("a", None)]);
        state.take(sample::report("a", 100, true), start);
        assert_eq!(state.rules[0].rate, 0.0);
        state.take(sample::report("a", 300, true), start + Duration::from_secs(2));
        assert_eq!(state.rules[0].rate, 100.0);
    }
}
