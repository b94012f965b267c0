//! Random conversations, cut at random, against a reading of them that is as plain as can be.

use std::sync::Arc;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{Armed, Bounds, Conversation, Step};
use crate::plan::exchange::{Edit, Matcher, Message, Patch, Replace};

/// SplitMix64.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % n as u64) as usize
    }

    fn of<T: Clone>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())].clone()
    }

    fn is(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }
}

type Headers = Vec<(String, String)>;

/// A message as people think of it.
#[derive(Clone, Debug, PartialEq)]
struct Plain {
    /// `GET /a`, or the status.
    first: (String, String),
    minor: u8,
    /// Without those of the framing.
    headers: Headers,
    body: Vec<u8>,
    framing: Framing,
    trailers: Headers,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Framing {
    None,
    Length,
    Chunked,
    Close,
}

const VALUES: [&str; 4] = ["", "a", "one two", "v;q=0.5, x"];
const NAMES: [&str; 5] = ["X-A", "x-b", "Accept", "Set-Cookie", "ETag"];

fn headers(dice: &mut Dice) -> Headers {
    (0..dice.below(4)).map(|_| (dice.of(&NAMES).into(), dice.of(&VALUES).into())).collect()
}

fn body(dice: &mut Dice) -> Vec<u8> {
    match dice.below(5) {
        0 => Vec::new(),
        1 => b"HTTP/1.1 200 OK\r\n\r\n".to_vec(),
        2 => (0..dice.below(300)).map(|_| dice.below(256) as u8).collect(),
        3 => br#"{"a":{"b":1},"n":[1,2],"gone":"x"}"#.to_vec(),
        _ => b" {} ".to_vec(),
    }
}

fn request(dice: &mut Dice) -> Plain {
    let method = dice.of(&["GET", "POST", "PUT", "HEAD", "DELETE"]);
    let target = dice.of(&["/", "/a/b?x=1&y=2", "/a/b", "/c?x=1&x=2", "http://h/a/b?y"]);
    let framing = dice.of(&[Framing::None, Framing::None, Framing::Length, Framing::Chunked]);
    message(dice, (method.into(), target.into()), framing)
}

fn response(dice: &mut Dice, request: &Plain, is_last: bool) -> Plain {
    let code = dice.of(&["200", "200", "404", "204", "304", "503"]);
    let is_bodiless = request.first.0 == "HEAD" || code == "204" || code == "304";
    let framing = if is_bodiless {
        Framing::None
    } else if is_last && dice.is(40) {
        Framing::Close
    } else {
        dice.of(&[Framing::Length, Framing::Chunked])
    };
    message(dice, (code.into(), String::new()), framing)
}

fn message(dice: &mut Dice, first: (String, String), framing: Framing) -> Plain {
    let has_body = framing != Framing::None;
    let trailers = if framing == Framing::Chunked && dice.is(30) { headers(dice) } else { vec![] };
    Plain {
        first,
        minor: if framing != Framing::Chunked && dice.is(20) { 0 } else { 1 },
        headers: headers(dice),
        body: if has_body { body(dice) } else { Vec::new() },
        framing,
        trailers,
    }
}

fn lines(headers: &Headers) -> String {
    headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect()
}

fn bytes(plain: &Plain, is_request: bool, dice: &mut Dice) -> Vec<u8> {
    let Plain { first: (a, b), minor, headers, body, framing, trailers } = plain;
    let start = if is_request {
        format!("{a} {b} HTTP/1.{minor}\r\n")
    } else {
        format!("HTTP/1.{minor} {a} {}\r\n", dice.of(&["OK", "Some Reason", ""]))
    };
    let framed = match framing {
        Framing::None | Framing::Close => String::new(),
        Framing::Length => format!("content-length: {}\r\n", body.len()),
        Framing::Chunked => "Transfer-Encoding:chunked\r\n".to_owned(),
    };
    let mut out = format!("{start}{framed}{}\r\n", lines(headers)).into_bytes();
    if *framing != Framing::Chunked {
        out.extend(body);
        return out;
    }
    let mut rest = body.as_slice();
    while !rest.is_empty() {
        let (chunk, more) = rest.split_at(1 + dice.below(rest.len()));
        out.extend(format!("{:x}{}\r\n", chunk.len(), dice.of(&["", ";a=b", " "])).into_bytes());
        out.extend(chunk);
        out.extend(b"\r\n");
        rest = more;
    }
    out.extend(format!("0\r\n{}\r\n", lines(trailers)).into_bytes());
    out
}

/// One message from the front of a stream, and the rest.
fn parse<'a>(stream: &'a [u8], asked: Option<&Plain>) -> (Plain, &'a [u8]) {
    let split = |bytes: &'a [u8]| -> (Vec<String>, &'a [u8]) {
        let (mut lines, mut rest) = (Vec::new(), bytes);
        loop {
            let end = rest.windows(2).position(|two| two == b"\r\n").unwrap();
            let line = String::from_utf8(rest[..end].to_vec()).unwrap();
            rest = &rest[end + 2..];
            if line.is_empty() {
                return (lines, rest);
            }
            lines.push(line);
        }
    };
    let pair = |line: &String| {
        let (name, value) = line.split_once(':').unwrap();
        (name.to_owned(), value.trim().to_owned())
    };
    let (all, mut rest) = split(stream);
    let words: Vec<&str> = all[0].splitn(3, ' ').collect();
    let (first, version) = match asked {
        None => ((words[0].to_owned(), words[1].to_owned()), words[2]),
        Some(_) => ((words[1].to_owned(), String::new()), words[0]),
    };
    let all: Headers = all[1..].iter().map(pair).collect();
    let value = |name: &str| {
        let found = all.iter().filter(|(key, _)| key.eq_ignore_ascii_case(name));
        let found: Vec<_> = found.map(|(_, value)| value.clone()).collect();
        assert!(found.len() < 2, "{name} twice: {all:?}");
        found.into_iter().next()
    };
    let is_bodiless =
        asked.is_some_and(|asked| asked.first.0 == "HEAD" || first.0 == "204" || first.0 == "304");
    let (length, chunked) = (value("content-length"), value("transfer-encoding"));
    assert!(length.is_none() || chunked.is_none(), "both framings: {all:?}");
    let (mut body, mut trailers) = (Vec::new(), Vec::new());
    let framing = if is_bodiless {
        Framing::None
    } else if chunked.is_some() {
        loop {
            let end = rest.windows(2).position(|two| two == b"\r\n").unwrap();
            let line = std::str::from_utf8(&rest[..end]).unwrap();
            let size = usize::from_str_radix(line.split([';', ' ']).next().unwrap(), 16).unwrap();
            rest = &rest[end + 2..];
            if size == 0 {
                let (lines, more) = split(rest);
                trailers = lines.iter().map(pair).collect();
                rest = more;
                break Framing::Chunked;
            }
            body.extend(&rest[..size]);
            assert_eq!(&rest[size..size + 2], b"\r\n");
            rest = &rest[size + 2..];
        }
    } else if let Some(length) = length {
        let (front, more) = rest.split_at(length.parse().unwrap());
        body.extend(front);
        rest = more;
        Framing::Length
    } else if asked.is_some() {
        body.extend(std::mem::take(&mut rest));
        Framing::Close
    } else {
        Framing::None
    };
    let minor = if version == "HTTP/1.0" { 0 } else { 1 };
    let framings = ["content-length", "transfer-encoding"];
    let is_other = |(name, _): &(String, String)| {
        !framings.iter().any(|framing| framing.eq_ignore_ascii_case(name))
    };
    let headers = all.into_iter().filter(is_other).collect();
    (Plain { first, minor, headers, body, framing, trailers }, rest)
}

