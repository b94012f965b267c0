//! Faults of HTTP: which responses are meant, and what a client sees of them.

mod asked;
mod chunks;
mod clients;
mod cut;
mod delay;
mod detour;
mod foreign;
mod pieces;
mod random;
mod servers;
mod targets;
mod uploads;
mod waiting;

use std::net::SocketAddr;
use std::sync::OnceLock;

use anyhow::{Context, Result, bail, ensure};
use kfault_tests::cgroup::Cgroup;
use kfault_tests::kfault::{Kfault, Run, Summary, command};
use kfault_tests::manifest::Manifest;
use kfault_tests::net::{FAMILIES, Family, Host, Net};
use kfault_tests::ns::Ns;
use kfault_tests::probe::http::{Apart, BIG, Client, PORT, Server, Style, answer, request};
use kfault_tests::snapshot::Snapshot;
use serde_json::json;

use crate::faulty::{Neighbour, is_over, warm_up};
use crate::harness::{Done, Proof, Test, tests};

pub fn tests() -> Vec<Test> {
    let mut all: Vec<Test> = tests!("http":
        a_replaced_body_arrives_with_its_own_length_and_the_connection_goes_on,
    )
    .into_iter()
    .map(Test::smoke)
    .collect();
    all.extend(tests!("http":
        an_old_kernel_is_refused_in_clear_words,
        what_no_experiment_means_arrives_to_the_byte,
        status_and_headers_are_replaced_and_added,
        an_aborted_response_is_a_closed_connection,
        a_connection_that_was_open_before_is_covered_and_goes_on_after,
        methods_headers_codes_and_patterns_tell_which_are_meant,
        two_experiments_act_on_one_server,
    ));
    all.extend(asked::tests());
    all.extend(cut::tests());
    all.extend(delay::tests());
    all.extend(detour::tests());
    all.extend(pieces::tests());
    all.extend(chunks::tests());
    all.extend(targets::tests());
    all.extend(uploads::tests());
    all.extend(waiting::tests());
    all.extend(servers::tests());
    all.extend(foreign::tests());
    all.extend(clients::tests());
    all.extend(random::tests());
    // The one of the smoke tier stays in every tier.
    all.into_iter().map(Test::dear).collect()
}

/// What kfault itself says of this kernel, where it cannot.
static REFUSED: OnceLock<Option<String>> = OnceLock::new();

/// The proof that this kernel cannot, by trying to load the programs.
pub fn missing() -> Option<Proof> {
    Proof::by_trying("HTTP faults", || {
        if REFUSED.get().is_none() {
            let _ = REFUSED.set(too_old()?);
        }
        match REFUSED.get() {
            Some(Some(reason)) => bail!("{reason}"),
            _ => Ok(()),
        }
    })
}

/// Whatever else goes wrong is to be seen, not skipped.
fn too_old() -> Result<Option<String>> {
    let said = command(&["doctor", "--output", "json"], 0)?;
    let all: serde_json::Value = serde_json::from_str(&said).context("doctor's answer")?;
    let all = all["mechanisms"].as_array().cloned().unwrap_or_default();
    let http = all.iter().find(|one| one["name"] == "http exchanges").context("no such row")?;
    let reason = http["reason"].as_str().unwrap_or_default().to_owned();
    let known = ["bpf_loop", "add to a socket map", "keeps nothing with its sockets"];
    let is_known = known.iter().any(|words| reason.contains(words));
    Ok((http["state"] != "works" && is_known).then_some(reason))
}

/// Leaves a test that this kernel is too old for.
macro_rules! needs_http {
    () => {
        if let Some(proof) = $crate::http::missing() {
            return Ok(Done::Cannot(proof));
        }
    };
}
pub(crate) use needs_http;

/// On a kernel that is too old nothing is touched, and it is said why.
fn an_old_kernel_is_refused_in_clear_words() -> Result<Done> {
    let reason = missing().and_then(|_| REFUSED.get().cloned().flatten()).unwrap_or_default();
    if !reason.contains("bpf_loop") {
        return Ok(Done::Kept);
    }
    let net = Net::in_order()?;
    let manifest = Manifest::http(PORT).with("abort", json!(true));
    let ended = Run::of(&manifest)?.target(&net.client.ns.word()).ends_with(3)?;
    ensure!(ended.errors.contains("this kernel has no bpf_loop (Linux 5.17)"), "{}", ended.errors);
    Ok(Done::Kept)
}

/// The server is the target, the client is elsewhere, and a neighbour serves the same.
struct Scene {
    net: Net,
    servers: Vec<Server>,
    near: Server,
}

