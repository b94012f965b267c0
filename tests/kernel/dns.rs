//! Name resolution: chosen names get an error or an address at random, whoever the resolver is;
//! other names, other programs and the neighbour get theirs.

mod resolvers;
mod scene;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use chaos_user::plan::names::Names;
use kfault_tests::cgroup::Cgroup;
use kfault_tests::clock::wait_for;
use kfault_tests::kfault::Run;
use kfault_tests::manifest::Manifest;
use kfault_tests::net::{FAMILIES, Family};
use kfault_tests::probe::dns::{
    A, AAAA, IMPATIENCE, NOERROR, NXDOMAIN, PATIENCE, Query, REAL, REFUSED, Resolver, SERVFAIL,
    TXT, ask, ask_tcp, exchange,
};
use kfault_tests::probe::process::Process;
use kfault_tests::snapshot::Snapshot;
use serde_json::json;

use scene::Scene;

use crate::faulty::{on_client, with_run};
use crate::harness::{Done, Test, tests};

pub fn tests() -> Vec<Test> {
    let mut all: Vec<Test> =
        tests!("dns": a_name_gets_an_error_and_others_their_address, an_address_is_drawn)
            .into_iter()
            .map(Test::smoke)
            .collect();
    all.extend(tests!("dns":
        without_a_pattern_every_name_is_meant,
        the_kind_of_error_can_be_chosen,
        a_lost_query_is_not_answered_at_all,
        options_and_mixed_case_come_back,
        the_kernel_matches_names_as_patterns_say,
        names_of_every_length_are_matched,
        what_is_no_plain_query_passes_and_is_counted,
        a_query_over_tcp_is_reset,
        a_resolver_on_loopback_is_answered_for,
        a_resolver_of_the_own_address_is_answered_for,
        a_process_of_the_cgroup_gets_an_error_and_its_neighbour_an_address,
        a_dry_run_counts_and_answers_nothing,
        experiments_answer_in_turn_and_other_faults_go_on,
        names_that_two_experiments_share_stay_when_one_is_over,
        a_kfault_that_is_killed_answers_nothing_after_its_lease,
    ));
    all.extend(resolvers::tests());
    all
}

/// A DNSChaos with a choice of the error.
fn error(patterns: &[&str], answer: &str) -> Manifest {
    Manifest::dns("error", patterns).with("kfault", json!({"answer": answer}))
}

fn a_name_gets_an_error_and_others_their_address() -> Result<Done> {
    let scene = Scene::new()?;
    let (client, near) = (&scene.net.client.ns, &scene.net.near.ns);
    let summary = scene.with_fault(&Manifest::dns("error", &["google.com"]), |_| {
        for family in FAMILIES {
            let before = scene.seen();
            for kind in [A, AAAA, TXT] {
                let answer = scene.ask(client, family, &Query::of("google.com", kind))?;
                ensure!(answer.code == SERVFAIL && answer.addresses.is_empty(), "{answer:?}");
            }
            ensure!(scene.seen() == before, "{family:?}: a query got through");
            scene.real(client, family, "example.com")?;
            scene.real(client, family, "www.google.com")?;
            scene.real(near, family, "google.com")?;
        }
        Ok(())
    })?;
    // Three of seven queries in each family were for the name.
    let counted = ["matched", "injected", "answered", "unreadable"].map(|c| summary.total(c));
    ensure!(counted == [14, 6, 6, 0], "{}", summary.json());
    Ok(Done::Kept)
}

fn an_address_is_drawn() -> Result<Done> {
    let scene = Scene::new()?;
    let client = &scene.net.client.ns;
    let summary = scene.with_fault(&Manifest::dns("random", &["google.*"]), |_| {
        for family in FAMILIES {
            let mut all = Vec::new();
            for _ in 0..4 {
                for kind in [A, AAAA] {
                    let answer = scene.ask(client, family, &Query::of("google.com", kind))?;
                    let [(address, 10)] = answer.addresses[..] else {
                        anyhow::bail!("not one address for 10 s: {answer:?}")
                    };
                    ensure!(answer.code == NOERROR && is_nobodys(address), "{answer:?}");
                    all.push(address);
                }
            }
            all.sort_unstable();
            all.dedup();
            ensure!(all.len() >= 6, "{family:?}: not drawn: {all:?}");
            let text = scene.ask(client, family, &Query::of("google.com", TXT))?;
            ensure!(text.code == NOERROR && text.addresses.is_empty(), "{text:?}");
            scene.real(&scene.net.near.ns, family, "google.com")?;
        }
        Ok(())
    })?;
    ensure!(summary.total("answered") == 18, "{}", summary.json());
    let kept = Manifest::dns("random", &[]).with("kfault", json!({"ttl": 3600}));
    scene.with_fault(&kept, |_| {
        let answer = scene.ask(client, Family::V6, &Query::a("a.b"))?;
        ensure!(answer.addresses.iter().all(|(_, ttl)| *ttl == 3600), "{answer:?}");
        Ok(())
    })?;
    Ok(Done::Kept)
}

