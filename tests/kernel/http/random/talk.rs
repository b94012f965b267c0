//! A conversation on one connection: valid HTTP/1.1 from a seed.

use std::fmt::Write as _;

use super::model::{Header, Request, Response, Rule};
use crate::soak::random::Random;

/// What happens at one end.
#[derive(Clone, Debug)]
pub enum Step {
    /// Waits for this many bytes.
    Hears(usize),
    /// Sends pieces, with a pause behind each where it is true.
    Says(Vec<Vec<u8>>, bool),
    /// Ends the connection.
    Closes,
}

/// A conversation, for both ends.
#[derive(Default)]
pub struct Talk {
    pub client: Vec<Step>,
    pub server: Vec<Step>,
    /// All that the client is to hear.
    pub expected: Vec<u8>,
    /// Exchanges that are acted on.
    pub meant: u64,
    /// The client hears the end of the connection.
    pub ends: bool,
    /// What the client says in the end is no HTTP.
    pub is_upgraded: bool,
    /// What the client hears, exchange by exchange.
    log: String,
}

const METHODS: [&str; 9] =
    ["GET", "GET", "GET", "HEAD", "POST", "POST", "PUT", "DELETE", "M-SEARCH"];
const CODES: [u16; 14] = [200, 200, 200, 200, 201, 203, 204, 206, 301, 304, 400, 404, 418, 503];
/// Bytes of a head at most that are looked at.
const HEAD: usize = 4096;
/// How far into a segment the last head of several may begin: it is to end before as many bytes.
const NEAR: usize = 500;

impl Talk {
    /// Has up to eight batches of up to four requests. Paths are those of `rules`, or others.
    pub fn at_random(seed: u64, rules: &[Rule]) -> Self {
        let mut roll = Roll(Random::new(seed));
        let mut talk = Self::default();
        for _ in 0..=roll.below(7) {
            if roll.one_in(8) {
                talk.continued(&mut roll, rules);
            } else {
                talk.batch(&mut roll, rules);
            }
        }
        match roll.below(5) {
            0 => talk.until_closed(&mut roll, rules),
            1 => talk.upgraded(&mut roll, rules),
            2 => talk.aborted(&mut roll, rules),
            _ => talk.client.push(Step::Closes),
        }
        talk
    }

    /// For whoever looks at a failure.
    pub fn describe(&self) -> &str {
        &self.log
    }

    /// Requests that are sent at once.
    fn batch(&mut self, roll: &mut Roll, rules: &[Rule]) {
        let (mut asked, mut answered, mut expected) = (Vec::new(), Vec::new(), Vec::new());
        let many = if roll.one_in(3) { 1 + roll.below(4) } else { 1 };
        for _ in 0..many {
            let mut request = roll.request(rules);
            roll.ask_body(&mut request);
            let _ = writeln!(self.log, "{} bytes behind {}:", request.body.len(), asked.len());
            if roll.one_in(20) {
                // An empty line may stand in front (RFC 9112, 2.2).
                asked.extend(b"\r\n");
            }
            asked.extend(request.head());
            asked.extend(&request.body);
            for _ in 0..if roll.one_in(8) { 1 + roll.below(2) } else { 0 } {
                let interim = roll.interim();
                answered.extend(&interim);
                expected.extend(interim);
            }
            let response = roll.response_for(&request, rules);
            answered.extend(response.bytes());
            expected.extend(self.heard(&request, &response, rules));
            if asked.len() > NEAR {
                break;
            }
        }
        self.client.push(roll.say(asked.clone()));
        self.server.push(Step::Hears(asked.len()));
        self.server.push(roll.say(answered));
        self.hear(expected);
    }

    /// The body is sent when the server wants it.
    fn continued(&mut self, roll: &mut Roll, rules: &[Rule]) {
        let mut request = roll.request(rules);
        request.method = "POST";
        roll.ask_body(&mut request);
        request.headers.push(header("Expect", b"100-continue", " ", ""));
        let (head, body) = (request.head(), request.body.clone());
        let interim = b"HTTP/1.1 100 Continue\r\n\r\n".to_vec();
        self.server.push(Step::Hears(head.len()));
        self.client.push(roll.say(head));
        self.server.push(roll.say(interim.clone()));
        self.hear(interim);
        self.server.push(Step::Hears(body.len()));
        self.client.push(roll.say(body));
        let response = roll.response_for(&request, rules);
        self.server.push(roll.say(response.bytes()));
        let expected = self.heard(&request, &response, rules);
        self.hear(expected);
    }