impl Scene {
    fn new(style: Style) -> Result<Self> {
        let net = Net::in_order()?;
        let web = &net.client;
        let start =
            |(family, port): (Family, u16)| Server::start(&web.ns, web.ip(family), port, style);
        // One port for both: the addresses differ.
        let servers = FAMILIES.into_iter().map(|family| start((family, PORT)));
        let servers = servers.collect::<Result<_>>()?;
        let near = Server::start(&net.near.ns, net.near.ip(Family::V4), PORT, style)?;
        Ok(Self { net, servers, near })
    }

    fn outside(&self) -> &Ns {
        &self.net.server.ns
    }

    fn client(&self) -> Result<Client> {
        Client::connect(self.outside(), self.servers[0].address)
    }

    /// Injects, checks beside the neighbour, recovers, and looks whether all is as it was.
    fn with(
        &self,
        manifests: &[&Manifest],
        check: impl FnOnce(&mut Kfault) -> Result<()>,
    ) -> Result<Summary> {
        let before = Snapshot::of(&self.net)?;
        warm_up(&self.net)?;
        let neighbour = Neighbour::start(&self.net)?;
        let mut run = Run::default().target(&self.net.client.ns.word()).seed(1);
        for manifest in manifests {
            run = run.and(manifest)?;
        }
        let mut kfault = run.start()?;
        check(&mut kfault)?;
        unharmed(self.outside(), self.near.address).context("the unselected neighbour")?;
        let summary = kfault.stop()?;
        neighbour.ensure_unharmed()?;
        is_over(&self.net, &before, "after recovery")?;
        for server in &self.servers {
            unharmed(self.outside(), server.address).context("after recovery")?;
        }
        Ok(summary)
    }
}

/// Two servers on the host's network: at [`PORT`] that of the target, a cgroup, and at the next port
/// that of another one. Both ports are meant, so that the cgroup alone tells whose they are.
struct OnHost {
    // In this order: servers end before the cgroups that they are in, and the host's device goes
    // before its network.
    _servers: [Apart; 2],
    target: Cgroup,
    _other: Cgroup,
    host: Host,
    net: Net,
}

impl OnHost {
    fn new() -> Result<Self> {
        let net = Net::in_order()?;
        let host = net.host()?;
        let (target, other) = (Cgroup::new("web")?, Cgroup::new("web-other")?);
        let inside = Apart::start(&host.0.ns, &target, PORT)?;
        let outside = Apart::start(&host.0.ns, &other, PORT + 1)?;
        Ok(Self { _servers: [inside, outside], target, _other: other, host, net })
    }

    fn at(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.host.0.ip(Family::V4), port)
    }

    /// From elsewhere, and through loopback.
    fn clients(&self) -> [&Ns; 2] {
        [&self.net.server.ns, &self.host.0.ns]
    }

    /// What `change` makes of a manifest, for both ports.
    fn start(&self, change: impl Fn(Manifest) -> Manifest) -> Result<Kfault> {
        let one = change(Manifest::http(PORT).named("kft-one"));
        let two = change(Manifest::http(PORT + 1).named("kft-two"));
        Run::of(&one)?.and(&two)?.target(&self.target.word()).seed(1).start()
    }
}

/// That a server's answers arrive to the byte.
fn unharmed(ns: &Ns, address: SocketAddr) -> Result<()> {
    let mut client = Client::connect(ns, address)?;
    let mut expected = Vec::new();
    for path in ["/a", "/big", "/chunked", "/missing", "/early", "/none", "/b"] {
        client.get(path)?;
        expected.extend(answer("GET", path).context("an answer")?);
    }
    client.ensure_drained()?;
    ensure!(client.raw == expected, "bytes were changed");
    Ok(())
}

fn replaced(body: &str) -> serde_json::Value {
    use base64::Engine as _;
    json!({ "body": base64::engine::general_purpose::STANDARD.encode(body) })
}

