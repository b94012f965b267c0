//! Pods that have an IPv6 address beside their IPv4 one.

use std::net::Ipv6Addr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::super::Bench;
use super::super::site::Cannot;
use super::{delayed, follow, object, shop};

/// The IPv6 address of a pod. A cluster whose pods have none has no means for this.
pub fn address6(pod: &shop::Pod) -> Result<&str> {
    let address = pod.address6.as_deref();
    Ok(address.ok_or_else(|| Cannot::because("its pods have no IPv6 address beside IPv4"))?)
}

/// Half a second twice, as in IPv4: once for the connection and once for the request.
pub fn delay(bench: &Bench<'_>) -> Result<()> {
    let spec = json!({
        "action": "delay", "mode": "all", "selector": shop::selector("myapp1"),
        "delay": { "latency": "500ms", "jitter": "0ms" },
    });
    let (hit, others) = (shop::app(bench, "myapp1")?, shop::app(bench, "myapp2")?);
    let neighbour = shop::pods(bench, "default", "app=neighbour")?.remove(0);
    let there = address6(&others[0])?;
    shop::takes(bench, &hit[0], there, 0, 300)?;
    bench.apply(&object("NetworkChaos", "slow", &spec))?;
    bench.condition("networkchaos/slow", "AllInjected")?;
    for pod in &hit {
        shop::takes(bench, pod, there, 1000, 1400)?;
        shop::takes(bench, pod, &others[0].address, 1000, 1400)?;
        shop::takes(bench, &neighbour, address6(pod)?, 1000, 1400)?;
    }
    shop::takes(bench, &others[0], address6(&neighbour)?, 0, 300)?;
    bench.neighbour_is_well()?;
    bench.kubectl(&["delete", "networkchaos/slow", "--timeout=10s"])?;
    for pod in &hit {
        shop::takes(bench, pod, there, 0, 300)?;
    }
    Ok(())
}

fn split(direction: &str) -> Value {
    let spec = json!({
        "action": "partition", "mode": "all", "direction": direction,
        "selector": shop::selector("myapp1"),
        "target": { "mode": "all", "selector": shop::selector("myapp2") },
    });
    object("NetworkChaos", "split", &spec)
}

pub fn partition(bench: &Bench<'_>) -> Result<()> {
    let (left, right) = (shop::app(bench, "myapp1")?, shop::app(bench, "myapp2")?);
    let neighbour = shop::pods(bench, "default", "app=neighbour")?.remove(0);
    address6(&left[0])?;
    for (direction, is_told) in [("to", false), ("both", true)] {
        bench.apply(&split(direction))?;
        bench.condition("networkchaos/split", "AllInjected")?;
        for (from, to) in [(&left[0], &right[1]), (&left[1], &right[1]), (&left[1], &right[0])] {
            for (from, to, is_told) in [(from, to, true), (to, from, is_told)] {
                for address in [&to.address, address6(to)?] {
                    let told = shop::is_address_forbidden(bench, from, address)?;
                    let what = format!("{}, {direction}: {address}", from.name);
                    ensure!(told == is_told, "{what}: is it told? {told}");
                }
            }
        }
        // Nobody is told of what comes back, and nothing comes back.
        for address in [&left[0].address, address6(&left[0])?] {
            let answer = shop::request(bench, &right[1], address)?;
            ensure!(answer.is_none(), "{direction}: {address} answers {}", right[1].name);
        }
        for (from, to) in [(&left[0], &left[1]), (&left[0], &neighbour), (&right[0], &neighbour)] {
            shop::takes(bench, from, address6(to)?, 0, 300)?;
        }
        bench.neighbour_is_well()?;
        bench.kubectl(&["delete", "networkchaos/split", "--timeout=10s"])?;
        for (from, to) in [(&left[0], &right[1]), (&right[1], &left[0])] {
            shop::takes(bench, from, address6(to)?, 0, 300)?;
        }
    }
    Ok(())
}

