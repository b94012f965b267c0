//! Exchanges as the kernel reads them. Pure.

use std::collections::BTreeMap;

use chaos_abi::http::{FRAMING, Field, HttpRule, hash, name_hash, rule_flag, together};
use chaos_abi::limit::HTTP_TAIL;

use crate::engine::message::phrase;
use crate::plan::exchange::{Exchange, Message};
use crate::plan::reach;

/// Names of the headers that go with a body, each followed by what becomes of it.
const OF_BODY: [&str; FRAMING] =
    ["content-length", "transfer-encoding", "content-encoding", "trailer"];

/// An exchange for the kernel, and what its responses get.
pub struct Wire {
    /// Which are meant.
    pub rule: Box<HttpRule>,
    /// `Content-Length`, headers, an empty line, a body.
    pub tail: Box<[u8; HTTP_TAIL]>,
}

/// An exchange that is in reach ([`crate::plan::reach`]), acting until `deadline_ns`.
#[must_use]
pub fn wire(exchange: &Exchange, deadline_ns: u64) -> Wire {
    let Exchange { sockets, port, matcher, edit, dry_run, .. } = exchange;
    let mut rule = Box::new(HttpRule { deadline_ns, port: u32::from(*port), ..HttpRule::NONE });
    if let Some(cgroup) = &sockets.cgroup {
        (rule.cgroup, rule.cgroup_level) = (cgroup.id, cgroup.level);
    }
    rule.method = matcher.method.as_ref().map_or(0, |method| hash(method.as_bytes()));
    if let Some(path) = &matcher.path {
        if path.contains(['*', '?']) {
            rule.flags |= rule_flag::PATH_PATTERN;
            rule.pattern_len = copy(&mut rule.pattern, path.as_bytes());
        } else {
            rule.flags |= rule_flag::PATH_EXACT;
            rule.path = hash(path.as_bytes());
        }
    }
    rule.code = matcher.code.map_or(0, u32::from);
    fields(&mut rule.request_headers, &matcher.request_headers);
    fields(&mut rule.response_headers, &matcher.response_headers);
    if *dry_run {
        rule.flags |= rule_flag::DRY_RUN;
    }
    let mut tail = Vec::new();
    // Nothing becomes of the response to a request that is acted on but that it is late.
    let is_response = exchange.message == Message::Response;
    if edit.abort {
        rule.flags |= if is_response { rule_flag::ABORT } else { rule_flag::CUT };
    } else if reach::is_asking(exchange) {
        rule.flags |= rule_flag::ASKS;
    } else {
        let delay = edit.delay.unwrap_or_default();
        rule.delay_ns = u64::try_from(delay.as_nanos()).unwrap_or(u64::MAX);
        if edit.rewrites() && is_response {
            rule.flags |= rule_flag::EDIT;
        }
    }
    if is_response && reach::is_detour(edit) {
        rule.flags |= rule_flag::DETOUR;
        if edit.patch.body.is_some() {
            rule.flags |= rule_flag::MERGE;
        }
    } else if is_response && !edit.abort {
        if let Some(code) = edit.replace.code {
            let status = match phrase(code) {
                Some(phrase) => format!("{code} {phrase}"),
                None => code.to_string(),
            };
            rule.status_len = copy(&mut rule.status, status.as_bytes());
            if reach::is_bodiless(code) {
                rule.flags |= rule_flag::BODILESS;
            }
        }
        let replaced = edit.replace.headers.iter();
        let dropped = replaced.clone().map(|(name, _)| name.as_str());
        let all = OF_BODY.into_iter().chain(dropped);
        for (place, name) in rule.dropped.iter_mut().zip(all) {
            *place = name_hash(name.as_bytes());
        }
        if let Some(body) = &edit.replace.body {
            rule.flags |= rule_flag::BODY;
            tail.extend_from_slice(format!("Content-Length: {}\r\n", body.len()).as_bytes());
        }
        rule.length_len = length(tail.len());
        let patched = edit.patch.headers.iter().map(|(name, value)| (name, value));
        for (name, value) in replaced.chain(patched) {
            tail.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
        }
        tail.extend_from_slice(b"\r\n");
        rule.headers_len = length(tail.len()) - rule.length_len;
        tail.extend_from_slice(edit.replace.body.as_deref().unwrap_or_default());
        rule.body_len = length(tail.len()) - rule.length_len - rule.headers_len;
    }
    let mut whole = Box::new([0; HTTP_TAIL]);
    copy(whole.as_mut_slice(), &tail);
    Wire { rule, tail: whole }
}

fn fields(places: &mut [Field], headers: &BTreeMap<String, String>) {
    for (place, (name, value)) in places.iter_mut().zip(headers) {
        place.hash = together(name_hash(name.as_bytes()), hash(value.trim().as_bytes()));
    }
}

fn copy(to: &mut [u8], from: &[u8]) -> u32 {
    for (to, from) in to.iter_mut().zip(from) {
        *to = *from;
    }
    length(from.len())
}

fn length(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}
