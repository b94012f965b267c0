//! Faults of HTTP.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::free::FreeForm;
use super::selector::PodChoice;
use super::status::InstancesStatus;

/// HTTP messages that are late, changed, or cut off.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HTTPChaos {
    /// What is done to whom.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spec: Option<HTTPChaosSpec>,
    /// What has become of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<InstancesStatus>,
}

/// What is done to which messages of which pods.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HTTPChaosSpec {
    /// Which pods.
    #[serde(flatten)]
    pub choice: PodChoice,
    /// Which of the two messages is meant.
    pub target: HttpTarget,
    /// Port that the pod serves. Must be above 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<i32>,
    /// Paths that are meant: `*` is any text, `?` any character. Default: all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Method of the request. Default: any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// Status code of the response. Default: any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<i32>,
    /// Headers that the request must have.
    #[serde(rename = "request_headers", default, skip_serializing_if = "BTreeMap::is_empty")]
    pub request_headers: BTreeMap<String, String>,
    /// Headers that the response must have.
    #[serde(rename = "response_headers", default, skip_serializing_if = "BTreeMap::is_empty")]
    pub response_headers: BTreeMap<String, String>,
    /// What is done to the message.
    #[serde(flatten)]
    pub actions: HttpActions,
    /// How to read encrypted traffic.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<HttpTls>,
    /// How long, as in `1m30s`, counted from the creation of the object. Default: until it is
    /// deleted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duration: Option<String>,
    /// The RemoteCluster to run in. Default: this cluster.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remote_cluster: Option<String>,
    /// What kfault adds to the kind.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kfault: Option<FreeForm>,
}

/// Which message is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum HttpTarget {
    /// What the client sends.
    Request,
    /// What the server answers.
    Response,
}

/// What is done to a message, in this order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HttpActions {
    /// The connection is cut.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub abort: Option<bool>,
    /// The message is late, as in `500ms`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delay: Option<String>,
    /// Parts of the message are replaced.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replace: Option<HttpReplace>,
    /// Parts of the message are added to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub patch: Option<HttpPatch>,
}

/// What takes the place of parts of a message.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HttpReplace {
    /// Path of the request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Method of the request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// Status code of the response.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<i32>,
    /// The body, in base64.
    #[schemars(extend("format" = "byte"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    /// Values of the query.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub queries: BTreeMap<String, String>,
    /// Headers.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
}

/// What is added to parts of a message.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HttpPatch {
    /// What is merged into the body.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body: Option<HttpPatchBody>,
    /// Pairs of name and value that the query gets.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub queries: Vec<Vec<String>>,
    /// Pairs of name and value that the headers get.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<Vec<String>>,
}

/// What is merged into a body.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HttpPatchBody {
    /// How: `JSON` is a merge patch (RFC 7396).
    #[serde(rename = "type")]
    pub kind: String,
    /// The patch.
    pub value: String,
}

/// Where the certificate and the key lie.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HttpTls {
    /// Name of the secret.
    pub secret_name: String,
    /// Namespace of the secret.
    pub secret_namespace: String,
    /// Name of the certificate in the secret.
    pub cert_name: String,
    /// Name of the private key in the secret.
    pub key_name: String,
    /// Name of the certificate of the authority in the secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_name: Option<String>,
}
