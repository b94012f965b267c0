//! The cluster: watching, selecting, writing, answering. Alone names the Kubernetes client.
//!
//! Owns: the controller (experiments → NodeFaults and statuses), and the agent's end of the API
//! server. Refuses: what a fault does (`fault`), how the kernel is changed (`engine`); the agent's
//! work on its node is `node`'s, and channels connect the two.

pub mod admission;
pub mod agent;
pub mod cache;
mod certificate;
pub mod choice;
mod concern;
pub mod controller;
pub mod crds;
mod events;
pub mod http;
pub mod leader;
pub mod metrics;
pub mod names;
pub mod objects;
pub mod reconcile;
pub mod rival;
mod schedule;
mod server;
mod services;
pub mod stop;
mod structural;
pub mod webhooks;

/// The API server's client, for those who pass it on.
pub use kube::Client;
use kube::config::{Config, InferConfigError};

/// Why the API server could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum KubeError {
    /// There is no cluster to talk to. Give KUBECONFIG, or run in a pod with a service account.
    #[error("no cluster is configured: {0}; set KUBECONFIG or run in a pod with a service account")]
    Config(#[source] Box<InferConfigError>),
    /// The API server refused or did not answer.
    #[error("{doing}: {source}")]
    Api {
        /// What was tried.
        doing: String,
        /// What it said.
        source: Box<kube::Error>,
    },
    /// An object that is not what its kind promises.
    #[error("{object}: {reason}")]
    Object {
        /// Which.
        object: String,
        /// Why.
        reason: String,
    },
}

impl KubeError {
    /// For `map_err`: what was tried.
    pub(crate) fn api(doing: impl Into<String>) -> impl FnOnce(kube::Error) -> Self {
        let doing = doing.into();
        move |source| Self::Api { doing, source: Box::new(source) }
    }

    /// The HTTP status of the API server's refusal.
    #[must_use]
    pub fn code(&self) -> Option<u16> {
        match self {
            Self::Api { source, .. } => match source.as_ref() {
                kube::Error::Api(status) => Some(status.code),
                _ => None,
            },
            _ => None,
        }
    }
}

/// A client for the cluster of `KUBECONFIG`, or for the one that we run in.
///
/// # Errors
/// [`KubeError::Config`] when there is none.
pub async fn client() -> Result<Client, KubeError> {
    let config = Config::infer().await.map_err(|e| KubeError::Config(Box::new(e)))?;
    Client::try_from(config).map_err(KubeError::api("set the client up"))
}
