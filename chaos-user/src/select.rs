//! Selection: which workloads an experiment acts on. Pure; the seed comes in as an argument.

pub mod pods;

use std::collections::BTreeMap;
use std::net::IpAddr;

use chaos_abi::verdict::{dice, mix};
use thiserror::Error;

use crate::api::mode::Mode;
use crate::plan::Cgroup;
use crate::plan::strain::Place;

/// A workload that a selector can choose: on a bare host a namespace, unit, cgroup, container or
/// process; on a cluster a pod. Made by `node`, read by `select` and the lowering of faults.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workload {
    /// As the user names it: `netns:web`, `unit:nginx.service`.
    pub name: String,
    /// File of its network namespace; empty where there is no host (`kfault explain`).
    pub netns: String,
    /// Inode of that namespace; 0 without a host.
    pub inode: u64,
    /// `Some`: only sockets of this cgroup are the target (the devices are shared with others).
    pub cgroup: Option<Cgroup>,
    /// The cgroup of everything that lives in the namespace, where there is one: its sockets can
    /// be told that a packet was refused.
    pub sockets: Option<Cgroup>,
    /// The cgroup of its processes, which loads and limits act on; `None`: it is a network
    /// namespace and no more.
    pub place: Option<Place>,
    /// Every device of the namespace.
    pub devices: Vec<String>,
    /// The device of the IPv4 default route, else of the IPv6 one, else the only device that
    /// is not loopback.
    pub default_device: Option<String>,
    /// Its addresses, without loopback and link-local ones, sorted.
    pub addresses: Vec<IpAddr>,
    /// It lives on another node: known by its addresses, and acted on by that node's agent.
    pub is_elsewhere: bool,
}

impl Workload {
    /// A workload that stands for whatever a selector will choose, for a plan without a host.
    #[must_use]
    pub fn unbound(name: &str) -> Self {
        Self { place: Some(Place::default()), ..Self::unknown(name) }
    }

    fn unknown(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            netns: String::new(),
            inode: 0,
            cgroup: None,
            sockets: None,
            place: None,
            devices: Vec::new(),
            default_device: None,
            addresses: Vec::new(),
            is_elsewhere: false,
        }
    }

    /// A workload of another node.
    #[must_use]
    pub fn elsewhere(name: &str, addresses: Vec<IpAddr>) -> Self {
        Self { addresses, is_elsewhere: true, ..Self::unknown(name) }
    }

    /// True for what [`Workload::unbound`] makes.
    #[must_use]
    pub fn is_unbound(&self) -> bool {
        self.netns.is_empty() && self.inode == 0 && !self.is_elsewhere
    }
}

/// Why nothing could be chosen.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SelectError {
    /// There is nothing to choose from.
    #[error("no workload is selected")]
    Empty,
}

/// Chooses among the matching workloads. The same workloads, mode and seed give the same choice,
/// in whatever order they come; the answer is sorted by name. [`Mode::RandomMaxPercent`] may
/// choose none.
///
/// # Errors
/// [`SelectError::Empty`] when there is nothing to choose from.
pub fn select(mode: Mode, matching: &[Workload], seed: u64) -> Result<Vec<Workload>, SelectError> {
    let chosen = choose(mode, matching.iter().map(|workload| (&workload.name, workload)), seed)?;
    Ok(chosen.into_iter().cloned().collect())
}

/// Chooses among things by their names, as [`select`] does.
///
/// # Errors
/// [`SelectError::Empty`] when there is nothing to choose from.
pub fn choose<K: Ord, T>(
    mode: Mode,
    matching: impl Iterator<Item = (K, T)>,
    seed: u64,
) -> Result<Vec<T>, SelectError> {
    let mut all: Vec<(K, T)> = matching.collect();
    all.sort_by(|a, b| a.0.cmp(&b.0));
    all.dedup_by(|a, b| a.0 == b.0);
    if all.is_empty() {
        return Err(SelectError::Empty);
    }
    let count = count(mode, all.len(), seed);
    shuffle(&mut all, seed);
    all.truncate(count);
    all.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(all.into_iter().map(|(_, thing)| thing).collect())
}

