//! DNS names of a plan: looked up when it is applied, and again every [`AGAIN`].

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use tokio::task::JoinSet;

use crate::node::drive::Resolved;
use crate::plan::Plan;

/// How often names are looked up again.
pub const AGAIN: Duration = Duration::from_secs(30);
/// How long one name may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// What a look-up came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answers {
    /// Addresses of the names that have some, sorted.
    pub resolved: Resolved,
    /// Names that have none, each with the reason.
    pub failed: Vec<(String, String)>,
}

/// The names of a plan, sorted, each once.
#[must_use]
pub fn names(plan: &Plan) -> Vec<String> {
    let names: BTreeSet<&str> =
        plan.rules.iter().flat_map(|rule| &rule.peers.names).map(|n| n.host.as_str()).collect();
    names.into_iter().map(str::to_owned).collect()
}

/// Looks all names up at once: every A and AAAA answer.
pub async fn look_up(names: Vec<String>) -> Answers {
    let mut jobs = JoinSet::new();
    for name in names {
        jobs.spawn(async move {
            let answer = tokio::time::timeout(PATIENCE, addresses(&name)).await;
            let answer = answer
                .unwrap_or_else(|_| Err(format!("no answer within {} s", PATIENCE.as_secs())));
            (name, answer)
        });
    }
    let mut answers = Answers::default();
    while let Some(done) = jobs.join_next().await {
        match done {
            Ok((name, Ok(addresses))) => drop(answers.resolved.insert(name, addresses)),
            Ok((name, Err(reason))) => answers.failed.push((name, reason)),
            // Our own panic or a runtime that is ending: there is no name to report.
            Err(error) => tracing::warn!(%error, "a name was not looked up"),
        }
    }
    answers.failed.sort_unstable();
    answers
}

async fn addresses(name: &str) -> Result<Vec<IpAddr>, String> {
    let found = tokio::net::lookup_host((name, 0)).await.map_err(|e| e.to_string())?;
    let mut found: Vec<IpAddr> = found.map(|address| address.ip()).collect();
    found.sort_unstable();
    found.dedup();
    if found.is_empty() { Err("it has no address".into()) } else { Ok(found) }
}

impl Answers {
    /// These answers, with the last ones where a name has failed since.
    #[must_use]
    pub fn or_last(mut self, last: &Resolved) -> Resolved {
        for (name, _) in &self.failed {
            if let Some(addresses) = last.get(name) {
                self.resolved.insert(name.clone(), addresses.clone());
            }
        }
        self.resolved
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
    }

    #[test]
    fn a_name_has_addresses_or_a_reason() {
        let names = vec!["localhost".to_owned(), "no-such-name.invalid".to_owned()];
        let answers = runtime().block_on(look_up(names));
        assert!(answers.resolved["localhost"].iter().all(IpAddr::is_loopback));
        assert_eq!(answers.failed.len(), 1);
        assert_eq!(answers.failed[0].0, "no-such-name.invalid");
    }

    #[test]
    fn a_failed_name_keeps_its_last_answer() {
        let one: Vec<IpAddr> = vec!["10.0.0.1".parse().unwrap()];
        let two: Vec<IpAddr> = vec!["10.0.0.2".parse().unwrap()];
        let last = Resolved::from([("a".to_owned(), one.clone()), ("b".to_owned(), one.clone())]);
        let answers = Answers {
            resolved: Resolved::from([("b".to_owned(), two.clone())]),
            failed: vec![("a".into(), "timed out".into())],
        };
        assert_eq!(
            answers.or_last(&last),
            Resolved::from([("a".to_owned(), one), ("b".to_owned(), two)])
        );
    }
}
