//! How far this version reaches: which exchanges the kernel side can do.
//!
//! Lowering warns with these words, and the engine refuses with them. What is not in reach is
//! never left out quietly.

use std::time::Duration;

use chaos_abi::limit::{DELAY_NS, HTTP_DROPPED, HTTP_FIELDS, HTTP_PATTERN, HTTP_TAIL};

use super::exchange::{Edit, Exchange, Message, Role};

/// Headers that frame a body take this many of those that a response may lose.
const FRAMING: usize = chaos_abi::http::FRAMING;

/// Something of an exchange that this version cannot do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Beyond {
    /// The field that asks for it.
    pub field: &'static str,
    /// Why not.
    pub reason: String,
}

fn beyond(field: &'static str, reason: impl Into<String>) -> Option<Beyond> {
    Some(Beyond { field, reason: reason.into() })
}

/// The first thing of an exchange that is out of reach: the exchange does not act at all then.
#[must_use]
pub fn refused(exchange: &Exchange) -> Option<Beyond> {
    let Exchange { role, edit, .. } = exchange;
    if !role.serves() {
        return beyond("spec.kfault.role", "only what a target serves can be faulted yet");
    }
    if edit.abort {
        // Nothing else has an effect then.
        return matchers(exchange);
    }
    let longest = Duration::from_nanos(DELAY_NS);
    if edit.delay.is_some_and(|delay| delay > longest) {
        return beyond("spec.delay", format!("is at most {}s", longest.as_secs()));
    }
    matchers(exchange)
}

/// True when responses with this status have no body (RFC 9112, 6.3).
#[must_use]
pub fn is_bodiless(code: u16) -> bool {
    code < 200 || code == 204 || code == 304
}

/// True when the kernel hands the responses over to be edited: their bodies are merged with
/// something, or what they get is more than the kernel keeps.
#[must_use]
pub fn is_detour(edit: &Edit) -> bool {
    if edit.abort {
        return false;
    }
    let (replace, patch) = (&edit.replace, &edit.patch);
    let headers = replace.headers.iter().chain(patch.headers.iter().map(|(n, v)| (n, v)));
    let headers: usize = headers.map(|(name, value)| name.len() + value.len() + 4).sum();
    let all = headers + replace.body.as_ref().map_or(0, Vec::len);
    let is_large = all > HTTP_TAIL - 128 || replace.headers.len() > HTTP_DROPPED - FRAMING;
    patch.body.is_some() || is_large || replace.code.is_some_and(is_bodiless)
}

/// True when requests are handed over to be edited.
#[must_use]
pub fn is_asking(exchange: &Exchange) -> bool {
    let Exchange { message, edit, dry_run, .. } = exchange;
    *message == Message::Request && !edit.abort && edit.rewrites() && !dry_run
}

fn matchers(exchange: &Exchange) -> Option<Beyond> {
    let matcher = &exchange.matcher;
    for (field, headers) in [
        ("spec.request_headers", &matcher.request_headers),
        ("spec.response_headers", &matcher.response_headers),
    ] {
        if headers.len() > HTTP_FIELDS {
            let n = headers.len();
            return beyond(field, format!("has {n} headers, at most {HTTP_FIELDS}"));
        }
    }
    let path = matcher.path.as_ref().map_or(0, String::len);
    if path > HTTP_PATTERN {
        return beyond("spec.path", format!("has {path} bytes, at most {HTTP_PATTERN}"));
    }
    None
}

/// What of an exchange does not act, or acts otherwise, while the rest does as it is written.
#[must_use]
pub fn left_out(exchange: &Exchange) -> Vec<Beyond> {
    let mut all = Vec::new();
    let Edit { delay, abort, .. } = &exchange.edit;
    let is_request = exchange.message == Message::Request;
    if is_request && delay.is_some() && !abort && !is_asking(exchange) {
        let reason = "the server gets the request at once, and its response is late: the client \
                      sees the same, the server does not";
        all.extend(beyond("spec.delay", reason));
    }
    if exchange.role == Role::Both {
        let reason = "what the target itself asks for from others is not faulted; write server to \
                      say that this is meant";
        all.extend(beyond("spec.kfault.role", reason));
    }
    all
}
