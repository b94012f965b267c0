//! The fields of an HTTP fault: reading them, defaulting them, writing them back.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::check;
use crate::api::duration::GoDuration;
use crate::api::fields::Fields;
use crate::api::finding::Findings;
use crate::api::written::Written;
use crate::fault::{Choice, read_duration};
use crate::plan::exchange::{Edit, Matcher, Message, Role};

/// `spec` of the kind, defaults filled in.
#[derive(Clone, Debug, PartialEq)]
pub struct HttpChaos {
    /// Who is hit.
    pub source: Choice,
    /// Which of the two messages.
    pub message: Message,
    /// The server's port.
    pub port: u16,
    /// `path`, a pattern.
    pub path: Option<String>,
    /// `method`.
    pub method: Option<String>,
    /// `code`.
    pub code: Option<u16>,
    /// `request_headers`.
    pub request_headers: BTreeMap<String, String>,
    /// `response_headers`.
    pub response_headers: BTreeMap<String, String>,
    /// What is done, as written.
    pub actions: Actions,
    /// `tls`: known, and not supported.
    pub tls: Option<Tls>,
    /// How long; `None`: until recovered.
    pub duration: Option<Written<GoDuration>>,
    /// What this project adds to the kind.
    pub kfault: Extension,
    /// Which exchanges are meant: what of the fields above has an effect.
    pub matcher: Matcher,
    /// What happens to them: what of the actions has an effect.
    pub edit: Edit,
}

/// The four actions, as written.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Actions {
    /// `abort`.
    pub abort: bool,
    /// `delay`.
    pub delay: Option<Written<GoDuration>>,
    /// `replace`.
    pub replace: Option<Replace>,
    /// `patch`.
    pub patch: Option<Patch>,
}

/// `replace`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Replace {
    /// `path`.
    pub path: Option<String>,
    /// `method`.
    pub method: Option<String>,
    /// `code`.
    pub code: Option<u16>,
    /// `body`, decoded.
    pub body: Option<Vec<u8>>,
    /// `queries`.
    pub queries: BTreeMap<String, String>,
    /// `headers`.
    pub headers: BTreeMap<String, String>,
}

/// `patch`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Patch {
    /// `body.value`: the text, and what it means.
    pub body: Option<(String, Value)>,
    /// `queries`.
    pub queries: Vec<(String, String)>,
    /// `headers`.
    pub headers: Vec<(String, String)>,
}

/// `tls`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// Its fields, all of them texts.
    pub fields: BTreeMap<String, String>,
}

/// `spec.kfault`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extension {
    /// Which end of a connection the target is. Default: whichever it is.
    pub role: Role,
    /// Act on workloads that appear later, too (clusters only).
    pub follow: bool,
}

const MESSAGES: [(&str, Message); 2] =
    [("Request", Message::Request), ("Response", Message::Response)];
