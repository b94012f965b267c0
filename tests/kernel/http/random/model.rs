//! What an edit makes of a message that is known in parts.

use kfault_tests::manifest::Manifest;
use kfault_tests::probe::http::PORT;
use serde_json::{Value, json};

/// An experiment.
#[derive(Debug)]
pub struct Rule {
    /// What the paths begin with, behind the slash.
    pub prefix: char,
    /// The method that it means.
    method: Option<&'static str>,
    /// The status that it means.
    code: Option<u16>,
    /// The header that a request must have.
    asks: Option<(&'static str, &'static str)>,
    /// The header that a response must have.
    says: Option<(&'static str, &'static str)>,
    /// The status that it makes of it.
    status: Option<(u16, &'static str)>,
    body: Option<&'static str>,
    replaced: &'static [(&'static str, &'static str)],
    patched: &'static [(&'static str, &'static str)],
    /// The response does not come, and the connection ends.
    pub aborts: bool,
}

impl Rule {
    const fn of(prefix: char) -> Self {
        Self {
            prefix,
            method: None,
            code: None,
            asks: None,
            says: None,
            status: None,
            body: None,
            replaced: &[],
            patched: &[],
            aborts: false,
        }
    }
}

/// A longer one than most bodies.
const LONG: &str = match std::str::from_utf8(&[b'L'; 6000]) {
    Ok(text) => text,
    Err(_) => "",
};

/// In the order of their prefixes. The last one ends connections.
pub const RULES: [Rule; 9] = [
    Rule { body: Some("{\"new\":true}"), ..Rule::of('a') },
    Rule { status: Some((503, "Service Unavailable")), ..Rule::of('b') },
    Rule {
        replaced: &[("Server", "other"), ("X-Tag", "new")],
        patched: &[("X-Many", "a"), ("X-Many", "b")],
        ..Rule::of('c')
    },
    Rule {
        code: Some(200),
        status: Some((404, "Not Found")),
        body: Some("HTTP/1.1 200 OK\r\n\r\n"),
        replaced: &[("X-Tag", "new")],
        ..Rule::of('d')
    },
    Rule { method: Some("POST"), body: Some(LONG), ..Rule::of('e') },
    Rule { says: Some(("X-Kind", "meant")), body: Some("kind"), ..Rule::of('f') },
    Rule { asks: Some(("X-Ask", "yes")), patched: &[("X-Tag", "2")], ..Rule::of('g') },
    Rule {
        asks: Some(("X-Ask", "yes")),
        says: Some(("X-Kind", "meant")),
        status: Some((418, "I'm a teapot")),
        ..Rule::of('h')
    },
    Rule { aborts: true, ..Rule::of('i') },
];

impl Rule {
    /// As people write it.
    pub fn manifest(&self) -> Manifest {
        let mut manifest = Manifest::http(PORT)
            .named(&format!("kft-{}", self.prefix))
            .with("path", json!(format!("/{}*", self.prefix)));
        let map = |pairs: &[(&str, &str)]| -> Value {
            pairs.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect()
        };
        if let Some(method) = self.method {
            manifest = manifest.with("method", json!(method));
        }
        if let Some(code) = self.code {
            manifest = manifest.with("code", json!(code));
        }
        if let Some(pair) = self.asks {
            manifest = manifest.with("request_headers", map(&[pair]));
        }
        if let Some(pair) = self.says {
            manifest = manifest.with("response_headers", map(&[pair]));
        }
        if self.aborts {
            return manifest.with("abort", json!(true));
        }
        let mut replace = self.body.map_or_else(|| json!({}), crate::http::replaced);
        if let Some((code, _)) = self.status {
            replace["code"] = json!(code);
        }
        if !self.replaced.is_empty() {
            replace["headers"] = map(self.replaced);
        }
        if replace != json!({}) {
            manifest = manifest.with("replace", replace);
        }
        if !self.patched.is_empty() {
            manifest = manifest.with("patch", json!({"headers": self.patched}));
        }
        manifest
    }