/// Networks that are set aside for tests and documents.
fn is_nobodys(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.octets()[0] == 198 && v4.octets()[1] & 0xfe == 18,
        IpAddr::V6(v6) => v6.segments()[..2] == [0x2001, 0xdb8],
    }
}

fn without_a_pattern_every_name_is_meant() -> Result<Done> {
    let scene = Scene::new()?;
    scene.with_fault(&Manifest::dns("error", &[]), |_| {
        for name in ["google.com", "x", ""] {
            let answer = scene.ask(&scene.net.client.ns, Family::V4, &Query::a(name))?;
            ensure!(answer.code == SERVFAIL, "{name:?}: {answer:?}");
            scene.real(&scene.net.near.ns, Family::V4, name)?;
        }
        Ok(())
    })?;
    Ok(Done::Kept)
}

fn the_kind_of_error_can_be_chosen() -> Result<Done> {
    let scene = Scene::new()?;
    for (answer, code) in [("nxdomain", NXDOMAIN), ("refused", REFUSED), ("servfail", SERVFAIL)] {
        scene.with_fault(&error(&["google.com"], answer), |_| {
            for family in FAMILIES {
                let got = scene.ask(&scene.net.client.ns, family, &Query::a("google.com"))?;
                ensure!(got.code == code && got.addresses.is_empty(), "{answer}: {got:?}");
            }
            Ok(())
        })?;
    }
    Ok(Done::Kept)
}

fn a_lost_query_is_not_answered_at_all() -> Result<Done> {
    let scene = Scene::new()?;
    let summary = scene.with_fault(&error(&["google.com"], "timeout"), |_| {
        for family in FAMILIES {
            let before = scene.seen();
            let (client, ip) = (&scene.net.client.ns, scene.net.server.ip(family));
            let answer = ask(client, ip, &Query::a("google.com"), IMPATIENCE)?;
            ensure!(answer.is_none() && scene.seen() == before, "{answer:?}");
            scene.real(client, family, "example.com")?;
        }
        Ok(())
    })?;
    ensure!(summary.total("answered") == 2, "{}", summary.json());
    Ok(Done::Kept)
}

fn options_and_mixed_case_come_back() -> Result<Done> {
    let scene = Scene::new()?;
    scene.with_fault(&Manifest::dns("random", &["Google.Com"]), |_| {
        for family in FAMILIES {
            for name in ["gOOgle.cOm", "GOOGLE.COM"] {
                // That the question comes back as it was is looked at with every answer.
                let query = Query::a(name);
                let plain = scene.ask(&scene.net.client.ns, family, &query)?;
                let query = query.with_options();
                let with = scene.ask(&scene.net.client.ns, family, &query)?;
                ensure!(!plain.options && plain.addresses.len() == 1, "{plain:?}");
                ensure!(with.options && with.addresses.len() == 1, "{with:?}");
            }
        }
        Ok(())
    })?;
    Ok(Done::Kept)
}

