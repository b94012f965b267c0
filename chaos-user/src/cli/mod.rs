//! The command line: the only place that wires everything together.
//!
//! Owns: the grammar, exit codes, what people and scripts get to read. Refuses: deciding what a
//! fault does (`fault`), who is chosen (`select`) or how the kernel is changed (`engine`).

pub mod args;
mod clock;
mod cluster;
mod compose;
mod crds;
mod doctor;
mod events;
pub mod exit;
pub mod explain;
mod guard;
mod lines;
mod live;
mod names;
mod plot;
mod report;
mod rescue;
mod run;
mod session;
mod state;
mod stop;
mod sweep;
mod watch;
mod worker;
mod workloads;

use std::ffi::OsString;
use std::io::{self, Write};
use std::process::ExitCode;

use clap::{CommandFactory, Parser};

use self::args::{Cli, Command, Completion};
use self::exit::Exit;
use crate::engine::EngineError;

/// The whole program: what `kfault ARGS` does. `args` begins with the program's name.
pub fn main_with(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let Cli { command } = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are "errors" with code 0; a closed pipe is nobody's problem.
            let _ = error.print();
            return if error.use_stderr() { Exit::Refused.into() } else { Exit::Done.into() };
        }
    };
    crate::telemetry::init(command.log_format());
    match command {
        Command::Run(args) => run::run(&args),
        Command::Explain(args) => explain::run(&args),
        Command::Doctor(args) => doctor::doctor(&args),
        Command::Sweep(args) => sweep::sweep(&args),
        Command::Agent(args) => cluster::agent(&args),
        Command::Controller(args) => cluster::controller(&args),
        Command::Stop(args) => stop::stop(&args),
        Command::Crds(args) => crds::crds(&args),
        Command::Pause => cluster::pause(),
        Command::Worker(args) => worker::worker(args),
        Command::Guard(args) => guard::guard(&args),
        Command::Rescue(args) => rescue::rescue(&args),
        Command::Completion(args) => completion(&args),
    }
    .into()
}

fn completion(args: &Completion) -> Exit {
    let Completion { shell } = args;
    let mut script = Vec::new();
    clap_complete::generate(*shell, &mut Cli::command(), "kfault", &mut script);
    say(String::from_utf8_lossy(&script).trim_end());
    Exit::Done
}

/// The exit code that an engine's error calls for.
fn engine_exit(error: &EngineError) -> Exit {
    match error {
        EngineError::Busy { .. } | EngineError::Unsupported { .. } => Exit::Unable,
        _ => Exit::Failed,
    }
}

/// A line on stdout. A reader that has gone away is no error.
fn say(line: &str) {
    let _ = writeln!(io::stdout().lock(), "{line}");
}

/// A line on stderr.
fn complain(line: &str) {
    let _ = writeln!(io::stderr().lock(), "kfault: {line}");
}
