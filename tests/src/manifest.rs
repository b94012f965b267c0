//! Manifests of the tests, as people write them.

use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use tempfile::NamedTempFile;

/// An experiment that is being written.
#[derive(Clone, Debug)]
pub struct Manifest(Value);

impl Manifest {
    /// One with this action and no block.
    #[must_use]
    pub fn new(action: &str) -> Self {
        Self(json!({
            "apiVersion": "chaos-mesh.org/v1alpha1",
            "kind": "NetworkChaos",
            "metadata": {"name": format!("kft-{action}"), "namespace": "default"},
            "spec": {
                "action": action,
                "mode": "all",
                "selector": {"namespaces": ["default"]},
            },
        }))
    }

    /// A ThrottleChaos without a limit.
    #[must_use]
    pub fn throttle() -> Self {
        let mut manifest = Self::new("throttle").kind("kfault.dev/v1alpha1", "ThrottleChaos");
        if let Some(spec) = manifest.0["spec"].as_object_mut() {
            spec.remove("action");
        }
        manifest
    }

    /// An HTTPChaos on the responses of a server at this port that does nothing yet.
    #[must_use]
    pub fn http(port: u16) -> Self {
        Self(json!({
            "apiVersion": "chaos-mesh.org/v1alpha1",
            "kind": "HTTPChaos",
            "metadata": {"name": "kft-http", "namespace": "default"},
            "spec": {
                "mode": "all",
                "selector": {"namespaces": ["default"]},
                "target": "Response",
                "port": port,
                "kfault": {"role": "server"},
            },
        }))
    }

    /// Every packet later by this much.
    #[must_use]
    pub fn delay(latency: &str) -> Self {
        Self::new("delay").with("delay", json!({"latency": latency}))
    }

    /// A DNSChaos for these names.
    #[must_use]
    pub fn dns(action: &str, patterns: &[&str]) -> Self {
        let manifest = Self::new(action).kind("chaos-mesh.org/v1alpha1", "DNSChaos");
        if patterns.is_empty() { manifest } else { manifest.with("patterns", json!(patterns)) }
    }

    /// A share of all packets is lost.
    #[must_use]
    pub fn loss(percent: &str) -> Self {
        Self::new("loss").with("loss", json!({"loss": percent}))
    }

    /// A StressChaos with these stressors.
    #[must_use]
    pub fn stress(stressors: &Value) -> Self {
        Self(json!({
            "apiVersion": "chaos-mesh.org/v1alpha1",
            "kind": "StressChaos",
            "metadata": {"name": "kft-stress", "namespace": "default"},
            "spec": {
                "mode": "all",
                "selector": {"namespaces": ["default"]},
                "stressors": stressors,
            },
        }))
    }

    /// A StressChaos with a line of stress-ng's options.
    #[must_use]
    pub fn stress_ng(line: &str) -> Self {
        let mut manifest = Self::stress(&Value::Null).with("stressngStressors", json!(line));
        if let Some(spec) = manifest.0["spec"].as_object_mut() {
            spec.remove("stressors");
        }
        manifest
    }

    /// Sets a field of the spec.
    #[must_use]
    pub fn with(mut self, field: &str, value: Value) -> Self {
        self.0["spec"][field] = value;
        self
    }

    /// Sets its name.
    #[must_use]
    pub fn named(mut self, name: &str) -> Self {
        self.0["metadata"]["name"] = name.into();
        self
    }

    /// Sets its kind.
    #[must_use]
    pub fn kind(mut self, api_version: &str, kind: &str) -> Self {
        self.0["apiVersion"] = api_version.into();
        self.0["kind"] = kind.into();
        self
    }

    /// Only packets to these.
    #[must_use]
    pub fn to<T: ToString>(self, externals: &[T]) -> Self {
        let all: Vec<String> = externals.iter().map(ToString::to_string).collect();
        self.with("externalTargets", json!(all))
    }

    /// Only packets between the targets and the workloads of `--peer`.
    #[must_use]
    pub fn between(self, direction: &str) -> Self {
        self.with("direction", json!(direction))
            .with("target", json!({"mode": "all", "selector": {"namespaces": ["default"]}}))
    }

    /// Writes it to a file that goes when dropped.
    pub fn write(&self) -> Result<File> {
        // JSON is YAML.
        File::of(&self.0.to_string())
    }
}

/// A manifest on disk.
#[derive(Debug)]
pub struct File(NamedTempFile);

impl File {
    /// With this text.
    pub fn of(text: &str) -> Result<Self> {
        let mut file = tempfile::Builder::new()
            .prefix("kft-")
            .suffix(".yaml")
            .tempfile()
            .context("make a manifest")?;
        file.write_all(text.as_bytes()).context("write a manifest")?;
        Ok(Self(file))
    }

    /// Where.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.0.path()
    }
}
