//! Exchanges on this host: which devices are watched, and what their connections are subject to.
//!
//! Owns the BPF object of HTTP faults, which is there only while an exchange is. Nothing is pinned:
//! connections leave the socket map with the object, and are plain again.

mod agency;
mod leave;
mod nowhere;
mod object;
mod readers;
mod rescue;
mod trial;
mod turns;
mod wire;

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use chaos_abi::detour::AskedPort;
use chaos_abi::http::{HttpCounters, HttpSlot, rule_flag, slot_flag};
use chaos_abi::limit;

use self::agency::Agency;
use self::object::Object;
pub use self::rescue::{Maps, watch};
use super::bpf::Kind;
use super::cgroup::{cgroup_mount, no_cgroup};
use super::detour::hold;
use super::device::{Attached, Open};
use super::error::EngineError;
use super::journal;
use crate::plan::Device;
use crate::plan::exchange::{Exchange, Message, Sockets};
use crate::plan::reach;

/// How long a response whose old body is still being sent is waited for, before its connection
/// becomes plain again.
const PATIENCE: Duration = Duration::from_secs(2);

/// What an exchange did so far.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ExchangeReport {
    /// The exchange's id.
    pub id: String,
    /// False when its target has vanished.
    pub is_alive: bool,
    /// Its counters, summed over CPUs.
    pub counters: HttpCounters,
}

/// A device whose arriving packets are looked at.
struct Hook {
    slot: u32,
    open: Open,
    attached: Attached,
    /// Packets that leave are looked at as well.
    leaving: Option<Attached>,
    /// In front of what holds packets.
    is_late: bool,
    /// Exchanges by id.
    exchanges: BTreeSet<String>,
}

struct Begun {
    index: u32,
    exchange: Exchange,
    /// What the agency had counted at this index when it began.
    before: HttpCounters,
    /// The port whose requests it edits.
    asks: Option<AskedPort>,
}

/// The exchanges of this host.
#[derive(Default)]
pub struct Exchanges {
    object: Option<Object>,
    /// Edits what the kernel cannot, while an exchange needs it.
    agency: Option<Agency>,
    begun: BTreeMap<String, Begun>,
    hooks: BTreeMap<Device, Hook>,
    /// Until when exchanges act without another beat.
    until_ns: u64,
}

impl Exchanges {
    /// Lets an exchange act until `deadline_ns`.
    ///
    /// # Errors
    /// [`EngineError::Unsupported`] for what this version or kernel cannot do.
    pub fn begin(&mut self, exchange: &Exchange, deadline_ns: u64) -> Result<(), EngineError> {
        if let Some(beyond) = reach::refused(exchange) {
            return Err(EngineError::Unsupported {
                mechanism: "http exchanges",
                reason: format!(
                    "{}: {}: not supported by this version: {}",
                    exchange.experiment, beyond.field, beyond.reason
                ),
                way_out: "change the field, or leave the experiment out",
            });
        }
        if exchange.sockets.cgroup.is_some() && cgroup_mount().is_none() {
            return Err(no_cgroup());
        }
        let taken: BTreeSet<u32> = self.begun.values().map(|one| one.index).collect();
        let index = (0..limit::EXCHANGES).find(|index| !taken.contains(index));
        let full = |reason: String| EngineError::Unsupported {
            mechanism: "http exchanges",
            reason,
            way_out: "run fewer HTTP experiments at a time",
        };
        let most = limit::EXCHANGES;
        let index = index.ok_or_else(|| full(format!("this host has {most} of them already")))?;
        let devices = devices(&exchange.sockets);
        let per_device = limit::EXCHANGES_PER_DEVICE;
        for device in &devices {
            if self.hooks.get(device).is_some_and(|hook| hook.exchanges.len() >= per_device) {
                let name = &device.name;
                return Err(full(format!(
                    "{name} of {} has {per_device} already",
                    exchange.target
                )));
            }
        }
        if self.object.is_none() {
            let mut object = Object::load()?;
            object.set_heartbeat(self.until_ns)?;
            self.object = Some(object);
        }
        let before = self.agency.as_ref().map(|agency| agency.counters(index)).unwrap_or_default();
        let begun = Begun { index, exchange: exchange.clone(), before, asks: None };
        self.begun.insert(exchange.id.clone(), begun);
        let result = self.install(exchange, index, deadline_ns, &devices);
        if result.is_err()
            && let Err(error) = self.end(&exchange.id)
        {
            tracing::error!(%error, "an exchange that could not begin is not gone either");
        }
        result
    }

