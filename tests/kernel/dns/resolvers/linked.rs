//! Resolvers that C programs are linked with: musl's, glibc's, c-ares.

use std::net::IpAddr;
use std::panic::resume_unwind;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use kfault_tests::net::{FAMILIES, Family};
use kfault_tests::ns::Ns;
use kfault_tests::probe::dns::REAL;
use tempfile::TempDir;

use super::{Conf, counted, experiments};
use crate::dns::is_nobodys;
use crate::dns::scene::Scene;
use crate::harness::{Done, Proof, Test, tests};

pub fn tests() -> Vec<Test> {
    tests!("dns":
        the_resolver_of_musl_understands_what_is_meant,
        the_resolver_of_glibc_understands_what_is_meant,
        the_resolver_c_ares_understands_what_is_meant,
    )
}

const GETADDRINFO: &str = include_str!("programs/getaddrinfo.c");
const ARES: &str = include_str!("programs/ares.c");

/// A resolver, and what it makes of errors.
struct Resolver {
    compiler: &'static str,
    source: &'static str,
    flags: &'static [&'static str],
    options: &'static str,
    servfail: &'static [&'static str],
    refused: &'static [&'static str],
    nxdomain: &'static [&'static str],
}

fn the_resolver_of_musl_understands_what_is_meant() -> Result<Done> {
    understands(&Resolver {
        compiler: "musl-gcc",
        source: GETADDRINFO,
        flags: &["-static"],
        // It waits for a better answer than SERVFAIL or REFUSED as long as for any.
        options: "timeout:2 attempts:1",
        servfail: &["EAI_AGAIN"],
        refused: &["EAI_AGAIN"],
        nxdomain: &["EAI_NONAME"],
    })
}

fn the_resolver_of_glibc_understands_what_is_meant() -> Result<Done> {
    understands(&Resolver {
        compiler: "gcc",
        source: GETADDRINFO,
        flags: &[],
        options: "",
        servfail: &["EAI_AGAIN"],
        refused: &["EAI_AGAIN"],
        nxdomain: &["EAI_NONAME"],
    })
}

fn the_resolver_c_ares_understands_what_is_meant() -> Result<Done> {
    understands(&Resolver {
        compiler: "gcc",
        source: ARES,
        flags: &["-lcares"],
        options: "",
        // 1.18 says after its last try that no server could be reached, whatever they answered.
        servfail: &["ARES_ECONNREFUSED", "ARES_ESERVFAIL"],
        refused: &["ARES_ECONNREFUSED", "ARES_EREFUSED"],
        nxdomain: &["ARES_ENOTFOUND"],
    })
}

impl Resolver {
    /// Compiles the program. It is there as long as its folder.
    fn build(&self) -> Result<(TempDir, String)> {
        let folder = TempDir::new().context("make a folder")?;
        let (source, program) = (folder.path().join("lookup.c"), folder.path().join("lookup"));
        std::fs::write(&source, self.source).context("write a program")?;
        let mut command = Command::new(self.compiler);
        command.arg("-o").args([&program, &source]).args(self.flags);
        let output = command.output().with_context(|| format!("start {}", self.compiler))?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr).trim());
        let program = program.to_string_lossy().into_owned();
        Ok((folder, program))
    }
}

/// What a lookup is for: IPv4, IPv6, both. Four queries for each name that is tried.
const WANTED: [&str; 3] = ["4", "6", "0"];
const QUERIES: u64 = 4;
/// The names of a search list come first, and do not exist.
const LISTED: u64 = 3;

/// What the program prints for each of [`WANTED`], in order.
type Told = [Vec<String>; 3];

/// Where a program is run.
struct Lookups<'a> {
    program: &'a str,
    scene: &'a Scene,
}

impl Lookups<'_> {
    /// Looks up all of these at the same time. With how many queries came to the resolver.
    fn of<const N: usize>(&self, ns: &Ns, names: [&str; N]) -> Result<([Told; N], u64)> {
        let one = |name: &str, wanted| {
            let text = ns.output(self.program, &[name, wanted])?;
            let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
            lines.sort_unstable();
            anyhow::Ok(lines)
        };
        let one = &one;
        let before = self.scene.seen();
        let told = std::thread::scope(|scope| {
            names
                .map(|name| WANTED.map(|wanted| scope.spawn(move || one(name, wanted))))
                .map(|all| all.map(|lookup| lookup.join().unwrap_or_else(|p| resume_unwind(p))))
        });
        let mut all = [const { [const { Vec::new() }; 3] }; N];
        for (to, lines) in all.iter_mut().flatten().zip(told.into_iter().flatten()) {
            *to = lines?;
        }
        Ok((all, self.scene.seen() - before))
    }

    /// These names have their own addresses, which the resolver was asked for.
    fn are_real<const N: usize>(&self, ns: &Ns, names: [&str; N], when: &str) -> Result<u64> {
        let (told, seen) = self.of(ns, names)?;
        for (name, told) in names.into_iter().zip(told) {
            ensure!(told == real(), "{when}: {name}: {told:?}");
        }
        let expected = (LISTED + 1) * QUERIES * N as u64;
        ensure!(seen == expected, "{when}: {seen} queries came for {names:?}");
        Ok(seen)
    }
}

