//! The one place that turns actions into effects. On failure it takes back, in reverse, what it
//! did before.

use std::sync::OnceLock;

use super::error::EngineError;
use super::kernel::Kernel;
use crate::plan::action::Action;

/// When an observer is told of an action.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// It is about to be done.
    Before,
    /// It has been done.
    After,
}

/// Is told of every action, before and after. The crash tests die in it.
pub type Observer = fn(&str, Stage);

static OBSERVER: OnceLock<Observer> = OnceLock::new();

/// Sets the process's observer. The first one stays.
pub fn set_fault_point_observer(observer: Observer) {
    let _ = OBSERVER.set(observer);
}

/// The names that an observer can be told.
#[must_use]
pub fn fault_points() -> Vec<String> {
    Action::NAMES.iter().map(|name| (*name).to_owned()).collect()
}

fn observed(kernel: &mut impl Kernel, action: &Action) -> Result<(), EngineError> {
    if let Some(observer) = OBSERVER.get() {
        observer(action.name(), Stage::Before);
    }
    tracing::debug!(?action, "perform");
    kernel.perform(action)?;
    if let Some(observer) = OBSERVER.get() {
        observer(action.name(), Stage::After);
    }
    Ok(())
}

/// Does all actions, or none.
///
/// # Errors
/// The error of the action that failed; [`EngineError::Undo`] when something before it could
/// not be taken back either.
pub fn execute(kernel: &mut impl Kernel, actions: &[Action]) -> Result<(), EngineError> {
    for (done, action) in actions.iter().enumerate() {
        let Err(error) = observed(kernel, action) else { continue };
        let mut left = Vec::new();
        for action in actions.iter().take(done).rev() {
            let undo = action.undo();
            match observed(kernel, &undo) {
                Ok(()) | Err(EngineError::Gone { .. }) => {}
                Err(error) => left.push(format!("{}: {error}", undo.name())),
            }
        }
        if left.is_empty() {
            return Err(error);
        }
        let doing = action.name().to_owned();
        return Err(EngineError::Undo { doing, left, source: Box::new(error) });
    }
    Ok(())
}

/// Does every action and goes on after failures: recovery takes away whatever it can. A target
/// that is gone is recovered.
///
/// # Errors
/// The first failure, after everything has been tried.
pub fn execute_all(kernel: &mut impl Kernel, actions: &[Action]) -> Result<(), EngineError> {
    let mut first = None;
    for action in actions {
        match observed(kernel, action) {
            Ok(()) | Err(EngineError::Gone { .. }) => {}
            Err(error) => {
                tracing::error!(action = action.name(), %error, "recovery step failed");
                first.get_or_insert(error);
            }
        }
    }
    first.map_or(Ok(()), Err)
}
