//! Queues, filters and links through rtnetlink. A socket belongs to the network namespace of
//! the thread that opened it.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use netlink_packet_core::{
    DefaultNla, NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REQUEST, NetlinkHeader,
    NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use netlink_packet_route::tc::{
    TcAttribute, TcBpfFlags, TcFilterBpfOption, TcHandle, TcHeader, TcMessage, TcOption, TcStats2,
};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

use crate::plan::Direction;

/// Handle of queues that are ours, by which `sweep` knows them.
pub const OUR_QUEUE: u16 = 0xfa17;

const CLSACT_HANDLE: TcHandle = TcHandle { major: 0xffff, minor: 0 };
const ALL_PROTOCOLS: u16 = 0x0003; // ETH_P_ALL
const OUR_PRIORITY: u16 = 1;

// `enum` of TCA_FQ_* in include/uapi/linux/pkt_sched.h.
const FQ_PLIMIT: u16 = 1;
const FQ_FLOW_PLIMIT: u16 = 2;
const FQ_RATE_ENABLE: u16 = 5;
const FQ_TIMER_SLACK: u16 = 13;
const FQ_HORIZON: u16 = 14;

/// Packets that our queue holds at most. 1 Gbit/s of full frames for 500 ms are 41 700.
pub const QUEUE_PACKETS: u32 = 200_000;
/// How far ahead a departure may lie, microseconds: the longest delay and more.
const HORIZON_US: u32 = 300_000_000;

/// A queueing discipline as the kernel lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Qdisc {
    /// `fq`, `noqueue`, `clsact`, …
    pub kind: String,
    /// Its handle.
    pub handle: TcHandle,
    /// Where it hangs.
    pub parent: TcHandle,
    /// Index of its device.
    pub ifindex: i32,
    /// Packets that it holds.
    pub held: u32,
    /// Options of an `fq`: packet limit, limit per flow, horizon in microseconds.
    pub fq: Option<(u32, u32, u32)>,
}

/// A classifier of ours on a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    /// Name of its BPF program, empty if it is no BPF filter.
    pub name: String,
    /// Its header, which names it for deletion.
    pub header: TcHeader,
}

/// An rtnetlink socket.
pub struct Rtnl {
    socket: Socket,
    sequence: u32,
}

