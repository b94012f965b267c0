//! Faults at random, from a seed.

use std::time::Duration;

use anyhow::Result;
use chaos_user::plan::{
    Bandwidth, Chance, Corrupt, CorruptMode, Delay, Device, Direction, Effects, Partition, Peers,
    Plan, Prefix, Reorder,
};
use kfault_tests::manifest::Manifest;
use serde_json::json;

use crate::bench::targets::{self, rule};

/// splitmix64
pub struct Random(u64);

impl Random {
    /// The same seed gives the same faults.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    fn chance(&mut self) -> Chance {
        Chance { share: self.below(1000) as f64 / 1000.0, correlation: 0.0 }
    }

    /// Up to four rules at a device, both directions.
    pub fn plan(&mut self, device: &Device) -> Result<Plan> {
        let mut rules = Vec::new();
        for number in 0..=self.below(4) {
            let ingress = self.below(3) == 0;
            let mut rule = rule(device, self.effects(ingress), self.peers()?);
            if ingress {
                rule.hook.direction = Direction::Ingress;
            }
            rule.id = format!("{}/{number}", rule.id);
            rule.seed = self.next();
            rules.push(rule);
        }
        Ok(targets::plan(rules))
    }

    fn effects(&mut self, ingress: bool) -> Effects {
        let mut effects = Effects::default();
        // What takes time acts at egress only.
        match self.below(if ingress { 4 } else { 8 }) {
            0 => effects.loss = Some(self.chance()),
            1 => effects.partition = Some(Partition::Drop),
            2 => effects.partition = Some(Partition::Reject),
            3 => {
                let mode = [CorruptMode::Wire, CorruptMode::Payload][self.below(2) as usize];
                effects.corrupt = Some(Corrupt { chance: self.chance(), mode });
            }
            4 => effects.duplicate = Some(self.chance()),
            5 => effects.rate = Some(10_000 + self.below(10_000_000)),
            6 => {
                effects.bandwidth = Some(Bandwidth {
                    rate: 10_000 + self.below(10_000_000),
                    limit: 20_000,
                    buffer: 10_000,
                    peakrate: None,
                    minburst: None,
                });
            }
            _ => {
                let reorder = (self.below(2) == 0)
                    .then(|| Reorder { chance: self.chance(), gap: 1 + self.below(5) as u32 });
                effects.delay = Some(Delay {
                    latency_ns: self.below(200_000_000),
                    jitter_ns: self.below(20_000_000),
                    correlation: 0.0,
                    reorder,
                });
            }
        }
        effects
    }

    /// Everyone, the server, or many.
    fn peers(&mut self) -> Result<Peers> {
        let mut prefixes = Vec::new();
        match self.below(3) {
            0 => {}
            1 => prefixes.push(Prefix { net: "10.77.2.2/32".parse()?, port: None }),
            _ => {
                for _ in 0..self.below(200) {
                    let n = self.next();
                    let text =
                        format!("10.{}.{}.{}/32", n >> 8 & 255, n >> 16 & 255, n >> 24 & 255);
                    let port = (n & 1 == 0).then_some((n >> 32) as u16);
                    prefixes.push(Prefix { net: text.parse()?, port });
                }
                prefixes.push(Prefix { net: "fd00:77::/32".parse()?, port: None });
            }
        }
        prefixes.sort();
        prefixes.dedup();
        Ok(Peers { prefixes, ..Peers::default() })
    }

    /// One experiment, as a person writes it.
    pub fn manifest(&mut self) -> Manifest {
        let percent = self.below(100).to_string();
        let latency = format!("{:?}", Duration::from_micros(self.below(200_000)));
        match self.below(5) {
            0 => Manifest::loss(&percent),
            1 => Manifest::new("duplicate").with("duplicate", json!({"duplicate": percent})),
            2 => Manifest::new("corrupt").with("corrupt", json!({"corrupt": percent})),
            3 => Manifest::new("partition"),
            _ => Manifest::delay(&latency),
        }
    }
}
