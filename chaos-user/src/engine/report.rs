//! What tests and `xtask load` ask of the engine.

use std::collections::BTreeMap;

use super::error::EngineError;
use super::object::ProgramReport;
use super::{Engine, Options, bpf, probe};
use crate::plan::Plan;
use crate::plan::action::Point;

/// Loads and attaches every program once; verified instructions per program.
///
/// # Errors
/// With the verifier's words when a program is refused.
pub fn load_report() -> Result<Vec<ProgramReport>, EngineError> {
    probe::attach_all()
}

/// Applies a plan, runs packets through the program of one of its points, recovers.
///
/// # Errors
/// What the engine or the kernel says.
pub fn test_run(
    plan: &Plan,
    point: &Point,
    packets: &[Vec<u8>],
    repeat: u32,
) -> Result<Vec<bpf::Ran>, EngineError> {
    let mut engine = Engine::open(&Options::default())?;
    engine.apply(plan, &BTreeMap::new())?;
    packets.iter().map(|packet| engine.test_run(point, packet, repeat)).collect()
}
