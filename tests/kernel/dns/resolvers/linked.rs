//! Resolvers that C programs are linked with: musl's, glibc's, c-ares.

use std::net::IpAddr;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use kfault_tests::manifest::Manifest;
use kfault_tests::net::Family;
use kfault_tests::ns::Ns;
use kfault_tests::probe::dns::REAL;
use serde_json::json;
use tempfile::TempDir;

use super::Conf;
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
    nxdomain: &'static [&'static str],
}

fn the_resolver_of_musl_understands_what_is_meant() -> Result<Done> {
    understands(&Resolver {
        compiler: "musl-gcc",
        source: GETADDRINFO,
        flags: &["-static"],
        // It takes SERVFAIL for no answer, asks once more, and waits for a better one.
        options: "timeout:2 attempts:1",
        servfail: &["EAI_AGAIN"],
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
        nxdomain: &["EAI_NONAME"],
    })
}

fn the_resolver_c_ares_understands_what_is_meant() -> Result<Done> {
    understands(&Resolver {
        compiler: "gcc",
        source: ARES,
        flags: &["-lcares"],
        options: "",
        // Before 1.20 it says that no server could be reached when all of them said SERVFAIL.
        servfail: &["ARES_ECONNREFUSED", "ARES_ESERVFAIL"],
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

/// What the program prints for each of [`WANTED`], all at the same time, in order.
type Told = [Vec<String>; 3];

fn look(program: &str, ns: &Ns, name: &str) -> Result<Told> {
    let one = |wanted| {
        let mut lines: Vec<String> = ns
            .output(program, &[name, wanted])
            .with_context(|| format!("look up {name}"))?
            .lines()
            .map(str::to_owned)
            .collect();
        lines.sort_unstable();
        anyhow::Ok(lines)
    };
    let told = std::thread::scope(|scope| {
        let lookups = WANTED.map(|wanted| scope.spawn(move || one(wanted)));
        lookups.map(|lookup| lookup.join().unwrap_or_else(|p| std::panic::resume_unwind(p)))
    });
    let [v4, v6, both] = told;
    Ok([v4?, v6?, both?])
}

fn real() -> Told {
    let [v4, v6] = REAL.map(|ip| ip.to_string());
    [vec![v4.clone()], vec![v6.clone()], vec![v4, v6]]
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
    for (answer, errors) in [("servfail", resolver.servfail), ("nxdomain", resolver.nxdomain)] {
        let _conf = Conf::of(&scene, Family::V4, resolver.options)?;
        fails(&scene, &program, answer, errors).context(answer)?;
    }
    let _conf = Conf::of(&scene, Family::V6, resolver.options)?;
    draws(&scene, &program).context("random")?;
    Ok(Done::Kept)
}

/// What a lookup prints, and how many queries of it came to the resolver.
fn counted(scene: &Scene, program: &str, ns: &Ns, name: &str) -> Result<(Told, u64)> {
    let before = scene.seen();
    Ok((look(program, ns, name)?, scene.seen() - before))
}

fn fails(scene: &Scene, program: &str, answer: &str, errors: &[&str]) -> Result<()> {
    let (client, near) = (&scene.net.client.ns, &scene.net.near.ns);
    let whole = counted(scene, program, client, "google.com")?;
    // Three names of the search list, which do not exist, and the name itself.
    ensure!(whole == (real(), 4 * QUERIES), "before: {whole:?}");
    let manifest =
        Manifest::dns("error", &["google.com"]).with("kfault", json!({"answer": answer}));
    let mut passed = 0;
    let summary = scene.with_fault(&manifest, |_| {
        let (told, seen) = counted(scene, program, client, "google.com")?;
        let errs = |lines: &Vec<String>| lines.len() == 1 && errors.contains(&lines[0].as_str());
        let err = told.iter().all(errs);
        ensure!(err && seen == 3 * QUERIES, "{told:?}, {seen} queries came");
        let other = counted(scene, program, client, "example.com")?;
        ensure!(other == (real(), 4 * QUERIES), "another name: {other:?}");
        passed = seen + other.1;
        let neighbour = counted(scene, program, near, "google.com")?;
        ensure!(neighbour == (real(), 4 * QUERIES), "the neighbour: {neighbour:?}");
        Ok(())
    })?;
    // An error may be asked for more than once.
    let [matched, injected, answered, unreadable] =
        ["matched", "injected", "answered", "unreadable"].map(|c| summary.total(c));
    ensure!(
        matched == injected + passed
            && injected >= QUERIES
            && [answered, unreadable] == [injected, 0],
        "{passed} passed: {}",
        summary.json()
    );
    let after = look(program, client, "google.com")?;
    ensure!(after == real(), "afterwards: {after:?}");
    Ok(())
}

/// Addresses at random: for a name that the search list comes to last, and for a Service, which it
/// comes to first.
fn draws(scene: &Scene, program: &str) -> Result<()> {
    let (client, near) = (&scene.net.client.ns, &scene.net.near.ns);
    let names = [("google.com", 3), ("web", 0)];
    for (name, _) in names {
        let told = look(program, client, name)?;
        ensure!(told == real(), "before: {name}: {told:?}");
    }
    let manifest = Manifest::dns("random", &["google.com", "web.default.*"]);
    let mut passed = 0;
    let summary = scene.with_fault(&manifest, |_| {
        for (name, tried) in names {
            let (told, seen) = counted(scene, program, client, name)?;
            let addresses: Vec<IpAddr> = told
                .concat()
                .iter()
                .map(|line| line.parse().with_context(|| line.clone()))
                .collect::<Result<_>>()
                .with_context(|| format!("{name}: {told:?}"))?;
            let v4 = addresses.iter().map(IpAddr::is_ipv4).collect::<Vec<_>>();
            // Both are in the order of their text.
            ensure!(v4 == [true, false, true, false], "{name}: {told:?}");
            ensure!(addresses.iter().all(|ip| is_nobodys(*ip)), "{name}: {told:?}");
            ensure!(addresses[1] != addresses[3], "{name}: not drawn: {told:?}");
            ensure!(seen == tried * QUERIES, "{name}: {seen} queries came");
            passed += seen;
        }
        let other = counted(scene, program, client, "example.com")?;
        ensure!(other == (real(), 4 * QUERIES), "another name: {other:?}");
        passed += other.1;
        let told = look(program, near, "google.com")?;
        ensure!(told == real(), "the neighbour: {told:?}");
        Ok(())
    })?;
    let all = ["matched", "injected", "answered", "unreadable"].map(|c| summary.total(c));
    let drawn = 2 * QUERIES;
    ensure!(all == [passed + drawn, drawn, drawn, 0], "{passed} passed: {}", summary.json());
    let after = look(program, client, "web")?;
    ensure!(after == real(), "afterwards: {after:?}");
    Ok(())
}
