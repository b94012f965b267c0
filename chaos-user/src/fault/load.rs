//! From texts to experiments: everything is read before anything is refused, and one error
//! refuses all of it.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use thiserror::Error;

use super::dns::DnsChaos;
use super::http::HttpChaos;
use super::network::{self, NetworkChaos};
use super::pod::PodChaos;
use super::schedule::Schedule;
use super::stress::StressChaos;
use super::throttle::ThrottleChaos;
use super::{ComposeError, Experiment, Fault};
use crate::api::document::{Document, DocumentError, Place, documents};
use crate::api::fields::Fields;
use crate::api::finding::{FieldError, Findings, Warning};
use crate::api::kind::{API_VERSION, Kind, SCHEDULE};
use crate::api::metadata::{self, Metadata};

/// What became of one document.
#[derive(Clone, Debug, PartialEq)]
pub struct Parsed {
    /// Where it was found.
    pub place: Place,
    /// `kind` as written.
    pub kind: Option<String>,
    /// `metadata.namespace` with its default, where `metadata` could be read.
    pub namespace: Option<String>,
    /// `metadata.name`, where it could be read.
    pub name: Option<String>,
    /// The experiment; `None` when there are errors.
    pub experiment: Option<Experiment>,
    /// The schedule, where the document is one; `None` when there are errors.
    pub schedule: Option<Schedule>,
    /// Why there is neither.
    pub errors: Vec<LoadError>,
    /// What does not do what it seems to.
    pub warnings: Vec<Warning>,
}

/// Why a document is no experiment.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum LoadError {
    /// A file that cannot be read.
    #[error("{file}: cannot be read: {reason}; name a file that can, or - for standard input")]
    File {
        /// The file.
        file: String,
        /// What the system says.
        reason: String,
    },
    /// A text that is neither YAML nor JSON.
    #[error(transparent)]
    Document(#[from] DocumentError),
    /// A field.
    #[error("{place} ({object}): {error}")]
    Field {
        /// Where.
        place: Place,
        /// `Kind/namespace/name`, as far as it is known.
        object: String,
        /// What is wrong with it.
        error: FieldError,
    },
    /// Two experiments of one kind, namespace and name.
    #[error("{second}: {id} is in {first} too; rename one of them")]
    Twice {
        /// `Kind/namespace/name`.
        id: String,
        /// The one that came first.
        first: Place,
        /// The other.
        second: Place,
    },
    /// No document at all.
    #[error(
        "{files}: holds no experiment; write an object of {API_VERSION}, kind {}",
        Kind::served()
    )]
    Nothing {
        /// The files that were looked at.
        files: String,
    },
}

impl LoadError {
    /// True when the manifest is right and only this version cannot do it.
    #[must_use]
    pub fn is_unsupported(&self) -> bool {
        matches!(self, Self::Field { error, .. } if error.is_unsupported())
    }

    /// Path of the field, as in the manifest. Empty: the whole document.
    #[must_use]
    pub fn field(&self) -> &str {
        match self {
            Self::Field { error, .. } => error.field(),
            Self::Twice { .. } => "metadata.name",
            Self::File { .. } | Self::Document(_) | Self::Nothing { .. } => "",
        }
    }
}

/// Nothing was done, and why: every problem of every document.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Refusal {
    /// Documents that are no experiments.
    pub load: Vec<LoadError>,
    /// Experiments that cannot act on their workloads.
    pub compose: Vec<ComposeError>,
}

impl Refusal {
    /// One message per problem.
    #[must_use]
    pub fn messages(&self) -> Vec<String> {
        let load = self.load.iter().map(ToString::to_string);
        load.chain(self.compose.iter().map(ToString::to_string)).collect()
    }

    /// 2 when something is wrong with manifest or flags, 3 when this version or host cannot do
    /// it. What another manifest would cure comes first.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        let cannot = self.load.iter().all(LoadError::is_unsupported)
            && self.compose.iter().all(ComposeError::is_unsupported);
        if cannot { 3 } else { 2 }
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.messages().join("\n"))
    }
}