/// One Service with IPv6 alone and one with both, in front of the same pods.
pub fn cluster_ip(bench: &Bench<'_>) -> Result<()> {
    address6(&shop::pods(bench, "default", "app=web")?[0])?;
    let services = [
        ("six", json!({ "ipFamilyPolicy": "SingleStack", "ipFamilies": ["IPv6"] })),
        ("two", json!({ "ipFamilyPolicy": "RequireDualStack", "ipFamilies": ["IPv4", "IPv6"] })),
    ];
    for (name, families) in services {
        let mut service = json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": { "name": name, "namespace": "default" },
            "spec": { "selector": { "app": "web" }, "ports": [{ "port": 80 }] },
        });
        for (key, value) in families.as_object().into_iter().flatten() {
            service["spec"][key] = value.clone();
        }
        bench.apply(&service)?;
    }
    let done = in_front(bench);
    bench.kubectl(&["delete", "service/six", "service/two"])?;
    done
}

fn in_front(bench: &Bench<'_>) -> Result<()> {
    let mut addresses = Vec::new();
    for name in ["six", "two"] {
        let spec = bench.get(&[&format!("service/{name}")])?["spec"].clone();
        let all = spec["clusterIPs"].as_array().cloned().unwrap_or_default();
        addresses.extend(all.iter().filter_map(Value::as_str).map(str::to_owned));
    }
    let of_six = addresses.iter().filter(|address| address.contains(':')).count();
    ensure!((addresses.len(), of_six) == (3, 2), "the ClusterIPs: {addresses:?}");
    let late = |address: &String| -> Result<bool> {
        let time = bench.connect(address)?.with_context(|| format!("{address} does not answer"))?;
        Ok(time >= Duration::from_millis(200))
    };
    let none = || {
        let mut all = addresses.iter().map(late);
        all.try_fold(true, |none, one| Ok(none && !one?))
    };
    bench.until("the Services to answer", none)?;
    bench.apply(&follow::towards("whole", "all"))?;
    bench.condition("networkchaos/whole", "AllInjected")?;
    for address in &addresses {
        ensure!(late(address)?, "{address} is not matched");
    }
    bench.neighbour_is_well()?;
    bench.kubectl(&["delete", "networkchaos/whole", "--timeout=10s"])?;
    ensure!(none()?, "late without a fault");
    bench.apply(&follow::towards("part", "one"))?;
    bench.condition("networkchaos/part", "AllInjected")?;
    ensure!(none()?, "matched for one of two endpoints");
    bench.kubectl(&["delete", "networkchaos/part", "--timeout=10s"]).map(drop)
}

fn outside(name: &str, peer: &str) -> Value {
    let client = json!({ "labelSelectors": { "app": "client" } });
    delayed(name, &json!({ "selector": client, "externalTargets": [peer] }))
}

/// The first half of an address, as a prefix of 64 bits.
fn prefix(address: &str) -> Result<String> {
    let address: Ipv6Addr = address.parse()?;
    let first = Ipv6Addr::from_bits(address.to_bits() >> 64 << 64);
    Ok(format!("{first}/64"))
}

pub fn external(bench: &Bench<'_>) -> Result<()> {
    let mut pods = shop::pods(bench, "default", "app=web")?;
    pods.extend(shop::pods(bench, "default", "app=neighbour")?);
    let client = shop::pods(bench, "default", "app=client")?.remove(0);
    let chosen = address6(&pods[0])?;
    let meant = prefix(chosen)?;
    bench.apply(&outside("prefix", &meant))?;
    bench.condition("networkchaos/prefix", "AllInjected")?;
    for pod in &pods {
        let there = address6(pod)?;
        let (least, most) = if prefix(there)? == meant { (400, 700) } else { (0, 300) };
        shop::takes(bench, &client, there, least, most).with_context(|| format!("to {meant}"))?;
        // The same pod in the other family is another peer.
        shop::takes(bench, &client, &pod.address, 0, 300)?;
    }
    bench.kubectl(&["delete", "networkchaos/prefix", "--timeout=10s"])?;
    shop::takes(bench, &client, chosen, 0, 300)?;

    bench.apply(&outside("port", &format!("[{chosen}]:80")))?;
    bench.condition("networkchaos/port", "AllInjected")?;
    shop::takes(bench, &client, chosen, 400, 700)?;
    // Nobody listens there: the answer comes at once.
    let time = shop::refused(bench, &client, chosen, 81)?;
    ensure!(time < Duration::from_millis(150), "port 81 was delayed: {time:?}");
    for pod in &pods[1..] {
        shop::takes(bench, &client, address6(pod)?, 0, 300)?;
    }
    bench.kubectl(&["delete", "networkchaos/port", "--timeout=10s"])?;
    shop::takes(bench, &client, chosen, 0, 300)
}
