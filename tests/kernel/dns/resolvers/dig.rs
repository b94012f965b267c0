//! `dig`, which shows every part of an answer.

use std::net::IpAddr;
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use kfault_tests::manifest::Manifest;
use kfault_tests::net::{FAMILIES, Family};
use kfault_tests::ns::Ns;
use kfault_tests::probe::dns::REAL;

use super::{Conf, counted, experiments};
use crate::dns::is_nobodys;
use crate::dns::scene::Scene;
use crate::harness::{Done, Proof, Test, tests};

pub fn tests() -> Vec<Test> {
    tests!("dns":
        dig_is_told_errors_whatever_it_asks_for,
        dig_is_told_addresses_at_random,
        dig_is_reset_over_tcp,
        dig_is_answered_whatever_its_search_list,
    )
}

/// What it says of a query.
#[derive(Debug, PartialEq, Eq)]
struct Dug {
    /// `NOERROR`; none without an answer.
    status: String,
    flags: String,
    /// Its OPT record.
    options: Option<String>,
    /// Name, class and type.
    question: String,
    /// Name, time to live, class, type and data of each.
    records: Vec<String>,
    /// What it found wrong.
    complaints: Vec<String>,
}

fn dig(ns: &Ns, args: &[&str]) -> Result<Dug> {
    let output = ns
        .command("dig")
        .args(["+tries=1", "+time=3"])
        .args(args)
        .stdin(Stdio::null())
        // It reads options of its own from there.
        .env("HOME", "/nonexistent")
        .output()
        .context("start dig")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    let part = |begin: &str, end: char| {
        let rest = text.split_once(begin).map(|(_, rest)| rest);
        rest.and_then(|rest| rest.split(end).next()).unwrap_or_default().to_owned()
    };
    let complains = |line: &&str| {
        let line = line.to_ascii_lowercase();
        let wrong = ["warning", "error", "mismatch", "bad ", "malformed", "no servers", "extra"];
        line.starts_with(";; ")
            && !line.contains("->>header")
            && wrong.iter().any(|w| line.contains(w))
    };
    Ok(Dug {
        status: part("status: ", ','),
        flags: part(";; flags: ", ';'),
        options: text.contains("OPT PSEUDOSECTION").then(|| part("; EDNS: ", '\n')),
        question: words(part(";; QUESTION SECTION:\n", '\n').trim_start_matches(';')),
        records: text.lines().filter(|l| !l.is_empty() && !l.starts_with(';')).map(words).collect(),
        complaints: text.lines().filter(complains).map(str::to_owned).collect(),
    })
}

/// That there is one.
fn needs() -> Option<Proof> {
    Proof::by_trying("dig", || Ns::here()?.output("dig", &["-v"]).map(drop))
}

macro_rules! needs_dig {
    () => {
        if let Some(proof) = needs() {
            return Ok(Done::Cannot(proof));
        }
    };
}

fn at(scene: &Scene, family: Family) -> String {
    format!("@{}", scene.net.server.ip(family))
}

/// An answer that nothing is wrong with.
fn plain(status: &str, question: &str, options: bool, records: &[&str]) -> Dug {
    Dug {
        status: status.to_owned(),
        flags: "qr rd ra".to_owned(),
        options: options.then(|| "version: 0, flags:; udp: 1232".to_owned()),
        question: question.to_owned(),
        records: records.iter().map(|&text| text.to_owned()).collect(),
        complaints: Vec::new(),
    }
}

/// The resolver's own answers, which have no options.
fn is_real(scene: &Scene, ns: &Ns, name: &str) -> Result<()> {
    for family in FAMILIES {
        for (kind, real) in ["A", "AAAA"].into_iter().zip(REAL) {
            let dug = dig(ns, &[&at(scene, family), name, kind])?;
            let record = format!("{name}. 60 IN {kind} {real}");
            let expected = plain("NOERROR", &format!("{name}. IN {kind}"), false, &[&record]);
            ensure!(dug == expected, "{} over {family:?}: {dug:?}", ns.name());
        }
    }
    Ok(())
}

