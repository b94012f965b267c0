//! What of an HTTP fault has an effect, and what is to be said about the rest.

use std::collections::BTreeMap;

use super::spec::{HttpChaos, Patch, Replace};
use crate::api::fields::entry;
use crate::api::finding::Findings;
use crate::plan::exchange::{self, Edit, Matcher, Message};

/// Headers that say where a message ends. They are always right, whoever wants them otherwise.
const FRAMING: [&str; 2] = ["content-length", "transfer-encoding"];
/// Requests of these methods have no body by custom.
const BODILESS: [&str; 6] = ["GET", "HEAD", "DELETE", "OPTIONS", "TRACE", "CONNECT"];
/// Methods whose responses end elsewhere than those of others.
pub const SPECIAL: [&str; 2] = ["HEAD", "CONNECT"];

/// What a method or the name of a header is made of.
pub fn is_token(text: &str) -> bool {
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.bytes().all(is_part)
}

/// Notes an error when this cannot be a header.
pub fn header(path: &str, name: &str, value: &str, findings: &mut Findings) {
    if !is_token(name) {
        let reason = "is no name of a header; write letters, digits and hyphens";
        findings.invalid(path, &name, reason);
    }
    if value.bytes().any(|byte| byte != b'\t' && (byte < b' ' || byte == 0x7f)) {
        findings.invalid(path, &value, "a header's value is one line without control characters");
    }
}

/// Which exchanges are meant.
pub fn matcher(spec: &HttpChaos, findings: &mut Findings) -> Matcher {
    if let Some(path) = &spec.path {
        pattern(path, findings);
    }
    let is_response = spec.message == Message::Response;
    if !is_response {
        let has_no_effect = "has no effect with target: Request, which passes before there is a \
                             response; leave it out, or write target: Response";
        if spec.code.is_some() {
            findings.warn("spec.code", has_no_effect);
        }
        if !spec.response_headers.is_empty() {
            findings.warn("spec.response_headers", has_no_effect);
        }
    } else if spec.code.is_some_and(|code| code < 200) {
        let message = "an interim status is passed on and never matched: nothing happens";
        findings.warn("spec.code", message);
    }
    if let Some(method) = &spec.method
        && method.bytes().any(|byte| byte.is_ascii_lowercase())
    {
        let message = "methods are compared exactly, and those of HTTP are in upper case";
        findings.warn("spec.method", message);
    }
    let lower = |name: &str, headers: &BTreeMap<String, String>, findings: &mut Findings| {
        let mut out = BTreeMap::new();
        for (key, value) in headers {
            let path = entry(&format!("spec.{name}"), key);
            if value.trim_matches([' ', '\t']) != value {
                let message = "a header's value has no spaces around it: this matches nothing";
                findings.warn(&path, message);
            }
            if out.insert(key.to_ascii_lowercase(), value.clone()).is_some() {
                let message = "is given twice, in different case: one of them counts";
                findings.warn(&path, message);
            }
        }
        out
    };
    let response_headers = lower("response_headers", &spec.response_headers, findings);
    Matcher {
        path: spec.path.clone(),
        method: spec.method.clone(),
        code: spec.code.filter(|_| is_response),
        request_headers: lower("request_headers", &spec.request_headers, findings),
        response_headers: if is_response { response_headers } else { BTreeMap::new() },
    }
}

fn pattern(path: &str, findings: &mut Findings) {
    const FIELD: &str = "spec.path";
    if path.split_once('?').is_some_and(|(_, query)| query.contains('=')) {
        let message = "? is any one character, and the query is no part of the path: it is not \
                       compared";
        findings.warn(FIELD, message);
    }
    if !path.starts_with(['/', '*', '?']) {
        let message = "a path begins with /: this matches nothing but an asterisk-form request";
        findings.warn(FIELD, message);
    }
}

/// What happens to the messages.
pub fn edit(spec: &HttpChaos, findings: &mut Findings) -> Edit {
    let actions = &spec.actions;
    let delay = actions.delay.as_ref().map(|delay| delay.value.to_std().unwrap_or_default());
    if delay.is_some_and(|delay| delay.is_zero()) {
        findings.warn("spec.delay", "is not above zero: nothing is late");
    }
    let delay = delay.filter(|delay| !delay.is_zero());
    let replace = actions.replace.as_ref().map(|block| replace(spec, block, findings));
    let patch = actions.patch.as_ref().map(|block| patch(spec, block, findings));
    let mut edit = Edit {
        abort: actions.abort,
        delay,
        replace: replace.unwrap_or_default(),
        patch: patch.unwrap_or_default(),
    };
    bodies(spec, &mut edit, findings);
    if edit.abort && (edit.delay.is_some() || edit.rewrites()) {
        let message = "the connection is cut at once: delay, replace and patch have no effect";
        findings.warn("spec.abort", message);
        edit = Edit { abort: true, ..Edit::default() };
    }
    if edit.is_nothing() && findings.errors.is_empty() {
        let message = "none of abort, delay, replace and patch does anything: nothing happens";
        findings.warn("spec", message);
    }
    edit
}

