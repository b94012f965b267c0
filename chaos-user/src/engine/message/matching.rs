//! Whether an exchange is meant.

use std::collections::BTreeMap;

use super::head::{Head, Start};
use crate::plan::exchange::Matcher;

/// Whether everything that is known of the request fits.
#[must_use]
pub fn matches_request(matcher: &Matcher, request: &Head) -> bool {
    let Start::Request { method, target } = &request.start else { return false };
    let Matcher { path: pattern, method: wanted, request_headers, code: _, response_headers: _ } =
        matcher;
    pattern.as_ref().is_none_or(|pattern| is_like(pattern.as_bytes(), path(target)))
        && wanted.as_ref().is_none_or(|wanted| wanted.as_bytes() == method)
        && has_all(request, request_headers)
}

/// Whether everything that is known of the response fits.
#[must_use]
pub fn matches_response(matcher: &Matcher, response: &Head) -> bool {
    matcher.code.is_none_or(|code| response.code() == Some(code))
        && has_all(response, &matcher.response_headers)
}

fn has_all(head: &Head, headers: &BTreeMap<String, String>) -> bool {
    headers.iter().all(|(name, wanted)| head.values(name).any(|value| value == wanted.as_bytes()))
}

/// Where the path stands in a request's target, which may have a scheme and an authority in front
/// of it. `None`: it is an authority alone, as `CONNECT` has it, or nothing that is known.
pub fn path_place(target: &[u8]) -> Option<std::ops::Range<usize>> {
    let is_mark = |byte: &u8| matches!(byte, b'/' | b'?');
    let start = if target.starts_with(b"/") || target.starts_with(b"*") {
        0
    } else {
        let scheme = target.windows(3).position(|three| three == b"://")?;
        if target[..scheme].iter().any(is_mark) {
            return None;
        }
        let authority = scheme + 3;
        let end = target[authority..].iter().position(is_mark);
        authority + end.unwrap_or(target.len() - authority)
    };
    let end = target[start..].iter().position(|byte| *byte == b'?');
    Some(start..start + end.unwrap_or(target.len() - start))
}

/// The path that a target names: `/` where there is none behind a scheme, and an empty one where an
/// authority alone is asked for.
fn path(target: &[u8]) -> &[u8] {
    match path_place(target) {
        None => b"",
        Some(place) if place.is_empty() => b"/",
        Some(place) => &target[place],
    }
}

/// `*` is any run of bytes, `?` any one byte.
fn is_like(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    // Behind the last star, and where the text goes on after what it stands for.
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                p += 1;
                star = Some((p, t));
            }
            Some(wanted) if *wanted == b'?' || *wanted == text[t] => {
                p += 1;
                t += 1;
            }
            _ => match &mut star {
                Some((behind, mark)) => {
                    *mark += 1;
                    (p, t) = (*behind, *mark);
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_is_any_run_and_a_question_mark_is_one_byte() {
        for (pattern, text, want) in [
            ("*", "/", true),
            ("/api/*", "/api/a/b", true),
            ("/api/*", "/api", false),
            ("/a?c", "/abc", true),
            ("/a?c", "/ac", false),
            ("/*/x/*y", "/a/x/x/b/xy", true),
            ("/*/x/*y", "/a/x/x/b/xyz", false),
            ("**", "", true),
            ("", "", true),
            ("", "/", false),
            ("/A", "/a", false),
        ] {
            assert_eq!(is_like(pattern.as_bytes(), text.as_bytes()), want, "{pattern} {text}");
        }
    }

    #[test]
    fn the_path_is_found_in_every_form_of_target() {
        for (target, want) in [
            ("/a/b?c=/d", "/a/b"),
            ("/a?b://c", "/a"),
            ("http://host:80/a?b", "/a"),
            ("http://host?b", "/"),
            ("http://host", "/"),
            ("*", "*"),
            ("http:///b", "/b"),
            ("a:b://c/d", "/d"),
            ("/?", "/"),
            ("*://a/b", "*://a/b"),
            ("host:443", ""),
            ("host", ""),
            ("a/b", ""),
            ("a?b://c/d", ""),
            ("a:/b://c/d", ""),
            ("?a", ""),
        ] {
            assert_eq!(path(target.as_bytes()), want.as_bytes(), "{target}");
        }
    }
}