const ROLES: [(&str, Role); 2] = [("client", Role::Client), ("server", Role::Server)];
const METHODS: [&str; 9] =
    ["GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "TRACE", "CONNECT"];
const DELAY: &str = "write a Go duration, for example \"100ms\" or \"1.5s\"";
const BASE64: &str = "write the body in base64, as `base64 -w0` prints it";
const JSON_PATCH: &str = "write a JSON document, as in '{\"n\": 9}'; its null takes a member away";

impl HttpChaos {
    /// Reads `spec`; `namespace` is the object's own.
    pub fn read(mut fields: Fields<'_>, namespace: &str, findings: &mut Findings) -> Option<Self> {
        let source = Choice::read(&mut fields, namespace, findings);
        fields.require("target", "Request or Response", findings);
        let message = fields.word("target", &MESSAGES, findings);
        fields.require("port", "the server's port, 1 to 65535", findings);
        let port = small(fields.number("port", 1, 65535, findings));
        let path = fields.text("path", findings).map(str::to_owned);
        let method = method(&mut fields, message, findings);
        let code = small(fields.number("code", 100, 999, findings));
        let request_headers = headers(&mut fields, "request_headers", findings);
        let response_headers = headers(&mut fields, "response_headers", findings);
        let actions = Actions::read(&mut fields, findings);
        let tls = Tls::read(&mut fields, findings);
        let duration = read_duration(&mut fields, findings);
        if let Some(name) = fields.text("remoteCluster", findings).filter(|name| !name.is_empty()) {
            let way_out = "apply the experiment in that cluster itself";
            findings.unsupported("spec.remoteCluster", &name, way_out);
        }
        let kfault = Extension::read(&mut fields, findings);
        fields.finish(findings);
        let mut spec = Self {
            source: source?,
            message: message?,
            port: port?,
            path,
            method,
            code,
            request_headers,
            response_headers,
            actions,
            tls,
            duration,
            kfault,
            matcher: Matcher::default(),
            edit: Edit::default(),
        };
        spec.matcher = check::matcher(&spec, findings);
        spec.edit = check::edit(&spec, findings);
        Some(spec)
    }

    /// `spec` with its defaults, as a manifest writes it. Reads back to an equal value.
    #[must_use]
    pub fn json(&self) -> Value {
        let mut value = json!(self.source);
        let word = MESSAGES.iter().find(|(_, message)| *message == self.message);
        value["target"] = json!(word.map(|(word, _)| word));
        value["port"] = json!(self.port);
        put(&mut value, "path", self.path.as_ref());
        put(&mut value, "method", self.method.as_ref());
        put(&mut value, "code", self.code.as_ref());
        put_map(&mut value, "request_headers", &self.request_headers);
        put_map(&mut value, "response_headers", &self.response_headers);
        self.actions.write(&mut value);
        if let Some(tls) = &self.tls {
            value["tls"] = json!(tls.fields);
        }
        put(&mut value, "duration", self.duration.as_ref());
        if let Some(kfault) = self.kfault.json() {
            value["kfault"] = kfault;
        }
        value
    }
}

impl Actions {
    fn read(fields: &mut Fields<'_>, findings: &mut Findings) -> Self {
        let is_empty =
            matches!(fields.value("delay"), Some(Value::String(text)) if text.is_empty());
        Self {
            abort: fields.switch("abort", findings).unwrap_or_default(),
            delay: if is_empty { None } else { fields.parsed("delay", DELAY, findings) },
            replace: Replace::read(fields, findings),
            patch: Patch::read(fields, findings),
        }
    }

    fn write(&self, value: &mut Value) {
        if self.abort {
            value["abort"] = json!(true);
        }
        put(value, "delay", self.delay.as_ref());
        if let Some(Replace { path, method, code, body, queries, headers }) = &self.replace {
            let mut block = json!({});
            put(&mut block, "path", path.as_ref());
            put(&mut block, "method", method.as_ref());
            put(&mut block, "code", code.as_ref());
            put(&mut block, "body", body.as_ref().map(|body| STANDARD.encode(body)).as_ref());
            put_map(&mut block, "queries", queries);
            put_map(&mut block, "headers", headers);
            value["replace"] = block;
        }
        if let Some(Patch { body, queries, headers }) = &self.patch {
            let mut block = json!({});
            let body = body.as_ref().map(|(text, _)| json!({ "type": "JSON", "value": text }));
            put(&mut block, "body", body.as_ref());
            put(&mut block, "queries", (!queries.is_empty()).then_some(queries));
            put(&mut block, "headers", (!headers.is_empty()).then_some(headers));
            value["patch"] = block;
        }
    }
}

impl Replace {
    fn read(parent: &mut Fields<'_>, findings: &mut Findings) -> Option<Self> {
        let mut fields = parent.object("replace", findings)?;
        let block = Self {
            path: target(&mut fields, findings),
            method: token(&mut fields, "method", findings),
            code: final_code(&mut fields, findings),
            body: body(&mut fields, findings),
            queries: fields.text_map("queries", findings),
            headers: headers(&mut fields, "headers", findings),
        };
        fields.finish(findings);
        Some(block)
    }
}

impl Patch {
    fn read(parent: &mut Fields<'_>, findings: &mut Findings) -> Option<Self> {
        let mut fields = parent.object("patch", findings)?;
        let body = fields.object("body", findings).and_then(|mut fields| {
            fields.require("type", "JSON", findings);
            fields.require("value", JSON_PATCH, findings);
            let kind = fields.word("type", &[("JSON", ())], findings);
            let text = fields.text("value", findings).map(str::to_owned);
            let path = fields.path("value");
            fields.finish(findings);
            let (_, text) = (kind?, text?);
            match serde_json::from_str(&text) {
                Ok(value) => Some((text, value)),
                Err(error) => {
                    findings.invalid(&path, &text, format!("is no JSON ({error}); {JSON_PATCH}"));
                    None
                }
            }
        });
        let queries = pairs(&mut fields, "queries", findings);
        let headers = pairs(&mut fields, "headers", findings);
        let path = fields.path("headers");
        for (i, (name, value)) in headers.iter().enumerate() {
            check::header(&format!("{path}[{i}]"), name, value, findings);
        }
        fields.finish(findings);
        Some(Self { body, queries, headers })
    }
}

impl Tls {
    fn read(parent: &mut Fields<'_>, findings: &mut Findings) -> Option<Self> {
        const NEEDED: [&str; 4] = ["secretName", "secretNamespace", "certName", "keyName"];
        let mut block = parent.object("tls", findings)?;
        let mut fields = BTreeMap::new();
        for name in NEEDED {
            block.require(name, "a text", findings);
        }
        for name in NEEDED.into_iter().chain(["caName"]) {
            if let Some(text) = block.text(name, findings) {
                fields.insert(name.to_owned(), text.to_owned());
            }
        }
        block.finish(findings);
        let message = "not supported by this version: encrypted connections pass untouched and \
                       are counted";
        findings.warn("spec.tls", message);
        Some(Self { fields })
    }
}

impl Extension {
    fn read(parent: &mut Fields<'_>, findings: &mut Findings) -> Self {
        let Some(mut fields) = parent.object("kfault", findings) else { return Self::default() };
        let extension = Self {
            role: fields.word("role", &ROLES, findings).unwrap_or_default(),
            follow: fields.switch("follow", findings).unwrap_or_default(),
        };
        fields.finish(findings);
        extension
    }

    fn json(self) -> Option<Value> {
        let mut value = json!({});
        let role = ROLES.iter().find(|(_, role)| *role == self.role);
        put(&mut value, "role", role.map(|(word, _)| word));
        if self.follow {
            value["follow"] = json!(true);
        }
        (value != json!({})).then_some(value)
    }
}

fn put<T: serde::Serialize>(value: &mut Value, name: &str, field: Option<&T>) {
    if let Some(field) = field {
        value[name] = json!(field);
    }
}

fn put_map(value: &mut Value, name: &str, map: &BTreeMap<String, String>) {
    if !map.is_empty() {
        value[name] = json!(map);
    }
}

fn small(number: Option<u64>) -> Option<u16> {
    number.and_then(|number| u16::try_from(number).ok())
}

/// Where requests are acted on, upstream knows nine methods; elsewhere it takes any text.
fn method(
    fields: &mut Fields<'_>,
    message: Option<Message>,
    findings: &mut Findings,
) -> Option<String> {
    let path = fields.path("method");
    let text = fields.text("method", findings)?;
    if message == Some(Message::Request) && !METHODS.contains(&text) {
        let meant = METHODS.iter().find(|known| known.eq_ignore_ascii_case(text));
        let advice = match meant {
            Some(meant) => format!("did you mean \"{meant}\"?"),
            None => "write one of them".to_owned(),
        };
        let reason =
            format!("method {text} is not supported; allowed: {}; {advice}", METHODS.join(", "));
        findings.invalid(&path, &text, reason);
        return None;
    }
    Some(text.to_owned())
}

fn headers(
    fields: &mut Fields<'_>,
    name: &'static str,
    findings: &mut Findings,
) -> BTreeMap<String, String> {
    let path = fields.path(name);
    let map = fields.text_map(name, findings);
    for (name, value) in &map {
        check::header(&crate::api::fields::entry(&path, name), name, value, findings);
    }
    map
}

/// A list of lists of two texts.
fn pairs(
    fields: &mut Fields<'_>,
    name: &'static str,
    findings: &mut Findings,
) -> Vec<(String, String)> {
    let mut out = Vec::new();
    for (path, item) in fields.list(name, findings) {
        match item.as_array().map(Vec::as_slice) {
            Some([Value::String(key), Value::String(value)]) => {
                out.push((key.clone(), value.clone()));
            }
            _ => {
                let reason = "must be a name and a value; write [\"name\", \"value\"]";
                findings.invalid(&path, item, reason);
            }
        }
    }
    out
}

fn token(fields: &mut Fields<'_>, name: &'static str, findings: &mut Findings) -> Option<String> {
    let path = fields.path(name);
    let text = fields.text(name, findings)?;
    if !check::is_token(text) {
        findings.invalid(&path, &text, "is no method; write one, for example POST");
        return None;
    }
    Some(text.to_owned())
}

/// What may stand in a request line.
fn target(fields: &mut Fields<'_>, findings: &mut Findings) -> Option<String> {
    let path = fields.path("path");
    let text = fields.text("path", findings)?;
    if text.is_empty() {
        return Some("/".to_owned());
    }
    if !text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#') {
        let reason = "may hold visible ASCII characters other than #; write others as %20";
        findings.invalid(&path, &text, reason);
        return None;
    }
    Some(text.to_owned())
}

fn final_code(fields: &mut Fields<'_>, findings: &mut Findings) -> Option<u16> {
    let code = small(fields.number("code", 100, 999, findings))?;
    if code < 200 {
        let way_out = "after an interim status the client goes on waiting; write 200 to 999";
        findings.unsupported(&fields.path("code"), &code, way_out);
        return None;
    }
    Some(code)
}

fn body(fields: &mut Fields<'_>, findings: &mut Findings) -> Option<Vec<u8>> {
    let path = fields.path("body");
    let text = fields.text("body", findings)?;
    // As Go reads it: lines may be broken, letters are padded.
    let joined: String = text.chars().filter(|c| !matches!(c, '\r' | '\n')).collect();
    match STANDARD.decode(joined) {
        Ok(body) if body.is_empty() => {
            findings.warn(&path, "is empty, which is as good as absent: the body stays");
            None
        }
        Ok(body) => Some(body),
        Err(error) => {
            findings.invalid(&path, &text, format!("illegal base64 data ({error}); {BASE64}"));
            None
        }
    }
}
