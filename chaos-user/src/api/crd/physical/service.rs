//! Services on machines: Redis, Kafka, HTTP.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Keys of Redis that expire.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RedisExpiration {
    /// Address of the server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub addr: Option<String>,
    /// Password of the server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password: Option<String>,
    /// When the keys expire.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expiration: Option<String>,
    /// The keys.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// `XX`, `NX`, `GT` or `LT`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub option: Option<String>,
}

/// Requests for keys that Redis does not have.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RedisPenetration {
    /// Address of the server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub addr: Option<String>,
    /// Password of the server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password: Option<String>,
    /// How many.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_num: Option<i64>,
}

/// Memory that Redis may use.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RedisCacheLimit {
    /// Address of the server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub addr: Option<String>,
    /// Password of the server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password: Option<String>,
    /// How much.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache_size: Option<String>,
    /// How much of what it may use now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub percent: Option<String>,
}

/// A sentinel of Redis.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RedisSentinel {
    /// Address of the server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub addr: Option<String>,
    /// Password of the server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password: Option<String>,
    /// Path of its configuration.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub conf: Option<String>,
    /// Its configuration is written anew.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flush_config: Option<bool>,
    /// Whether the program of the server has a path of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub redis_path: Option<bool>,
}

/// A server of Kafka.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct KafkaServer {
    /// Topic that is meant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub topic: Option<String>,
    /// Host of the server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Port of the server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// User.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// Password of the user.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password: Option<String>,
}

/// Messages that fill Kafka's disk.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct KafkaFill {
    /// Which server.
    #[serde(flatten)]
    pub server: KafkaServer,
    /// Bytes of a message.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message_size: Option<u64>,
    /// Bytes in all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_bytes: Option<u64>,
    /// Command by which the server reads its configuration anew.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reload_command: Option<String>,
}

/// More messages than Kafka likes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct KafkaFlood {
    /// Which server.
    #[serde(flatten)]
    pub server: KafkaServer,
    /// Bytes of a message.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message_size: Option<u64>,
    /// How many senders.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub threads: Option<u64>,
}

/// Files of Kafka that cannot be read or written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct KafkaIo {
    /// Topic that is meant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub topic: Option<String>,
    /// Path of the server's configuration.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config_file: Option<String>,
    /// They cannot be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub non_readable: Option<bool>,
    /// They cannot be written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub non_writable: Option<bool>,
}

/// Which HTTP messages.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HttpMatch {
    /// Ports whose traffic is looked at.
    #[serde(rename = "proxy_ports")]
    pub proxy_ports: Vec<u32>,
    /// `Request` or `Response`.
    pub target: String,
    /// Port of the service.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<i32>,
    /// Paths, with wildcards.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Method of the request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// Status code of the response.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
}

/// HTTP messages that are late.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HttpDelay {
    /// Which messages.
    #[serde(flatten)]
    pub messages: HttpMatch,
    /// How late, as in `500ms`.
    pub delay: String,
}

/// HTTP faults from a file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HttpConfig {
    /// The file.
    #[serde(rename = "file_path", skip_serializing_if = "Option::is_none")]
    pub file_path: Option<String>,
}

/// HTTP requests that are sent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HttpRequest {
    /// Where to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Connections are used again.
    #[serde(rename = "enable-conn-pool", skip_serializing_if = "Option::is_none")]
    pub enable_conn_pool: Option<bool>,
    /// How many.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<i64>,
}
