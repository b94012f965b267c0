//! How far this version reaches: which exchanges the kernel side can do.
//!
//! Lowering warns with these words, and the engine refuses with them. What is not in reach is
//! never left out quietly.

use chaos_abi::limit::{HTTP_DROPPED, HTTP_FIELDS, HTTP_PATTERN, HTTP_TAIL};

use super::exchange::{Exchange, Message, Role};

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
    let Exchange { role, message, edit, .. } = exchange;
    if !role.serves() {
        return beyond("spec.kfault.role", "only what a target serves can be faulted yet");
    }
    if *message == Message::Request {
        return beyond("spec.target", "only responses can be faulted yet");
    }
    if edit.abort {
        // Nothing else has an effect then.
        return matchers(exchange);
    }
    if edit.delay.is_some() {
        return beyond("spec.delay", "responses cannot be delayed yet");
    }
    if edit.patch.body.is_some() {
        return beyond("spec.patch.body", "bodies can only be replaced as a whole yet");
    }
    let replaced = edit.replace.headers.len();
    if replaced > HTTP_DROPPED - FRAMING {
        let most = HTTP_DROPPED - FRAMING;
        return beyond("spec.replace.headers", format!("has {replaced} headers, at most {most}"));
    }
    let headers = edit.replace.headers.iter().chain(edit.patch.headers.iter().map(|(n, v)| (n, v)));
    let headers: usize = headers.map(|(name, value)| name.len() + value.len() + 4).sum();
    let body = edit.replace.body.as_ref().map_or(0, Vec::len);
    let (all, most) = (headers + body, HTTP_TAIL - 128);
    if all > most {
        let field = if body > headers { "spec.replace.body" } else { "spec.replace.headers" };
        return beyond(
            field,
            format!("headers and body have {all} bytes together, at most {most}"),
        );
    }
    matchers(exchange)
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

/// What of an exchange does not act while the rest does.
#[must_use]
pub fn left_out(exchange: &Exchange) -> Option<Beyond> {
    if exchange.role == Role::Both {
        let reason = "what the target itself asks for from others is not faulted; write server to \
                      say that this is meant";
        return beyond("spec.kfault.role", reason);
    }
    None
}