impl Rtnl {
    /// Opens a socket in the calling thread's network namespace.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Self { socket, sequence: 0 })
    }

    fn send(&mut self, payload: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        self.sequence += 1;
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        header.sequence_number = self.sequence;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::from(payload));
        message.finalize();
        let mut buffer = vec![0; message.buffer_len()];
        message.serialize(&mut buffer);
        self.socket.send(&buffer, 0).map(drop)
    }

    /// Sends a request and hands every answer to `each` until the kernel is done.
    fn ask(
        &mut self,
        payload: RouteNetlinkMessage,
        flags: u16,
        mut each: impl FnMut(RouteNetlinkMessage),
    ) -> io::Result<()> {
        self.send(payload, flags)?;
        loop {
            let (bytes, _) = self.socket.recv_from_full()?;
            let mut at = 0;
            while at + 16 <= bytes.len() {
                let length =
                    u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
                        as usize;
                if length < 16 || at + length > bytes.len() {
                    return Err(io::Error::other("truncated netlink message"));
                }
                // A message that the library cannot read is one of a kind we do not use.
                if let Ok(message) =
                    NetlinkMessage::<RouteNetlinkMessage>::deserialize(&bytes[at..at + length])
                {
                    match message.payload {
                        NetlinkPayload::Done(_) => return Ok(()),
                        NetlinkPayload::Error(error) => {
                            return error.code.map_or(Ok(()), |_| Err(error.to_io()));
                        }
                        NetlinkPayload::InnerMessage(inner) => each(inner),
                        _ => {}
                    }
                }
                at += (length + 3) & !3;
            }
        }
    }

    fn tell(&mut self, payload: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        self.ask(payload, flags | NLM_F_ACK, |_| ())
    }

    /// Every qdisc of the namespace, those of `ifindex` only if it is not 0.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn qdiscs(&mut self, ifindex: u32) -> io::Result<Vec<Qdisc>> {
        let mut found = Vec::new();
        let request = TcMessage::with_index(ifindex.cast_signed());
        self.ask(RouteNetlinkMessage::GetQueueDiscipline(request), NLM_F_DUMP, |answer| {
            if let RouteNetlinkMessage::NewQueueDiscipline(message) = answer {
                found.push(qdisc(&message));
            }
        })?;
        found.retain(|q| ifindex == 0 || q.ifindex == ifindex.cast_signed());
        Ok(found)
    }

    /// Puts an `fq` that keeps departure times at the device's root. It never replaces a queue
    /// that somebody has put there.
    ///
    /// # Errors
    /// EEXIST with a foreign queue, ENOENT without `sch_fq`, otherwise what the kernel says.
    pub fn add_fq(&mut self, ifindex: u32) -> io::Result<()> {
        let number =
            |kind, value: u32| TcOption::Other(DefaultNla::new(kind, value.to_ne_bytes().to_vec()));
        let mut message = TcMessage::with_index(ifindex.cast_signed());
        message.header.handle = TcHandle { major: OUR_QUEUE, minor: 0 };
        message.header.parent = TcHandle::ROOT;
        message.attributes = vec![
            TcAttribute::Kind("fq".into()),
            TcAttribute::Options(vec![
                number(FQ_PLIMIT, QUEUE_PACKETS),
                number(FQ_FLOW_PLIMIT, QUEUE_PACKETS),
                // Without its own pacing fq leaves no mark on sockets that outlives it.
                number(FQ_RATE_ENABLE, 0),
                number(FQ_TIMER_SLACK, 0),
                number(FQ_HORIZON, HORIZON_US),
            ]),
        ];
        self.tell(RouteNetlinkMessage::NewQueueDiscipline(message), NLM_F_CREATE | NLM_F_EXCL)
    }

    /// Removes our queue, and nobody else's: the handle must match.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn remove_fq(&mut self, ifindex: u32) -> io::Result<()> {
        let mut message = TcMessage::with_index(ifindex.cast_signed());
        message.header.handle = TcHandle { major: OUR_QUEUE, minor: 0 };
        message.header.parent = TcHandle::ROOT;
        self.tell(RouteNetlinkMessage::DelQueueDiscipline(message), 0)
    }

    /// Adds `clsact`; false when it is there already.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn add_clsact(&mut self, ifindex: u32) -> io::Result<bool> {
        match self.tell(
            RouteNetlinkMessage::NewQueueDiscipline(clsact(ifindex)),
            NLM_F_CREATE | NLM_F_EXCL,
        ) {
            Ok(()) => Ok(true),
            Err(error) if error.raw_os_error() == Some(libc::EEXIST) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Removes `clsact` with all its filters.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn remove_clsact(&mut self, ifindex: u32) -> io::Result<()> {
        self.tell(RouteNetlinkMessage::DelQueueDiscipline(clsact(ifindex)), 0)
    }

    /// Attaches a program through `cls_bpf` in direct action mode.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn add_filter(
        &mut self,
        ifindex: u32,
        direction: Direction,
        name: &str,
        program: BorrowedFd<'_>,
    ) -> io::Result<()> {
        let mut message = TcMessage::with_index(ifindex.cast_signed());
        message.header.parent = parent(direction);
        message.header.info = info(OUR_PRIORITY);
        message.attributes = vec![
            TcAttribute::Kind("bpf".into()),
            TcAttribute::Options(vec![
                TcOption::Bpf(TcFilterBpfOption::ProgFd(program.as_raw_fd().cast_unsigned())),
                TcOption::Bpf(TcFilterBpfOption::ProgName(name.into())),
                TcOption::Bpf(TcFilterBpfOption::Flags(TcBpfFlags::DirectAction)),
            ]),
        ];
        self.tell(RouteNetlinkMessage::NewTrafficFilter(message), NLM_F_CREATE | NLM_F_EXCL)
    }

    /// Filters of one direction of a device.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn filters(&mut self, ifindex: u32, direction: Direction) -> io::Result<Vec<Filter>> {
        let mut found = Vec::new();
        let mut request = TcMessage::with_index(ifindex.cast_signed());
        request.header.parent = parent(direction);
        self.ask(RouteNetlinkMessage::GetTrafficFilter(request), NLM_F_DUMP, |answer| {
            if let RouteNetlinkMessage::NewTrafficFilter(message) = answer {
                let header = message.header.clone();
                // The kernel lists each priority once without a handle.
                if u32::from(header.handle) != 0 {
                    found.push(Filter { name: program_name(&message), header });
                }
            }
        })?;
        Ok(found)
    }

    /// Removes every filter of these names from one direction of a device.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn remove_filters(
        &mut self,
        ifindex: u32,
        direction: Direction,
        names: &[&str],
    ) -> io::Result<usize> {
        let ours: Vec<Filter> = self
            .filters(ifindex, direction)?
            .into_iter()
            .filter(|f| names.contains(&f.name.as_str()))
            .collect();
        for filter in &ours {
            let mut message = TcMessage::with_index(ifindex.cast_signed());
            message.header = filter.header.clone();
            message.attributes = vec![TcAttribute::Kind("bpf".into())];
            self.tell(RouteNetlinkMessage::DelTrafficFilter(message), 0)?;
        }
        Ok(ours.len())
    }

    /// Links of the namespace: index and name.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn links(&mut self) -> io::Result<Vec<(u32, String)>> {
        let mut found = Vec::new();
        let request = RouteNetlinkMessage::GetLink(LinkMessage::default());
        self.ask(request, NLM_F_DUMP, |answer| {
            if let RouteNetlinkMessage::NewLink(link) = answer {
                let name = link.attributes.iter().find_map(|a| match a {
                    LinkAttribute::IfName(name) => Some(name.clone()),
                    _ => None,
                });
                found.push((link.header.index, name.unwrap_or_default()));
            }
        })?;
        Ok(found)
    }

    /// Brings a link up without ARP and with the largest MTU a frame of the line can need.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn raise(&mut self, ifindex: u32, mtu: u32) -> io::Result<()> {
        let mut link = LinkMessage::default();
        link.header.index = ifindex;
        link.header.flags = LinkFlags::Up | LinkFlags::Noarp;
        link.header.change_mask = LinkFlags::Up | LinkFlags::Noarp;
        link.attributes = vec![LinkAttribute::Mtu(mtu)];
        self.tell(RouteNetlinkMessage::SetLink(link), 0)
    }
}