fn real() -> Told {
    let [v4, v6] = REAL.map(|ip| ip.to_string());
    [vec![v4.clone()], vec![v6.clone()], vec![v4, v6]]
}

fn are_drawn(name: &str, told: &Told) -> Result<()> {
    let addresses = told.concat().into_iter().map(|line| line.parse::<IpAddr>());
    let addresses: Vec<IpAddr> =
        addresses.collect::<Result<_, _>>().with_context(|| format!("{name}: {told:?}"))?;
    let is_v4: Vec<bool> = addresses.iter().map(IpAddr::is_ipv4).collect();
    // Both are in the order of their text.
    ensure!(is_v4 == [true, false, true, false], "{name}: {told:?}");
    ensure!(addresses.iter().all(|ip| is_nobodys(*ip)), "{name}: {told:?}");
    ensure!(addresses[1] != addresses[3], "{name} has an address that was not drawn: {told:?}");
    Ok(())
}

fn understands(resolver: &Resolver) -> Result<Done> {
    let mut built = None;
    let build = || {
        built = Some(resolver.build()?);
        Ok(())
    };
    if let Some(proof) = Proof::by_trying(resolver.compiler, build) {
        return Ok(Done::Cannot(proof));
    }
    let (_folder, program) = built.context("a program")?;
    let scene = Scene::new()?;
    let (client, near) = (&scene.net.client.ns, &scene.net.near.ns);
    let lookups = Lookups { program: &program, scene: &scene };
    let names = ["nxdomain.test", "refused.test", "servfail.test", "random.test", "web"];
    let conf = |family| Conf::of(&scene, family, resolver.options);
    for family in FAMILIES {
        let _conf = conf(family)?;
        lookups.are_real(client, names, "before")?;
    }
    let errs = |told: &Told, errors: &[&str]| {
        told.iter().all(|lines| lines.len() == 1 && errors.contains(&lines[0].as_str()))
    };
    let mut passed = 0;
    let summary = scene.with_faults(&experiments(), |_| {
        for family in FAMILIES {
            let _conf = conf(family)?;
            let ([nxdomain, random, web], seen) =
                lookups.of(client, ["nxdomain.test", "random.test", "web"])?;
            ensure!(errs(&nxdomain, resolver.nxdomain), "nxdomain over {family:?}: {nxdomain:?}");
            are_drawn("random.test", &random)?;
            are_drawn("web", &web)?;
            // The Service is the first name of the search list already.
            ensure!(seen == 2 * LISTED * QUERIES, "{seen} queries came over {family:?}");
            passed +=
                seen + lookups.are_real(client, ["example.com", "a.random.test"], "others")?;
            lookups.are_real(near, names, "the neighbour")?;
        }
        let _conf = conf(Family::V4)?;
        let ([refused, servfail], seen) = lookups.of(client, ["refused.test", "servfail.test"])?;
        ensure!(errs(&refused, resolver.refused), "refused: {refused:?}");
        ensure!(errs(&servfail, resolver.servfail), "servfail: {servfail:?}");
        ensure!(seen == 2 * LISTED * QUERIES, "{seen} queries came");
        passed += seen;
        Ok(())
    })?;
    let (matched, [nxdomain, refused, servfail, random]) = counted(&summary);
    // In two families: one name that does not exist, two at random. Other errors may be asked for
    // more than once.
    ensure!(
        [nxdomain, random] == [2 * QUERIES, 4 * QUERIES]
            && refused >= QUERIES
            && servfail >= QUERIES
            && matched == passed + nxdomain + refused + servfail + random
            && summary.total("unreadable") == 0,
        "{passed} passed: {}",
        summary.json()
    );
    let _conf = conf(Family::V6)?;
    lookups.are_real(client, names, "afterwards")?;
    Ok(Done::Kept)
}
