//! Exchanges: what an experiment does to the HTTP messages of one target.
//!
//! An exchange is a request and its response. A [`Matcher`] says which of them are meant, by
//! everything that is known of both; an [`Edit`] says what is done to one of the two messages.
//! Like rules they are values: comparable, printable, serialisable.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Cgroup, serde_duration};

/// One experiment's effect on the HTTP messages of one target.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Exchange {
    /// Stable name, unique in a plan: `HTTPChaos/ns/name/unit:web.service`.
    pub id: String,
    /// `Kind/namespace/name` of the experiment.
    pub experiment: String,
    /// The workload that it acts on, as the user wrote it (`unit:web.service`), for people.
    pub target: String,
    /// Whose sockets.
    pub sockets: Sockets,
    /// Which end of a connection the target is.
    pub role: Role,
    /// Which of the two messages is acted on.
    pub message: Message,
    /// TCP port of the server, whichever end the target is.
    pub port: u16,
    /// Which exchanges are meant.
    #[serde(skip_serializing_if = "Matcher::is_everything", default)]
    pub matcher: Matcher,
    /// What happens to the message.
    pub edit: Edit,
    /// One sentence for people: "delay responses by 100ms on port 80 of unit:web.service".
    pub describes: String,
    /// Seed of its dice, already mixed with its id.
    pub seed: u64,
    /// How long it acts from the moment it is applied; `None` = until recovered.
    #[serde(skip_serializing_if = "Option::is_none", default, with = "serde_duration")]
    pub duration: Option<Duration>,
    /// Decide and count, harm no message.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub dry_run: bool,
}

/// Whose sockets: those of a network namespace, or those of one cgroup in it.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Sockets {
    /// File of the namespace, as in [`super::Device::netns`]. Empty without a host.
    pub netns: String,
    /// Inode of the namespace: its identity. 0 without a host.
    pub inode: u64,
    /// Every device of the namespace, sorted. Empty without a host.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub devices: Vec<String>,
    /// `Some`: only sockets of this cgroup are meant; the namespace is shared with others.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub cgroup: Option<Cgroup>,
    /// The cgroup of everything that lives in the namespace, where there is one: a place for
    /// programs of cgroups that a namespace of its own does not need for telling who is meant.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub holder: Option<Cgroup>,
}

impl Sockets {
    /// Devices that requests to them arrive through. What a namespace of its own says to itself
    /// stays between its processes; a cgroup on a shared network is also asked through loopback.
    pub fn watched(&self) -> impl Iterator<Item = &String> {
        let is_shared = self.cgroup.is_some();
        self.devices.iter().filter(move |name| is_shared || name.as_str() != "lo")
    }
}

/// Which end of a connection the target is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// It answers: its own port is the port.
    Server,
    /// It asks: the other end's port is the port.
    Client,
    /// Whatever it is.
    #[default]
    Both,
}

impl Role {
    /// True when the target may be the server.
    #[must_use]
    pub fn serves(self) -> bool {
        self != Self::Client
    }

    /// True when the target may be the client.
    #[must_use]
    pub fn asks(self) -> bool {
        self != Self::Server
    }
}

/// Which of the two messages of an exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Message {
    /// What the client sends.
    Request,
    /// What the server answers.
    Response,
}

/// Which exchanges are meant: all that is given must hold. The default is every exchange.
///
/// `code` and `response_headers` are known only when the response comes, so they are not given
/// where requests are acted on.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Matcher {
    /// Pattern of the request's path, without its query: `*` is any run of bytes, `/` among
    /// them, and `?` any one byte.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub path: Option<String>,
    /// Method of the request, exactly.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub method: Option<String>,
    /// Status of the response.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub code: Option<u16>,
    /// Headers that the request has: name in lower case → value, exactly.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub request_headers: BTreeMap<String, String>,
    /// Headers that the response has: name in lower case → value, exactly.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub response_headers: BTreeMap<String, String>,
}

impl Matcher {
    /// True when every exchange is meant.
    #[must_use]
    pub fn is_everything(&self) -> bool {
        *self == Self::default()
    }
}