/// Fills a choice up that was made before: those who were chosen and are there stay, and of the
/// matching others as many join as the mode is short of, counted over all of them. Without anybody
/// who was chosen it chooses as [`choose`] does; there may be nobody to choose.
pub fn fill_up<K: Ord, T>(
    mode: Mode,
    kept: impl Iterator<Item = (K, T)>,
    matching: impl Iterator<Item = (K, T)>,
    seed: u64,
) -> Vec<T> {
    let mut all: BTreeMap<K, T> = kept.collect();
    let kept = all.len();
    let mut others: Vec<(K, T)> = matching.filter(|(key, _)| !all.contains_key(key)).collect();
    others.sort_by(|a, b| a.0.cmp(&b.0));
    others.dedup_by(|a, b| a.0 == b.0);
    let n = kept + others.len();
    let wanted = if n == 0 { 0 } else { count(mode, n, seed) };
    shuffle(&mut others, seed);
    others.truncate(wanted.saturating_sub(kept));
    all.extend(others);
    all.into_values().collect()
}

/// Streams of the choice's dice, apart from each other.
const SHUFFLE: u64 = 1;
const PERCENT: u64 = 2;

fn count(mode: Mode, n: usize, seed: u64) -> usize {
    let share = |percent: u8| (n * usize::from(percent)).div_ceil(100);
    match mode {
        Mode::One => 1,
        Mode::All => n,
        Mode::Fixed(most) => usize::try_from(most).unwrap_or(n).min(n),
        Mode::FixedPercent(percent) => share(percent),
        Mode::RandomMaxPercent(most) => {
            let drawn = below(u64::from(most) + 1, dice(seed, 0, 0, PERCENT));
            share(u8::try_from(drawn).unwrap_or(most))
        }
    }
}

/// Fisher and Yates.
fn shuffle<T>(items: &mut [T], seed: u64) {
    for last in (1..items.len()).rev() {
        let ordinal = last as u64;
        items.swap(last, below(ordinal + 1, dice(seed, 0, ordinal, SHUFFLE)) as usize);
    }
}

/// A uniform number below `n`; its bias is `n` / 2^64.
fn below(n: u64, dice: u64) -> u64 {
    ((u128::from(dice) * u128::from(n)) >> 64) as u64
}

