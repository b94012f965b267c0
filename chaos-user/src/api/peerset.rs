//! `PeerSet`: addresses at the other end of an experiment's rules, kept once for all nodes. The
//! controller writes it, every agent reads it; internal.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// The kind.
pub const KIND: &str = "PeerSet";
/// Its resource name.
pub const PLURAL: &str = "peersets";
/// How many peers one object holds: what changes one address writes one object of this size.
pub const MOST: usize = 500;

/// A part of one side of an experiment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Spec {
    /// Whose addresses these are: `.` or `.Target`, as in records.
    pub side: String,
    /// They, sorted by name; at most [`MOST`].
    pub peers: Vec<Peer>,
}

/// Somebody whom packets go to or come from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    /// `namespace/name` of a pod, or `service:namespace/name`.
    pub name: String,
    /// Its addresses; none while it has none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<IpAddr>,
}

/// PeerSets by name.
pub type Sets = BTreeMap<String, Spec>;

/// Everybody on one side; `None` where no set is about that side.
#[must_use]
pub fn side<'a>(sets: &'a Sets, side: &str) -> Option<Vec<&'a Peer>> {
    let mut of_side = sets.values().filter(|set| set.side == side).peekable();
    of_side.peek()?;
    Some(of_side.flat_map(|set| &set.peers).collect())
}

/// The sets of one side as they shall be: each of `wanted` stays in the set that it is in, so that
/// a change of one of them changes one set; others go where there is room. `known` are the sets of
/// this side by number, which need not be without gaps. There is always one, if only to say that
/// there is nobody.
#[must_use]
pub fn arrange(
    side: &str,
    mut wanted: BTreeMap<String, Vec<IpAddr>>,
    known: &BTreeMap<usize, Spec>,
) -> BTreeMap<usize, Spec> {
    let mut out = BTreeMap::new();
    for (number, set) in known {
        let stays = |peer: &Peer| {
            let addresses = wanted.remove(&peer.name)?;
            Some(Peer { name: peer.name.clone(), addresses })
        };
        let peers = set.peers.iter().filter_map(stays).collect();
        out.insert(*number, Spec { side: side.to_owned(), peers });
    }
    let mut number = 0;
    let empty = || Spec { side: side.to_owned(), peers: Vec::new() };
    let mut set: &mut Spec = out.entry(number).or_insert_with(empty);
    for (name, addresses) in wanted {
        while set.peers.len() >= MOST {
            number += 1;
            set = out.entry(number).or_insert_with(empty);
        }
        set.peers.push(Peer { name, addresses });
    }
    for set in out.values_mut() {
        set.peers.sort_by(|a, b| a.name.cmp(&b.name));
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn address(n: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, n])
    }

    fn wanted(names: impl IntoIterator<Item = usize>, last: u8) -> BTreeMap<String, Vec<IpAddr>> {
        names.into_iter().map(|n| (format!("default/p{n:05}"), vec![address(last)])).collect()
    }

    fn changed(before: &BTreeMap<usize, Spec>, after: &BTreeMap<usize, Spec>) -> usize {
        after.iter().filter(|(number, set)| before.get(number) != Some(*set)).count()
    }

    #[test]
    fn one_changed_address_changes_one_set_of_many() {
        let first = arrange(".", wanted(0..2_100, 1), &BTreeMap::new());
        assert_eq!(first.len(), 5);
        assert!(first.values().all(|set| set.peers.len() <= MOST));
        let mut names = wanted(0..2_100, 1);
        names.insert("default/p01234".to_owned(), vec![address(9)]);
        assert_eq!(changed(&first, &arrange(".", names, &first)), 1);
        // So does one that comes, and one that goes.
        assert_eq!(changed(&first, &arrange(".", wanted(0..2_101, 1), &first)), 1);
        assert_eq!(changed(&first, &arrange(".", wanted(1..2_100, 1), &first)), 1);
    }

    #[test]
    fn a_side_without_anybody_has_an_empty_set_and_not_none() {
        let none = arrange(".Target", BTreeMap::new(), &BTreeMap::new());
        assert_eq!(none.len(), 1);
        let sets: Sets = none.into_iter().map(|(n, set)| (n.to_string(), set)).collect();
        assert_eq!(side(&sets, ".Target"), Some(Vec::new()));
        assert_eq!(side(&sets, "."), None);
    }

    proptest! {
        #[test]
        fn everybody_is_in_one_set_whatever_was_before(
            before in proptest::collection::btree_set(0usize..3_000, 0..1_500),
            after in proptest::collection::btree_set(0usize..3_000, 0..1_500),
        ) {
            let first = arrange(".", wanted(before, 1), &BTreeMap::new());
            let names = wanted(after, 2);
            let second = arrange(".", names.clone(), &first);
            let peers = second.values().flat_map(|set| &set.peers);
            let mut all: Vec<&Peer> = peers.collect();
            all.sort_by(|a, b| a.name.cmp(&b.name));
            let found: Vec<(&String, &Vec<IpAddr>)> =
                all.iter().map(|peer| (&peer.name, &peer.addresses)).collect();
            prop_assert_eq!(found, names.iter().collect::<Vec<_>>());
            prop_assert!(second.values().all(|set| set.peers.len() <= MOST));
            prop_assert_eq!(&arrange(".", names, &second), &second);
        }
    }
}