/// What a message should become.
fn edited(mut plain: Plain, edit: &Edit, asked: Option<&Plain>) -> Plain {
    let Edit { replace, patch, .. } = edit;
    if asked.is_none() {
        let (method, target) = &mut plain.first;
        if let Some(new) = replace.method.clone().filter(|_| method != "HEAD") {
            *method = new;
        }
        let front = target.find("://").map_or(0, |at| at + 3 + target[at + 3..].find('/').unwrap());
        let (path, query) = target[front..].split_once('?').unwrap_or((&target[front..], ""));
        let path = replace.path.clone().unwrap_or(path.to_owned());
        let mut pairs: Vec<(String, Option<String>)> = Vec::new();
        for part in query.split('&').filter(|part| !part.is_empty()) {
            let (name, value) = match part.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (part, None),
            };
            let new = replace.queries.get(name);
            if new.is_some() && pairs.iter().any(|(known, _)| known == name) {
                continue;
            }
            pairs.push((name.to_owned(), new.cloned().or(value)));
        }
        for (name, value) in &replace.queries {
            if !pairs.iter().any(|(known, _)| known == name) {
                pairs.push((name.clone(), Some(value.clone())));
            }
        }
        pairs.extend(patch.queries.iter().map(|(name, value)| (name.clone(), Some(value.clone()))));
        let words: Vec<String> = pairs
            .iter()
            .map(|(name, value)| match value {
                Some(value) => format!("{name}={value}"),
                None => name.clone(),
            })
            .collect();
        let query = if words.is_empty() { String::new() } else { format!("?{}", words.join("&")) };
        *target = format!("{}{path}{query}", &target[..front]);
    } else if let Some(code) = replace.code {
        plain.first.0 = code.to_string();
    }
    for (name, value) in &replace.headers {
        let mut is_there = false;
        plain.headers.retain_mut(|(known, old)| {
            if !known.eq_ignore_ascii_case(name) {
                return true;
            }
            old.clone_from(value);
            !std::mem::replace(&mut is_there, true)
        });
        if !is_there {
            plain.headers.push((name.clone(), value.clone()));
        }
    }
    plain.headers.extend(patch.headers.iter().cloned());
    let is_bodiless = asked.is_some_and(|asked| {
        asked.first.0 == "HEAD" || plain.first.0 == "204" || plain.first.0 == "304"
    });
    let was_bodiless = asked.is_some() && plain.framing == Framing::None;
    if is_bodiless {
        let nothing = (Vec::new(), Framing::None, Vec::new());
        (plain.body, plain.framing, plain.trailers) = nothing;
        return plain;
    }
    let length = if plain.framing == Framing::Chunked { Framing::Chunked } else { Framing::Length };
    if was_bodiless {
        plain.framing = Framing::Length;
    }
    if let Some(body) = &replace.body {
        plain.body.clone_from(body);
        plain.framing = length;
    }
    if let Some(patch) = &patch.body
        && let Ok(mut value) = serde_json::from_slice::<Value>(&plain.body)
    {
        merge(&mut value, patch);
        plain.body = value.to_string().into_bytes();
        plain.framing = length;
    }
    plain
}

