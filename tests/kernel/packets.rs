//! Packets that nobody would send, through the kernel's own harness for programs: what no rule
//! means is never altered, and what a rule means is found wherever its headers are.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use chaos_user::engine::Engine;
use chaos_user::plan::action::Point;
use chaos_user::plan::{
    Chance, Corrupt, CorruptMode, Device, Direction, Effects, Partition, Peers, Prefix, Rule,
};
use kfault_tests::cgroup::Cgroup;
use kfault_tests::net::DEVICE;
use kfault_tests::ns::Ns;

use crate::bench::targets::{self, device, lonely, loss, prefix};
use crate::harness::{Done, Test, tests};

pub fn tests() -> Vec<Test> {
    let mut all: Vec<Test> = tests!("packets": an_unmatched_packet_is_never_altered)
        .into_iter()
        .map(Test::smoke)
        .collect();
    all.extend(tests!("packets":
        a_rule_for_everyone_alters_nothing_that_it_lets_through,
        a_peer_is_found_behind_options_and_extension_headers,
        neighbour_discovery_and_foreign_protocols_pass,
    ));
    all
}

/// `TC_ACT_UNSPEC`: the next program, or the packet's way.
const PASS: u32 = u32::MAX;
/// `TC_ACT_REDIRECT`: to a device that does not exist, which loses the packet.
const LOST: u32 = 7;
/// `TC_ACT_SHOT`
const SHOT: u32 = 2;
/// What a `cgroup_skb` program returns for a packet that may go on.
const ALLOWED: u32 = 1;

const PEER4: [u8; 4] = [192, 0, 2, 7];
const OTHER4: [u8; 4] = [198, 51, 100, 7];
const PORT: u16 = 7777;

/// xorshift64*: enough for packets, and repeatable.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    fn bytes(&mut self, n: usize) -> Vec<u8> {
        (0..n).map(|_| self.next() as u8).collect()
    }
}

fn peer6(is_peer: bool) -> [u8; 16] {
    let mut address = [0; 16];
    address[..4].copy_from_slice(&[0x20, 0x01, 0x0d, 0xb8]);
    address[15] = if is_peer { 7 } else { 8 };
    address
}

fn ethernet(kind: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
    frame.extend(kind.to_be_bytes());
    frame.extend(payload);
    frame
}

/// TCP, UDP or ICMP with both ports set to `port`.
fn transport(protocol: u8, port: u16) -> Vec<u8> {
    let mut header = match protocol {
        6 => {
            let mut tcp = vec![0; 20];
            tcp[12] = 5 << 4;
            tcp
        }
        17 => vec![0; 8],
        _ => vec![8, 0, 0, 0, 0, 0, 0, 0],
    };
    if protocol == 6 || protocol == 17 {
        header[..2].copy_from_slice(&port.to_be_bytes());
        header[2..4].copy_from_slice(&port.to_be_bytes());
    }
    header.extend(b"payload of a packet");
    header
}

/// With both addresses set to `peer`, so that either direction sees it.
fn v4(peer: [u8; 4], protocol: u8, port: u16, options: usize) -> Vec<u8> {
    let body = transport(protocol, port);
    let header = 20 + options * 4;
    let mut packet = vec![0; header];
    packet[0] = 0x40 | (header / 4) as u8;
    packet[2..4].copy_from_slice(&((header + body.len()) as u16).to_be_bytes());
    packet[8] = 64;
    packet[9] = protocol;
    packet[12..16].copy_from_slice(&peer);
    packet[16..20].copy_from_slice(&peer);
    // No-operation options.
    packet[20..].fill(1);
    packet.extend(body);
    ethernet(0x0800, &packet)
}

/// Extension headers by their numbers: 0 hop-by-hop, 43 routing, 60 destination options, 44
/// fragment (of offset 0).
fn v6(is_peer: bool, protocol: u8, port: u16, extensions: &[u8]) -> Vec<u8> {
    let mut body = transport(protocol, port);
    let mut next = protocol;
    for kind in extensions.iter().rev() {
        // Pad options; as a fragment header: offset 0 and no more of them.
        let mut header = vec![next, 0, 0, 0, 0, 0, 0, 0];
        if *kind == 0 || *kind == 60 {
            header[2..4].copy_from_slice(&[1, 4]);
        }
        header.extend(&body);
        body = header;
        next = *kind;
    }
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend((body.len() as u16).to_be_bytes());
    packet.extend([next, 64]);
    packet.extend(peer6(is_peer));
    packet.extend(peer6(is_peer));
    packet.extend(body);
    ethernet(0x86dd, &packet)
}

