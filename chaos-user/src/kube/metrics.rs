//! What the controller counts, for Prometheus. Labels take a bounded number of values: never the
//! name of an object.
//!
//! Agents do not listen. What they count reaches the controller in the status of NodeFaults and is
//! shown here.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use super::cache::Cache;
use super::reconcile::SILENT;
use crate::api::kind::Kind;
use crate::api::nodefault::Counted;

type Labels<const N: usize> = [(&'static str, String); N];

/// Everything that is counted, and whether we are ready.
pub struct Metrics {
    registry: Registry,
    experiments: Family<Labels<2>, Gauge>,
    agents: Family<Labels<1>, Gauge>,
    matched: Family<Labels<1>, Counter>,
    injected: Family<Labels<1>, Counter>,
    passed: Family<Labels<2>, Counter>,
    events: Family<Labels<3>, Counter>,
    looks: Family<Labels<1>, Counter>,
    look_seconds: Histogram,
    admissions: Family<Labels<3>, Counter>,
    leads: Gauge<u64, AtomicU64>,
    is_ready: AtomicBool,
}

impl Default for Metrics {
    fn default() -> Self {
        let metrics = Self {
            registry: Registry::with_prefix("kfault"),
            experiments: Family::default(),
            agents: Family::default(),
            matched: Family::default(),
            injected: Family::default(),
            passed: Family::default(),
            events: Family::default(),
            looks: Family::default(),
            look_seconds: Histogram::new(exponential_buckets(0.001, 2.0, 14)),
            admissions: Family::default(),
            leads: Gauge::default(),
            is_ready: AtomicBool::new(false),
        };
        metrics.registered()
    }
}

impl Metrics {
    fn registered(mut self) -> Self {
        let all = &mut self.registry;
        all.register("experiments", "Experiments by kind and phase", self.experiments.clone());
        all.register("agents", "Nodes by the state of their agent", self.agents.clone());
        let text = "Decisions that rules of this kind had to make";
        all.register("decisions_matched", text, self.matched.clone());
        let text = "Decisions of rules of this kind to inject";
        all.register("decisions_injected", text, self.injected.clone());
        let text = "What rules of this kind could not read or change and let pass, by reason";
        all.register("decisions_passed", text, self.passed.clone());
        let text = "Events written, as kubectl describe shows them";
        all.register("events_emitted", text, self.events.clone());
        let text = "Looks at experiments and schedules";
        all.register("looks", text, self.looks.clone());
        let text = "How long a look takes, with its writes";
        all.register("look_seconds", text, self.look_seconds.clone());
        let text = "Admission requests by kind, question and answer";
        all.register("admission_requests", text, self.admissions.clone());
        all.register("leader", "1 while this controller leads", self.leads.clone());
        self
    }

    /// The text that Prometheus reads.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a string fails for no reason but a metric that cannot be written.
        if let Err(error) = encode(&mut text, &self.registry) {
            tracing::error!(%error, "metrics cannot be written");
        }
        text
    }

    /// Whether requests can be served.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.is_ready.load(Ordering::Relaxed)
    }

    /// From now on.
    pub fn ready(&self) {
        self.is_ready.store(true, Ordering::Relaxed);
    }

    /// Whether this controller is the one that works.
    pub fn leads(&self, leads: bool) {
        self.leads.set(u64::from(leads));
    }

    /// A look has ended.
    pub fn looked(&self, took: Duration, is_ok: bool) {
        let result = if is_ok { "ok" } else { "error" };
        self.looks.get_or_create(&[("result", result.to_owned())]).inc();
        self.look_seconds.observe(took.as_secs_f64());
    }

    /// An event is told.
    pub fn told(&self, kind: &str, reason: &str, is_warning: bool) {
        let kind = ("kind", kind.to_owned());
        let reason = ("reason", reason.to_owned());
        let sort = ("type", if is_warning { "Warning" } else { "Normal" }.to_owned());
        self.events.get_or_create(&[kind, reason, sort]).inc();
    }

    /// The API server was answered.
    pub fn asked(&self, kind: Kind, question: &str, is_allowed: bool) {
        let result = if is_allowed { "allowed" } else { "refused" };
        let labels = [
            ("kind", kind.name().to_owned()),
            ("question", question.to_owned()),
            ("result", result.to_owned()),
        ];
        self.admissions.get_or_create(&labels).inc();
    }

    /// What agents have counted since they were last heard.
    pub fn counted(&self, kind: &str, more: &Counted) {
        let label = [("kind", kind.to_owned())];
        self.matched.get_or_create(&label).inc_by(more.matched);
        self.injected.get_or_create(&label).inc_by(more.injected);
        for (reason, count) in &more.passed {
            let labels = [("kind", kind.to_owned()), ("reason", reason.clone())];
            self.passed.get_or_create(&labels).inc_by(*count);
        }
    }

    /// How many there are of what is known.
    pub fn known(&self, cache: &Cache, now: Timestamp) {
        let mut counts: BTreeMap<Labels<2>, i64> = BTreeMap::new();
        for (name, object) in &cache.experiments {
            let phase = object.data["status"]["kfault"]["phase"].as_str().unwrap_or("New");
            let labels = [("kind", name.kind.to_owned()), ("phase", phase.to_owned())];
            *counts.entry(labels).or_default() += 1;
        }
        // What there is no more of is not shown as it was.
        self.experiments.clear();
        for (labels, count) in counts {
            self.experiments.get_or_create(&labels).set(count);
        }
        let is_silent = |renewed: &&Timestamp| {
            Duration::try_from(now.duration_since(**renewed)).is_ok_and(|age| age > SILENT)
        };
        let silent = cache.agents.values().filter(is_silent).count();
        let all = cache.agents.len();
        for (state, count) in [("silent", silent), ("heard", all - silent)] {
            let label = [("state", state.to_owned())];
            self.agents.get_or_create(&label).set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_is_written() {
        let metrics = Metrics::default();
        metrics.told("PodChaos", "Applied", false);
        let passed = [("tls".to_owned(), 2)].into();
        metrics.counted("NetworkChaos", &Counted { matched: 10, injected: 3, passed });
        metrics.asked(Kind::Network, "validate", false);
        metrics.looked(Duration::from_millis(3), true);
        metrics.leads(true);
        metrics.known(&Cache::default(), Timestamp::UNIX_EPOCH);
        let text = metrics.text();
        for line in [
            "kfault_events_emitted_total{kind=\"PodChaos\",reason=\"Applied\",type=\"Normal\"} 1",
            "kfault_decisions_injected_total{kind=\"NetworkChaos\"} 3",
            "kfault_decisions_passed_total{kind=\"NetworkChaos\",reason=\"tls\"} 2",
            "kfault_looks_total{result=\"ok\"} 1",
            "kfault_leader 1",
            "kfault_agents{state=\"silent\"} 0",
        ] {
            assert!(text.lines().any(|written| written == line), "{line} is not in\n{text}");
        }
    }
}