    fn install(
        &mut self,
        exchange: &Exchange,
        index: u32,
        deadline_ns: u64,
        devices: &[Device],
    ) -> Result<(), EngineError> {
        self.man(exchange)?;
        if reach::is_asking(exchange) {
            let port = readers::port(exchange)?;
            self.loaded()?.ask(port)?;
            if let Some(begun) = self.begun.get_mut(&exchange.id) {
                begun.asks = Some(port);
            }
        }
        let wire = wire::wire(exchange, deadline_ns);
        // A request that is cut has no response, and its socket joins no map.
        let joins = wire.rule.flags & rule_flag::CUT == 0;
        self.loaded()?.set_rule(index, *wire.rule, &wire.tail)?;
        for device in devices {
            if !self.hooks.contains_key(device) {
                let hook = self.hook(device)?;
                self.hooks.insert(device.clone(), hook);
            }
            if joins {
                self.look_at_leaving(device, exchange.edit.delay.is_some())?;
            }
            if let Some(hook) = self.hooks.get_mut(device) {
                hook.exchanges.insert(exchange.id.clone());
            }
            self.arm(device)?;
        }
        Ok(())
    }

    /// Has an agency for exchanges that need one, or that may meet on one response.
    fn man(&mut self, exchange: &Exchange) -> Result<(), EngineError> {
        let edits = |one: &Exchange| !one.dry_run && !one.edit.abort && one.edit.rewrites();
        let is_response = exchange.message == Message::Response;
        let is_needed = reach::is_asking(exchange)
            || is_response && !exchange.dry_run && reach::is_detour(&exchange.edit);
        let may_meet = self.begun.values().filter(|one| edits(&one.exchange)).count() > 1;
        // A response that has no body may become one that has.
        let may_turn = edits(exchange) && exchange.edit.replace.code.is_some();
        if self.agency.is_none() && (is_needed || may_meet || may_turn) {
            match Agency::start(self.loaded()?) {
                Ok(agency) => self.agency = Some(agency),
                Err(error) if is_needed => return Err(error),
                Err(error) => {
                    tracing::warn!(
                        %error,
                        "where experiments meet on one response one acts, and responses without a \
                         body keep their status"
                    );
                }
            }
        }
        self.tell_agency();
        Ok(())
    }

    fn tell_agency(&self) {
        if let Some(agency) = &self.agency {
            agency.arm(self.begun.values().map(|one| (one.index, &one.exchange)));
        }
    }

    /// Where packets are late, in front of what holds them, which the plan's rules have brought there
    /// before: what is attached is always in front of what was.
    fn look_at_leaving(&mut self, device: &Device, is_late: bool) -> Result<(), EngineError> {
        let (Some(object), Some(hook)) = (&self.object, self.hooks.get_mut(device)) else {
            return Ok(());
        };
        if is_late
            && !hook.is_late
            && let Some(behind) = hook.leaving.take()
        {
            hook.open.detach(Kind::HttpEgress, behind)?;
        }
        if hook.leaving.is_none() {
            let entry = object.entry(Kind::HttpEgress, hook.slot)?;
            hook.leaving = Some(hook.open.attach(Kind::HttpEgress, &entry)?);
        }
        hook.is_late |= is_late;
        Ok(())
    }

    fn loaded(&mut self) -> Result<&mut Object, EngineError> {
        let missing = || EngineError::bpf("use the BPF object of HTTP faults", "it is not loaded");
        self.object.as_mut().ok_or_else(missing)
    }

    fn hook(&mut self, device: &Device) -> Result<Hook, EngineError> {
        let taken: BTreeSet<u32> = self.hooks.values().map(|hook| hook.slot).collect();
        let slot = (0..limit::HTTP_SLOTS).find(|slot| !taken.contains(slot));
        let slot = slot.ok_or_else(|| EngineError::Unsupported {
            mechanism: "http exchanges",
            reason: format!("{} devices are watched already", limit::HTTP_SLOTS),
            way_out: "run fewer HTTP experiments at a time",
        })?;
        let open = Open::new(device)?;
        let object = self.loaded()?;
        object.set_slot(slot, HttpSlot::IDLE)?;
        let entry = object.entry(Kind::HttpIngress, slot)?;
        let attached = open.attach(Kind::HttpIngress, &entry)?;
        Ok(Hook { slot, open, attached, leaving: None, is_late: false, exchanges: BTreeSet::new() })
    }

    /// Writes what a device knows: the moment at which exchanges begin and end there.
    fn arm(&mut self, device: &Device) -> Result<(), EngineError> {
        let Some(hook) = self.hooks.get(device) else { return Ok(()) };
        let mut slot = HttpSlot { link_header: hook.open.link_header, ..HttpSlot::IDLE };
        let here = hook.exchanges.iter().filter_map(|id| self.begun.get(id));
        for (place, one) in slot.exchanges.iter_mut().zip(here) {
            *place = one.index;
            slot.count += 1;
            if one.exchange.sockets.cgroup.is_some() {
                slot.flags |= slot_flag::CGROUPS;
            }
        }
        let number = hook.slot;
        self.loaded()?.set_slot(number, slot)
    }

