//! Partition: nothing gets through, and senders learn what they were promised to learn.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use kfault_tests::kfault::{Kfault, Run, Summary};
use kfault_tests::manifest::Manifest;
use kfault_tests::net::{FAMILIES, Family, Net};
use kfault_tests::ns::Ns;
use kfault_tests::probe::ping::ping;
use kfault_tests::probe::tcp::{Client, PORT, Server, Service};
use kfault_tests::probe::udp::{self, Probe};
use serde_json::json;

use crate::faulty::{on_client, probe, with_fault, with_run};
use crate::harness::{Done, Test, tests};

pub fn tests() -> Vec<Test> {
    let mut all: Vec<Test> = tests!("partition": nothing_leaves_and_nobody_is_told,)
        .into_iter()
        .map(Test::smoke)
        .collect();
    all.extend(tests!("partition":
        to_both_ways_between_two_targets,
        from_stops_what_the_peer_sends,
        both_stops_everything_between_them,
        an_open_connection_stalls_and_goes_on,
        only_the_peer_is_cut_off,
    ));
    all.extend(tests!("reject": rejected_connections_fail_at_once).into_iter().map(Test::smoke));
    all.extend(tests!("reject":
        an_open_connection_is_reset,
        rejected_datagrams_come_back_as_refused,
        rejected_pings_are_answered_as_unreachable,
        arriving_connections_are_rejected_too,
        an_open_connection_is_reset_by_what_arrives,
        arriving_datagrams_are_rejected_too,
        connections_on_loopback_are_rejected_too,
    ));
    all
}

fn partition() -> Manifest {
    Manifest::new("partition")
}

fn rejecting() -> Manifest {
    partition().with("partitionBehavior", json!("reject"))
}

/// Whether UDP gets from one end to the other: all of it or nothing.
fn passes(from: &Ns, to: &Ns, net: &Net, family: Family, wanted: bool) -> Result<()> {
    let ip = [&net.client, &net.server, &net.near]
        .into_iter()
        .find(|end| end.ns.name() == to.name())
        .context("an end of the net")?
        .ip(family);
    let outcome = udp::run(from, to, ip, &Probe::of(20, Duration::from_millis(2)))?;
    let expected = if wanted { 20 } else { 0 };
    ensure!(
        outcome.received() == expected && outcome.errors.is_empty(),
        "{family:?} from {} to {} should {}pass: {}",
        from.name(),
        to.name(),
        if wanted { "" } else { "not " },
        outcome.describe()
    );
    Ok(())
}

fn nothing_leaves_and_nobody_is_told() -> Result<Done> {
    let summary = with_fault(&partition(), |net, _| {
        for family in FAMILIES {
            passes(&net.client.ns, &net.server.ns, net, family, false)?;
            let (every, wait) = (Duration::from_millis(2), Duration::from_millis(100));
            let pings = ping(&net.client.ns, net.server.ip(family), 20, every, wait)?;
            ensure!(
                pings.times.is_empty() && pings.errors.is_empty(),
                "{family:?}: {} pings answered, errors {:?}",
                pings.times.len(),
                pings.errors
            );
        }
        Ok(())
    })?;
    ensure!(summary.total("refused") >= 80, "{}", summary.json());
    Ok(Done::Kept)
}

/// A partition of the client from the server, in a direction.
fn between(
    direction: &str,
    check: impl FnOnce(&Net, &mut Kfault) -> Result<()>,
) -> Result<Summary> {
    let net = Net::new()?;
    let run = on_client(&net, &partition().between(direction))?.peer(&net.server.ns.word());
    with_run(&net, run, |kfault| check(&net, kfault))
}

/// `to`: dropped where it leaves the source and where it arrives at the target; nothing else.
fn to_both_ways_between_two_targets() -> Result<Done> {
    between("to", |net, _| {
        let (client, server, near) = (&net.client.ns, &net.server.ns, &net.near.ns);
        for family in FAMILIES {
            passes(client, server, net, family, false)?;
            passes(server, client, net, family, true)?;
            passes(client, near, net, family, true)?;
        }
        Ok(())
    })?;
    Ok(Done::Kept)
}