impl std::error::Error for Refusal {}

/// Parses and checks every document of every input (file name, text). Empty documents are
/// skipped. A second experiment of the same kind, namespace and name has an error.
#[must_use]
pub fn parse(inputs: &[(String, String)]) -> Vec<Parsed> {
    let mut out = Vec::new();
    let mut places: BTreeMap<String, Place> = BTreeMap::new();
    for (file, text) in inputs {
        for document in documents(file, text) {
            let mut parsed = match document {
                Ok(document) => parse_one(&document),
                Err(error) => unreadable(error),
            };
            if let Some(id) = parsed.experiment.as_ref().map(Experiment::id) {
                let second = parsed.place.clone();
                if let Some(first) = places.get(&id).cloned() {
                    parsed.experiment = None;
                    parsed.errors.push(LoadError::Twice { id, first, second });
                } else {
                    places.insert(id, second);
                }
            }
            out.push(parsed);
        }
    }
    out
}

/// The experiments of all inputs, or every reason why there are none.
///
/// # Errors
/// [`Refusal`] when any document has an error, or when there is no document at all.
pub fn load(inputs: &[(String, String)]) -> Result<Vec<Experiment>, Refusal> {
    let parsed = parse(inputs);
    if parsed.is_empty() {
        let files: Vec<_> = inputs.iter().map(|(file, _)| file.as_str()).collect();
        let files = files.join(", ");
        return Err(Refusal { load: vec![LoadError::Nothing { files }], ..Refusal::default() });
    }
    let mut experiments = Vec::new();
    let mut load = Vec::new();
    for parsed in parsed {
        load.extend(parsed.errors);
        if parsed.schedule.is_some() {
            load.push(needs_cluster(parsed.place, parsed.name.unwrap_or_default()));
        }
        experiments.extend(parsed.experiment);
    }
    if load.is_empty() { Ok(experiments) } else { Err(Refusal { load, ..Refusal::default() }) }
}

/// Parses and checks one object that came from elsewhere than a file; `origin` says where from.
#[must_use]
pub fn parse_object(origin: &str, value: Value) -> Parsed {
    parse_one(&Document { place: Place { file: origin.to_owned(), index: 0 }, value })
}

/// A host has nobody who would start something again and again.
fn needs_cluster(place: Place, name: String) -> LoadError {
    let error = FieldError::Unsupported {
        field: "kind".to_owned(),
        value: format!("\"{SCHEDULE}\""),
        reason:
            "a schedule starts experiments in a cluster; on a host, run the experiment itself, \
                 from a timer for example"
                .to_owned(),
    };
    LoadError::Field { place, object: format!("{SCHEDULE}/{name}"), error }
}

fn unreadable(error: DocumentError) -> Parsed {
    let DocumentError::Syntax { place, .. } = &error;
    Parsed {
        place: place.clone(),
        kind: None,
        namespace: None,
        name: None,
        experiment: None,
        schedule: None,
        errors: vec![error.into()],
        warnings: Vec::new(),
    }
}