/// The seed of something named `id` in a run whose seed is `seed`.
#[must_use]
pub fn seed_for(seed: u64, id: &str) -> u64 {
    // FNV-1a spreads the name, the finaliser spreads FNV's weak high bits.
    let hash = id.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    mix(mix(hash) ^ seed)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn workloads(n: usize) -> Vec<Workload> {
        (0..n).map(|i| Workload::unbound(&format!("netns:w{i:03}"))).collect()
    }

    fn chosen(mode: Mode, n: usize, seed: u64) -> usize {
        select(mode, &workloads(n), seed).unwrap().len()
    }

    #[test]
    fn each_mode_chooses_as_many_as_the_api_says() {
        assert_eq!(chosen(Mode::One, 7, 1), 1);
        assert_eq!(chosen(Mode::All, 7, 1), 7);
        assert_eq!(chosen(Mode::Fixed(3), 7, 1), 3);
        assert_eq!(chosen(Mode::Fixed(u64::MAX), 7, 1), 7);
        assert_eq!(chosen(Mode::FixedPercent(50), 7, 1), 4);
        assert_eq!(chosen(Mode::FixedPercent(1), 7, 1), 1);
        assert_eq!(chosen(Mode::FixedPercent(100), 7, 1), 7);
    }

    #[test]
    fn a_random_percentage_covers_zero_to_its_value_evenly() {
        let mut seen = [0u32; 11];
        for seed in 0..11_000 {
            seen[chosen(Mode::RandomMaxPercent(10), 100, seed)] += 1;
        }
        assert!(seen.iter().all(|n| (800..1_200).contains(n)), "{seen:?}");
    }

    #[test]
    fn one_of_many_is_chosen_evenly() {
        let all = workloads(10);
        let mut seen = [0u32; 10];
        for seed in 0..10_000 {
            let one = select(Mode::One, &all, seed).unwrap();
            seen[all.iter().position(|w| *w == one[0]).unwrap()] += 1;
        }
        assert!(seen.iter().all(|n| (850..1_150).contains(n)), "{seen:?}");
    }

    #[test]
    fn nothing_to_choose_from_is_an_error() {
        assert_eq!(select(Mode::All, &[], 1), Err(SelectError::Empty));
    }

    fn filled(mode: Mode, kept: &[u32], matching: &[u32]) -> Vec<u32> {
        let pairs = |all: &[u32]| all.iter().map(|n| (*n, *n)).collect::<Vec<_>>().into_iter();
        fill_up(mode, pairs(kept), pairs(matching), 7)
    }

    #[test]
    fn a_choice_is_filled_up_to_what_the_mode_declares() {
        assert_eq!(filled(Mode::All, &[1], &[1, 2, 3]), [1, 2, 3]);
        assert_eq!(filled(Mode::One, &[2], &[1, 2, 3]), [2]);
        assert_eq!(filled(Mode::One, &[], &[1, 2, 3]).len(), 1);
        let two = filled(Mode::Fixed(2), &[3], &[1, 2, 3]);
        assert!(two.len() == 2 && two.contains(&3), "{two:?}");
        // One who is not matched any more stays, and counts.
        assert_eq!(filled(Mode::FixedPercent(50), &[9], &[1]), [9]);
        assert_eq!(filled(Mode::FixedPercent(50), &[9], &[1, 2]).len(), 2);
        assert_eq!(filled(Mode::All, &[], &[]), [0; 0]);
    }

    proptest! {
        #[test]
        fn filling_up_keeps_everybody_and_is_done_once(
            n in 1u64..20, kept in proptest::collection::btree_set(0u32..30, 0..10),
            matching in proptest::collection::btree_set(0u32..30, 0..30),
        ) {
            let kept: Vec<u32> = kept.into_iter().collect();
            let matching: Vec<u32> = matching.into_iter().collect();
            let once = filled(Mode::Fixed(n), &kept, &matching);
            prop_assert!(kept.iter().all(|one| once.contains(one)));
            prop_assert!(once.len() <= kept.len().max(n as usize));
            prop_assert_eq!(&filled(Mode::Fixed(n), &once, &matching), &once);
        }

        #[test]
        fn the_first_choice_is_the_same_as_without_following(n in 1u64..20, all in 1u32..30) {
            let all: Vec<u32> = (0..all).collect();
            let pairs = all.iter().map(|n| (*n, *n));
            let first = choose(Mode::Fixed(n), pairs, 7).unwrap();
            prop_assert_eq!(filled(Mode::Fixed(n), &[], &all), first);
        }
    }

    #[test]
    fn names_and_seeds_make_different_seeds() {
        assert_ne!(seed_for(1, "a"), seed_for(1, "b"));
        assert_ne!(seed_for(1, "a"), seed_for(2, "a"));
        assert_eq!(seed_for(1, "a"), seed_for(1, "a"));
    }

    proptest! {
        #[test]
        fn the_order_of_the_workloads_does_not_matter(n in 1usize..40, value in 1u64..50, seed: u64) {
            let mut all = workloads(n);
            let there = select(Mode::Fixed(value), &all, seed).unwrap();
            all.reverse();
            prop_assert_eq!(&there, &select(Mode::Fixed(value), &all, seed).unwrap());
            prop_assert!(there.is_sorted_by(|a, b| a.name < b.name));
        }
    }
}
