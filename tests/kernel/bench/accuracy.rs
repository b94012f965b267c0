//! Declared and observed shares, over a sample large enough to see a wrong one.

use std::time::Duration;

use anyhow::{Result, ensure};
use kfault_tests::manifest::Manifest;
use kfault_tests::net::{Family, Net};
use kfault_tests::probe::udp::{Outcome, Probe};
use kfault_tests::stats::interval;
use serde_json::json;

use super::goal::{Findings, Goal};
use super::under_kfault;
use crate::faulty::{probe, warm_up};

const PACKETS: usize = 50_000;
const LATENCY_MS: f64 = 30.0;

/// Figure, manifest, declared share, and what shows it.
type Case = (&'static str, Manifest, f64, fn(&Outcome) -> usize);

pub fn run(found: &mut Findings) -> Result<()> {
    let net = Net::new()?;
    warm_up(&net)?;
    let corrupt = || Manifest::new("corrupt").with("corrupt", json!({"corrupt": "2"}));
    let cases: [Case; 6] = [
        ("loss of 10 %", Manifest::loss("10"), 0.1, Outcome::lost),
        ("loss of 0.5 %", Manifest::loss("0.5"), 0.005, Outcome::lost),
        (
            "duplicates of 5 %",
            Manifest::new("duplicate").with("duplicate", json!({"duplicate": "5"})),
            0.05,
            Outcome::duplicates,
        ),
        ("corrupt of 2 %, on the wire", corrupt(), 0.02, Outcome::lost),
        (
            "corrupt of 2 %, in the payload",
            corrupt().with("kfault", json!({"corrupt": "payload"})),
            0.02,
            |outcome| outcome.wrong,
        ),
        (
            "reorder of 25 %",
            Manifest::new("delay").with(
                "delay",
                json!({
                    "latency": format!("{LATENCY_MS}ms"),
                    "reorder": {"reorder": "25", "gap": 1, "correlation": "0"},
                }),
            ),
            0.25,
            overtakers,
        ),
    ];
    for (figure, manifest, declared, count) in cases {
        // The generator must not lose anything by itself, or the sample says nothing.
        let shape = Probe { every: Duration::from_millis(1), pinned: true, ..Probe::many(PACKETS) };
        let outcome = under_kfault(&net, &manifest, || probe(&net, Family::V4, &shape))?;
        ensure!(
            outcome.sent == PACKETS && outcome.errors.is_empty(),
            "{figure}: {}",
            outcome.describe()
        );
        let hits = count(&outcome) as u64;
        let (low, high) = interval(hits, PACKETS as u64);
        let observed = hits as f64 / PACKETS as f64;
        let peer = ("declared", declared);
        found.against(figure, "share", observed, peer, Goal::Inside(low, high));
    }
    Ok(())
}

/// Packets that left at once.
fn overtakers(outcome: &Outcome) -> usize {
    outcome.delays.iter().flatten().filter(|delay| **delay < LATENCY_MS / 2.0).count()
}
