//! The head of a message: its first line and its fields.

use std::ops::Range;

use crate::plan::exchange::Message;

/// A head, parsed. What it was made of is kept, so that untouched parts stay as they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// Its first line.
    pub start: Start,
    /// The x of HTTP/1.x.
    pub minor: u8,
    /// Its fields, in order.
    pub fields: Vec<Field>,
    /// The bytes that it was made of, with the empty line.
    pub raw: Vec<u8>,
}

/// The first line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Start {
    /// Of a request.
    Request {
        /// The method.
        method: Vec<u8>,
        /// What is asked for.
        target: Vec<u8>,
    },
    /// Of a response.
    Response {
        /// The status.
        code: u16,
        /// What stands behind it, with the space in between.
        reason: Vec<u8>,
    },
}

/// A field: a line of the head, and its parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    line: Vec<u8>,
    name: usize,
    value: Range<usize>,
}

impl Field {
    /// A field of this name and value.
    #[must_use]
    pub fn new(name: &str, value: &str) -> Self {
        let line = format!("{name}: {value}").into_bytes();
        let value = name.len() + 2..line.len();
        Self { line, name: name.len(), value }
    }

    fn parse(line: &[u8]) -> Option<Self> {
        let name = line.iter().position(|byte| *byte == b':')?;
        if name == 0 || !line[..name].iter().all(|byte| is_token(*byte)) {
            return None;
        }
        let is_space = |byte: &u8| matches!(byte, b' ' | b'\t');
        let mut value = name + 1..line.len();
        while value.start < value.end && is_space(&line[value.start]) {
            value.start += 1;
        }
        while value.start < value.end && is_space(&line[value.end - 1]) {
            value.end -= 1;
        }
        let is_text = |byte: &u8| *byte == b'\t' || (*byte >= b' ' && *byte != 0x7f);
        line[value.clone()].iter().all(is_text).then(|| Self { line: line.to_vec(), name, value })
    }

    /// True when it has this name, in whatever case.
    #[must_use]
    pub fn is(&self, name: &str) -> bool {
        self.line[..self.name].eq_ignore_ascii_case(name.as_bytes())
    }

    /// Its value, without the space around it.
    #[must_use]
    pub fn value(&self) -> &[u8] {
        &self.line[self.value.clone()]
    }

    /// The same name with another value.
    fn set(&mut self, value: &str) {
        self.line.truncate(self.value.start);
        if self.line.last() == Some(&b':') {
            self.line.push(b' ');
        }
        self.value.start = self.line.len();
        self.line.extend_from_slice(value.as_bytes());
        self.value.end = self.line.len();
    }
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

impl Head {
    /// Parses a head that ends with its empty line. `None`: receivers might disagree about it.
    #[must_use]
    pub fn parse(message: Message, raw: Vec<u8>) -> Option<Self> {
        let text = raw.strip_suffix(b"\r\n\r\n")?;
        let mut lines = Vec::new();
        let mut rest = text;
        while let Some(end) = rest.windows(2).position(|two| two == b"\r\n") {
            lines.push(&rest[..end]);
            rest = &rest[end + 2..];
        }
        lines.push(rest);
        let (first, others) = lines.split_first()?;
        if lines.iter().any(|line| line.iter().any(|byte| matches!(byte, b'\r' | b'\n'))) {
            return None;
        }
        let (start, minor) = match message {
            Message::Request => request_line(first)?,
            Message::Response => status_line(first)?,
        };
        let fields = others.iter().map(|line| Field::parse(line)).collect::<Option<Vec<_>>>()?;
        Some(Self { start, minor, fields, raw })
    }

    /// The method of a request.
    #[must_use]
    pub fn method(&self) -> Option<&[u8]> {
        match &self.start {
            Start::Request { method, .. } => Some(method),
            Start::Response { .. } => None,
        }
    }

    /// The status of a response.
    #[must_use]
    pub fn code(&self) -> Option<u16> {
        match self.start {
            Start::Response { code, .. } => Some(code),
            Start::Request { .. } => None,
        }
    }

    /// Values of the fields of this name.
    pub fn values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        self.fields.iter().filter(move |field| field.is(name)).map(Field::value)
    }

    /// Members of the lists of this name, without the space around them, in lower case.
    #[must_use]
    pub fn members(&self, name: &str) -> Vec<Vec<u8>> {
        let values = self.values(name).flat_map(|value| value.split(|byte| *byte == b','));
        let members = values.map(|member| member.trim_ascii().to_ascii_lowercase());
        members.filter(|member| !member.is_empty()).collect()
    }

    /// The field of this name gets this value at its first place and loses its others; where
    /// there is none, it is appended.
    pub fn replace(&mut self, name: &str, value: &str) {
        let mut is_set = false;
        self.fields.retain_mut(|field| {
            if !field.is(name) {
                return true;
            }
            if !is_set {
                field.set(value);
            }
            !std::mem::replace(&mut is_set, true)
        });
        if !is_set {
            self.append(name, value);
        }
    }

    /// One field more.
    pub fn append(&mut self, name: &str, value: &str) {
        self.fields.push(Field::new(name, value));
    }

    /// No field of this name.
    pub fn remove(&mut self, name: &str) {
        self.fields.retain(|field| !field.is(name));
    }

    /// The head as it is sent, with the empty line.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.raw.len() + 64);
        let version = [b"HTTP/1.".as_slice(), &[b'0' + self.minor]].concat();
        match &self.start {
            Start::Request { method, target } => {
                out.extend([method, b" ".as_slice(), target, b" ", &version].concat());
            }
            Start::Response { code, reason } => {
                out.extend_from_slice(&version);
                out.extend(format!(" {code}").into_bytes());
                out.extend_from_slice(reason);
            }
        }
        out.extend_from_slice(b"\r\n");
        for field in &self.fields {
            out.extend_from_slice(&field.line);
            out.extend_from_slice(b"\r\n");
        }
        out.extend_from_slice(b"\r\n");
        out
    }
}

fn request_line(line: &[u8]) -> Option<(Start, u8)> {
    let mut parts = line.split(|byte| *byte == b' ');
    let (method, target, version) = (parts.next()?, parts.next()?, parts.next()?);
    let is_method = !method.is_empty() && method.iter().all(|byte| is_token(*byte));
    let is_target = !target.is_empty() && target.iter().all(|byte| *byte > b' ' && *byte != 0x7f);
    if parts.next().is_some() || !is_method || !is_target {
        return None;
    }
    let start = Start::Request { method: method.to_vec(), target: target.to_vec() };
    Some((start, minor(version)?))
}

fn status_line(line: &[u8]) -> Option<(Start, u8)> {
    let (version, rest) = line.split_at_checked(8)?;
    let (code, reason) = rest.strip_prefix(b" ")?.split_at_checked(3)?;
    let is_apart = reason.is_empty() || reason[0] == b' ';
    let is_text = reason.iter().all(|byte| *byte == b'\t' || (*byte >= b' ' && *byte != 0x7f));
    if !is_apart || !is_text || !code.iter().all(u8::is_ascii_digit) || code[0] == b'0' {
        return None;
    }
    let code = code.iter().fold(0, |sum, digit| sum * 10 + u16::from(digit - b'0'));
    Some((Start::Response { code, reason: reason.to_vec() }, minor(version)?))
}

fn minor(version: &[u8]) -> Option<u8> {
    match version.strip_prefix(b"HTTP/1.")? {
        [digit] if digit.is_ascii_digit() => Some(digit - b'0'),
        _ => None,
    }
}
