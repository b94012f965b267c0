//! The object itself.

use std::process::ExitCode;

use anyhow::{Result, ensure};
use chaos_user::engine::load_report;

use crate::harness::{Done, Test, tests};

pub fn tests() -> Vec<Test> {
    tests!("bpf object": every_program_loads_and_attaches).into_iter().map(Test::smoke).collect()
}

/// Prints a table of all programs.
pub fn print() -> Result<ExitCode> {
    let programs = load_report()?;
    println!("{:20} {:>12}  {:8}  NOTE", "PROGRAM", "INSTRUCTIONS", "ATTACHED");
    for program in &programs {
        let instructions =
            program.verified_instructions.map_or_else(|| "?".into(), |n| n.to_string());
        let attached = if program.attached { "yes" } else { "no" };
        println!("{:20} {instructions:>12}  {attached:8}  {}", program.name, program.note);
    }
    let all = programs.iter().all(|program| program.attached);
    Ok(if all { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn every_program_loads_and_attaches() -> Result<Done> {
    let programs = load_report()?;
    ensure!(!programs.is_empty(), "the object holds no program");
    for program in programs {
        ensure!(program.attached, "{} does not attach: {}", program.name, program.note);
    }
    Ok(Done::Kept)
}
