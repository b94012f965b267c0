//! What edits make of a head, and what they ask of the body.

use std::borrow::Cow;

use serde_json::Value;

use super::body::{self, Coding};
use super::framing::{self, Framing, Verb};
use super::head::{Head, Start};
use super::query;
use crate::plan::exchange::Edit;

/// What becomes of a body.
#[derive(Debug, PartialEq)]
pub enum Fate<'a> {
    /// It stays.
    Stays,
    /// It goes, and the message ends with its head.
    Goes,
    /// There is none, and the head tells how long it would be.
    Told(usize),
    /// These bytes take its place.
    Becomes(Cow<'a, [u8]>),
    /// It must be known as a whole; these are merged into it.
    Merges(Vec<&'a Value>),
}

/// What all edits together ask of the body, for a message that has this framing and is the
/// response to such a request. The last one to replace it wins; patches that come behind it are
/// merged at once.
pub fn fate<'a>(head: &Head, framing: Framing, verb: Verb, edits: &[&'a Edit]) -> Fate<'a> {
    if matches!(framing, Framing::Tunnel(_)) {
        return Fate::Stays;
    }
    let wanted = wanted(edits);
    let Some(before) = head.code() else { return wanted };
    let code = edits.iter().filter_map(|edit| edit.replace.code).next_back().unwrap_or(before);
    if framing::is_bodiless(verb, code) {
        return match wanted {
            _ if framing.has_body() => Fate::Goes,
            Fate::Becomes(bytes) if verb == Verb::Head => Fate::Told(bytes.len()),
            _ => Fate::Stays,
        };
    }
    match wanted {
        // A status that has no body has become one that has.
        Fate::Stays | Fate::Merges(_) if framing == Framing::None => {
            Fate::Becomes(Cow::Borrowed(&[]))
        }
        wanted => wanted,
    }
}

fn wanted<'a>(edits: &[&'a Edit]) -> Fate<'a> {
    let mut fate = Fate::Stays;
    for edit in edits {
        if let Some(new) = &edit.replace.body {
            fate = Fate::Becomes(Cow::Borrowed(new));
        }
        let Some(patch) = &edit.patch.body else { continue };
        match &mut fate {
            Fate::Becomes(bytes) => {
                if let Ok(merged) = body::merged(bytes, Coding::Plain, &[patch], usize::MAX) {
                    *bytes = Cow::Owned(merged);
                }
            }
            Fate::Merges(patches) => patches.push(patch),
            _ => fate = Fate::Merges(vec![patch]),
        }
    }
    fate
}

/// How the new body is framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame {
    /// As the old one was.
    Same,
    /// Not at all.
    None,
    /// By its length.
    Length(usize),
    /// In chunks.
    Chunks,
    /// The head alone tells this length of what another method would get.
    Told(usize),
}

/// The head after the edits.
pub fn rewrite(head: &Head, edits: &[&Edit], frame: Frame) -> Head {
    let mut head = head.clone();
    if !matches!(frame, Frame::Same) {
        head.remove("content-encoding");
    }
    match frame {
        Frame::Same => {}
        Frame::None => {
            head.remove("content-length");
            head.remove("transfer-encoding");
        }
        Frame::Length(length) => {
            head.remove("transfer-encoding");
            head.replace("Content-Length", &length.to_string());
        }
        Frame::Chunks => {
            head.remove("content-length");
            head.replace("Transfer-Encoding", "chunked");
        }
        Frame::Told(length) => {
            if head.values("content-length").next().is_some() {
                head.replace("Content-Length", &length.to_string());
            }
        }
    }
    for edit in edits {
        apply(&mut head, edit);
    }
    head
}

fn apply(head: &mut Head, edit: &Edit) {
    let Edit { abort: _, delay: _, replace, patch } = edit;
    match &mut head.start {
        Start::Request { method, target } => {
            if let Some(path) = &replace.path {
                *target = query::with_path(target, path);
            }
            if let Some(new) = &replace.method
                && may_become(method, new.as_bytes())
            {
                *method = new.clone().into_bytes();
            }
            *target = query::with_replaced(target, &replace.queries);
            *target = query::with_appended(target, &patch.queries);
        }
        Start::Response { code, reason } => {
            if let Some(new) = replace.code.filter(|new| new != code) {
                *code = new;
                if let Some(known) = phrase(new) {
                    *reason = format!(" {known}").into_bytes();
                }
            }
        }
    }
    for (name, value) in &replace.headers {
        head.replace(name, value);
    }
    for (name, value) in &patch.headers {
        head.append(name, value);
    }
}

/// The client tells by the method that it has sent where the response ends.
pub fn may_become(method: &[u8], new: &[u8]) -> bool {
    method == new || (Verb::of(method) == Verb::Other && Verb::of(new) == Verb::Other)
}

/// What stands behind a status, where somebody has named it.
#[must_use]
pub fn phrase(code: u16) -> Option<&'static str> {
    Some(match code {
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        204 => "No Content",
        206 => "Partial Content",
        301 => "Moved Permanently",
        302 => "Found",
        303 => "See Other",
        304 => "Not Modified",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        402 => "Payment Required",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        406 => "Not Acceptable",
        408 => "Request Timeout",
        409 => "Conflict",
        410 => "Gone",
        411 => "Length Required",
        412 => "Precondition Failed",
        413 => "Content Too Large",
        414 => "URI Too Long",
        415 => "Unsupported Media Type",
        416 => "Range Not Satisfiable",
        417 => "Expectation Failed",
        418 => "I'm a teapot",
        422 => "Unprocessable Content",
        425 => "Too Early",
        426 => "Upgrade Required",
        428 => "Precondition Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        451 => "Unavailable For Legal Reasons",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        507 => "Insufficient Storage",
        508 => "Loop Detected",
        511 => "Network Authentication Required",
        _ => return None,
    })
}