const KINDS: [&str; 6] = ["A", "AAAA", "MX", "TXT", "ANY", "HTTPS"];
/// Without and with EDNS, the second one with all that is long.
const WAYS: [&[&str]; 2] =
    [&["+noedns"], &["+dnssec", "+nsid", "+subnet=192.0.2.0/24", "+padding=300"]];

/// Asks for every kind of record in every way. Returns how often.
fn ask_all(scene: &Scene, names: [&str; 2], status: &str) -> Result<u64> {
    let before = scene.seen();
    let mut asked = 0;
    for family in FAMILIES {
        for kind in KINDS {
            for (way, name) in WAYS.into_iter().zip(names) {
                let server = at(scene, family);
                let args = [&[server.as_str(), name, kind, "+notcp"], way].concat();
                let dug = dig(&scene.net.client.ns, &args)?;
                let question = format!("{name}. IN {kind}");
                let mut expected = plain(status, &question, way.len() > 1, &[]);
                if status == "NOERROR" && ["A", "AAAA"].contains(&kind) {
                    let address = dug.records.first().and_then(|r| r.split(' ').next_back());
                    let address: IpAddr =
                        address.with_context(|| format!("{args:?}: {dug:?}"))?.parse()?;
                    ensure!(is_nobodys(address), "{args:?}: {dug:?}");
                    expected.records.push(format!("{name}. 10 IN {kind} {address}"));
                }
                ensure!(dug == expected, "{args:?}: {dug:?}");
                asked += 1;
            }
        }
    }
    ensure!(scene.seen() == before, "a query got through");
    Ok(asked)
}

fn dig_is_told_errors_whatever_it_asks_for() -> Result<Done> {
    needs_dig!();
    let scene = Scene::new()?;
    let client = &scene.net.client.ns;
    is_real(&scene, client, "servfail.test")?;
    let summary = scene.with_faults(&experiments(), |_| {
        let asked = ask_all(&scene, ["servfail.test", "sERvfaiL.tEST"], "SERVFAIL")?;
        ensure!(asked == 24, "{asked} questions");
        for (flag, flags) in [("+norecurse", "qr ra"), ("+cdflag", "qr rd ra cd")] {
            let dug = dig(client, &[&at(&scene, Family::V4), "servfail.test", flag])?;
            ensure!(dug.status == "SERVFAIL" && dug.flags == flags, "{flag}: {dug:?}");
        }
        for (name, status) in [("nxdomain.test", "NXDOMAIN"), ("refused.test", "REFUSED")] {
            let dug = dig(client, &[&at(&scene, Family::V6), name])?;
            let expected = plain(status, &format!("{name}. IN A"), true, &[]);
            ensure!(dug == expected, "{dug:?}");
        }
        is_real(&scene, client, "example.com")?;
        is_real(&scene, &scene.net.near.ns, "servfail.test")
    })?;
    let all = (counted(&summary), summary.total("unreadable"));
    ensure!(all == ((32, [1, 1, 26, 0]), 0), "{}", summary.json());
    is_real(&scene, client, "servfail.test")?;
    Ok(Done::Kept)
}

fn dig_is_told_addresses_at_random() -> Result<Done> {
    needs_dig!();
    let scene = Scene::new()?;
    let client = &scene.net.client.ns;
    is_real(&scene, client, "google.com")?;
    let summary = scene.with_fault(&Manifest::dns("random", &["google.com"]), |_| {
        let asked = ask_all(&scene, ["google.com", "GooGlE.cOm"], "NOERROR")?;
        ensure!(asked == 24, "{asked} questions");
        is_real(&scene, client, "example.com")?;
        is_real(&scene, &scene.net.near.ns, "google.com")
    })?;
    let all = ["matched", "injected", "answered", "unreadable"].map(|c| summary.total(c));
    ensure!(all == [28, 24, 24, 0], "{}", summary.json());
    is_real(&scene, client, "google.com")?;
    Ok(Done::Kept)
}

