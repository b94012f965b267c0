//! A few requests to the API server, by curl: kubectl takes longer to start than they take.

use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::node::Node;
use super::{CONTROL, CONTROL_ADDRESS, Cluster, network};
use crate::exec;

/// Talks to one cluster as its administrator.
pub struct Api<'a> {
    pub cluster: &'a Cluster,
}

impl Api<'_> {
    /// Whether it serves.
    pub fn is_ready(&self) -> bool {
        self.request(&[], "readyz").is_ok_and(|text| text == "ok")
    }

    /// Whether an object is there.
    pub fn has(&self, path: &str) -> bool {
        self.request(&[], path).is_ok()
    }

    /// An object.
    pub fn get(&self, path: &str) -> Result<Value> {
        let text = self.request(&[], path)?;
        serde_json::from_str(&text).with_context(|| format!("what the API server said to {path}"))
    }

    /// Gives a node its range of addresses, so that no controller chooses one for it.
    pub fn assign(&self, node: &Node) -> Result<()> {
        let ranges = json!([node.pods(), node.pods6()]);
        let patch = json!({"spec": {"podCIDR": node.pods(), "podCIDRs": ranges}});
        let patch = patch.to_string();
        let kind = "Content-Type: application/merge-patch+json";
        let args = ["--request", "PATCH", "--header", kind, "--data", &patch];
        self.request(&args, &format!("api/v1/nodes/{}", node.name())).map(|_| ())
    }

    /// Whether a node takes pods.
    pub fn is_node_ready(&self, name: &str) -> bool {
        self.get(&format!("api/v1/nodes/{name}")).is_ok_and(|node| is_ready(&node))
    }

    /// Makes what a manifest says.
    pub fn apply(&self, manifest: &str) -> Result<()> {
        let mut kubectl = self.cluster.client("kubectl")?;
        // The schema, which is large, would be fetched to check what is known to be right.
        kubectl.args(["create", "--validate=false", "--filename", manifest]);
        exec::read(&mut kubectl).map(|_| ())
    }

    fn request(&self, args: &[&str], path: &str) -> Result<String> {
        exec::read(self.curl(path)?.args(args))
    }

    /// A request, for more arguments of curl's.
    pub fn curl(&self, path: &str) -> Result<Command> {
        let config = self.cluster.file("curl.conf");
        if !config.is_file() {
            bail!("no cluster was started from this folder");
        }
        let mut command = network::inside(CONTROL)?;
        command.args(["curl", "--config"]).arg(config);
        command.arg(format!("https://{CONTROL_ADDRESS}:6443/{path}"));
        Ok(command)
    }
}

/// Names and addresses of the pods of a list that are not on their way out.
pub fn pods(list: &Value) -> Vec<(String, String)> {
    let all = list["items"].as_array().map(Vec::as_slice).unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    all.iter()
        .filter(|pod| pod["metadata"]["deletionTimestamp"].is_null())
        .map(|pod| (text(&pod["metadata"]["name"]), text(&pod["status"]["podIP"])))
        .collect()
}

fn is_ready(node: &Value) -> bool {
    let conditions = node["status"]["conditions"].as_array().map(Vec::as_slice).unwrap_or_default();
    conditions.iter().any(|it| it["type"] == "Ready" && it["status"] == "True")
}
