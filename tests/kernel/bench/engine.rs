//! How long it takes until a fault acts.

use std::net::UdpSocket;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use chaos_user::engine::{Engine, Options};
use chaos_user::plan::{Effects, Peers, Plan, Rule};
use kfault_tests::clock::{now_ns, wait_for};
use kfault_tests::manifest::Manifest;
use kfault_tests::net::{DEVICE, Net};
use kfault_tests::ns::Ns;
use kfault_tests::stats::quantile;

use super::goal::{Findings, Goal};
use super::targets::{self, delay, device, lonely, loss, rule};
use super::ticker::Ticker;
use crate::faulty::{on_client, warm_up};

const ROUNDS: usize = 7;
const HELD: Duration = Duration::from_millis(200);
const NAMESPACES: usize = 100;
const ATTACHED: usize = 1000;

pub fn run(found: &mut Findings) -> Result<()> {
    let net = Net::new()?;
    warm_up(&net)?;
    cold(found, &net)?;
    let mut engine = targets::engine()?;
    for (what, effects) in [("loss", loss(1.0)), ("delay", delay(HELD))] {
        one(found, &net, &mut engine, what, &effects)?;
    }
    drop(net);
    hundred(found, &mut engine)?;
    thousand(found, &mut engine)
}

fn ms(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e3
}

/// From nothing: loading and verifying the object, and a whole `kfault run`.
fn cold(found: &mut Findings, net: &Net) -> Result<()> {
    let (mut open, mut run) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        let start = Instant::now();
        let engine = Engine::open(&Options::default()).context("open the engine")?;
        open.push(ms(start));
        drop(engine);
        let command = on_client(net, &Manifest::loss("100"))?;
        let start = Instant::now();
        let kfault = command.start()?;
        run.push(ms(start));
        kfault.stop()?;
    }
    found.ours("cold start of the engine", "ms", quantile(&open, 0.5), Goal::Told);
    found.ours("cold start of kfault run, to applied", "ms", quantile(&run, 0.5), Goal::Told);
    Ok(())
}

/// From `apply` to the first packet that feels it.
fn one(
    found: &mut Findings,
    net: &Net,
    engine: &mut Engine,
    what: &str,
    effects: &Effects,
) -> Result<()> {
    let device = device(&net.client.ns, DEVICE)?;
    let plan = targets::plan(vec![rule(&device, effects.clone(), Peers::default())]);
    let mut took = Vec::new();
    for _ in 0..ROUNDS {
        let ticker = Ticker::start(net)?;
        std::thread::sleep(Duration::from_millis(100));
        let start = now_ns();
        targets::apply(engine, &plan)?;
        // Until what was sent first has surely arrived.
        std::thread::sleep(HELD + Duration::from_millis(100));
        let first = ticker.first_affected(start, HELD)?;
        let first = first.with_context(|| format!("no packet was affected by {what}"))?;
        took.push((first - start) as f64 / 1e6);
        engine.recover(&|| true)?;
    }
    let figure = format!("one target, {what}: apply to first packet");
    found.ours(figure, "ms", quantile(&took, 0.5), Goal::AtMost(50.0));
    Ok(())
}

/// A hundred namespaces at once; every one of them must feel it when `apply` returns.
fn hundred(found: &mut Findings, engine: &mut Engine) -> Result<()> {
    let namespaces: Vec<Ns> =
        (0..NAMESPACES).map(|n| lonely(&format!("many-{n}"))).collect::<Result<_>>()?;
    for (what, effects) in [("loss", loss(1.0)), ("delay", delay(HELD))] {
        let rules = namespaces
            .iter()
            .map(|ns| Ok(rule(&device(ns, DEVICE)?, effects.clone(), Peers::default())))
            .collect::<Result<Vec<Rule>>>()?;
        let plan = targets::plan(rules);
        let mut took = Vec::new();
        for _ in 0..3 {
            let start = Instant::now();
            targets::apply(engine, &plan)?;
            took.push(ms(start));
            for ns in &namespaces {
                speak(ns)?;
            }
            let silent =
                engine.report()?.rules.into_iter().find(|r| r.counters.matched == 0).map(|r| r.id);
            ensure!(silent.is_none(), "{silent:?} does not act after apply");
            engine.recover(&|| true)?;
        }
        let figure = format!("{NAMESPACES} namespaces, {what}: apply until all act");
        found.ours(figure, "ms", quantile(&took, 0.5), Goal::AtMost(250.0));
    }
    Ok(())
}

/// One packet out of the device.
fn speak(ns: &Ns) -> Result<()> {
    ns.run(|| {
        let socket = UdpSocket::bind(("10.88.0.2", 0)).context("bind")?;
        socket.send_to(&[0; 8], ("10.88.0.1", 9)).context("send")?;
        Ok(())
    })
}

/// A thousand hooks that are there and idle, armed at once.
fn thousand(found: &mut Findings, engine: &mut Engine) -> Result<()> {
    let ns = Ns::new("attached")?;
    let lines: Vec<String> = (0..ATTACHED / 2)
        .map(|pair| format!("link add a{pair} type veth peer name b{pair}"))
        .collect();
    ns.batch(&lines.iter().map(String::as_str).collect::<Vec<_>>())?;
    let rules = (0..ATTACHED)
        .map(|n| {
            let name = format!("{}{}", if n % 2 == 0 { "a" } else { "b" }, n / 2);
            Ok(rule(&device(&ns, &name)?, loss(1.0), Peers::default()))
        })
        .collect::<Result<Vec<Rule>>>()?;
    let plan: Plan = targets::plan(rules);
    let start = Instant::now();
    targets::apply(engine, &plan)?;
    let attach = ms(start);
    let (mut arm, mut disarm) = (Vec::new(), Vec::new());
    for _ in 0..5 {
        let start = Instant::now();
        engine.disarm()?;
        disarm.push(ms(start));
        let start = Instant::now();
        targets::apply(engine, &plan)?;
        arm.push(ms(start));
    }
    let figure = format!("{ATTACHED} attached targets: arming");
    found.ours(figure, "ms", quantile(&arm, 0.5), Goal::AtMost(100.0));
    let figure = format!("{ATTACHED} attached targets: disarming");
    found.ours(figure, "ms", quantile(&disarm, 0.5), Goal::Told);
    found.ours(format!("{ATTACHED} targets: attaching and arming"), "ms", attach, Goal::Told);
    let start = Instant::now();
    engine.recover(&|| true)?;
    found.ours(format!("{ATTACHED} targets: recovering"), "ms", ms(start), Goal::Told);
    ensure!(
        wait_for(Duration::from_secs(5), || kfault_tests::bpf::held_by_us().links.is_empty()),
        "links are left after recovery"
    );
    Ok(())
}