fn from_stops_what_the_peer_sends() -> Result<Done> {
    between("from", |net, _| {
        let (client, server, near) = (&net.client.ns, &net.server.ns, &net.near.ns);
        for family in FAMILIES {
            passes(server, client, net, family, false)?;
            passes(client, server, net, family, true)?;
            passes(server, near, net, family, true)?;
            passes(near, client, net, family, true)?;
        }
        Ok(())
    })?;
    Ok(Done::Kept)
}

fn both_stops_everything_between_them() -> Result<Done> {
    between("both", |net, _| {
        let (client, server, near) = (&net.client.ns, &net.server.ns, &net.near.ns);
        for family in FAMILIES {
            passes(server, client, net, family, false)?;
            passes(client, server, net, family, false)?;
            passes(client, near, net, family, true)?;
            passes(server, near, net, family, true)?;
        }
        Ok(())
    })?;
    Ok(Done::Kept)
}

fn an_open_connection_stalls_and_goes_on() -> Result<Done> {
    FAMILIES.into_iter().try_for_each(open_connection_stalls)?;
    Ok(Done::Kept)
}

fn open_connection_stalls(family: Family) -> Result<()> {
    let net = Net::new()?;
    let server = Server::start(&net.server.ns, net.server.ip(family), PORT, Service::Echo)?;
    let (mut client, _) =
        Client::connect(&net.client.ns, server.address(), Duration::from_secs(5))?;
    client.ask()?;
    with_run(&net, on_client(&net, &partition())?, |_| {
        client.be_patient(Duration::from_millis(500))?;
        let error = client.ask().err().context("a partitioned connection was answered")?;
        ensure!(
            matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
            "a partitioned connection should be silent: {error}"
        );
        let patience = Duration::from_millis(500);
        let (new, _) = Client::try_connect(&net.client.ns, server.address(), patience)?;
        ensure!(
            new.err().is_some_and(|e| e.kind() == ErrorKind::TimedOut),
            "a new connection should time out"
        );
        Ok(())
    })?;
    client.be_patient(Duration::from_secs(10))?;
    client.ask().context("the connection does not go on after recovery")?;
    Ok(())
}

fn only_the_peer_is_cut_off() -> Result<Done> {
    with_fault(&partition().to(&["10.77.2.2", "fd00:77:2::2"]), |net, _| {
        for family in FAMILIES {
            passes(&net.client.ns, &net.server.ns, net, family, false)?;
            passes(&net.client.ns, &net.near.ns, net, family, true)?;
        }
        Ok(())
    })?;
    Ok(Done::Kept)
}

fn rejected_connections_fail_at_once() -> Result<Done> {
    with_fault(&rejecting(), |net, _| {
        for family in FAMILIES {
            let server = Server::start(&net.server.ns, net.server.ip(family), PORT, Service::Echo)?;
            let patience = Duration::from_secs(3);
            let (client, took) = Client::try_connect(&net.client.ns, server.address(), patience)?;
            let error = client.err().context("a rejected connection was made")?;
            ensure!(
                error.kind() == ErrorKind::ConnectionRefused && took < Duration::from_millis(200),
                "{family:?}: {error} after {took:?}, and not \"refused\" at once"
            );
        }
        Ok(())
    })?;
    Ok(Done::Kept)
}

/// What one asks on this open connection is answered with a reset.
fn is_reset(client: &mut Client) -> Result<()> {
    let error = client.ask().err().context("a rejected connection was answered")?;
    ensure!(error.kind() == ErrorKind::ConnectionReset, "{error}, and not \"reset\"");
    Ok(())
}

fn an_open_connection_is_reset() -> Result<Done> {
    for family in FAMILIES {
        let net = Net::new()?;
        let server = Server::start(&net.server.ns, net.server.ip(family), PORT, Service::Echo)?;
        let (mut client, _) =
            Client::connect(&net.client.ns, server.address(), Duration::from_secs(3))?;
        client.ask()?;
        with_run(&net, on_client(&net, &rejecting())?, |_| {
            is_reset(&mut client).with_context(|| format!("{family:?}"))
        })?;
    }
    Ok(Done::Kept)
}