/// Well-formed packets of `is_peer`, from and to it.
fn wellformed(is_peer: bool, port: u16) -> Vec<Vec<u8>> {
    let address = if is_peer { PEER4 } else { OTHER4 };
    let mut all = Vec::new();
    for protocol in [6, 17, 1] {
        for options in [0, 1, 10] {
            all.push(v4(address, protocol, port, options));
        }
    }
    for protocol in [6, 17, 58] {
        for extensions in [&[][..], &[0], &[0, 43], &[0, 60, 44], &[44]] {
            all.push(v6(is_peer, protocol, port, extensions));
        }
    }
    all
}

/// Thousands of packets: random bytes, broken versions of good packets, and good packets cut
/// at every length.
fn broken() -> Vec<Vec<u8>> {
    let mut random = Random(0x6b66_6175_6c74);
    let mut all = Vec::new();
    let good: Vec<Vec<u8>> = wellformed(false, 1234);
    for packet in &good {
        all.extend((14..packet.len()).map(|length| packet[..length].to_vec()));
        for _ in 0..40 {
            let mut packet = packet.clone();
            for _ in 0..=random.below(3) {
                // Addresses stay, so that a broken packet does not become a peer's by chance.
                let at =
                    if random.below(2) == 0 { 12 + random.below(12) } else { 54 + random.below(8) };
                if let Some(byte) = packet.get_mut(at) {
                    *byte = random.next() as u8;
                }
            }
            all.push(packet);
        }
    }
    for kind in [0x0800, 0x86dd, 0x0806, 0x8100, 0x88a8] {
        for _ in 0..200 {
            let length = random.below(200);
            all.push(ethernet(kind, &random.bytes(length)));
        }
    }
    // With a VLAN tag in front of them.
    for packet in &good {
        let mut tagged = vec![0, 5];
        tagged.extend(&packet[12..]);
        all.push(ethernet(0x8100, &tagged));
    }
    all
}

/// Where packets go through.
struct Stage {
    device: Device,
    _ns: Ns,
    cgroup: Cgroup,
    engine: Engine,
    hooks_of_cgroup: bool,
}

impl Stage {
    /// `effects` on `peers` at both hooks of a device and of a cgroup.
    fn set(effects: Effects, peers: &Peers) -> Result<Self> {
        let ns = lonely("packets")?;
        let cgroup = Cgroup::new("packets")?;
        let device = device(&ns, DEVICE)?;
        let mut rules: Vec<Rule> = Vec::new();
        for direction in [Direction::Egress, Direction::Ingress] {
            let mut rule = targets::rule(&device, effects.clone(), peers.clone());
            rule.hook.direction = direction;
            rule.id = format!("{}/{direction:?}", rule.id);
            rules.push(rule);
            if *peers != Peers::default() {
                let refused = Effects { partition: Some(Partition::Drop), ..Effects::default() };
                let mut rule = targets::rule(&device, refused, peers.clone());
                rule.hook.direction = direction;
                rule.hook.cgroup = Some(targets::named(&cgroup)?);
                rule.id = format!("{}/{direction:?}/cgroup", rule.id);
                rules.push(rule);
            }
        }
        let mut engine = targets::engine()?;
        engine.apply(&targets::plan(rules), &BTreeMap::new())?;
        let hooks_of_cgroup = *peers != Peers::default();
        Ok(Self { device, _ns: ns, cgroup, engine, hooks_of_cgroup })
    }

    fn run(&self, direction: Direction, packet: &[u8]) -> Result<(u32, Vec<u8>)> {
        let point = Point::Device { device: self.device.clone(), direction };
        let ran = self.engine.test_run(&point, packet, 1)?;
        Ok((ran.verdict, ran.packet))
    }

    /// The same at the cgroup's hook.
    fn run_in_cgroup(&self, direction: Direction, packet: &[u8]) -> Result<(u32, Vec<u8>)> {
        let cgroup = targets::named(&self.cgroup)?;
        let ran = self.engine.test_run(&Point::Cgroup { cgroup, direction }, packet, 1)?;
        Ok((ran.verdict, ran.packet))
    }

    /// All of these pass as they are; at least this many can be run at all.
    fn lets_through(&self, packets: &[Vec<u8>], at_least: usize) -> Result<()> {
        for direction in [Direction::Egress, Direction::Ingress] {
            let mut ran = 0;
            for packet in packets {
                // The harness itself refuses frames that are too short for it.
                let Ok((verdict, after)) = self.run(direction, packet) else {
                    ensure!(packet.len() < 14 + 40, "{direction:?}: cannot run {packet:02x?}");
                    continue;
                };
                ran += 1;
                ensure!(
                    verdict == PASS && after == *packet,
                    "{direction:?}: verdict {verdict}, {packet:02x?} became {after:02x?}"
                );
                if self.hooks_of_cgroup
                    && let Ok((verdict, after)) = self.run_in_cgroup(direction, packet)
                {
                    // The harness itself clears the link header for programs above it.
                    ensure!(
                        verdict == ALLOWED && after[14..] == packet[14..],
                        "{direction:?} of a cgroup: verdict {verdict}, {packet:02x?} became {after:02x?}"
                    );
                }
            }
            ensure!(ran >= at_least, "{direction:?}: only {ran} of {} packets ran", packets.len());
        }
        Ok(())
    }
}