fn parse_one(document: &Document) -> Parsed {
    let mut findings = Findings::default();
    let place = document.place.clone();
    let mut parsed = Parsed {
        place: place.clone(),
        kind: None,
        namespace: None,
        name: None,
        experiment: None,
        schedule: None,
        errors: Vec::new(),
        warnings: Vec::new(),
    };
    let mut metadata = None;
    let (mut fault, mut schedule) = (None, None);
    if let Some(mut root) = Fields::of(&document.value, "", &mut findings) {
        parsed.kind = document.value["kind"].as_str().map(str::to_owned);
        let kind = metadata::kind(&mut root, &mut findings);
        // The rest of a stranger's object is none of our business.
        if let Some(kind) = kind {
            metadata = metadata::metadata(&mut root, &mut findings);
            let nobody = Metadata::default();
            let known = metadata.as_ref().unwrap_or(&nobody);
            if kind.name() == SCHEDULE {
                let fields = spec(&mut root, "schedule and type", &mut findings);
                let written = &document.value["spec"];
                schedule = fields.and_then(|f| Schedule::read(f, written, known, &mut findings));
            } else {
                fault = read(kind, &mut root, known, &mut findings);
            }
            root.ignore(&["status"]);
            if fault.is_some() || schedule.is_some() {
                root.finish(&mut findings);
            }
        }
    }
    let stranger = &document.value["metadata"];
    let text = |key: &str| stranger[key].as_str().map(str::to_owned);
    parsed.namespace = metadata.as_ref().map_or(text("namespace"), |m| Some(m.namespace.clone()));
    parsed.name = metadata.as_ref().map_or(text("name"), |m| Some(m.name.clone()));
    let object = [&parsed.kind, &parsed.namespace, &parsed.name]
        .into_iter()
        .flatten()
        .map(String::as_str)
        .collect::<Vec<_>>()
        .join("/");
    let object = if object.is_empty() { "no object".to_owned() } else { object };
    let Findings { errors, warnings } = findings;
    parsed.errors = errors
        .into_iter()
        .map(|error| LoadError::Field { place: place.clone(), object: object.clone(), error })
        .collect();
    parsed.warnings.clone_from(&warnings);
    if parsed.errors.is_empty() {
        parsed.schedule = schedule;
        if let (Some(metadata), Some(fault)) = (metadata, fault) {
            parsed.experiment = Some(Experiment { place, metadata, fault, warnings });
        }
    }
    parsed
}

/// The experiment of this `spec`, as part of another object.
pub(super) fn experiment(
    kind: Kind,
    spec: &Value,
    metadata: &Metadata,
    findings: &mut Findings,
) -> Option<Experiment> {
    let whole = json!({ "spec": spec });
    let mut root = Fields::of(&whole, "", findings)?;
    let fault = read(kind, &mut root, metadata, findings)?;
    let place = Place { file: String::new(), index: 0 };
    let (metadata, warnings) = (metadata.clone(), findings.warnings.clone());
    findings.errors.is_empty().then_some(Experiment { place, metadata, fault, warnings })
}

fn spec<'a>(root: &mut Fields<'a>, least: &str, findings: &mut Findings) -> Option<Fields<'a>> {
    root.require("spec", &format!("an object with at least {least}"), findings);
    root.object("spec", findings)
}

fn read(
    kind: Kind,
    root: &mut Fields<'_>,
    metadata: &Metadata,
    findings: &mut Findings,
) -> Option<Fault> {
    const LEAST: &str = "selector, mode and action";
    let namespace = match metadata.namespace.as_str() {
        "" => metadata::DEFAULT_NAMESPACE,
        namespace => namespace,
    };
    match kind {
        Kind::Network => {
            let fields = spec(root, LEAST, findings)?;
            let spec = NetworkChaos::read(fields, namespace, findings)?;
            network::check(&spec, findings);
            Some(Fault::Network(Box::new(spec)))
        }
        Kind::Pod => {
            let fields = spec(root, LEAST, findings)?;
            Some(Fault::Pod(Box::new(PodChaos::read(fields, namespace, findings)?)))
        }
        Kind::Stress => {
            let fields = spec(root, "selector, mode and stressors", findings)?;
            Some(Fault::Stress(Box::new(StressChaos::read(fields, namespace, findings)?)))
        }
        Kind::Throttle => {
            let fields = spec(root, "selector, mode and one limit", findings)?;
            Some(Fault::Throttle(Box::new(ThrottleChaos::read(fields, namespace, findings)?)))
        }
        Kind::Dns => {
            let fields = spec(root, LEAST, findings)?;
            Some(Fault::Dns(Box::new(DnsChaos::read(fields, namespace, findings)?)))
        }
        Kind::Http => {
            let fields = spec(root, "selector, mode, target, port and one action", findings)?;
            Some(Fault::Http(Box::new(HttpChaos::read(fields, namespace, findings)?)))
        }
        Kind::Later(name) => {
            let reason = format!("it serves {} only; remove this document", Kind::served());
            findings.unsupported("kind", &name, reason);
            None
        }
    }
}
