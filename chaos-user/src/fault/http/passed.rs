//! What people are told of messages that passed as they are.

use chaos_abi::http::passed::{HTTP2, NAMES, TLS};

/// The protocol that was spoken in place of HTTP/1, where that is why messages passed; by the name
/// of the reason.
#[must_use]
pub fn protocol(reason: &str) -> Option<&'static str> {
    let known = [(NAMES[TLS], "TLS"), (NAMES[HTTP2], "HTTP/2")];
    known.into_iter().find(|(name, _)| *name == reason).map(|(_, protocol)| protocol)
}

/// What follows from that, and the way out.
#[must_use]
pub fn unspoken(protocol: &str) -> String {
    format!(
        "spec.port: {protocol} is spoken there, which is not supported by this version: it passes \
         untouched; name a port where HTTP/1 is spoken in the clear"
    )
}