    /// A body that ends with its connection.
    fn until_closed(&mut self, roll: &mut Roll, rules: &[Rule]) {
        let request = loop {
            let request = roll.request(rules);
            if request.method != "HEAD" {
                break request;
            }
        };
        let mut response = roll.response(&request, Some(End::Close));
        response.code = if roll.one_in(2) { 200 } else { 404 };
        let head = request.head();
        self.server.extend([Step::Hears(head.len()), roll.say(response.bytes()), Step::Closes]);
        self.client.push(roll.say(head));
        let expected = self.heard(&request, &response, rules);
        self.hear(expected);
        self.ends = true;
    }

    /// What follows is no HTTP.
    fn upgraded(&mut self, roll: &mut Roll, rules: &[Rule]) {
        let mut request = roll.request(rules);
        request.method = "GET";
        request.headers.push(header("Upgrade", b"other", " ", ""));
        let mut response = roll.response(&request, Some(End::None));
        (response.code, response.reason) = (101, " Switching Protocols".into());
        let head = request.head();
        let bytes = response.bytes();
        self.is_upgraded = true;
        self.server.extend([Step::Hears(head.len()), roll.say(bytes.clone())]);
        self.client.push(roll.say(head));
        let _ = writeln!(self.log, "GET {}: 101", request.path);
        self.hear(bytes);
        for _ in 0..3 {
            let (there, back) = (roll.data(), roll.data());
            self.server.extend([Step::Hears(there.len()), roll.say(back.clone())]);
            self.client.push(roll.say(there));
            self.hear(back);
        }
        self.client.push(Step::Closes);
    }

    fn aborted(&mut self, roll: &mut Roll, rules: &[Rule]) {
        let Some(rule) = rules.iter().find(|rule| rule.aborts) else {
            return self.client.push(Step::Closes);
        };
        let mut request = roll.request(rules);
        request.path = format!("/{}", rule.prefix);
        let response = roll.response(&request, None);
        let head = request.head();
        self.server.extend([Step::Hears(head.len()), Step::Says(vec![response.bytes()], false)]);
        self.client.push(roll.say(head));
        let _ = writeln!(self.log, "{} {}: aborted", request.method, request.path);
        self.meant += 1;
        self.ends = true;
    }

    /// What the client hears of a response.
    fn heard(&mut self, request: &Request, response: &Response, rules: &[Rule]) -> Vec<u8> {
        let rule = rules.iter().find(|rule| rule.means(request, response));
        let bytes = match rule {
            Some(rule) => rule.edit(request, response),
            None => response.bytes(),
        };
        self.meant += u64::from(rule.is_some());
        let Request { method, path, .. } = request;
        let meant = rule.map_or_else(String::new, |rule| format!(", meant by {}", rule.prefix));
        let _ = writeln!(
            self.log,
            "{method} {path}: {}, {} bytes of {} from {}{meant}",
            response.code,
            bytes.len(),
            response.bytes().len(),
            self.expected.len(),
        );
        bytes
    }

    fn hear(&mut self, bytes: Vec<u8>) {
        self.client.push(Step::Hears(bytes.len()));
        self.expected.extend(bytes);
    }
}

/// How a response ends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    None,
    Length,
    Chunks,
    Close,
}

fn header(name: &str, value: &[u8], before: &str, behind: &str) -> Header {
    let line = [name.as_bytes(), b":", before.as_bytes(), value, behind.as_bytes(), b"\r\n"];
    Header { name: name.into(), value: value.into(), line: line.concat() }
}

struct Roll(Random);

impl Roll {
    fn below(&mut self, end: usize) -> usize {
        self.0.below(end as u64) as usize
    }

    fn one_in(&mut self, many: usize) -> bool {
        self.below(many) == 0
    }

