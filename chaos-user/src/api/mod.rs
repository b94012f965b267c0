//! The API that people write: value types and the envelope of a manifest. Pure.

pub mod duration;