fn a_replaced_body_arrives_with_its_own_length_and_the_connection_goes_on() -> Result<Done> {
    needs_http!();
    for style in [Style::Whole, Style::Apart] {
        let scene = Scene::new(style)?;
        let manifest = Manifest::http(PORT).with("path", json!("/api/*"));
        let manifest = manifest.with("replace", replaced("{\"new\":true}"));
        let summary = scene.with(&[&manifest], |_| {
            for server in &scene.servers {
                let mut client = Client::connect(scene.outside(), server.address)?;
                for path in ["/api/x", "/other", "/api/longer/than/that", "/big", "/api/"] {
                    let response = client.get(path)?;
                    if !path.starts_with("/api/") {
                        let whole = [response.head, response.body].concat();
                        ensure!(Some(whole) == answer("GET", path), "{path} was changed");
                        continue;
                    }
                    ensure!(response.body == b"{\"new\":true}", "{path}: {response:?}");
                    ensure!(response.header("content-length").as_deref() == Some("12"));
                    ensure!(response.header("x-path").as_deref() == Some(path), "{response:?}");
                    ensure!(response.header("x-last").as_deref() == Some("yes"), "{response:?}");
                    let lengths = response.head.windows(15);
                    let lengths = lengths.filter(|w| w.eq_ignore_ascii_case(b"content-length:"));
                    ensure!(lengths.count() == 1, "{response:?}");
                }
                client.ensure_drained()?;
            }
            Ok(())
        })?;
        ensure!(summary.exchanged("matched") == 6, "{}", summary.json());
        ensure!(summary.exchanged("injected") == 6, "{}", summary.json());
        ensure!(summary.exchanged("seen") == 10, "{}", summary.json());
    }
    // A body that is larger than what stood there, and one that takes the place of a megabyte.
    let scene = Scene::new(Style::Whole)?;
    let long = "long ".repeat(1200);
    let manifest = Manifest::http(PORT).with("replace", replaced(&long));
    scene.with(&[&manifest], |_| {
        let mut client = scene.client()?;
        for path in ["/", "/big", "/", "/big", "/big", "/empty", "/x"] {
            let response = client.get(path)?;
            ensure!(response.body == long.as_bytes(), "{path}: {}", response.status());
        }
        client.ensure_drained()
    })?;
    Ok(Done::Kept)
}

fn what_no_experiment_means_arrives_to_the_byte() -> Result<Done> {
    needs_http!();
    for style in [Style::Whole, Style::Apart, Style::Pieces(7), Style::Together] {
        let scene = Scene::new(style)?;
        let manifest = Manifest::http(PORT).with("path", json!("/nothing/like/this"));
        let manifest = manifest.with("replace", replaced("no"));
        let summary = scene.with(&[&manifest], |_| {
            for server in &scene.servers {
                unharmed(scene.outside(), server.address)?;
            }
            Ok(())
        })?;
        ensure!(summary.exchanged("injected") == 0, "{}", summary.json());
        ensure!(summary.exchanged("seen") == 14, "{}", summary.json());
        // The same for what others say on a connection of which one request is meant.
        let manifest = Manifest::http(PORT).with("path", json!("/meant"));
        let manifest = manifest.with("replace", json!({"code": 503}));
        scene.with(&[&manifest], |_| {
            let mut client = scene.client()?;
            let status = client.get("/meant")?.status();
            ensure!(status == "HTTP/1.1 503 Service Unavailable", "{status}");
            let start = client.raw.len();
            let mut expected = Vec::new();
            for path in ["/a", "/big", "/chunked", "/early", "/none", "/same", "/chunked", "/b"] {
                client.get(path).with_context(|| format!("{style:?}"))?;
                expected.extend(answer("GET", path).context("an answer")?);
            }
            client.ensure_drained()?;
            ensure!(client.raw[start..] == expected, "{style:?}: bytes were changed");
            let status = client.get("/meant")?.status();
            ensure!(status == "HTTP/1.1 503 Service Unavailable", "{style:?}: {status}");
            Ok(())
        })?;
    }
    Ok(Done::Kept)
}

fn status_and_headers_are_replaced_and_added() -> Result<Done> {
    needs_http!();
    let scene = Scene::new(Style::Whole)?;
    let manifest = Manifest::http(PORT)
        .with("replace", json!({"code": 404, "headers": {"Server": "other", "X-New": "1"}}))
        .with("patch", json!({"headers": [["X-Many", "a"], ["X-Many", "b"]]}));
    scene.with(&[&manifest], |_| {
        let mut client = scene.client()?;
        for path in ["/a", "/big", "/b"] {
            let response = client.get(path)?;
            ensure!(response.status() == "HTTP/1.1 404 Not Found", "{}", response.status());
            ensure!(response.header("server").as_deref() == Some("other"), "{response:?}");
            ensure!(response.header("x-new").as_deref() == Some("1"), "{response:?}");
            let text = String::from_utf8_lossy(&response.head).into_owned();
            ensure!(text.contains("X-Many: a\r\nX-Many: b\r\n"), "{text}");
            ensure!(!text.contains("probe"), "{text}");
            let whole = answer("GET", path).context("an answer")?;
            ensure!(whole.ends_with(&response.body), "{path}: the body was changed");
        }
        // Chunks stay as they are.
        let response = client.get("/chunked")?;
        ensure!(response.status() == "HTTP/1.1 404 Not Found", "{}", response.status());
        ensure!(response.body == b"hello world", "{response:?}");
        client.ensure_drained()
    })?;
    Ok(Done::Kept)
}

