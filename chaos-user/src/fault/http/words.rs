//! An exchange as a sentence for people.

use crate::api::duration::GoDuration;
use crate::fault::grip::size;
use crate::plan::exchange::{Edit, Matcher, Message, Patch, Replace, Role};

/// "delay responses by 100ms, replace their status by 503, where the path matches /api/*, on port
/// 80 served by unit:web.service".
pub fn sentence(
    edit: &Edit,
    message: Message,
    matcher: &Matcher,
    port: u16,
    role: Role,
    target: &str,
) -> String {
    let whose = match message {
        Message::Request => "requests",
        Message::Response => "responses",
    };
    let mut parts = Vec::new();
    if edit.abort {
        parts.push(format!("cut the connection of {whose}"));
    }
    if let Some(delay) = edit.delay {
        parts.push(format!("delay {whose} by {}", GoDuration::from(delay)));
    }
    let of = |parts: &Vec<String>| if parts.is_empty() { whose } else { "them" };
    let replaced = replaced(&edit.replace);
    if !replaced.is_empty() {
        parts.push(format!("replace of {} the {}", of(&parts), replaced.join(", the ")));
    }
    let patched = patched(&edit.patch);
    if !patched.is_empty() {
        parts.push(format!("add to {} {}", of(&parts), patched.join(", ")));
    }
    let mut out = parts.join(", ");
    let conditions = conditions(matcher);
    if !conditions.is_empty() {
        out.push_str(&format!(", where {}", conditions.join(" and ")));
    }
    let who = match role {
        Role::Server => format!("served by {target}"),
        Role::Client => format!("asked for by {target}"),
        Role::Both => format!("of {target}"),
    };
    format!("{out}, on port {port} {who}")
}

fn replaced(replace: &Replace) -> Vec<String> {
    let Replace { path, method, code, body, queries, headers } = replace;
    let mut out = Vec::new();
    out.extend(path.as_ref().map(|path| format!("path by {path}")));
    out.extend(method.as_ref().map(|method| format!("method by {method}")));
    out.extend(code.map(|code| format!("status by {code}")));
    out.extend(body.as_ref().map(|body| format!("body by {}", size(body.len() as u64))));
    out.extend(queries.iter().map(|(name, value)| format!("query {name} by \"{value}\"")));
    out.extend(headers.iter().map(|(name, value)| format!("header {name} by \"{value}\"")));
    out
}

fn patched(patch: &Patch) -> Vec<String> {
    let Patch { body, queries, headers } = patch;
    let mut out = Vec::new();
    out.extend(body.as_ref().map(|body| format!("the JSON {body}")));
    out.extend(queries.iter().map(|(name, value)| format!("the query {name} \"{value}\"")));
    out.extend(headers.iter().map(|(name, value)| format!("the header {name} \"{value}\"")));
    out
}

fn conditions(matcher: &Matcher) -> Vec<String> {
    let Matcher { path, method, code, request_headers, response_headers } = matcher;
    let mut out = Vec::new();
    out.extend(method.as_ref().map(|method| format!("the method is {method}")));
    out.extend(path.as_ref().map(|path| format!("the path matches {path}")));
    out.extend(code.map(|code| format!("the status is {code}")));
    let header = |whose, (name, value): (&String, &String)| {
        format!("the {whose} has the header {name} \"{value}\"")
    };
    out.extend(request_headers.iter().map(|pair| header("request", pair)));
    out.extend(response_headers.iter().map(|pair| header("response", pair)));
    out
}