/// Names drawn of the patterns' own characters, and the same question to both matchers.
fn the_kernel_matches_names_as_patterns_say() -> Result<Done> {
    const PATTERNS: [&str; 7] = ["ab.a", "a.b*", "b?.a", "?a", "??.b*", "b-1.", "*.a"];
    let scene = Scene::new()?;
    let names = Names::of(PATTERNS.iter().filter_map(|text| text.parse().ok()));
    let mut state = 1u64;
    let mut draw = move |below: u64| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    let mut meant = 0;
    scene.with_fault(&Manifest::dns("error", &PATTERNS), |_| {
        for _ in 0..600 {
            let mut name = String::new();
            for _ in 0..=draw(5) {
                let is_dot = draw(3) == 0 && !name.is_empty() && !name.ends_with('.');
                name.push(if is_dot { '.' } else { ['a', 'b', 'B', '-', '1'][draw(5) as usize] });
            }
            let name = name.trim_end_matches('.');
            let answer = scene.ask(&scene.net.client.ns, Family::V4, &Query::a(name))?;
            let is_meant = names.hold(name);
            meant += u32::from(is_meant);
            ensure!((answer.code == SERVFAIL) == is_meant, "{name:?} is meant: {is_meant}");
        }
        Ok(())
    })?;
    ensure!((50..550).contains(&meant), "{meant} of 600 names are too few or too many");
    Ok(Done::Kept)
}

fn names_of_every_length_are_matched() -> Result<Done> {
    let scene = Scene::new()?;
    let label = "x".repeat(63);
    let longest = format!("{label}.{label}.{label}.{}", "y".repeat(61));
    let wild = format!("{label}.{label}.{label}.{}", "?".repeat(60));
    ensure!(longest.len() == 253, "a name of 255 bytes on the wire");
    scene.with_fault(&Manifest::dns("random", &[&longest, &wild, "z*"]), |_| {
        for family in FAMILIES {
            for kind in [A, AAAA] {
                for name in [longest.as_str(), &longest[..252], "z", "zz.z"] {
                    // The largest answer that there is.
                    let query = Query::of(name, kind).with_options();
                    let answer = scene.ask(&scene.net.client.ns, family, &query)?;
                    ensure!(answer.addresses.iter().all(|(a, _)| is_nobodys(*a)), "{answer:?}");
                    ensure!(answer.addresses.len() == 1 && answer.options, "{answer:?}");
                }
                scene.real(&scene.net.client.ns, family, &longest[1..])?;
            }
        }
        Ok(())
    })?;
    Ok(Done::Kept)
}

/// They come to the resolver as they were sent.
fn what_is_no_plain_query_passes_and_is_counted() -> Result<Done> {
    let scene = Scene::new()?;
    let query = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = Query::a("google.com").bytes(7);
        change(&mut bytes);
        bytes
    };
    let unreadable = [
        query(&|b| b[5] = 0),
        query(&|b| b[5] = 2),
        query(&|b| b[4] = 1),
        // The name points elsewhere, is longer than the message, has a zero byte in a label.
        query(&|b| b[12] = 0xc0),
        query(&|b| b[12] = 63),
        query(&|b| b[14] = 0),
        query(&|b| b.truncate(26)),
        query(&|b| b.truncate(9)),
        vec![0; 1],
        [&Query::a("").bytes(7)[..12], &[1, b'a'].repeat(140), &[0, 0, 1, 0, 1]].concat(),
    ];
    let others = [
        query(&|b| b[2] |= 0x80),
        // An update (RFC 2136).
        query(&|b| b[2] = 5 << 3),
        vec![],
    ];
    let mut counted = 0;
    let summary = scene.with_fault(&Manifest::dns("error", &[]), |_| {
        for family in FAMILIES {
            for (message, is_counted) in unreadable
                .iter()
                .map(|message| (message, true))
                .chain(others.iter().map(|message| (message, false)))
            {
                let before = scene.seen();
                let (client, ip) = (&scene.net.client.ns, scene.net.server.ip(family));
                exchange(client, ip, message, PATIENCE)?;
                ensure!(scene.seen() == before + 1, "{family:?}: it did not pass: {message:?}");
                counted += u64::from(is_counted);
            }
        }
        Ok(())
    })?;
    let all = ["unreadable", "matched", "answered"].map(|counter| summary.total(counter));
    ensure!(all == [counted, counted, 0], "{counted}: {}", summary.json());
    Ok(Done::Kept)
}

