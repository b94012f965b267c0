//! How much the detour keeps.

use crate::engine::message::Bounds;

/// How much is kept, bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Of one connection.
    pub connection: usize,
    /// Of all together.
    pub all: usize,
    /// Of one message.
    pub message: Bounds,
}

impl Default for Limits {
    fn default() -> Self {
        Self { connection: 4 << 20, all: 64 << 20, message: Bounds::default() }
    }
}
