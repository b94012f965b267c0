//! The JSON events of a run, one object per line: a contract with scripts.

use std::time::{Duration, Instant};

use chaos_abi::http::{HttpCounters, passed};
use serde_json::{Map, Value, json};

use super::clock;
use super::exit::{Exit, Stop};
use super::state::{ExchangeState, RuleState, Share, State, StrainState};

/// What the events of one run have in common.
#[derive(Clone, Debug)]
pub struct Events {
    /// The seed in force.
    pub seed: u64,
    /// Nothing is harmed.
    pub dry_run: bool,
}

impl Events {
    /// The plan is true.
    pub fn applied(&self, experiment: &str, share: &Share<'_>) -> Value {
        let rules: Vec<Value> = share.rules.iter().map(|state| planned(state)).collect();
        let strains = share.strains.iter().map(|state| strain_planned(state)).collect();
        let exchanges = share.exchanges.iter().map(|state| exchange_planned(state)).collect();
        event(
            "applied",
            experiment.into(),
            json!({
                "seed": self.seed,
                "dryRun": self.dry_run,
                "targets": share.targets(),
                "rules": rules,
            }),
            (strains, exchanges),
        )
    }

    /// Counters and figures of an experiment's share of `state`, with the seconds that each goes on.
    pub fn counters(
        &self,
        experiment: &str,
        share: &Share<'_>,
        state: &State,
        now: Instant,
    ) -> Value {
        let rule = |one: &&RuleState| {
            let mut rule = counted(one);
            rule.insert("matchedPerSecond".into(), json!(one.rate));
            rule.insert("secondsLeft".into(), seconds(state.left(one, now)));
            Value::Object(rule)
        };
        let strain = |one: &&StrainState| {
            let mut strain = strained(one);
            strain["secondsLeft"] = seconds(state.strain_left(one, now));
            strain
        };
        let exchange = |one: &&ExchangeState| {
            let mut exchange = exchanged(one);
            exchange["secondsLeft"] = seconds(state.exchange_left(one, now));
            exchange
        };
        let rules: Vec<Value> = share.rules.iter().map(rule).collect();
        let others = (
            share.strains.iter().map(strain).collect(),
            share.exchanges.iter().map(exchange).collect(),
        );
        event("counters", experiment.into(), json!({ "rules": rules }), others)
    }

    /// Nothing of the experiment is left.
    pub fn recovered(&self, experiment: &str, reason: &str) -> Value {
        event("recovered", experiment.into(), json!({"reason": reason}), Others::default())
    }

    /// Something went wrong. `experiment` is unknown where it is about all of them.
    pub fn failed(experiment: Option<&str>, stop: &Stop) -> Value {
        event(
            "failed",
            experiment.into(),
            json!({
                "exit": stop.exit.code(),
                "error": stop.messages.join("; "),
                "errors": stop.messages,
            }),
            Others::default(),
        )
    }

    /// The last line of every run.
    pub fn summary(seed: Option<u64>, state: Option<&State>, exit: Exit) -> Value {
        let share = state.map(State::all).unwrap_or_default();
        let names: Vec<&str> =
            state.map(|state| state.experiments().into_keys().collect()).unwrap_or_default();
        let experiment = match names.as_slice() {
            [one] => json!(one),
            _ => Value::Null,
        };
        let counted: Vec<Value> = share.rules.iter().map(|s| Value::Object(counted(s))).collect();
        event(
            "summary",
            experiment,
            json!({
                "experiments": names,
                "seed": seed,
                "exit": exit.code(),
                "targets": share.targets(),
                "rules": counted,
            }),
            (
                share.strains.iter().map(|state| strained(state)).collect(),
                share.exchanges.iter().map(|state| exchanged(state)).collect(),
            ),
        )
    }
}

/// Strains and exchanges.
type Others = (Vec<Value>, Vec<Value>);

/// An event. Strains and exchanges are mentioned where there are some.
fn event(name: &str, experiment: Value, more: Value, (strains, exchanges): Others) -> Value {
    let mut object = Map::new();
    object.insert("event".into(), name.into());
    object.insert("time".into(), clock::now().into());
    object.insert("experiment".into(), experiment);
    if let Value::Object(more) = more {
        object.extend(more);
    }
    if !strains.is_empty() {
        object.insert("strains".into(), strains.into());
    }
    if !exchanges.is_empty() {
        object.insert("exchanges".into(), exchanges.into());
    }
    Value::Object(object)
}