fn dig_is_reset_over_tcp() -> Result<Done> {
    needs_dig!();
    let scene = Scene::new()?;
    let (client, near) = (&scene.net.client.ns, &scene.net.near.ns);
    // It asks for ANY over TCP of its own accord.
    let asked = [("A", "+tcp"), ("TXT", "+tcp"), ("ANY", "+edns")];
    let answered = |ns: &Ns, name: &str| {
        for family in FAMILIES {
            for (kind, way) in asked {
                let dug = dig(ns, &[&at(&scene, family), name, kind, way])?;
                let record = format!("{name}. 60 IN A {}", REAL[0]);
                let records = if kind == "A" { &[record.as_str()][..] } else { &[] };
                let expected = plain("NOERROR", &format!("{name}. IN {kind}"), false, records);
                ensure!(dug == expected, "{name} in {}, {way}: {dug:?}", ns.name());
            }
        }
        Ok(())
    };
    let names = ["servfail.test", "random.test"];
    names.into_iter().try_for_each(|name| answered(client, name)).context("before")?;
    let summary = scene.with_faults(&experiments(), |_| {
        let before = scene.seen();
        for (family, name) in FAMILIES.into_iter().flat_map(|f| names.map(|name| (f, name))) {
            for (kind, way) in asked {
                let dug = dig(client, &[&at(&scene, family), name, kind, way])?;
                let is_reset = |line: &String| line.contains("connection reset");
                ensure!(
                    dug.status.is_empty() && dug.complaints.iter().any(is_reset),
                    "{name}, {kind} over {family:?}: {dug:?}"
                );
            }
        }
        ensure!(scene.seen() == before, "a query got through");
        answered(client, "example.com")?;
        answered(near, "random.test")
    })?;
    let (_, each) = counted(&summary);
    let all = (each, summary.total("unreadable"));
    ensure!(all == ([0, 0, 6, 6], 0), "{}", summary.json());
    names.into_iter().try_for_each(|name| answered(client, name)).context("afterwards")?;
    Ok(Done::Kept)
}

fn dig_is_answered_whatever_its_search_list() -> Result<Done> {
    needs_dig!();
    let scene = Scene::new()?;
    let client = &scene.net.client.ns;
    let _conf = Conf::of(&scene, Family::V4, "")?;
    // The answer, and how many queries came to the resolver.
    let search = |name: &str| {
        let before = scene.seen();
        let dug = dig(client, &["+search", name])?;
        anyhow::Ok((dug, scene.seen() - before))
    };
    let real = |name: &str| {
        let record = format!("{name}. 60 IN A {}", REAL[0]);
        plain("NOERROR", &format!("{name}. IN A"), false, &[&record])
    };
    for name in ["servfail.test", "web"] {
        let found = search(name)?;
        ensure!(found == (real(name), 4), "before: {found:?}");
    }
    let summary = scene.with_faults(&experiments(), |_| {
        let (dug, seen) = search("servfail.test")?;
        ensure!(dug == plain("SERVFAIL", "servfail.test. IN A", true, &[]), "{dug:?}");
        ensure!(seen == 3, "{seen} queries came");
        // A Service is the first name of the list already.
        let (dug, seen) = search("web")?;
        let question = "web.default.svc.cluster.local. IN A";
        ensure!(dug.question == question && dug.records.len() == 1, "{dug:?}");
        ensure!(seen == 0, "{seen} queries came");
        let found = search("example.com")?;
        ensure!(found == (real("example.com"), 4), "another name: {found:?}");
        Ok(())
    })?;
    let all = (counted(&summary), summary.total("unreadable"));
    ensure!(all == ((9, [0, 0, 1, 1]), 0), "{}", summary.json());
    Ok(Done::Kept)
}