fn rejected_datagrams_come_back_as_refused() -> Result<Done> {
    with_fault(&rejecting(), |net, _| {
        for family in FAMILIES {
            let outcome = probe(net, family, &Probe::of(20, Duration::from_millis(2)))?;
            let refused = outcome.errors.get(&libc::ECONNREFUSED).copied().unwrap_or(0);
            // The answer to one packet is the error of the next call.
            ensure!(
                outcome.received() == 0 && refused >= 9,
                "{family:?}: senders should get ECONNREFUSED: {}",
                outcome.describe()
            );
        }
        Ok(())
    })?;
    Ok(Done::Kept)
}

fn rejected_pings_are_answered_as_unreachable() -> Result<Done> {
    with_fault(&rejecting(), |net, _| {
        for family in FAMILIES {
            let (every, wait) = (Duration::from_millis(2), Duration::from_millis(100));
            let pings = ping(&net.client.ns, net.server.ip(family), 20, every, wait)?;
            let refused = pings.told.iter().filter(|errno| **errno == libc::ECONNREFUSED).count();
            ensure!(
                pings.times.is_empty() && refused >= 9,
                "{family:?}: {} pings answered, {refused} told, errors of send {:?}",
                pings.times.len(),
                pings.errors
            );
        }
        Ok(())
    })?;
    Ok(Done::Kept)
}

/// The one who is connected to the target is told as well.
fn an_open_connection_is_reset_by_what_arrives() -> Result<Done> {
    for family in FAMILIES {
        let net = Net::new()?;
        let server = Server::start(&net.client.ns, net.client.ip(family), PORT, Service::Echo)?;
        let (mut client, _) =
            Client::connect(&net.server.ns, server.address(), Duration::from_secs(3))?;
        client.ask()?;
        with_run(&net, on_client(&net, &rejecting().with("direction", json!("from")))?, |_| {
            is_reset(&mut client).with_context(|| format!("{family:?}"))
        })?;
    }
    Ok(Done::Kept)
}

fn arriving_datagrams_are_rejected_too() -> Result<Done> {
    let net = Net::new()?;
    let run = on_client(&net, &rejecting().with("direction", json!("from")))?;
    with_run(&net, run, |_| {
        for family in FAMILIES {
            let shape = Probe::of(20, Duration::from_millis(2));
            let outcome = udp::run(&net.server.ns, &net.client.ns, net.client.ip(family), &shape)?;
            let refused = outcome.errors.get(&libc::ECONNREFUSED).copied().unwrap_or(0);
            ensure!(
                outcome.received() == 0 && refused >= 9,
                "{family:?}: senders should get ECONNREFUSED: {}",
                outcome.describe()
            );
        }
        Ok(())
    })?;
    Ok(Done::Kept)
}

/// With `from`, the one who connects to the target is told.
fn arriving_connections_are_rejected_too() -> Result<Done> {
    let manifest = rejecting().with("direction", json!("from"));
    let net = Net::new()?;
    let run: Run = on_client(&net, &manifest)?;
    with_run(&net, run, |_| {
        for family in FAMILIES {
            let server = Server::start(&net.client.ns, net.client.ip(family), PORT, Service::Echo)?;
            let patience = Duration::from_secs(3);
            let (client, took) = Client::try_connect(&net.server.ns, server.address(), patience)?;
            let error = client.err().context("a rejected connection was made")?;
            ensure!(
                error.kind() == ErrorKind::ConnectionRefused && took < Duration::from_millis(200),
                "{family:?}: {error} after {took:?}, and not \"refused\" at once"
            );
        }
        Ok(())
    })?;
    Ok(Done::Kept)
}

/// What answers a packet there has the loopback's own address.
fn connections_on_loopback_are_rejected_too() -> Result<Done> {
    with_fault(&rejecting().with("device", json!("lo")), |net, _| {
        for ip in [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()] {
            let server = Server::start(&net.client.ns, ip, PORT, Service::Echo)?;
            let patience = Duration::from_secs(3);
            let (client, took) = Client::try_connect(&net.client.ns, server.address(), patience)?;
            let error = client.err().context("a rejected connection was made")?;
            ensure!(
                error.kind() == ErrorKind::ConnectionRefused && took < Duration::from_millis(200),
                "{ip}: {error} after {took:?}, and not \"refused\" at once"
            );
        }
        Ok(())
    })?;
    Ok(Done::Kept)
}