fn a_query_over_tcp_is_reset() -> Result<Done> {
    let scene = Scene::new()?;
    let summary = scene.with_fault(&Manifest::dns("random", &["google.com"]), |_| {
        for family in FAMILIES {
            let ip = scene.net.server.ip(family);
            let (client, near) = (&scene.net.client.ns, &scene.net.near.ns);
            let begun = Instant::now();
            let error = ask_tcp(client, ip, &Query::a("google.com"))?;
            let kind = error.as_ref().map_err(std::io::Error::kind);
            ensure!(kind == Err(std::io::ErrorKind::ConnectionReset), "{family:?}: {error:?}");
            ensure!(begun.elapsed() < PATIENCE, "it took {:?}", begun.elapsed());
            for (ns, name) in [(client, "example.com"), (near, "google.com")] {
                let answer = ask_tcp(ns, ip, &Query::a(name))?.context("over TCP")?;
                ensure!(answer.addresses == [(REAL[0], 60)], "{answer:?}");
            }
        }
        Ok(())
    })?;
    let all = ["answered", "unreadable"].map(|counter| summary.total(counter));
    ensure!(all == [2, 0], "{}", summary.json());
    Ok(Done::Kept)
}

fn a_resolver_on_loopback_is_answered_for() -> Result<Done> {
    local([Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()])
}

fn a_resolver_of_the_own_address_is_answered_for() -> Result<Done> {
    local([
        Ipv4Addr::new(10, 77, 1, 2).into(),
        Ipv6Addr::new(0xfd00, 0x77, 1, 0, 0, 0, 0, 2).into(),
    ])
}

/// Resolvers in the target's own namespace, which its queries reach through `lo`.
fn local(addresses: [IpAddr; 2]) -> Result<Done> {
    let scene = Scene::new()?;
    let client = &scene.net.client.ns;
    let resolvers =
        addresses.map(|ip| Resolver::start(client, ip)).into_iter().collect::<Result<Vec<_>>>()?;
    scene.with_fault(&Manifest::dns("random", &["google.com"]), |_| {
        for (ip, resolver) in addresses.into_iter().zip(&resolvers) {
            let asked = |name| {
                let answer = ask(client, ip, &Query::a(name), PATIENCE)?;
                answer.with_context(|| format!("{name} at {ip} got no answer"))
            };
            let before = resolver.seen();
            let answer = asked("google.com")?;
            ensure!(answer.addresses.iter().all(|(a, _)| is_nobodys(*a)), "{ip}: {answer:?}");
            ensure!(answer.addresses.len() == 1 && resolver.seen() == before, "{ip}: {answer:?}");
            ensure!(asked("example.com")?.addresses == [(REAL[0], 60)], "{ip}");
            let error = ask_tcp(client, ip, &Query::a("google.com"))?;
            let kind = error.as_ref().map_err(std::io::Error::kind);
            ensure!(kind == Err(std::io::ErrorKind::ConnectionReset), "{ip}: {error:?}");
        }
        Ok(())
    })?;
    Ok(Done::Kept)
}

fn a_process_of_the_cgroup_gets_an_error_and_its_neighbour_an_address() -> Result<Done> {
    let scene = Scene::new()?;
    let host = scene.net.host()?;
    let (target, other) = (Cgroup::new("target")?, Cgroup::new("other")?);
    let mut inside = Process::start(&host.0.ns, Some(&target))?;
    let mut outside = Process::start(&host.0.ns, Some(&other))?;
    let before = Snapshot::of(&scene.net)?.and(&target)?.and(&other)?;
    let manifest = Manifest::dns("error", &["google.com"]);
    let kfault = Run::of(&manifest)?.target(&target.word()).seed(1).start()?;
    let local = Resolver::start(&host.0.ns, Ipv4Addr::LOCALHOST.into())?;
    let ips = FAMILIES.map(|family| scene.net.server.ip(family));
    for ip in ips.into_iter().chain([Ipv4Addr::LOCALHOST.into()]) {
        let query = Query::a("google.com");
        let answer = inside.query(ip, &query)?.context("no answer inside")?;
        ensure!(answer.code == SERVFAIL, "{ip}: {answer:?}");
        let answer = outside.query(ip, &query)?.context("no answer outside")?;
        ensure!(answer.addresses == [(REAL[0], 60)], "{ip}: {answer:?}");
        let answer = inside.query(ip, &Query::a("example.com"))?.context("no answer inside")?;
        ensure!(answer.addresses == [(REAL[0], 60)], "{ip}: {answer:?}");
    }
    drop(local);
    let summary = kfault.stop()?;
    ensure!(summary.total("answered") == 3, "{}", summary.json());
    before.ensure_same(&Snapshot::of(&scene.net)?.and(&target)?.and(&other)?, "after recovery")?;
    let answer = inside.query(ips[0], &Query::a("google.com"))?.context("no answer")?;
    ensure!(answer.addresses == [(REAL[0], 60)], "after recovery: {answer:?}");
    Ok(Done::Kept)
}