fn clsact(ifindex: u32) -> TcMessage {
    let mut message = TcMessage::with_index(ifindex.cast_signed());
    message.header.handle = CLSACT_HANDLE;
    message.header.parent = TcHandle::CLSACT;
    message.attributes = vec![TcAttribute::Kind("clsact".into())];
    message
}

fn parent(direction: Direction) -> TcHandle {
    let minor = match direction {
        Direction::Egress => TcHandle::MIN_EGRESS,
        Direction::Ingress => TcHandle::MIN_INGRESS,
    };
    TcHandle { major: 0xffff, minor }
}

fn info(priority: u16) -> u32 {
    u32::from(priority) << 16 | u32::from(ALL_PROTOCOLS.to_be())
}

fn program_name(message: &TcMessage) -> String {
    message
        .attributes
        .iter()
        .filter_map(|a| match a {
            TcAttribute::Options(options) => Some(options),
            _ => None,
        })
        .flatten()
        .find_map(|o| match o {
            TcOption::Bpf(TcFilterBpfOption::ProgName(name)) => Some(name.clone()),
            _ => None,
        })
        .unwrap_or_default()
}

fn qdisc(message: &TcMessage) -> Qdisc {
    let mut qdisc = Qdisc {
        kind: String::new(),
        handle: message.header.handle,
        parent: message.header.parent,
        ifindex: message.header.index,
        held: 0,
        fq: None,
    };
    for attribute in &message.attributes {
        match attribute {
            TcAttribute::Kind(kind) => qdisc.kind.clone_from(kind),
            TcAttribute::Stats2(stats) => {
                for stat in stats {
                    if let TcStats2::Queue(queue) = stat {
                        qdisc.held = queue.qlen;
                    }
                }
            }
            TcAttribute::Options(options) if qdisc.kind == "fq" => {
                qdisc.fq = options.iter().find_map(fq_options);
            }
            _ => {}
        }
    }
    qdisc
}

/// The library hands options of queues that it does not know over as raw attributes.
fn fq_options(option: &TcOption) -> Option<(u32, u32, u32)> {
    use netlink_packet_core::{Emitable, Nla, NlasIterator};
    let TcOption::Other(nla) = option else { return None };
    let mut bytes = vec![0; nla.value_len()];
    nla.emit_value(&mut bytes);
    let _ = nla.buffer_len();
    let mut values = (0, 0, 0);
    for nla in NlasIterator::new(bytes.as_slice()).flatten() {
        let Ok(value) = <[u8; 4]>::try_from(nla.value()) else { continue };
        let value = u32::from_ne_bytes(value);
        match nla.kind() {
            FQ_PLIMIT => values.0 = value,
            FQ_FLOW_PLIMIT => values.1 = value,
            FQ_HORIZON => values.2 = value,
            _ => {}
        }
    }
    Some(values)
}
