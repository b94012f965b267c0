//! What rules and exchanges have counted, as the status of a NodeFault tells it.

use chaos_abi::counter::Counters;
use chaos_abi::http::{HttpCounters, passed};

use crate::api::nodefault::NodeRule;
use crate::plan::Rule;
use crate::plan::exchange::Exchange;

/// Those counters of a rule that its status has: matched, injected, unreadable.
pub fn told(counters: &Counters) -> [u64; 3] {
    [counters.matched, counters.injected, counters.unreadable]
}

/// A rule with what it counted before it was written anew, and since; see [`told`].
pub fn of_rule(rule: &Rule, earlier: [u64; 3], now: [u64; 3]) -> NodeRule {
    NodeRule {
        rule: rule.id.clone(),
        describes: rule.describes.clone(),
        declared: rule.declared,
        matched: earlier[0] + now[0],
        injected: earlier[1] + now[1],
        unreadable: earlier[2] + now[2],
        passed: [].into(),
    }
}

/// What an exchange counts, as a rule: requests that are meant, responses that were changed, and
/// why others passed.
pub fn of_exchange(exchange: &Exchange, counters: HttpCounters) -> NodeRule {
    let HttpCounters { seen: _, matched, acted, passed } = counters;
    let reasons = passed::NAMES.into_iter().zip(passed).filter(|(_, count)| *count > 0);
    NodeRule {
        rule: exchange.id.clone(),
        describes: exchange.describes.clone(),
        declared: None,
        matched,
        injected: acted,
        unreadable: 0,
        passed: reasons.map(|(reason, count)| (reason.to_owned(), count)).collect(),
    }
}

#[cfg(test)]
mod tests {
    use chaos_abi::http::passed::{CLOSING, REASONS, TLS};

    use super::*;
    use crate::plan::exchange::{Edit, Matcher, Message, Role, Sockets};

    #[test]
    fn an_exchange_tells_by_name_why_it_let_something_pass() {
        let exchange = Exchange {
            id: "a".to_owned(),
            experiment: String::new(),
            target: String::new(),
            sockets: Sockets::default(),
            role: Role::Server,
            message: Message::Response,
            port: 80,
            matcher: Matcher::default(),
            edit: Edit::default(),
            describes: "b".to_owned(),
            seed: 1,
            duration: None,
            dry_run: false,
        };
        let mut passed = [0; REASONS];
        (passed[TLS], passed[CLOSING]) = (3, 1);
        let counters = HttpCounters { seen: 9, matched: 5, acted: 4, passed };
        let told = serde_json::to_value(of_exchange(&exchange, counters)).unwrap();
        let wanted = serde_json::json!({
            "rule": "a", "describes": "b", "matched": 5, "injected": 4,
            "passed": { "tls": 3, "closing": 1 },
        });
        assert_eq!(told, wanted);
    }
}