fn a_dry_run_counts_and_answers_nothing() -> Result<Done> {
    let scene = Scene::new()?;
    let run = on_client(&scene.net, &Manifest::dns("error", &["google.com"]))?.dry();
    let summary = with_run(&scene.net, run, |_| {
        FAMILIES.into_iter().try_for_each(|f| scene.real(&scene.net.client.ns, f, "google.com"))
    })?;
    ensure!(summary.total("injected") == 4, "{}", summary.json());
    Ok(Done::Kept)
}

/// What no rule answers goes on through the rules of other experiments, whose order does not
/// matter.
fn experiments_answer_in_turn_and_other_faults_go_on() -> Result<Done> {
    let scene = Scene::new()?;
    let delay = Manifest::delay("100ms").named("late").to(&[scene.net.server.ip(Family::V4)]);
    let run = on_client(&scene.net, &error(&["a.test", "b.*"], "nxdomain").named("first"))?
        .and(&error(&["b.test", "c.test"], "refused").named("second"))?
        .and(&delay)?;
    let summary = with_run(&scene.net, run, |_| {
        let timed = |name: &str| {
            let begun = Instant::now();
            let answer = scene.ask(&scene.net.client.ns, Family::V4, &Query::a(name))?;
            Ok::<_, anyhow::Error>((answer.code, begun.elapsed()))
        };
        for (name, code) in [("a.test", NXDOMAIN), ("b.test", NXDOMAIN), ("c.test", REFUSED)] {
            let (got, took) = timed(name)?;
            ensure!(got == code && took < Duration::from_millis(90), "{name}: {got} in {took:?}");
        }
        let (got, took) = timed("d.test")?;
        ensure!(got == NOERROR && took >= Duration::from_millis(100), "{got} in {took:?}");
        Ok(())
    })?;
    ensure!(summary.total("answered") == 3, "{}", summary.json());
    Ok(Done::Kept)
}

fn names_that_two_experiments_share_stay_when_one_is_over() -> Result<Done> {
    let scene = Scene::new()?;
    let client = &scene.net.client.ns;
    let names = ["google.com", "a?.test"];
    let brief = error(&names, "nxdomain").named("a").with("duration", json!("3s"));
    let run = on_client(&scene.net, &brief)?.and(&error(&names, "refused").named("b"))?;
    with_run(&scene.net, run, |_| {
        let code = |name: &str| anyhow::Ok(scene.ask(client, Family::V4, &Query::a(name))?.code);
        ensure!(code("ab.test")? == NXDOMAIN, "the first does not answer");
        let is_over = || code("google.com").is_ok_and(|code| code == REFUSED);
        ensure!(wait_for(Duration::from_secs(10), is_over), "the second does not answer");
        // The engine takes the first one's rules away a moment after they have ended.
        std::thread::sleep(Duration::from_secs(2));
        for name in names.map(|name| name.replace('?', "b")) {
            ensure!(code(&name)? == REFUSED, "{name}");
        }
        ensure!(code("b.test")? == NOERROR, "another name");
        Ok(())
    })?;
    Ok(Done::Kept)
}

fn a_kfault_that_is_killed_answers_nothing_after_its_lease() -> Result<Done> {
    let scene = Scene::new()?;
    let kfault = on_client(&scene.net, &Manifest::dns("error", &["google.com"]))?.start()?;
    let code =
        || anyhow::Ok(scene.ask(&scene.net.client.ns, Family::V6, &Query::a("google.com"))?.code);
    ensure!(code()? == SERVFAIL, "nothing is answered");
    kfault.kill()?;
    let is_over = || code().is_ok_and(|code| code == NOERROR);
    ensure!(wait_for(Duration::from_secs(8), is_over), "it goes on without its kfault");
    kfault_tests::kfault::command(&["sweep"], 0).map(drop)?;
    Ok(Done::Kept)
}
