//! The fields of a fault of name resolution: reading them, defaulting them, writing them back.

use chaos_abi::limit::{PATTERNS_PER_LIST, WILDS_PER_LIST};
use serde_json::{Value, json};

use crate::api::duration::GoDuration;
use crate::api::fields::Fields;
use crate::api::finding::Findings;
use crate::api::written::Written;
use crate::fault::{Choice, read_duration};
use crate::plan::names::{Names, Pattern};
use crate::plan::{Answer, Reply};

/// `spec` of the kind, defaults filled in.
#[derive(Clone, Debug, PartialEq)]
pub struct DnsChaos {
    /// Who is hit.
    pub source: Choice,
    /// What the answer is.
    pub action: Action,
    /// Which names, as written; none: every name.
    pub patterns: Vec<String>,
    /// What they mean.
    pub names: Names,
    /// Which containers; none: the first of each pod.
    pub container_names: Vec<String>,
    /// How long; `None`: until recovered.
    pub duration: Option<Written<GoDuration>>,
    /// What this project adds to the kind.
    pub kfault: Extension,
}

/// `action`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// An error.
    Error,
    /// An address at random.
    Random,
}

/// `spec.kfault`: what this project adds to the kind. Everything defaults to what the kind means
/// without it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Extension {
    /// Which error. `None`: not given, which means `servfail`.
    pub answer: Option<Reply>,
    /// Seconds that an address at random may be kept. `None`: not given, which means 10.
    pub ttl: Option<u32>,
    /// Act on workloads that appear later, too (clusters only).
    pub follow: bool,
}

const ACTIONS: [(&str, Action); 2] = [("error", Action::Error), ("random", Action::Random)];
const ANSWERS: [(&str, Reply); 4] = [
    ("nxdomain", Reply::Nxdomain),
    ("servfail", Reply::Servfail),
    ("refused", Reply::Refused),
    ("timeout", Reply::Timeout),
];
/// Seconds that an address may be kept, as elsewhere.
const TTL: u32 = 10;
/// RFC 2181 section 8.
const LONGEST_TTL: u64 = (1 << 31) - 1;