    /// Whether it means this exchange.
    pub fn means(&self, request: &Request, response: &Response) -> bool {
        let has = |headers: &[Header], (name, value): (&str, &str)| {
            headers.iter().any(|header| header.is(name) && header.value == value.as_bytes())
        };
        request.path.starts_with(&format!("/{}", self.prefix))
            && self.method.is_none_or(|method| request.method == method)
            && self.code.is_none_or(|code| response.code == code)
            && self.asks.is_none_or(|pair| has(&request.headers, pair))
            && self.says.is_none_or(|pair| has(&response.headers, pair))
    }

    /// Whether the new response would end elsewhere than its status has it: that is another test's.
    pub fn changes_whether_there_is_a_body(&self, response: &Response) -> bool {
        self.status.is_some() && matches!(response.code, 204 | 304)
    }

    /// The response that it makes of one that it means.
    pub fn edit(&self, request: &Request, response: &Response) -> Vec<u8> {
        let is_bodiless = request.method == "HEAD" || matches!(response.code, 204 | 304);
        let body = self.body.filter(|_| !is_bodiless);
        let mut all = match self.status {
            Some((code, phrase)) => format!("HTTP/1.{} {code} {phrase}\r\n", response.minor),
            None => response.status_line(),
        }
        .into_bytes();
        const OF_BODY: [&str; 4] =
            ["content-length", "transfer-encoding", "content-encoding", "trailer"];
        for header in &response.headers {
            let goes = self.replaced.iter().any(|(name, _)| header.is(name))
                || body.is_some() && OF_BODY.iter().any(|name| header.is(name));
            if !goes {
                all.extend(&header.line);
            }
        }
        if let Some(body) = body {
            all.extend(format!("Content-Length: {}\r\n", body.len()).bytes());
        }
        for (name, value) in self.replaced.iter().chain(self.patched) {
            all.extend(format!("{name}: {value}\r\n").bytes());
        }
        all.extend(b"\r\n");
        all.extend(body.map_or(&response.body[..], str::as_bytes));
        all
    }
}

/// A line of a head.
#[derive(Clone, Debug)]
pub struct Header {
    /// Its name.
    pub name: String,
    /// What it says, without the spaces around it.
    pub value: Vec<u8>,
    /// All of it, with its end.
    pub line: Vec<u8>,
}

impl Header {
    fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name)
    }
}

/// What is asked.
#[derive(Clone, Debug)]
pub struct Request {
    pub method: &'static str,
    /// Scheme and authority, or nothing.
    pub site: &'static str,
    /// Without the query.
    pub path: String,
    /// `?` and more.
    pub query: String,
    pub minor: u8,
    pub headers: Vec<Header>,
    /// As it is sent, chunks and all.
    pub body: Vec<u8>,
}

impl Request {
    /// To the empty line.
    pub fn head(&self) -> Vec<u8> {
        let Self { method, site, path, query, minor, .. } = self;
        let mut all = format!("{method} {site}{path}{query} HTTP/1.{minor}\r\n").into_bytes();
        all.extend(self.headers.iter().flat_map(|header| &header.line));
        all.extend(b"\r\n");
        all
    }
}

/// What is answered.
#[derive(Clone, Debug)]
pub struct Response {
    pub minor: u8,
    pub code: u16,
    /// Behind the code, with its space.
    pub reason: String,
    pub headers: Vec<Header>,
    /// As it is sent, chunks and all.
    pub body: Vec<u8>,
}

impl Response {
    fn status_line(&self) -> String {
        format!("HTTP/1.{} {}{}\r\n", self.minor, self.code, self.reason)
    }

    /// As it is sent.
    pub fn bytes(&self) -> Vec<u8> {
        let mut all = self.status_line().into_bytes();
        all.extend(self.headers.iter().flat_map(|header| &header.line));
        all.extend(b"\r\n");
        all.extend(&self.body);
        all
    }
}
