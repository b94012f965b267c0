//! What a run with one rule takes of the host's memory.

use std::fs;

use anyhow::{Context, Result};
use kfault_tests::manifest::Manifest;
use kfault_tests::net::Net;
use kfault_tests::probe::udp::Probe;

use super::goal::{Findings, Goal};
use crate::faulty::{on_client, probe, warm_up};
use kfault_tests::net::Family;

pub fn run(found: &mut Findings) -> Result<()> {
    let net = Net::new()?;
    warm_up(&net)?;
    let mut kfault = on_client(&net, &Manifest::delay("10ms"))?.start()?;
    // With packets on their way, and after the first report.
    probe(&net, Family::V4, &Probe::many(5000))?;
    kfault.event("counters")?;
    let pid = kfault.pid();
    let resident = kilobytes(pid, "VmRSS")?;
    let most = kilobytes(pid, "VmHWM")?;
    let kernel = maps(pid)?;
    kfault.stop()?;
    found.ours("kfault run, one rule, resident", "MB", resident / 1e3, Goal::AtMost(20.0));
    found.ours("the most that it ever was", "MB", most / 1e3, Goal::Told);
    found.ours("its BPF maps and programs in the kernel", "MB", kernel / 1e6, Goal::Told);
    Ok(())
}

/// A line of `/proc/PID/status`, in units of 1000 bytes.
pub fn kilobytes(pid: u32, key: &str) -> Result<f64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).context("read kfault's status")?;
    let line = text.lines().find_map(|line| line.strip_prefix(key));
    let number = line.and_then(|line| line.trim_matches([':', '\t', ' ']).split(' ').next());
    let number: f64 = number.with_context(|| format!("no {key}"))?.parse()?;
    Ok(number * 1.024)
}

/// Bytes that the kernel accounts to the process's BPF objects.
pub fn maps(pid: u32) -> Result<f64> {
    let mut bytes = 0.0;
    for file in fs::read_dir(format!("/proc/{pid}/fdinfo")).context("read kfault's files")? {
        let text = fs::read_to_string(file?.path()).unwrap_or_default();
        let lines = text.lines().filter_map(|line| line.strip_prefix("memlock:"));
        bytes += lines.filter_map(|line| line.trim().parse::<f64>().ok()).sum::<f64>();
    }
    Ok(bytes)
}