/// RFC 7396, as it is written there.
fn merge(target: &mut Value, patch: &Value) {
    if let Value::Object(members) = patch {
        if !target.is_object() {
            *target = json!({});
        }
        for (name, value) in members {
            if value.is_null() {
                target.as_object_mut().unwrap().remove(name);
            } else {
                merge(&mut target[name], value);
            }
        }
    } else {
        target.clone_from(patch);
    }
}

fn edit(dice: &mut Dice) -> Edit {
    let text = |word: &str| word.to_owned();
    let some = |dice: &mut Dice| dice.is(40);
    let pairs = |dice: &mut Dice, all: &[(&str, &str)]| -> Headers {
        if !some(dice) {
            return Vec::new();
        }
        all.iter().map(|(name, value)| (text(name), text(value))).collect()
    };
    let replace = Replace {
        path: some(dice).then(|| text("/new")),
        method: some(dice).then(|| text("PATCH")),
        code: some(dice).then(|| dice.of(&[200, 204, 503, 599])),
        body: some(dice).then(|| dice.of(&[b"hello".to_vec(), b"{\"a\":[]}".to_vec()])),
        queries: pairs(dice, &[("x", "9"), ("new", "z")]).into_iter().collect(),
        headers: pairs(dice, &[("X-B", "new")]).into_iter().collect(),
    };
    let patch = Patch {
        body: some(dice).then(|| json!({ "a": { "c": 2 }, "gone": null, "k": "v" })),
        queries: pairs(dice, &[("x", "8")]),
        headers: pairs(dice, &[("x-a", "more"), ("x-a", "and more")]),
    };
    Edit { abort: false, delay: None, replace, patch }
}

/// Messages of one direction.
type Sent = Vec<Vec<u8>>;

