//! `kfault worker`: one worker of a stress experiment. The engine starts it; nobody else can.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::exit::Exit;
use crate::engine::strain::load::order::{Bounds, Order, Task};
use crate::engine::strain::load::work::work;

/// `kfault worker`
#[derive(Debug, Subcommand)]
pub enum Worker {
    /// Compute
    Cpu {
        /// Share of one processor
        #[arg(long)]
        percent: u32,
        /// Where and until when
        #[command(flatten)]
        within: Within,
    },
    /// Take memory and keep it
    Memory {
        /// How much
        #[arg(long)]
        bytes: u64,
        /// How long it takes to get there
        #[arg(long)]
        ramp_ns: u64,
        /// Its oom_score_adj
        #[arg(long, allow_negative_numbers = true)]
        oom_score_adj: i32,
        /// Where and until when
        #[command(flatten)]
        within: Within,
    },
    /// Flush the target's file system
    Sync {
        /// Where and until when
        #[command(flatten)]
        within: Within,
    },
    /// Write a file in the target's file system
    Disk {
        /// Size of the file
        #[arg(long)]
        bytes: u64,
        /// Where and until when
        #[command(flatten)]
        within: Within,
    },
}

/// Where a worker works, and until when. Times are nanoseconds of CLOCK_MONOTONIC.
#[derive(Args, Debug)]
pub struct Within {
    /// Directory of the cgroup to enter; one per hierarchy
    #[arg(long = "cgroup")]
    cgroups: Vec<PathBuf>,
    /// Process that the target ends with; 0: none
    #[arg(long)]
    leader: u32,
    /// When the work is over
    #[arg(long)]
    deadline_ns: Option<u64>,
    /// When it is over unless a beat comes
    #[arg(long)]
    until_ns: u64,
    /// Process whose child it is
    #[arg(long)]
    parent: u32,
}

/// Runs the command.
pub fn worker(args: Worker) -> Exit {
    match work(&order(args)) {
        Err(error) => {
            super::complain(&format!("worker: {error}"));
            Exit::Refused
        }
        Ok(never) => match never {},
    }
}

fn order(args: Worker) -> Order {
    let (task, within) = match args {
        Worker::Cpu { percent, within } => (Task::Cpu { percent }, within),
        Worker::Memory { bytes, ramp_ns, oom_score_adj, within } => {
            (Task::Memory { bytes, ramp_ns, oom_score_adj }, within)
        }
        Worker::Sync { within } => (Task::Sync, within),
        Worker::Disk { bytes, within } => (Task::Disk { bytes }, within),
    };
    let Within { cgroups, leader, deadline_ns, until_ns, parent } = within;
    Order { task, bounds: Bounds { cgroups, leader, deadline_ns, until_ns, parent } }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use clap::Parser;

    use super::*;
    use crate::cli::args::{Cli, Command};

    #[test]
    fn what_the_engine_writes_is_what_a_worker_reads() {
        let bounds = Bounds {
            cgroups: vec!["/sys/fs/cgroup/a b".into(), "/sys/fs/cgroup/cpu/-x".into()],
            leader: 12,
            deadline_ns: None,
            until_ns: u64::MAX,
            parent: 7,
        };
        for task in [
            Task::Cpu { percent: 30 },
            Task::Memory { bytes: 1 << 40, ramp_ns: 5, oom_score_adj: -1000 },
            Task::Memory { bytes: 0, ramp_ns: 0, oom_score_adj: 1000 },
            Task::Sync,
            Task::Disk { bytes: 4096 },
        ] {
            for deadline_ns in [None, Some(99)] {
                let written = Order { task, bounds: Bounds { deadline_ns, ..bounds.clone() } };
                let words = [OsString::from("kfault")].into_iter().chain(written.arguments());
                let Command::Worker(args) = Cli::try_parse_from(words).unwrap().command else {
                    panic!("no worker")
                };
                assert_eq!(order(args), written);
            }
        }
    }
}
