//! From a request to the packets: pings to pods whose answers an experiment delays. When an
//! answer was asked for is the moment it arrived less what it took, so that a ping that is late
//! by itself does no harm to the figure.

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::super::{CONTROL, network};
use super::goal::{Findings, Goal};
use super::request::Running;
use super::{Bench, MANY, quantiles};

/// The delay that is injected, and the time of an answer from which on it was delayed.
const DELAY: &str = "100ms";
const IS_DELAYED: f64 = 0.05;
/// Experiments one after the other.
const ROUNDS: usize = 30;
const ROUNDS_OF_FIFTY: usize = 5;

const PATH: &str = "apis/chaos-mesh.org/v1alpha1/namespaces/default/networkchaos";

pub fn one(bench: &Bench<'_>, findings: &mut Findings) -> Result<()> {
    let (name, address) = bench.pods("target")?.into_iter().next().context("no pod")?;
    let selector = json!({ "pods": { "default": [name] } });
    let pings = [Ping::start(&address, "0.004")?];
    let (mut applied, mut recovered) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let (first, last) = around(bench, &pings, &selector, round)?;
        applied.extend(first);
        recovered.extend(last);
    }
    let goal = Goal::AtMost(300.0);
    quantiles(findings, "created → first affected packet, one pod", applied, goal);
    quantiles(findings, "deleted → last affected packet, one pod", recovered, goal);
    Ok(())
}

pub fn fifty(bench: &Bench<'_>, findings: &mut Findings) -> Result<()> {
    let pods = bench.pods("target")?;
    ensure!(pods.len() == MANY, "{} pods instead of {MANY}", pods.len());
    let pings: Vec<Ping> =
        pods.iter().map(|(_, address)| Ping::start(address, "0.05")).collect::<Result<_>>()?;
    let selector = json!({ "labelSelectors": { "app": "target" } });
    let (mut applied, mut recovered) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS_OF_FIFTY {
        let (first, last) = around(bench, &pings, &selector, round)?;
        // All of them: the last one counts.
        applied.push(first.into_iter().fold(0.0, f64::max));
        recovered.push(last.into_iter().fold(0.0, f64::max));
    }
    quantiles(findings, "created → all of 50 pods affected", applied, Goal::AtMost(1000.0));
    quantiles(findings, "deleted → last affected packet of 50 pods", recovered, Goal::Told);
    Ok(())
}

/// One experiment: for each ping, the seconds from the creation to the first packet that was
/// delayed, and from the deletion to the last one.
fn around(
    bench: &Bench<'_>,
    pings: &[Ping],
    selector: &Value,
    round: usize,
) -> Result<(Vec<f64>, Vec<f64>)> {
    let name = format!("bench-{round}");
    let object = json!({
        "apiVersion": "chaos-mesh.org/v1alpha1",
        "kind": "NetworkChaos",
        "metadata": { "name": name },
        "spec": {
            "action": "delay",
            "mode": "all",
            "selector": selector,
            "delay": { "latency": DELAY },
        },
    });
    for ping in pings {
        ping.forget();
    }
    let created = bench.server.post(PATH, &object)?;
    bench.until("every pod to be affected", || {
        Ok(pings.iter().all(|ping| !ping.delayed().is_empty()))
    })?;
    std::thread::sleep(Duration::from_millis(500));
    let first = pings.iter().filter_map(|ping| Some(ping.delayed().first()? - created)).collect();
    let deleted = bench.server.delete(&format!("{PATH}/{name}"))?;
    bench.until("the experiment to go", || {
        let list = bench.server.get(PATH)?;
        Ok(list["items"].as_array().is_some_and(Vec::is_empty))
    })?;
    // What was decided before is still on its way.
    std::thread::sleep(Duration::from_millis(700));
    let last = pings.iter().filter_map(|ping| Some(ping.delayed().last()? - deleted)).collect();
    Ok((first, last))
}

/// A ping that runs, and when its packets that were delayed were sent.
struct Ping {
    _process: Running,
    delayed: Arc<Mutex<Vec<f64>>>,
}

impl Ping {
    fn start(address: &str, interval: &str) -> Result<Self> {
        let mut command = network::inside(CONTROL)?;
        command.args(["ping", "-D", "-n", "-i", interval, address]);
        let mut process = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
        let out = process.stdout.take().context("ping has no output")?;
        let delayed = Arc::new(Mutex::new(Vec::new()));
        let heard = delayed.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                if let Some((at, took)) = read(&line).filter(|(_, took)| *took > IS_DELAYED) {
                    heard.lock().unwrap_or_else(PoisonError::into_inner).push(at - took);
                }
            }
        });
        Ok(Self { _process: Running(process), delayed })
    }

    fn forget(&self) {
        self.delayed.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    fn delayed(&self) -> Vec<f64> {
        self.delayed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// When an answer arrived and how long it took, in seconds.
fn read(line: &str) -> Option<(f64, f64)> {
    let (at, rest) = line.strip_prefix('[')?.split_once(']')?;
    let (_, took) = rest.split_once("time=")?;
    Some((at.parse().ok()?, took.strip_suffix(" ms")?.parse::<f64>().ok()? / 1e3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_says_when_it_came_and_how_long_it_took() {
        let line = "[1764080000.250000] 64 bytes from 10.244.1.2: icmp_seq=3 ttl=63 time=100 ms";
        assert_eq!(read(line), Some((1764080000.25, 0.1)));
        assert_eq!(read("PING 10.244.1.2 (10.244.1.2) 56(84) bytes of data."), None);
    }
}