/// Exchanges in random number and kind, and both directions as bytes.
fn conversation(dice: &mut Dice) -> (Vec<(Plain, Plain)>, Sent, Sent) {
    let count = 1 + dice.below(5);
    let (mut all, mut asks, mut answers) = (Vec::new(), Vec::new(), Vec::new());
    for i in 0..count {
        let ask = request(dice);
        let answer = response(dice, &ask, i + 1 == count);
        asks.push(bytes(&ask, true, dice));
        let mut sent = Vec::new();
        if dice.is(20) {
            sent.extend(b"HTTP/1.1 100 Continue\r\n\r\n");
        }
        sent.extend(bytes(&answer, false, dice));
        answers.push(sent);
        all.push((ask, answer));
    }
    (all, asks, answers)
}

/// Feeds both directions, cut at random, a response never before its request. What came out.
fn run(armed: Vec<Armed>, asks: &[Vec<u8>], answers: &[Vec<u8>], dice: &mut Dice) -> [Vec<u8>; 2] {
    let mut talk = Conversation::new(armed.into(), Bounds::default());
    let mut out = [Vec::new(), Vec::new()];
    let mut send = |talk: &mut Conversation, message: Message, bytes: &[u8]| {
        let mut steps = Vec::new();
        match bytes {
            [] => talk.close(message, &mut steps),
            bytes => talk.feed(message, bytes, &mut steps),
        }
        for step in steps {
            if let Step::Bytes(bytes) = step {
                out[usize::from(message == Message::Response)].extend(bytes);
            }
        }
    };
    let is_pipelined = dice.is(50);
    let most = dice.of(&[1, 7, 100, 5000]);
    let mut cut = |talk: &mut Conversation, message, bytes: &[u8], dice: &mut Dice| {
        let mut rest = bytes;
        while !rest.is_empty() {
            let (front, more) = rest.split_at((1 + dice.below(most)).min(rest.len()));
            send(talk, message, front);
            rest = more;
        }
    };
    if is_pipelined {
        cut(&mut talk, Message::Request, &asks.concat(), dice);
        cut(&mut talk, Message::Response, &answers.concat(), dice);
    } else {
        for (ask, answer) in asks.iter().zip(answers) {
            cut(&mut talk, Message::Request, ask, dice);
            cut(&mut talk, Message::Response, answer, dice);
        }
    }
    send(&mut talk, Message::Request, &[]);
    send(&mut talk, Message::Response, &[]);
    out
}

fn armed(message: Message, matcher: Matcher, edit: Edit) -> Armed {
    Armed { message, matcher, edit: Some(Arc::new(edit)) }
}

fn without_interim(stream: &[u8]) -> &[u8] {
    stream.strip_prefix(b"HTTP/1.1 100 Continue\r\n\r\n").unwrap_or(stream)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn what_matches_nothing_is_the_same_byte_for_byte(seed: u64) {
        let mut dice = Dice(seed);
        let (_, asks, answers) = conversation(&mut dice);
        let nobody = Matcher { path: Some("/nobody*".into()), ..Matcher::default() };
        let unknown = Matcher { code: Some(418), ..Matcher::default() };
        let all = vec![
            armed(Message::Request, nobody.clone(), edit(&mut dice)),
            armed(Message::Response, nobody, edit(&mut dice)),
            armed(Message::Response, unknown, edit(&mut dice)),
        ];
        let out = run(all, &asks, &answers, &mut dice);
        prop_assert_eq!(&out[0], &asks.concat());
        prop_assert_eq!(&out[1], &answers.concat());
    }

    #[test]
    fn what_matches_becomes_what_the_edit_makes_of_the_parsed_message(seed: u64) {
        let mut dice = Dice(seed);
        let (all, asks, answers) = conversation(&mut dice);
        let (ask, answer) = (edit(&mut dice), edit(&mut dice));
        let both = vec![
            armed(Message::Request, Matcher::default(), ask.clone()),
            armed(Message::Response, Matcher::default(), answer.clone()),
        ];
        let out = run(both, &asks, &answers, &mut dice);
        let (mut requests, mut responses) = (out[0].as_slice(), out[1].as_slice());
        for (request, response) in all {
            let want = edited(request.clone(), &ask, None);
            let (got, rest) = parse(requests, None);
            prop_assert_eq!(&got, &want);
            requests = rest;
            let (got, rest) = parse(without_interim(responses), Some(&request));
            let want = edited(response, &answer, Some(&request));
            prop_assert_eq!(got, want);
            responses = rest;
        }
        prop_assert!(requests.is_empty() && responses.is_empty());
    }
}
