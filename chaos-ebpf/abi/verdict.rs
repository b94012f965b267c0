//! Seeded dice. Every decision is a hash of (seed, CPU, ordinal, stream), so that a run can be
//! replayed and userspace can compute what the kernel decided.

use crate::rule::{ALWAYS, Chance};

/// Which block of a rule is deciding. Streams are independent, so that switching one block on
/// does not change what another decides.
pub mod stream {
    /// The `loss` block.
    pub const LOSS: u64 = 1;
    /// The `corrupt` block.
    pub const CORRUPT: u64 = 2;
    /// Which payload bit flips.
    pub const CORRUPT_BIT: u64 = 3;
    /// The `duplicate` block.
    pub const DUPLICATE: u64 = 4;
    /// The `reorder` block.
    pub const REORDER: u64 = 5;
    /// The `jitter` of the `delay` block.
    pub const JITTER: u64 = 6;
    /// The address that a name gets.
    pub const ADDRESS: u64 = 7;
    /// The rest of it, where it is a long one.
    pub const ADDRESS_REST: u64 = 8;
}

const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// The finaliser of SplitMix64 (Steele, Lea, Flood: "Fast Splittable Pseudorandom Number
/// Generators", OOPSLA 2014): a bijection with full avalanche.
#[inline(always)]
pub const fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// 64 random bits for one decision.
#[inline(always)]
pub const fn dice(seed: u64, cpu: u32, ordinal: u64, stream: u64) -> u64 {
    let lane = seed ^ ((cpu as u64) << 40) ^ (stream << 56);
    mix(mix(lane.wrapping_add(GOLDEN)).wrapping_add(ordinal.wrapping_mul(GOLDEN)))
}

/// A first-order decision with memory: with probability `correlation` the last decision again,
/// else a fresh one. The share stays what it is and the lag-1 autocorrelation of the sequence
/// is `correlation`. `last` is `None` before the first decision, which is always fresh.
#[inline(always)]
pub fn decide(chance: Chance, dice: u64, last: Option<bool>) -> bool {
    if let Some(last) = last
        && (chance.correlation == ALWAYS || (dice as u32) < chance.correlation)
    {
        return last;
    }
    hit(chance.share, dice)
}

/// A decision without memory: true for `share` of all dice.
#[inline(always)]
pub const fn hit(share: u32, dice: u64) -> bool {
    share == ALWAYS || ((dice >> 32) as u32) < share
}

/// A uniform value in `[-half, half)`, nanoseconds, as netem's default jitter.
/// `half` must be below 2^37 (the longest delay is 120 s, see [`crate::limit::DELAY_NS`]).
#[inline(always)]
pub const fn uniform(half: u64, dice: u64) -> i64 {
    // 26 random bits keep the product inside 64 bits: a step of half / 2^25.
    (((half << 1).wrapping_mul(dice >> 38)) >> 26) as i64 - half as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(chance: Chance, n: u64) -> (f64, f64) {
        let mut last = None;
        let (mut ones, mut both, mut prev) = (0u64, 0u64, false);
        for i in 0..n {
            let now = decide(chance, dice(7, 0, i, stream::LOSS), last);
            ones += u64::from(now);
            both += u64::from(now && prev);
            prev = now;
            last = Some(now);
        }
        let p = ones as f64 / n as f64;
        let joint = both as f64 / n as f64;
        (p, (joint - p * p) / (p * (1.0 - p)))
    }

    #[test]
    fn share_is_the_long_run_share_whatever_the_correlation() {
        for correlation in [0u32, 1 << 30, 1 << 31, 3 << 30] {
            let (p, rho) = run(Chance { share: 429_496_730, correlation }, 400_000);
            assert!((p - 0.1).abs() < 0.006, "share {p} at correlation {correlation}");
            let want = correlation as f64 / 4_294_967_296.0;
            assert!((rho - want).abs() < 0.03, "autocorrelation {rho}, want {want}");
        }
    }

    #[test]
    fn always_and_never_are_exact() {
        for i in 0..10_000 {
            let d = dice(1, 0, i, stream::LOSS);
            assert!(hit(ALWAYS, d));
            assert!(!hit(0, d));
        }
    }

    #[test]
    fn uniform_stays_inside_and_is_centred() {
        let half = 15_000_000u64;
        let mut sum = 0i128;
        for i in 0..100_000 {
            let v = uniform(half, dice(3, 1, i, stream::JITTER));
            assert!(v >= -(half as i64) && v < half as i64);
            sum += i128::from(v);
        }
        assert!((sum / 100_000).abs() < 100_000);
    }

    #[test]
    fn streams_and_cpus_are_independent() {
        let a = dice(9, 0, 5, stream::LOSS);
        assert_ne!(a, dice(9, 0, 5, stream::CORRUPT));
        assert_ne!(a, dice(9, 1, 5, stream::LOSS));
        assert_eq!(a, dice(9, 0, 5, stream::LOSS));
    }
}