fn replace(spec: &HttpChaos, block: &Replace, findings: &mut Findings) -> exchange::Replace {
    let Replace { path, method, code, body, queries, headers } = block;
    if *block == Replace::default() {
        findings.warn("spec.replace", "is empty: nothing is replaced");
    }
    let is_request = spec.message == Message::Request;
    if is_request {
        of_response("spec.replace.code", code.is_some(), findings);
    } else {
        of_request("spec.replace.path", path.is_some(), findings);
        of_request("spec.replace.method", method.is_some(), findings);
        of_request("spec.replace.queries", !queries.is_empty(), findings);
    }
    if let Some(path) = path.as_ref().filter(|_| is_request) {
        if path.contains('?') {
            let message = "holds a ?: what follows it goes before the request's own query";
            findings.warn("spec.replace.path", message);
        } else if !path.starts_with('/') {
            let message = "a path begins with /: most servers answer 400 to this";
            findings.warn("spec.replace.path", message);
        }
    }
    let mut kept = BTreeMap::new();
    for (name, value) in headers {
        if is_free(&entry("spec.replace.headers", name), name, findings) {
            kept.insert(name.clone(), value.clone());
        }
    }
    exchange::Replace {
        path: path.clone().filter(|_| is_request),
        method: is_request.then(|| new_method(spec, method.as_deref(), findings)).flatten(),
        code: code.filter(|_| !is_request),
        body: body.clone(),
        queries: if is_request { queries.clone() } else { BTreeMap::new() },
        headers: kept,
    }
}

/// The client knows where the response ends by the method that it has sent.
fn new_method(spec: &HttpChaos, method: Option<&str>, findings: &mut Findings) -> Option<String> {
    const FIELD: &str = "spec.replace.method";
    let method = method?;
    let before = spec.method.as_deref();
    if before == Some(method) {
        findings.warn(FIELD, "is the method that spec.method asks for: it stays what it is");
        return None;
    }
    for (field, word) in [(FIELD, Some(method)), ("spec.method", before)] {
        if let Some(word) = word.filter(|word| SPECIAL.contains(word)) {
            let reason = format!(
                "the response to {word} ends elsewhere than that to another method, and the \
                 client would misread it; choose a method other than {}",
                SPECIAL.join(" and ")
            );
            findings.unsupported(field, &word, reason);
            return None;
        }
    }
    Some(method.to_owned())
}

fn patch(spec: &HttpChaos, block: &Patch, findings: &mut Findings) -> exchange::Patch {
    let Patch { body, queries, headers } = block;
    if *block == Patch::default() {
        findings.warn("spec.patch", "is empty: nothing is added");
    }
    let is_request = spec.message == Message::Request;
    if !is_request {
        of_request("spec.patch.queries", !queries.is_empty(), findings);
    }
    let mut kept = Vec::new();
    for (i, (name, value)) in headers.iter().enumerate() {
        if is_free(&format!("spec.patch.headers[{i}]"), name, findings) {
            kept.push((name.clone(), value.clone()));
        }
    }
    exchange::Patch {
        body: body.as_ref().map(|(_, value)| value.clone()),
        queries: if is_request { queries.clone() } else { Vec::new() },
        headers: kept,
    }
}

fn of_request(field: &str, is_given: bool, findings: &mut Findings) {
    if is_given {
        let message = "has no effect with target: Response; it is a part of requests";
        findings.warn(field, message);
    }
}

fn of_response(field: &str, is_given: bool, findings: &mut Findings) {
    if is_given {
        let message = "has no effect with target: Request; it is a part of responses";
        findings.warn(field, message);
    }
}

fn is_free(path: &str, name: &str, findings: &mut Findings) -> bool {
    let is_framing = FRAMING.iter().any(|framing| framing.eq_ignore_ascii_case(name));
    if is_framing {
        findings.warn(path, "has no effect: where a message ends is always told as it is");
    }
    !is_framing
}

/// Bodies that are not there, and patches of what is no JSON.
fn bodies(spec: &HttpChaos, edit: &mut Edit, findings: &mut Findings) {
    let method = edit.replace.method.as_deref().or(spec.method.as_deref());
    let is_request = spec.message == Message::Request;
    if let (Some(body), Some(_)) = (&edit.replace.body, &edit.patch.body)
        && serde_json::from_slice::<serde_json::Value>(body).is_err()
    {
        let message = "has no effect: spec.replace.body comes first, and is no JSON";
        findings.warn("spec.patch.body", message);
        edit.patch.body = None;
    }
    if is_request {
        if edit.patch.body.is_some()
            && edit.replace.body.is_none()
            && let Some(method) = method.filter(|method| BODILESS.contains(method))
        {
            let message =
                format!("a {method} request has no body by custom: nothing to merge into");
            findings.warn("spec.patch.body", message);
        }
        if edit.replace.body.is_some() && method == Some("CONNECT") {
            let message = "has no effect: behind CONNECT there is no body";
            findings.warn("spec.replace.body", message);
            edit.replace.body = None;
            edit.patch.body = None;
        }
        return;
    }
    let status = edit.replace.code.or(spec.matcher.code);
    let why = match (method, status) {
        (Some(method), _) if SPECIAL.contains(&method) => format!("a response to {method}"),
        (_, Some(status @ (204 | 304))) => format!("a response of status {status}"),
        _ => return,
    };
    for (field, is_given) in [
        ("spec.replace.body", edit.replace.body.take().is_some()),
        ("spec.patch.body", edit.patch.body.take().is_some()),
    ] {
        if is_given {
            findings.warn(field, format!("has no effect: {why} has no body"));
        }
    }
}
