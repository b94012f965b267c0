//! The path and the query of a request's target.

use std::collections::BTreeMap;

use super::matching::path_place;

/// The target with another path. Scheme, authority and query stay, and so does a target without a
/// path.
pub fn with_path(target: &[u8], path: &str) -> Vec<u8> {
    let Some(place) = path_place(target) else { return target.to_vec() };
    [&target[..place.start], path.as_bytes(), &target[place.end..]].concat()
}

/// The target with these parameters. One that is there gets its value at its first place and
/// loses its others; one that is not is appended.
pub fn with_replaced(target: &[u8], queries: &BTreeMap<String, String>) -> Vec<u8> {
    if queries.is_empty() {
        return target.to_vec();
    }
    let Some((front, query)) = split(target) else { return target.to_vec() };
    let mut seen = Vec::new();
    let mut parts: Vec<Vec<u8>> = Vec::new();
    for part in query.split(|byte| *byte == b'&').filter(|part| !part.is_empty()) {
        let name = form_urlencoded::parse(part).next().map(|(name, _)| name.into_owned());
        let found = name.and_then(|name| queries.get_key_value(&name));
        match found {
            None => parts.push(part.to_vec()),
            Some((name, _)) if seen.contains(&name) => {}
            Some((name, value)) => {
                seen.push(name);
                parts.push(pair(name, value));
            }
        }
    }
    let new = queries.iter().filter(|(name, _)| !seen.contains(name));
    parts.extend(new.map(|(name, value)| pair(name, value)));
    [front, b"?", &parts.join(&b'&')].concat()
}

/// The target with these parameters more.
pub fn with_appended(target: &[u8], queries: &[(String, String)]) -> Vec<u8> {
    if queries.is_empty() {
        return target.to_vec();
    }
    let Some((front, query)) = split(target) else { return target.to_vec() };
    let mut parts: Vec<Vec<u8>> = Vec::new();
    if !query.is_empty() {
        parts.push(query.to_vec());
    }
    parts.extend(queries.iter().map(|(name, value)| pair(name, value)));
    [front, b"?", &parts.join(&b'&')].concat()
}

fn split(target: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = path_place(target)?.end;
    Some((&target[..end], target.get(end + 1..).unwrap_or_default()))
}

fn pair(name: &str, value: &str) -> Vec<u8> {
    let encoded = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
    format!("{}={}", encoded(name), encoded(value)).into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(bytes: Vec<u8>) -> String {
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn a_replaced_parameter_keeps_its_place_and_others_their_spelling() {
        let queries: BTreeMap<_, _> =
            [("a b".to_owned(), "&=".to_owned()), ("new".to_owned(), "1".to_owned())].into();
        for (target, want) in [
            ("/p?x=%41&a+b=1&y&a%20b=2", "/p?x=%41&a+b=%26%3D&y&new=1"),
            ("/p", "/p?a+b=%26%3D&new=1"),
            ("/p?", "/p?a+b=%26%3D&new=1"),
            ("http://h/p?new=0", "http://h/p?new=1&a+b=%26%3D"),
        ] {
            assert_eq!(text(with_replaced(target.as_bytes(), &queries)), want, "{target}");
        }
    }

    #[test]
    fn an_appended_parameter_comes_last_each_time() {
        let queries = [("a".to_owned(), "1".to_owned()), ("a".to_owned(), "ü".to_owned())];
        assert_eq!(text(with_appended(b"/p?a=0", &queries)), "/p?a=0&a=1&a=%C3%BC");
        assert_eq!(text(with_appended(b"/p", &queries)), "/p?a=1&a=%C3%BC");
        assert_eq!(text(with_appended(b"/p", &[])), "/p");
    }

    #[test]
    fn a_new_path_leaves_the_rest() {
        assert_eq!(text(with_path(b"/a?b=c", "/new")), "/new?b=c");
        assert_eq!(text(with_path(b"http://h:1?b", "/new")), "http://h:1/new?b");
    }

    #[test]
    fn the_authority_of_a_tunnel_stays() {
        let query = ("a".to_owned(), "b".to_owned());
        assert_eq!(text(with_path(b"h:443", "/new")), "h:443");
        assert_eq!(text(with_appended(b"h:443", std::slice::from_ref(&query))), "h:443");
        assert_eq!(text(with_replaced(b"h:443", &[query].into())), "h:443");
    }
}