fn word<T: PartialEq>(words: &[(&'static str, T)], value: &T) -> &'static str {
    words.iter().find(|(_, v)| v == value).map_or("", |(word, _)| word)
}

impl DnsChaos {
    /// Reads `spec`; `namespace` is the object's own.
    pub fn read(mut fields: Fields<'_>, namespace: &str, findings: &mut Findings) -> Option<Self> {
        let source = Choice::read(&mut fields, namespace, findings);
        fields.require("action", "allowed: error, random", findings);
        let action = fields.word("action", &ACTIONS, findings);
        let patterns = fields.texts("patterns", findings);
        let names = names(&patterns, &fields.path("patterns"), findings);
        let container_names = fields.texts("containerNames", findings);
        let duration = read_duration(&mut fields, findings);
        if let Some(name) = fields.text("remoteCluster", findings).filter(|name| !name.is_empty()) {
            let way_out = "apply the experiment in that cluster itself";
            findings.unsupported("spec.remoteCluster", &name, way_out);
        }
        let kfault = Extension::read(&mut fields, findings);
        fields.finish(findings);
        let action = action?;
        kfault.check(action, findings);
        Some(Self {
            source: source?,
            action,
            patterns,
            names: names?,
            container_names,
            duration,
            kfault,
        })
    }

    /// What queries are answered with.
    #[must_use]
    pub fn answer(&self) -> Answer {
        let names = self.names.clone();
        match self.action {
            Action::Error => {
                Answer { names, reply: self.kfault.answer.unwrap_or(Reply::Servfail), ttl: 0 }
            }
            Action::Random => {
                Answer { names, reply: Reply::Random, ttl: self.kfault.ttl.unwrap_or(TTL) }
            }
        }
    }

    /// `spec` with its defaults, as a manifest writes it. Reads back to an equal value.
    #[must_use]
    pub fn json(&self) -> Value {
        let mut value = json!(self.source);
        value["action"] = json!(word(&ACTIONS, &self.action));
        if !self.patterns.is_empty() {
            value["patterns"] = json!(self.patterns);
        }
        if !self.container_names.is_empty() {
            value["containerNames"] = json!(self.container_names);
        }
        if let Some(duration) = &self.duration {
            value["duration"] = json!(duration);
        }
        if let Some(kfault) = self.kfault.json() {
            value["kfault"] = kfault;
        }
        value
    }
}

/// The patterns' meaning; `None` where there are too many.
fn names(written: &[String], path: &str, findings: &mut Findings) -> Option<Names> {
    let mut patterns = Vec::new();
    for (i, text) in written.iter().enumerate() {
        let path = format!("{path}[{i}]");
        match text.parse::<Pattern>() {
            Ok(pattern) => {
                if let Some(message) = surprise(&pattern) {
                    findings.warn(&path, message);
                }
                patterns.push(pattern);
            }
            Err(error) => findings.warn(&path, format!("{error}: it matches no query")),
        }
    }
    if patterns.is_empty() && !written.is_empty() {
        // Without a pattern every name would be meant.
        findings.invalid(
            path,
            &written.join(", "),
            "no pattern matches any query; mend one, or remove the field to mean every name",
        );
        return None;
    }
    let names = Names::of(patterns);
    let mut fits = true;
    let wilds = names.patterns().filter(|pattern| pattern.is_wild()).count();
    for (what, needed, limit) in [
        ("patterns", names.len(), PATTERNS_PER_LIST),
        ("patterns with \"?\"", wilds, WILDS_PER_LIST),
    ] {
        if needed > limit {
            let reason = format!(
                "{needed} {what}, and an experiment may have {limit}; use \"*\" for the end of a \
                 name, or split the experiment"
            );
            findings.invalid(path, &format!("{needed} patterns"), reason);
            fits = false;
        }
    }
    fits.then_some(names)
}

/// What a pattern does not do, though it seems to.
fn surprise(pattern: &Pattern) -> Option<String> {
    let text = pattern.text();
    if text.contains('*') {
        let message = "\"*\" stands for any text as the last character only; here it is the \
                       character itself, which no usual name has: the pattern matches nothing";
        return Some(message.to_owned());
    }
    if !pattern.is_prefix() && text.is_empty() {
        return Some("matches the root of all names only".to_owned());
    }
    if !pattern.is_prefix() && !text.contains(['.', '?']) {
        return Some(format!(
            "matches the name \"{text}\" alone, and a Service of that name is asked for as \
             {text}.NAMESPACE.svc.cluster.local: write \"{text}.*\" to mean that"
        ));
    }
    if !pattern.is_prefix() && text.ends_with(".svc") {
        return Some(format!(
            "matches the name as it is asked for, and a Service is asked for as \
             {text}.cluster.local: write \"{text}.*\" to mean that"
        ));
    }
    None
}

impl Extension {
    fn read(parent: &mut Fields<'_>, findings: &mut Findings) -> Self {
        let Some(mut fields) = parent.object("kfault", findings) else { return Self::default() };
        let ttl = fields.number("ttl", 0, LONGEST_TTL, findings);
        let extension = Self {
            answer: fields.word("answer", &ANSWERS, findings),
            ttl: ttl.and_then(|ttl| u32::try_from(ttl).ok()),
            follow: fields.switch("follow", findings).unwrap_or_default(),
        };
        fields.finish(findings);
        extension
    }

    fn check(&self, action: Action, findings: &mut Findings) {
        if action == Action::Random && self.answer.is_some() {
            let message = "has no effect: action \"random\" answers with addresses";
            findings.warn("spec.kfault.answer", message);
        }
        if action == Action::Error && self.ttl.is_some() {
            let message = "has no effect: an error says nothing of how long it may be kept";
            findings.warn("spec.kfault.ttl", message);
        }
    }

    fn json(&self) -> Option<Value> {
        let Self { answer, ttl, follow } = self;
        let mut value = json!({});
        if let Some(answer) = answer {
            value["answer"] = json!(word(&ANSWERS, answer));
        }
        if let Some(ttl) = ttl {
            value["ttl"] = json!(ttl);
        }
        if *follow {
            value["follow"] = json!(true);
        }
        (value != json!({})).then_some(value)
    }
}