fn an_aborted_response_is_a_closed_connection() -> Result<Done> {
    needs_http!();
    let scene = Scene::new(Style::Whole)?;
    let manifest = Manifest::http(PORT).with("path", json!("/abort")).with("abort", json!(true));
    let summary = scene.with(&[&manifest], |_| {
        for _ in 0..3 {
            let mut client = scene.client()?;
            client.get("/a")?;
            client.send(request("GET", "/abort").as_bytes())?;
            client.ensure_closed()?;
        }
        Ok(())
    })?;
    ensure!(summary.exchanged("injected") == 3, "{}", summary.json());
    Ok(Done::Kept)
}

fn a_connection_that_was_open_before_is_covered_and_goes_on_after() -> Result<Done> {
    needs_http!();
    let scene = Scene::new(Style::Whole)?;
    let mut open: Vec<Client> = Vec::new();
    for server in &scene.servers {
        let mut client = Client::connect(scene.outside(), server.address)?;
        client.get("/before")?;
        open.push(client);
    }
    let manifest = Manifest::http(PORT).with("replace", replaced("during"));
    for _ in 0..2 {
        scene.with(&[&manifest], |_| {
            for client in &mut open {
                for path in ["/a", "/big"] {
                    ensure!(client.get(path)?.body == b"during", "{path}");
                }
            }
            Ok(())
        })?;
        for client in &mut open {
            ensure!(client.get("/after")?.body == b"this is /after\n");
            ensure!(client.get("/big")?.body.len() == BIG);
            client.ensure_drained()?;
        }
    }
    Ok(Done::Kept)
}

/// A field with its value, and which requests it means.
type Case<'a> = (&'static str, serde_json::Value, &'a [(&'a str, bool)]);

fn methods_headers_codes_and_patterns_tell_which_are_meant() -> Result<Done> {
    needs_http!();
    let post = "POST /a HTTP/1.1\r\nHost: p\r\nContent-Length: 5\r\n\r\nhello";
    let cases: [Case<'_>; 7] = [
        ("method", json!("POST"), &[(post, true), ("/a", false), (post, true)]),
        ("code", json!(404), &[("/missing", true), ("/a", false), ("/missing", true)]),
        ("request_headers", json!({"X-Ask": "yes"}), &[("/a", true), (post, false)]),
        ("request_headers", json!({"x-ask": "no"}), &[("/a", false)]),
        ("response_headers", json!({"X-Path": "/a"}), &[("/a", true), ("/b", false), (post, true)]),
        (
            "path",
            json!("/v?/*/items*"),
            &[
                ("/v1/x/items", true),
                ("/v1/x/y/items/7?q=1", true),
                ("/v12/x/items", false),
                ("/v1/items", false),
            ],
        ),
        ("path", json!("/exact"), &[("/exact", true), ("/exact?q=/x", true), ("/exact/", false)]),
    ];
    for (field, value, asked) in cases {
        let scene = Scene::new(Style::Whole)?;
        let manifest = Manifest::http(PORT).with(field, value.clone());
        let manifest = manifest.with("replace", json!({"code": 599, "headers": {"X-Hit": "1"}}));
        let summary = scene.with(&[&manifest], |_| {
            let mut client = scene.client()?;
            for (what, is_meant) in asked {
                let text =
                    if what.starts_with('/') { request("GET", what) } else { (*what).into() };
                client.send(text.as_bytes())?;
                let response = client.response("GET")?;
                let is_hit = response.header("x-hit").is_some();
                ensure!(is_hit == *is_meant, "{field} {value}: {what:?}: {response:?}");
                ensure!(is_hit == response.status().starts_with("HTTP/1.1 599"), "{response:?}");
            }
            client.ensure_drained()
        })?;
        let meant = asked.iter().filter(|(_, is_meant)| *is_meant).count();
        ensure!(summary.exchanged("injected") == meant as u64, "{}", summary.json());
    }
    Ok(Done::Kept)
}

fn two_experiments_act_on_one_server() -> Result<Done> {
    needs_http!();
    let scene = Scene::new(Style::Whole)?;
    let one = Manifest::http(PORT).named("kft-one").with("path", json!("/one"));
    let one = one.with("replace", replaced("first"));
    let two = Manifest::http(PORT).named("kft-two").with("path", json!("/two"));
    let two = two.with("replace", json!({"code": 500}));
    scene.with(&[&one, &two], |_| {
        let mut client = scene.client()?;
        for _ in 0..3 {
            ensure!(client.get("/one")?.body == b"first");
            ensure!(client.get("/two")?.status() == "HTTP/1.1 500 Internal Server Error");
            ensure!(client.get("/three")?.body == b"this is /three\n");
        }
        client.ensure_drained()
    })?;
    Ok(Done::Kept)
}
