//! kfault itself under fault: its processes killed and stopped.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::super::Bench;
use super::{delayed, shop};

const PAUSE: &str = "experiment.chaos-mesh.org/pause";
/// A container that was killed is started again, and takes up its work.
const COMES_BACK: Duration = Duration::from_secs(45);

/// One of kfault's two programs.
#[derive(Clone, Copy)]
pub enum Program {
    Agent,
    Controller,
}

impl Program {
    fn word(self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::Controller => "controller",
        }
    }

    fn workload(self) -> &'static str {
        match self {
            Self::Agent => "daemonset/chaos-daemon",
            Self::Controller => "deployment/chaos-controller-manager",
        }
    }

    /// Sends a signal to it on every node that has it.
    pub fn signal(self, bench: &Bench<'_>, signal: &str) -> Result<()> {
        let hit = self.for_each(bench, &format!("kill -{signal} ${{p#/proc/}} && echo hit"))?;
        ensure!(hit > 0, "no {} runs", self.word());
        Ok(())
    }

    /// Whether it runs anywhere.
    pub fn runs(self, bench: &Bench<'_>) -> Result<bool> {
        Ok(self.for_each(bench, "echo one")? > 0)
    }

    /// Does something for each of its processes (`$p`); how many lines were said.
    fn for_each(self, bench: &Bench<'_>, what: &str) -> Result<usize> {
        let script = format!(
            "for p in /proc/[0-9]*; do tr '\\0' ' ' 2>/dev/null <$p/cmdline | \
             grep -q '^/kfault {}' && {what}; done; true",
            self.word()
        );
        let mut lines = 0;
        for node in bench.nodes()? {
            lines += bench.on_node(&node, "sh", &["-c", &script])?.lines().count();
        }
        Ok(lines)
    }

    /// New pods: the next crash is their first, so that nobody waits for a back-off.
    pub fn renew(self, bench: &Bench<'_>) -> Result<()> {
        let label = format!("app.kubernetes.io/component={}", self.word());
        let own = ["--namespace", "chaos-mesh"];
        bench.kubectl(&[&own[..], &["delete", "pod", "-l", &label, "--timeout=60s"]].concat())?;
        let status = ["rollout", "status", "--timeout=60s", self.workload()];
        bench.kubectl(&[&own[..], &status].concat()).map(drop)
    }
}

/// What an experiment is at when something dies.
#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    Injecting,
    Running,
    Pausing,
    Deleting,
}

pub fn agents(bench: &Bench<'_>) -> Result<()> {
    dies(bench, Program::Agent)
}

pub fn controller(bench: &Bench<'_>) -> Result<()> {
    dies(bench, Program::Controller)
}

fn dies(bench: &Bench<'_>, program: Program) -> Result<()> {
    for state in [State::Injecting, State::Running, State::Pausing, State::Deleting] {
        dies_in(bench, program, state).with_context(|| format!("killed while {state:?}"))?;
        program.renew(bench)?;
    }
    Ok(())
}

fn dies_in(bench: &Bench<'_>, program: Program, state: State) -> Result<()> {
    let name = "networkchaos/delay";
    bench.apply(&delayed("delay", &json!({})))?;
    if state != State::Injecting {
        bench.condition(name, "AllInjected")?;
        bench.connects("web", 200, 300)?;
    }
    match state {
        State::Pausing => bench.kubectl(&["annotate", name, &format!("{PAUSE}=true")]).map(drop)?,
        State::Deleting => bench.kubectl(&["delete", name, "--wait=false"]).map(drop)?,
        State::Injecting | State::Running => {}
    }
    program.signal(bench, "KILL")?;
    match state {
        State::Injecting | State::Running => {
            bench.within(COMES_BACK, "the delay to act", || {
                bench.condition(name, "AllInjected")?;
                Ok(bench.connects("web", 200, 300).is_ok())
            })?;
        }
        State::Pausing => {
            bench.within(COMES_BACK, "the pause", || {
                Ok(bench.condition(name, "AllRecovered").is_ok())
            })?;
            bench.connects("web", 0, 50)?;
        }
        State::Deleting => {}
    }
    bench.neighbour_is_well()?;
    bench.kubectl(&["delete", name, "--ignore-not-found", "--timeout=45s"])?;
    bench.connects("web", 0, 50)
}

/// An agent that is stopped renews nothing, and whoever does not want to wait for it need not.
pub fn force_clean(bench: &Bench<'_>) -> Result<()> {
    let name = "networkchaos/delay";
    bench.apply(&delayed("delay", &json!({})))?;
    bench.condition(name, "AllInjected")?;
    Program::Agent.signal(bench, "STOP")?;
    let done = forced(bench, name);
    Program::Agent.signal(bench, "CONT")?;
    done?;
    bench.until("what the agents were asked to go", || {
        Ok(bench.get(&["nodefaults"])?["items"].as_array().is_some_and(Vec::is_empty))
    })?;
    bench.connects("web", 0, 50)
}

fn forced(bench: &Bench<'_>, name: &str) -> Result<()> {
    bench.within(Duration::from_secs(7), "the lease to run out", || {
        Ok(bench.connects("web", 0, 50).is_ok())
    })?;
    bench.neighbour_is_well()?;
    bench.kubectl(&["delete", name, "--wait=false"])?;
    std::thread::sleep(Duration::from_secs(3));
    let held = bench.get(&[name])?;
    ensure!(held["metadata"]["finalizers"][0] == "chaos-mesh/records", "not held: {held}");
    let forced = "chaos-mesh.chaos-mesh.org/cleanFinalizer=forced";
    bench.kubectl(&["annotate", name, forced])?;
    bench.within(Duration::from_secs(5), "the object to go", || Ok(bench.get(&[name]).is_err()))?;
    Ok(())
}

/// A second agent on a node is refused, and the first one goes on.
pub fn two_agents(bench: &Bench<'_>) -> Result<()> {
    bench.apply(&delayed("delay", &json!({})))?;
    bench.condition("networkchaos/delay", "AllInjected")?;
    let agents = shop::pods(bench, "chaos-mesh", "app.kubernetes.io/component=agent")?;
    for agent in &agents {
        let second = ["--namespace", "chaos-mesh", "exec", &agent.name, "--", "/kfault", "agent"];
        let said = bench.kubectl(&second).err().context("a second agent runs")?;
        let said = format!("{said:#}");
        let is_refused = said.contains("exit code 3") && said.contains(": /kfault agent");
        ensure!(is_refused, "it does not name the first one: {said}");
    }
    bench.connects("web", 200, 300)?;
    bench.neighbour_is_well()?;
    bench.kubectl(&["delete", "networkchaos/delay", "--timeout=10s"])?;
    bench.connects("web", 0, 50)
}
