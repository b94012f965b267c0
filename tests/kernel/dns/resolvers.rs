//! Resolvers that people use, with the search list that a cluster gives its pods.

mod dig;
mod linked;

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use kfault_tests::kfault::Summary;
use kfault_tests::manifest::Manifest;
use kfault_tests::net::Family;
use kfault_tests::ns::{Ns, mount};
use serde_json::json;
use tempfile::{NamedTempFile, TempDir};

use super::scene::Scene;
use crate::harness::{Done, Proof, Test, tests};

pub fn tests() -> Vec<Test> {
    let mut all = tests!("dns":
        the_c_library_is_answered_whatever_its_search_list,
        a_shell_s_own_resolver_is_answered,
        the_resolver_of_go_is_answered_whatever_its_search_list,
    );
    all.extend(dig::tests());
    all.extend(linked::tests());
    all
}

const CONF: &str = "/etc/resolv.conf";

/// The file that says which resolver there is, as long as this lives.
struct Conf(NamedTempFile);

impl Conf {
    /// The scene's resolver of this family, and options beside those of a cluster.
    fn of(scene: &Scene, family: Family, options: &str) -> Result<Self> {
        let file = NamedTempFile::new().context("make a file")?;
        let resolver = scene.net.server.ip(family);
        let text = format!(
            "nameserver {resolver}\n\
             search default.svc.cluster.local svc.cluster.local cluster.local\n\
             options ndots:5 {options}\n"
        );
        std::fs::write(file.path(), text).context("write a file")?;
        if !Path::new(CONF).exists() {
            std::fs::write(CONF, "").context("make resolv.conf")?;
        }
        mount(Some(&file.path().to_string_lossy()), CONF, None, libc::MS_BIND)?;
        Ok(Self(file))
    }
}

impl Drop for Conf {
    fn drop(&mut self) {
        let _ = &self.0;
        // SAFETY: a string that lives until the end of the call.
        unsafe { libc::umount2(c"/etc/resolv.conf".as_ptr(), libc::MNT_DETACH) };
    }
}

/// An experiment for every kind of answer, each with a name of its own: `servfail.test` and so on.
/// The one of addresses at random also means a Service.
fn experiments() -> Vec<Manifest> {
    let error = |answer: &str| {
        Manifest::dns("error", &[&format!("{answer}.test")])
            .with("kfault", json!({"answer": answer}))
            .named(answer)
    };
    let random = Manifest::dns("random", &["random.test", "web.default.*"]).named("random");
    vec![error("nxdomain"), error("refused"), error("servfail"), random]
}

/// What [`experiments`] counted: all queries, and those that each of them answered.
fn counted(summary: &Summary) -> (u64, [u64; 4]) {
    let of = |name: &str, counter: &str| {
        let id = format!("DNSChaos/default/{name}");
        let rules = summary.rules().iter().filter(|rule| rule["experiment"] == id.as_str());
        rules.filter_map(|rule| rule[counter].as_u64()).sum()
    };
    let answered = ["nxdomain", "refused", "servfail", "random"].map(|name| of(name, "answered"));
    // The first one by name looks at every query.
    (of("nxdomain", "matched"), answered)
}

/// `resolves` says whether a name has an address, seen from a namespace.
fn answered(resolves: impl Fn(&Ns, &str) -> bool) -> Result<Done> {
    let scene = Scene::new()?;
    let (client, near) = (&scene.net.client.ns, &scene.net.near.ns);
    let _conf = Conf::of(&scene, Family::V4, "")?;
    ensure!(resolves(client, "google.com"), "before: google.com has no address");
    scene.with_fault(&Manifest::dns("error", &["google.com"]), |_| {
        ensure!(!resolves(client, "google.com"), "google.com has an address");
        ensure!(resolves(client, "example.com"), "example.com has no address");
        ensure!(resolves(near, "google.com"), "the neighbour is harmed");
        Ok(())
    })?;
    ensure!(resolves(client, "google.com"), "afterwards: google.com has no address");
    Ok(Done::Kept)
}

fn the_c_library_is_answered_whatever_its_search_list() -> Result<Done> {
    let here = || Ns::here()?.output("getent", &["hosts", "127.0.0.1"]).map(drop);
    if let Some(proof) = Proof::by_trying("getent", here) {
        return Ok(Done::Cannot(proof));
    }
    answered(|ns, name| ns.output("getent", &["ahosts", name]).is_ok())
}

fn a_shell_s_own_resolver_is_answered() -> Result<Done> {
    let here = || Ns::here()?.output("busybox", &["nslookup", "--help"]).map(drop);
    let is_there = || match here() {
        Err(error) if error.to_string().contains("start busybox") => Err(error),
        // Its help is an error.
        _ => Ok(()),
    };
    if let Some(proof) = Proof::by_trying("busybox", is_there) {
        return Ok(Done::Cannot(proof));
    }
    answered(|ns, name| {
        ns.output("busybox", &["nslookup", name]).is_ok_and(|said| said.contains("192.0.2.53"))
    })
}

const GO: &str = r#"package main

import (
	"context"
	"net"
	"os"
)

func main() {
	resolver := net.Resolver{PreferGo: true}
	found, err := resolver.LookupHost(context.Background(), os.Args[1])
	if err != nil || len(found) != 2 {
		os.Exit(1)
	}
}
"#;

fn the_resolver_of_go_is_answered_whatever_its_search_list() -> Result<Done> {
    let folder = TempDir::new().context("make a folder")?;
    let (source, program) = (folder.path().join("lookup.go"), folder.path().join("lookup"));
    std::fs::write(&source, GO).context("write a program")?;
    let go = ["go", "/usr/local/go/bin/go"];
    let build = || {
        let compile = |go: &str| {
            let mut command = Command::new(go);
            command.arg("build").arg("-o").arg(&program).arg(&source).current_dir(folder.path());
            command.env("CGO_ENABLED", "0").env("GOFLAGS", "-mod=mod");
            if std::env::var_os("HOME").is_none() {
                command.env("GOCACHE", folder.path().join("cache"));
            }
            command.output().context("start go")
        };
        let output = compile(go[0]).or_else(|_| compile(go[1]))?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    };
    if let Some(proof) = Proof::by_trying("go build", build) {
        return Ok(Done::Cannot(proof));
    }
    let program = program.to_string_lossy().into_owned();
    answered(|ns, name| ns.output(&program, &[name]).is_ok())
}
