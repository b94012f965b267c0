//! The kernel tests: one static program that makes its own namespaces and cgroups, runs kfault in
//! them as a user would, and measures from outside. Natively and in every VM it is the same file.
//!
//! ```text
//! kernel [FILTER] [--tier smoke|thrifty|full] [--part K/N] [--timing loose|exact] [--report FILE|-]
//! kernel load                  loads and attaches every program, prints what it cost to verify
//! kernel bench [ROW…] [--report FILE|-]   measures against netem, a plain path, what was declared
//! kernel soak --minutes N [--seed N]   injects and recovers at random and looks for leaks
//! kernel as-kfault ARGS…       is kfault
//! kernel worker …              is a worker of kfault's: what an engine in this program starts
//! kernel as-worker WORK          uses what a cgroup limits
//! kernel as-http PORT            is a server
//! kernel as-sender             sends what it is told on stdin, for tests of cgroups
//! kernel as-kfault-without-v2 ARGS…   is kfault on a host that has cgroup v1 alone
//! kernel as-kfault-crashing POINT before|after ARGS…   is kfault, and dies there
//! ```

mod bench;
mod cgroup;
mod coexist;
mod corrupt;
mod crash;
mod delay;
mod direction;
mod dns;
mod duplicate;
mod examples;
mod faulty;
mod harness;
mod http;
mod life;
mod load;
mod loss;
mod packets;
mod partition;
mod peers;
mod rate;
mod refusal;
mod soak;
mod stress;
mod throttle;

use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use chaos_user::engine::{Stage, set_fault_point_observer};

use kfault_tests::probe::http::serve_apart;
use kfault_tests::probe::process::obey;
use kfault_tests::probe::work::labour;

use harness::{Options, Test};

fn main() -> ExitCode {
    let mut args: Vec<OsString> = std::env::args_os().collect();
    let mode = args.get(1).and_then(|a| a.to_str()).unwrap_or_default().to_owned();
    let done = match mode.as_str() {
        "as-kfault" => {
            args.remove(1);
            return chaos_user::cli::main_with(args);
        }
        // What a kfault that we are starts for itself.
        "guard" | "rescue" => return chaos_user::cli::main_with(args),
        "as-kfault-crashing" => match crashing(&mut args) {
            Ok(()) => return chaos_user::cli::main_with(args),
            Err(error) => Err(error),
        },
        "as-kfault-without-v2" => {
            args.remove(1);
            match kfault_tests::cgroup::leave_v2() {
                Ok(()) => return chaos_user::cli::main_with(args),
                Err(error) => Err(error),
            }
        }
        // A worker of a stress experiment: the engine starts the program that it is part of.
        "worker" => return chaos_user::cli::main_with(args),
        "as-worker" => args
            .get(2)
            .and_then(|work| work.to_str())
            .context("WORK")
            .and_then(labour)
            .map(|()| ExitCode::SUCCESS),
        "as-http" => args
            .get(2)
            .and_then(|port| port.to_str())
            .context("PORT")
            .and_then(serve_apart)
            .map(|()| ExitCode::SUCCESS),
        "as-sender" => obey().map(|()| ExitCode::SUCCESS),
        "load" => load::print(),
        "bench" => bench::main(args),
        "soak" => soak::main(&args),
        _ => Options::parse(args).and_then(|options| harness::run(&options, all())),
    };
    match done {
        Ok(code) => code,
        Err(error) => {
            eprintln!("kernel: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn all() -> Vec<Test> {
    [
        load::tests(),
        delay::tests(),
        loss::tests(),
        duplicate::tests(),
        corrupt::tests(),
        rate::tests(),
        partition::tests(),
        peers::tests(),
        direction::tests(),
        dns::tests(),
        cgroup::tests(),
        coexist::tests(),
        life::tests(),
        examples::tests(),
        refusal::tests(),
        http::tests(),
        stress::tests(),
        packets::tests(),
        crash::tests(),
        throttle::tests(),
    ]
    .concat()
}

/// Where this process dies.
static DEATH: std::sync::OnceLock<(String, Stage)> = std::sync::OnceLock::new();

fn crashing(args: &mut Vec<OsString>) -> Result<()> {
    let word = |at: usize| args.get(at).and_then(|a| a.to_str()).context("POINT before|after");
    let point = word(2)?.to_owned();
    let stage = match word(3)? {
        "before" => Stage::Before,
        "after" => Stage::After,
        other => bail!("{other}: before or after"),
    };
    args.drain(1..4);
    // Nobody else sets it.
    let _ = DEATH.set((point, stage));
    set_fault_point_observer(die);
    Ok(())
}

fn die(point: &str, stage: Stage) {
    if DEATH.get().is_some_and(|(at, when)| at == point && *when == stage) {
        // SAFETY: plain call.
        unsafe { libc::kill(libc::getpid(), libc::SIGKILL) };
    }
}