fn planned(state: &RuleState) -> Value {
    let rule = &state.rule;
    json!({
        "rule": rule.id,
        "describes": rule.describes,
        "target": rule.target,
        "declared": rule.declared,
    })
}

fn strain_planned(state: &StrainState) -> Value {
    let strain = &state.strain;
    json!({
        "strain": strain.id,
        "describes": strain.describes,
        "target": strain.target,
        "cgroup": strain.place.cgroup.path,
    })
}

fn strained(state: &StrainState) -> Value {
    let mut object = strain_planned(state);
    object["experiment"] = json!(state.strain.experiment);
    object["figures"] = json!(state.figures);
    object["notes"] = json!(state.notes);
    object["targetGone"] = json!(state.is_gone);
    object
}

fn exchange_planned(state: &ExchangeState) -> Value {
    let exchange = &state.exchange;
    json!({
        "exchange": exchange.id,
        "describes": exchange.describes,
        "target": exchange.target,
    })
}

fn exchanged(state: &ExchangeState) -> Value {
    let HttpCounters { seen, matched, acted, passed } = state.counters;
    let mut object = exchange_planned(state);
    object["experiment"] = json!(state.exchange.experiment);
    object["seen"] = json!(seen);
    object["matched"] = json!(matched);
    object["injected"] = json!(acted);
    let reasons = passed::NAMES.into_iter().zip(passed).filter(|(_, count)| *count > 0);
    object["passed"] = reasons.map(|(name, count)| (name.to_owned(), json!(count))).collect();
    object["targetGone"] = json!(state.is_gone);
    object
}

fn seconds(left: Option<Duration>) -> Value {
    json!(left.map(|left| left.as_secs_f64()))
}

fn counted(state: &RuleState) -> Map<String, Value> {
    let RuleState { rule, counters: c, path, is_gone, rate: _, .. } = state;
    let object = json!({
        "rule": rule.id,
        "experiment": rule.experiment,
        "target": rule.target,
        "describes": rule.describes,
        "declared": rule.declared,
        "matched": c.matched,
        "injected": c.injected,
        "matchedWire": c.matched_wire,
        "injectedWire": c.injected_wire,
        "bytes": c.bytes,
        "refused": c.refused,
        "lost": c.lost,
        "corrupted": c.corrupted,
        "duplicated": c.duplicated,
        "delayed": c.delayed,
        "reordered": c.reordered,
        "shaped": c.shaped,
        "overlimit": c.overlimit,
        "answered": c.answered,
        "unreadable": c.unreadable,
        "path": path,
        "targetGone": is_gone,
    });
    match object {
        Value::Object(object) => object,
        _ => Map::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::state::sample;
    use super::*;
    use crate::plan::Plan;

    #[test]
    fn the_summary_follows_the_contract() {
        let mut state =
            State::new(&Plan { rules: vec![sample::rule("a", None)], ..Plan::default() });
        state.take(sample::report("a", 10, true), Instant::now());
        let summary = Events::summary(Some(7), Some(&state), Exit::Done);
        assert_eq!(summary["event"], "summary");
        assert_eq!(summary["experiment"], "NetworkChaos/default/web-delay");
        assert_eq!(summary["targets"], json!(["netns:web"]));
        let rule = &summary["rules"][0];
        assert_eq!(rule["rule"], "a");
        assert_eq!(rule["declared"], 1.0);
        assert_eq!((&rule["matched"], &rule["injected"]), (&json!(10), &json!(5)));
        assert!(rule["describes"].as_str().unwrap().starts_with("delay 500 ms"));
    }

    #[test]
    fn a_refused_run_has_an_empty_summary() {
        let summary = Events::summary(None, None, Exit::Refused);
        assert_eq!(summary["exit"], 2);
        assert_eq!((&summary["targets"], &summary["rules"]), (&json!([]), &json!([])));
        let failed = Events::failed(None, &Stop::one(Exit::Refused, "no"));
        assert_eq!((&failed["experiment"], &failed["errors"]), (&Value::Null, &json!(["no"])));
    }
}
