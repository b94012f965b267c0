//! One controller at a time: a lease that its holder renews, and that another one takes when it
//! was not renewed for its duration.
//!
//! Whether a lease has run out is judged by the time that we have seen it unchanged, never by
//! comparing clocks of two machines.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::Client;
use kube::api::{Api, ObjectMeta, PostParams};
use tokio::time::{Instant, sleep, timeout};

use super::KubeError;

/// The lease's name.
const NAME: &str = "kfault-controller";
/// For how long a lease holds.
const DURATION: Duration = Duration::from_secs(15);
/// How often it is renewed.
const RENEW: Duration = Duration::from_secs(4);
/// A holder that could not renew for so long stops, well before another one may begin.
const GIVE_UP: Duration = Duration::from_secs(10);

/// Somebody who wants to lead, or does.
pub struct Candidate {
    api: Api<Lease>,
    identity: String,
    /// The version that was last seen, and since when.
    seen: Option<(String, Instant)>,
}

impl Candidate {
    /// Nobody yet. `identity` differs from that of every other candidate.
    #[must_use]
    pub fn new(client: &Client, namespace: &str, identity: &str) -> Self {
        let api = Api::namespaced(client.clone(), namespace);
        Self { api, identity: identity.to_owned(), seen: None }
    }

    /// Waits until we lead.
    pub async fn lead(&mut self) {
        loop {
            match timeout(RENEW, self.attempt()).await {
                Ok(Ok(true)) => return,
                Ok(Ok(false)) => {}
                Ok(Err(error)) => tracing::warn!(%error, "cannot ask who leads"),
                Err(_) => tracing::warn!("the API server does not answer who leads"),
            }
            sleep(RENEW / 2).await;
        }
    }

    /// Renews for as long as we lead; returns when we do no more.
    pub async fn hold(&mut self) {
        let mut renewed = Instant::now();
        while renewed.elapsed() < GIVE_UP {
            sleep(RENEW).await;
            match timeout(RENEW, self.attempt()).await {
                Ok(Ok(true)) => renewed = Instant::now(),
                // Somebody else has it: we were silent for too long.
                Ok(Ok(false)) => return,
                Ok(Err(error)) => tracing::warn!(%error, "the lease was not renewed"),
                Err(_) => tracing::warn!("the lease was not renewed: no answer"),
            }
        }
    }

    /// Lets the next one begin at once.
    pub async fn resign(&mut self) {
        let empty = async {
            let mut lease = self.api.get(NAME).await?;
            if let Some(spec) = lease.spec.as_mut().filter(|spec| self.is_ours(spec)) {
                spec.holder_identity = Some(String::new());
                self.api.replace(NAME, &PostParams::default(), &lease).await?;
            }
            Ok::<(), kube::Error>(())
        };
        if let Ok(Err(error)) = timeout(RENEW, empty).await {
            tracing::warn!(%error, "the lease was not given back; it runs out by itself");
        }
    }

    fn is_ours(&self, spec: &LeaseSpec) -> bool {
        spec.holder_identity.as_deref() == Some(self.identity.as_str())
    }

    /// Takes or renews the lease; true when it is ours.
    async fn attempt(&mut self) -> Result<bool, KubeError> {
        let doing = || format!("lead by the lease {NAME}");
        let Some(mut lease) = self.api.get_opt(NAME).await.map_err(KubeError::api(doing()))? else {
            let lease = Lease {
                metadata: ObjectMeta { name: Some(NAME.to_owned()), ..ObjectMeta::default() },
                spec: Some(self.spec(&LeaseSpec::default())),
            };
            let created = self.api.create(&PostParams::default(), &lease).await;
            return won(created).map_err(KubeError::api(doing()));
        };
        let spec = lease.spec.clone().unwrap_or_default();
        let is_free = spec.holder_identity.as_deref().is_none_or(str::is_empty);
        if !self.is_ours(&spec) && !is_free && !self.has_run_out(&lease) {
            return Ok(false);
        }
        lease.spec = Some(self.spec(&spec));
        let replaced = self.api.replace(NAME, &PostParams::default(), &lease).await;
        won(replaced).map_err(KubeError::api(doing()))
    }

    fn has_run_out(&mut self, lease: &Lease) -> bool {
        let version = lease.metadata.resource_version.clone().unwrap_or_default();
        match &self.seen {
            Some((seen, since)) if *seen == version => since.elapsed() >= DURATION,
            _ => {
                self.seen = Some((version, Instant::now()));
                false
            }
        }
    }

    fn spec(&self, before: &LeaseSpec) -> LeaseSpec {
        let now = MicroTime(Timestamp::now());
        let is_new = !self.is_ours(before);
        let changes = before.lease_transitions.unwrap_or_default();
        LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: Some(DURATION.as_secs() as i32),
            acquire_time: if is_new { Some(now.clone()) } else { before.acquire_time.clone() },
            renew_time: Some(now),
            lease_transitions: Some(changes + i32::from(is_new)),
            ..before.clone()
        }
    }
}

/// Somebody who was faster is no error.
fn won<T>(done: kube::Result<T>) -> kube::Result<bool> {
    match done {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
        Err(error) => Err(error),
    }
}
