//! The network: a bridge in the control plane's namespace, one leg of it in every node's. Pods
//! of different nodes reach each other by plain routes. Everything has an address of either family.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use super::node::Node;
use super::{CONTROL, CONTROL_ADDRESS, CONTROL_ADDRESS6, SSH_ADDRESS};
use crate::exec;

/// Where `ip netns` keeps names.
const NAMES: &str = "/run/netns";

/// Whether there is a namespace of this name.
pub fn exists(name: &str) -> bool {
    path(name).exists()
}

/// The namespaces whose name starts like this.
pub fn named(prefix: &str) -> Vec<String> {
    let entries = fs::read_dir(NAMES).into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.filter(|name| name.starts_with(prefix)).collect()
}

/// Removes a namespace's name. It ends with its last process.
pub fn delete(name: &str) -> Result<()> {
    ip(&["netns", "delete", name])
}

/// A command in a namespace; its program is the next argument.
pub fn inside(name: &str) -> Result<Command> {
    let mut command = exec::program("nsenter")?;
    direct(&mut command);
    command.arg(format!("--net={}", path(name).display()));
    Ok(command)
}

/// No proxy of this machine can be reached from in there.
pub fn direct(command: &mut Command) {
    command.envs([("NO_PROXY", "*"), ("no_proxy", "*")]);
}

/// Makes all of it.
pub fn create(nodes: &[Node]) -> Result<()> {
    ip(&["netns", "add", CONTROL])?;
    route(CONTROL)?;
    ip(&["-n", CONTROL, "link", "set", "lo", "up"])?;
    ip(&["-n", CONTROL, "link", "add", "br0", "type", "bridge"])?;
    for address in [format!("{CONTROL_ADDRESS}/24"), format!("{CONTROL_ADDRESS6}/64")] {
        ip(&["-n", CONTROL, "address", "add", &address, "dev", "br0"])?;
    }
    ip(&["-n", CONTROL, "link", "set", "br0", "up"])?;
    for node in nodes {
        let (space, name, port) = (node.namespace(), node.name(), port(node));
        if node.is_vm() {
            let address = format!("{SSH_ADDRESS}/24");
            ip(&["-n", CONTROL, "address", "add", &address, "dev", "br0"])?;
            exec::read(inside(CONTROL)?.args(["ip", "tuntap", "add", &port, "mode", "tap"]))?;
            ip(&["-n", CONTROL, "link", "set", &port, "master", "br0", "up", "alias", &name])?;
            continue;
        }
        ip(&["netns", "add", &space])?;
        route(&space)?;
        ip(&[
            "-n", CONTROL, "link", "add", &port, "type", "veth", "peer", "name", "eth0", "netns",
            &space,
        ])?;
        ip(&["-n", CONTROL, "link", "set", &port, "master", "br0", "up", "alias", &name])?;
        ip(&["-n", &space, "link", "set", "lo", "up"])?;
        for address in [format!("{}/24", node.address()), format!("{}/64", node.address6())] {
            ip(&["-n", &space, "address", "add", &address, "dev", "eth0"])?;
        }
        ip(&["-n", &space, "link", "set", "eth0", "up"])?;
        for gateway in [CONTROL_ADDRESS, CONTROL_ADDRESS6] {
            ip(&["-n", &space, "route", "add", "default", "via", gateway])?;
        }
    }
    for node in nodes {
        // The default route would do for nodes, by a detour through the control plane.
        let others = nodes.iter().filter(|other| *other != node && !other.is_vm());
        let from = others.map(Node::namespace).chain([CONTROL.to_owned()]);
        for space in from {
            for (pods, gateway) in node.routes() {
                ip(&["-n", &space, "route", "add", &pods, "via", &gateway])?;
            }
        }
    }
    Ok(())
}

/// A node's end in the control plane's bridge.
pub fn port(node: &Node) -> String {
    format!("p-{}", node.name())
}

/// Makes a router of a namespace that has no devices yet. Nobody else has its addresses: they are
/// used at once, and not after a second of asking around for duplicates.
fn route(name: &str) -> Result<()> {
    let script = "cd /proc/sys/net; echo 1 >ipv4/ip_forward; echo 1 >ipv6/conf/all/forwarding; \
        echo 0 >ipv6/conf/default/accept_dad";
    exec::read(inside(name)?.args(["sh", "-ec", script])).map(|_| ())
}

fn path(name: &str) -> PathBuf {
    Path::new(NAMES).join(name)
}

fn ip(args: &[&str]) -> Result<()> {
    exec::read(exec::program("ip")?.args(args)).map(|_| ())
}