/// What happens to a message, in the order of the fields.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Edit {
    /// The connection is cut; the fields below have no effect then.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub abort: bool,
    /// The whole message is held back for this long.
    #[serde(skip_serializing_if = "Option::is_none", default, with = "serde_duration")]
    pub delay: Option<Duration>,
    /// Parts that others take the place of.
    #[serde(skip_serializing_if = "Replace::is_nothing", default)]
    pub replace: Replace,
    /// Parts that are added to.
    #[serde(skip_serializing_if = "Patch::is_nothing", default)]
    pub patch: Patch,
}

impl Edit {
    /// True when the bytes of the message become others.
    #[must_use]
    pub fn rewrites(&self) -> bool {
        !self.replace.is_nothing() || !self.patch.is_nothing()
    }

    /// True when nothing happens.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        !self.abort && self.delay.is_none() && !self.rewrites()
    }
}

/// Parts of a message that others take the place of.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Replace {
    /// Path of the request; its query stays.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub path: Option<String>,
    /// Method of the request.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub method: Option<String>,
    /// Status of the response, 100 to 999. The reason phrase may stay what it was.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub code: Option<u16>,
    /// The whole body, as base64 in print, never empty. A message that cannot have one (the
    /// response to HEAD, 204, 304) keeps having none.
    #[serde(skip_serializing_if = "Option::is_none", default, with = "serde_base64")]
    pub body: Option<Vec<u8>>,
    /// Query parameters by name, decoded. A name that is there gets this value at its first
    /// place and loses its others; one that is not is appended.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub queries: BTreeMap<String, String>,
    /// Headers by name as written. A name that is there gets this value at its first place and
    /// loses its others; one that is not is appended.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub headers: BTreeMap<String, String>,
}

impl Replace {
    /// True when nothing is replaced.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        *self == Self::default()
    }
}

/// Parts of a message that are added to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Patch {
    /// Merged into a JSON body (RFC 7396).
    #[serde(skip_serializing_if = "Option::is_none", default, with = "serde_some")]
    pub body: Option<serde_json::Value>,
    /// Query parameters that are appended, decoded.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub queries: Vec<(String, String)>,
    /// Headers that are appended.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub headers: Vec<(String, String)>,
}

impl Patch {
    /// True when nothing is added.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        *self == Self::default()
    }
}

/// Bytes as base64 in print.
mod serde_base64 {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(value: &Option<Vec<u8>>, s: S) -> Result<S::Ok, S::Error> {
        match value {
            Some(bytes) => s.serialize_str(&STANDARD.encode(bytes)),
            None => s.serialize_none(),
        }
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Vec<u8>>, D::Error> {
        let Some(text) = Option::<String>::deserialize(d)? else { return Ok(None) };
        STANDARD.decode(text).map(Some).map_err(serde::de::Error::custom)
    }
}

/// A value that is there, were it `null`: a merge patch of `null` replaces the whole body.
mod serde_some {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};
    use serde_json::Value;

    pub fn serialize<S: Serializer>(value: &Option<Value>, s: S) -> Result<S::Ok, S::Error> {
        value.serialize(s)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Value>, D::Error> {
        Value::deserialize(d).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn an_edit_is_read_from_its_print() {
        let edit = Edit {
            abort: false,
            delay: Some(Duration::from_millis(1500)),
            replace: Replace { body: Some(b"\xff\0{}".to_vec()), ..Replace::default() },
            patch: Patch { body: Some(Value::Null), ..Patch::default() },
        };
        let print = serde_json::to_value(&edit).unwrap();
        let want = json!({
            "delay": "1.5s", "replace": { "body": "/wB7fQ==" }, "patch": { "body": null },
        });
        assert_eq!(print, want);
        assert_eq!(serde_json::from_value::<Edit>(print).unwrap(), edit);
    }

    #[test]
    fn what_does_nothing_prints_nothing() {
        assert_eq!(serde_json::to_value(Edit::default()).unwrap(), json!({}));
        assert!(Edit::default().is_nothing() && Matcher::default().is_everything());
        let delay = Edit { delay: Some(Duration::from_millis(1)), ..Edit::default() };
        assert!(!delay.is_nothing() && !delay.rewrites());
    }
}