fn peers(port: Option<u16>) -> Result<Peers> {
    let mut prefixes: Vec<Prefix> = vec![prefix("192.0.2.7/32")?, prefix("2001:db8::7/128")?];
    for prefix in &mut prefixes {
        prefix.port = port;
    }
    Ok(Peers { prefixes, ..Peers::default() })
}

/// The same peers among so many that they are looked up in a trie.
fn many_peers(port: Option<u16>) -> Result<Peers> {
    let mut all = peers(port)?;
    for i in 0..20 {
        all.prefixes.push(prefix(&format!("203.0.113.{i}/32"))?);
        all.prefixes.push(prefix(&format!("2001:db8:ffff::{i:x}/128"))?);
    }
    all.prefixes.sort();
    Ok(all)
}

fn an_unmatched_packet_is_never_altered() -> Result<Done> {
    let packets = broken();
    let always = Chance { share: 1.0, correlation: 0.0 };
    let flips = Some(Corrupt { chance: always, mode: CorruptMode::Payload });
    // Everything that would lose, change or answer a packet.
    for effects in [
        loss(1.0),
        Effects { corrupt: flips, ..Effects::default() },
        Effects { partition: Some(Partition::Reject), ..Effects::default() },
    ] {
        for peers in [peers(None)?, peers(Some(PORT))?, many_peers(Some(PORT))?] {
            let stage = Stage::set(effects.clone(), &peers)?;
            stage.lets_through(&packets, packets.len() / 2)?;
            stage.lets_through(&wellformed(false, PORT), 20)?;
            drop(stage);
        }
    }
    Ok(Done::Kept)
}

fn a_rule_for_everyone_alters_nothing_that_it_lets_through() -> Result<Done> {
    let packets = broken();
    let stage = Stage::set(loss(0.0), &Peers::default())?;
    stage.lets_through(&packets, packets.len() / 2)?;
    stage.lets_through(&wellformed(true, PORT), 20)?;
    Ok(Done::Kept)
}

fn a_peer_is_found_behind_options_and_extension_headers() -> Result<Done> {
    for peers in [peers(Some(PORT))?, many_peers(Some(PORT))?] {
        let stage = Stage::set(loss(1.0), &peers)?;
        for packet in wellformed(true, PORT) {
            let has_port = !is_icmp(&packet);
            for (direction, lost) in [(Direction::Egress, LOST), (Direction::Ingress, SHOT)] {
                let (verdict, _) = stage.run(direction, &packet)?;
                let wanted = if has_port { lost } else { PASS };
                ensure!(
                    verdict == wanted,
                    "{direction:?}: verdict {verdict} and not {wanted} for {packet:02x?}"
                );
                let (verdict, _) = stage.run_in_cgroup(direction, &packet)?;
                ensure!(
                    (verdict == ALLOWED) != has_port,
                    "{direction:?} of a cgroup: verdict {verdict} for {packet:02x?}"
                );
            }
        }
        stage.lets_through(&wellformed(true, PORT + 1), 20)?;
        stage.lets_through(&wellformed(false, PORT), 20)?;
    }
    // Without a port every protocol of the peer counts.
    let stage = Stage::set(loss(1.0), &peers(None)?)?;
    for packet in wellformed(true, 1) {
        let (verdict, _) = stage.run(Direction::Egress, &packet)?;
        ensure!(verdict == LOST, "verdict {verdict} and not {LOST} for {packet:02x?}");
    }
    Ok(Done::Kept)
}

/// The payload tells: an echo request stands in front of it.
fn is_icmp(packet: &[u8]) -> bool {
    let body = packet.windows(7).position(|window| window == b"payload").unwrap_or_default();
    packet[body - 8..body] == [8, 0, 0, 0, 0, 0, 0, 0]
}

fn neighbour_discovery_and_foreign_protocols_pass() -> Result<Done> {
    let stage = Stage::set(loss(1.0), &Peers::default())?;
    let mut packets = vec![ethernet(0x0806, &[0; 28]), ethernet(0x88cc, &[0; 60])];
    for kind in 133..=137 {
        let mut packet = v6(true, 58, 0, &[]);
        packet[14 + 40] = kind;
        packet[14 + 7] = 255;
        packets.push(packet);
    }
    stage.lets_through(&packets, packets.len())?;
    Ok(Done::Kept)
}