    fn pick<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())]
    }

    fn text(&mut self, most: usize, of: &[u8]) -> Vec<u8> {
        (0..self.below(most + 1)).map(|_| self.pick(of)).collect()
    }

    /// In letters of any case.
    fn cased(&mut self, name: &str) -> String {
        let way = self.below(4);
        let letter = |roll: &mut Self, letter: char| match way {
            0 => letter.to_ascii_lowercase(),
            1 => letter.to_ascii_uppercase(),
            2 if roll.one_in(2) => letter.to_ascii_uppercase(),
            _ => letter,
        };
        name.chars().map(|one| letter(self, one)).collect()
    }

    /// A header of this name, with spaces as they may be.
    fn header(&mut self, name: &str, value: &[u8]) -> Header {
        let name = self.cased(name);
        let before = self.pick(&[" ", " ", " ", "", "\t", "  "]);
        let behind = self.pick(&["", "", "", " ", "\t "]);
        header(&name, value, before, behind)
    }

    /// Some that mean nothing to anybody.
    fn others(&mut self, headers: &mut Vec<Header>) {
        let is_long = self.one_in(12);
        let many = if is_long { 12 } else { self.below(5) };
        for _ in 0..many {
            const NAME: &[u8] = b"abcXYZ019-_.!#$%&'*+^`|~";
            const VALUE: &[u8] = b"abc XYZ\t0123456789:;,=\"()/\\<>@[]{}?\x80\xe4\xff";
            let name = [b"Q", &self.text(20, NAME)[..]].concat();
            let name = String::from_utf8_lossy(&name).into_owned();
            let value = self.text(if is_long { 250 } else { 40 }, VALUE);
            let value = value.trim_ascii().to_vec();
            let place = self.below(headers.len() + 1);
            let one = self.header(&name, &value);
            headers.insert(place, one);
        }
    }

    fn request(&mut self, rules: &[Rule]) -> Request {
        const PATH: &[u8] = b"abcdefgh/XYZ019-._~%:@!$&'()*+,;=";
        let method = self.pick(&METHODS);
        // Those that end a connection come last.
        let mut prefixes: Vec<char> =
            rules.iter().filter(|rule| !rule.aborts).map(|rule| rule.prefix).collect();
        prefixes.extend(['x', 'y', 'z', 'A']);
        let most = if self.one_in(10) { 180 } else { 20 };
        let path = self.text(most, PATH);
        let path = format!("/{}{}", self.pick(&prefixes), String::from_utf8_lossy(&path));
        let query = if self.one_in(3) { self.text(30, b"abc=&/?%20") } else { Vec::new() };
        let query = String::from_utf8_lossy(&query).into_owned();
        let query = if query.is_empty() { query } else { format!("?{query}") };
        let mut headers = vec![self.header("Host", b"probe")];
        if self.one_in(2) {
            let value = self.pick(&["yes", "yes", "no", "yesterday", "y"]);
            headers.push(self.header("X-Ask", value.as_bytes()));
        }
        self.others(&mut headers);
        // Whole addresses are what proxies are asked for, and allowed everywhere.
        let sites = ["http://probe", "HTTP://[::1]:80", "a+b://c:d@e"];
        let site = if self.one_in(6) { self.pick(&sites) } else { "" };
        Request { method, site, path, query, minor: 1, headers, body: Vec::new() }
    }

    /// Gives a request a body, perhaps.
    fn ask_body(&mut self, request: &mut Request) {
        if !matches!(request.method, "POST" | "PUT") {
            return;
        }
        let body = self.data();
        if self.one_in(4) {
            request.headers.push(self.header("Transfer-Encoding", b"chunked"));
            request.body = self.chunks(&body);
            return;
        }
        let length = body.len().to_string();
        request.headers.push(self.header("Content-Length", length.as_bytes()));
        request.body = body;
    }

    /// A body, which may look like anything.
    fn data(&mut self) -> Vec<u8> {
        let most = self.pick(&[0, 10, 100, 1000, 20_000]);
        let size = self.below(most + 1);
        match self.below(4) {
            0 => b"\r\n0\r\n\r\n".iter().cycle().take(size).copied().collect(),
            1 => b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc"
                .iter()
                .cycle()
                .take(size)
                .copied()
                .collect(),
            _ => (0..size).map(|_| self.below(256) as u8).collect(),
        }
    }

    fn chunks(&mut self, mut data: &[u8]) -> Vec<u8> {
        let mut all = Vec::new();
        while !data.is_empty() {
            let most = self.pick(&[1, 10, 300, 20_000]);
            let (here, rest) = data.split_at((1 + self.below(most)).min(data.len()));
            let zeros = self.pick(&["", "", "0", "000"]);
            let size = if self.one_in(2) {
                format!("{zeros}{:x}", here.len())
            } else {
                format!("{zeros}{:X}", here.len())
            };
            let extension = self.pick(&["", "", "", ";a", ";a=b", " ;a=\"0\""]);
            all.extend(format!("{size}{extension}\r\n").bytes());
            all.extend(here);
            all.extend(b"\r\n");
            data = rest;
        }
        all.extend(self.pick(&["0\r\n", "0\r\n", "00;last\r\n"]).bytes());
        all.extend(self.pick(&["", "", "X-After: 1\r\n", "A: b\r\nLong-One: 0\r\n"]).bytes());
        all.extend(b"\r\n");
        all
    }

    fn interim(&mut self) -> Vec<u8> {
        let line = self.pick(&["100 Continue", "102 Processing", "103 Early Hints"]);
        let mut headers = Vec::new();
        self.others(&mut headers);
        headers.truncate(4);
        let mut all = format!("HTTP/1.1 {line}\r\n").into_bytes();
        all.extend(headers.iter().flat_map(|header| &header.line));
        all.extend(b"\r\n");
        all
    }

    /// One that every rule can act on.
    fn response_for(&mut self, request: &Request, rules: &[Rule]) -> Response {
        loop {
            let response = self.response(request, None);
            let is_odd = |rule: &Rule| rule.changes_whether_there_is_a_body(&response);
            let mut meant = rules.iter().filter(|rule| rule.means(request, &response));
            if !meant.any(is_odd) {
                return response;
            }
        }
    }

    fn response(&mut self, request: &Request, end: Option<End>) -> Response {
        let code = if end.is_some() { 200 } else { self.pick(&CODES) };
        let is_bodiless = request.method == "HEAD" || matches!(code, 204 | 304);
        let end = end.unwrap_or_else(|| match self.below(5) {
            0 if is_bodiless => End::None,
            0 | 1 => End::Chunks,
            _ => End::Length,
        });
        let mut headers = Vec::new();
        let mut add = |roll: &mut Self, name: &str, values: &[&str]| {
            let value = roll.pick(values);
            let place = roll.below(headers.len() + 1);
            let one = roll.header(name, value.as_bytes());
            headers.insert(place, one);
        };
        for (name, values, often) in [
            ("Server", &["probe", "probe/1.0 (x)"][..], 2),
            ("Server", &["twice"][..], 10),
            ("X-Kind", &["meant", "meant", "meanter", "other"][..], 2),
            ("X-Tag", &["old", ""][..], 3),
            ("X-Many", &["0"][..], 4),
            ("Content-Type", &["text/plain", "application/json"][..], 2),
            ("Content-Encoding", &["gzip"][..], 6),
            ("Content-Lengthy", &["7"][..], 20),
            ("Connection", &["keep-alive"][..], 5),
        ] {
            if self.one_in(often) {
                add(self, name, values);
            }
        }
        let data = self.data();
        let mut body = Vec::new();
        match end {
            End::None => {}
            End::Close => body = data,
            End::Length if code == 204 => {}
            End::Length => {
                add(self, "Content-Length", &[&data.len().to_string()]);
                body = data;
            }
            End::Chunks if code == 204 => {}
            End::Chunks => {
                add(self, "Transfer-Encoding", &["chunked", "Chunked", "gzip, chunked"]);
                if self.one_in(3) {
                    add(self, "Trailer", &["X-After"]);
                }
                body = self.chunks(&data);
            }
        }
        if is_bodiless {
            body.clear();
        }
        self.others(&mut headers);
        while headers.iter().map(|header| header.line.len()).sum::<usize>() > HEAD - 100 {
            headers.retain(|header| !header.name.starts_with(['Q', 'q']));
        }
        let reason = self.pick(&[" OK", " OK", " ", " Any words: at all", " \u{e4}"]).to_owned();
        let minor = u8::from(!self.one_in(8));
        Response { minor, code, reason, headers, body }
    }

    /// Sends these in pieces.
    fn say(&mut self, bytes: Vec<u8>) -> Step {
        let mut cuts: Vec<usize> = match self.below(4) {
            0 => Vec::new(),
            1 => (1..bytes.len().min(60)).collect(),
            _ => (0..=self.below(6)).map(|_| self.below(bytes.len().max(1))).collect(),
        };
        if self.one_in(3) {
            // Near the beginning, where the heads are.
            cuts.extend((0..4).map(|_| self.below(bytes.len().clamp(1, 400))));
        }
        cuts.sort_unstable();
        let mut pieces = Vec::new();
        let mut from = 0;
        for at in cuts {
            if at > from {
                pieces.push(bytes[from..at].to_vec());
                from = at;
            }
        }
        pieces.push(bytes[from..].to_vec());
        let pauses = pieces.len() < 10 && self.one_in(2);
        Step::Says(pieces, pauses)
    }
}