    /// Ends an exchange. With the last one, connections become plain again; those that are in the
    /// middle of a replaced body are waited for.
    ///
    /// # Errors
    /// The first failure, after all has been tried.
    pub fn end(&mut self, id: &str) -> Result<(), EngineError> {
        let Some(Begun { index, asks, .. }) = self.begun.remove(id) else { return Ok(()) };
        let mut first = None;
        let mut tried = |result: Result<(), EngineError>| match result {
            Ok(()) | Err(EngineError::Gone { .. }) => {}
            Err(error) => drop(first.get_or_insert(error)),
        };
        tried(self.loaded().and_then(|object| object.clear_rule(index)));
        if let Some(port) = asks
            && !self.begun.values().any(|other| other.asks == asks)
        {
            tried(self.loaded().and_then(|object| object.ask_no_more(port)));
        }
        let devices: Vec<Device> = self.hooks.keys().cloned().collect();
        for device in devices {
            let Some(hook) = self.hooks.get_mut(&device) else { continue };
            if !hook.exchanges.remove(id) {
                continue;
            }
            let is_last = hook.exchanges.is_empty();
            tried(self.arm(&device));
            if is_last && let Some(hook) = self.hooks.remove(&device) {
                tried(unhook(&device, hook));
            }
        }
        self.tell_agency();
        if self.begun.is_empty() {
            self.settle();
            // What it cannot let go of in time is cut, and must not be overtaken before.
            self.agency = None;
            self.object = None;
        }
        first.map_or(Ok(()), Err)
    }

    fn settle(&self) {
        let end = Instant::now() + PATIENCE;
        if let Some(agency) = &self.agency {
            agency.let_go();
        }
        let is_swallowing = |object: &Object| object.unfinished().is_ok_and(|left| left > 0);
        let holds = |agency: &Agency| agency.connections() > 0;
        let is_busy = || {
            self.object.as_ref().is_some_and(is_swallowing)
                || self.agency.as_ref().is_some_and(holds)
        };
        while is_busy() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(5));
        }
        self.part();
    }

    /// Lets diverted connections go.
    fn part(&self) {
        let Some(streams) = self.object.as_ref().and_then(|object| object.streams().ok()) else {
            return;
        };
        if streams.is_empty() {
            return;
        }
        let mut sockets = Vec::new();
        hold::each(|socket| {
            if hold::cookie_of(socket.as_raw_fd()).is_some_and(|one| streams.contains(&one)) {
                sockets.push(socket);
            }
        });
        let cut = leave::all(&sockets, Instant::now() + PATIENCE);
        if cut > 0 {
            tracing::warn!(cut, "connections whose requests were edited did not end in time");
        }
    }

    /// Lets exchanges act until `until_ns`.
    ///
    /// # Errors
    /// When the map cannot be written.
    pub fn beat(&mut self, until_ns: u64) -> Result<(), EngineError> {
        self.until_ns = until_ns;
        self.object.as_mut().map_or(Ok(()), |object| object.set_heartbeat(until_ns))
    }

    /// What has become of an exchange.
    #[must_use]
    pub fn report(&self, id: &str) -> ExchangeReport {
        let mut report = ExchangeReport { id: id.to_owned(), ..ExchangeReport::default() };
        if let (Some(begun), Some(object)) = (self.begun.get(id), &self.object) {
            report.is_alive = super::netns::inode(begun.exchange.sockets.netns.as_ref())
                .is_ok_and(|inode| inode == begun.exchange.sockets.inode);
            report.counters = object.counters(begun.index).unwrap_or_default();
            if let Some(agency) = &self.agency {
                let (now, before) = (agency.counters(begun.index), &begun.before);
                let counters = &mut report.counters;
                counters.acted += now.acted - before.acted;
                for (i, passed) in counters.passed.iter_mut().enumerate() {
                    *passed += now.passed[i] - before.passed[i];
                }
            }
        }
        report
    }
}

fn unhook(device: &Device, hook: Hook) -> Result<(), EngineError> {
    let Hook { open, attached, leaving, .. } = hook;
    let ifindex = open.ifindex;
    let leaving = leaving.map_or(Ok(false), |leaving| open.detach(Kind::HttpEgress, leaving));
    let arriving = open.detach(Kind::HttpIngress, attached);
    if leaving? | arriving? {
        return journal::forget(device, ifindex);
    }
    Ok(())
}

/// Where requests to these sockets arrive.
fn devices(sockets: &Sockets) -> Vec<Device> {
    let device = |name: &String| Device {
        netns: sockets.netns.clone(),
        inode: sockets.inode,
        name: name.clone(),
    };
    sockets.watched().map(device).collect()
}

/// Loads the object, as the first exchange would; says what it costs.
///
/// # Errors
/// See [`Exchanges::begin`].
pub(super) fn programs() -> Result<Vec<(&'static str, Option<u32>)>, EngineError> {
    Object::load().map(|object| object.programs())
}

/// Lets an exchange act on a connection of our own.
///
/// # Errors
/// See [`Exchanges::begin`], or that it did not act.
pub(super) fn probe() -> Result<String, EngineError> {
    trial::acts().map(|()| "responses of servers, HTTP/1.0 and 1.1".to_owned())
}

/// Lets an exchange edit a request of our own.
///
/// # Errors
/// See [`Exchanges::begin`], or that it did not act.
pub(super) fn probe_requests() -> Result<String, EngineError> {
    trial::edits().map(|()| "requests to servers are replaced and patched".to_owned())
}
