//! DNS names of experiments, looked up by the controller, so that no node asks through a network
//! that it is breaking.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::Mutex;
use tokio::time::Instant;

/// How often names are looked up again.
pub const AGAIN: Duration = Duration::from_secs(30);

/// Addresses of the names that have some, and the reason for each of the others.
pub type Answers = (BTreeMap<String, Vec<IpAddr>>, Vec<(String, String)>);
/// Looks names up, all at once.
pub type LookUp = dyn Fn(Vec<String>) -> BoxFuture<'static, Answers> + Send + Sync;

/// When a name was last looked up, and what it stood for.
type Known = BTreeMap<String, (Instant, Vec<IpAddr>)>;

/// Names and what they last stood for.
#[derive(Clone)]
pub struct Names {
    look_up: Arc<LookUp>,
    again: Duration,
    known: Arc<Mutex<Known>>,
}

impl fmt::Debug for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Names")
    }
}

impl Names {
    /// Nothing is known yet.
    #[must_use]
    pub fn new(look_up: Arc<LookUp>) -> Self {
        Self { look_up, again: AGAIN, known: Arc::default() }
    }

    /// What these names stand for. One that cannot be looked up again keeps its last answer.
    ///
    /// # Errors
    /// A sentence, when a name has never had an answer.
    pub async fn resolve(&self, names: &[String]) -> Result<BTreeMap<String, Vec<IpAddr>>, String> {
        let mut known = self.known.lock().await;
        let is_fresh = |name: &&String| {
            known.get(*name).is_some_and(|(since, _)| since.elapsed() < self.again)
        };
        let stale: Vec<String> = names.iter().filter(|name| !is_fresh(name)).cloned().collect();
        let mut failed = Vec::new();
        if !stale.is_empty() {
            let (found, errors) = (self.look_up)(stale).await;
            let now = Instant::now();
            known.extend(found.into_iter().map(|(name, all)| (name, (now, all))));
            failed = errors;
        }
        for (name, reason) in failed {
            if !known.contains_key(&name) {
                return Err(format!("spec.externalTargets: \"{name}\" has no address: {reason}"));
            }
            tracing::warn!(name, reason, "a name keeps its last addresses");
        }
        let all = names.iter().filter_map(|name| Some((name.clone(), known.get(name)?.1.clone())));
        Ok(all.collect())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[test]
    fn a_name_that_fails_keeps_its_last_answer_and_a_new_one_is_refused() {
        let fails = Arc::new(AtomicBool::new(false));
        let mut names = Names::new(Arc::new({
            let fails = fails.clone();
            move |names: Vec<String>| {
                let fails = fails.load(Ordering::Relaxed);
                let answers: Answers = if fails {
                    let reason = |name| (name, "timeout".to_owned());
                    (BTreeMap::new(), names.into_iter().map(reason).collect())
                } else {
                    let address = vec!["192.0.2.1".parse().unwrap()];
                    let found = names.into_iter().map(|name| (name, address.clone()));
                    (found.collect(), Vec::new())
                };
                Box::pin(std::future::ready(answers)) as BoxFuture<'static, Answers>
            }
        }));
        names.again = Duration::ZERO;
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let (a, b) = ("a.test".to_owned(), "b.test".to_owned());
            let first = names.resolve(std::slice::from_ref(&a)).await.unwrap();
            fails.store(true, Ordering::Relaxed);
            assert_eq!(names.resolve(std::slice::from_ref(&a)).await, Ok(first));
            let error = names.resolve(&[a, b]).await.unwrap_err();
            assert!(error.contains("b.test") && error.contains("timeout"), "{error}");
        });
    }
}
