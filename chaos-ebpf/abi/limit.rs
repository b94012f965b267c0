//! Limits of the kernel side. They are stated here and nowhere else.

/// Rules that one loaded object can hold.
pub const RULES: u32 = 2048;
/// Slots: one per hook point that may carry rules (a device direction or a cgroup).
pub const SLOTS: u32 = 4096;
/// Rules that act on one slot. Bounds the loop that the verifier walks.
pub const RULES_PER_SLOT: usize = 16;
/// Targeted cgroups, counted per device that carries their traffic.
pub const CGROUPS: u32 = 4096;
/// Prefixes of all peer sets of one family together.
pub const PREFIXES: u32 = 131_072;
/// Peer sets, the one of everyone included.
pub const SETS: u32 = RULES + 1;
/// Prefixes (times ports) that a peer set holds without using a trie.
pub const FEW: usize = 4;
/// Ports that one prefix of a peer set may name.
pub const PORTS_PER_PREFIX: usize = 16;
/// Deepest cgroup level (the root of the hierarchy is 0) that can be a target.
pub const CGROUP_LEVELS: u32 = 16;
/// IPv6 extension headers that are looked through on the way to the ports.
pub const EXTENSION_HEADERS: usize = 4;
/// Longest delay, in nanoseconds, that a rule may ask for, jitter included.
pub const DELAY_NS: u64 = 120_000_000_000;
/// Copies of one packet that all matching rules together may add.
pub const COPIES: u32 = 4;
/// Names and prefixes of all lists of names together.
pub const NAMES: u32 = 65_536;
/// Patterns with `?` of all lists of names together.
pub const WILDS: u32 = 4096;
/// Patterns that one list of names may have.
pub const PATTERNS_PER_LIST: usize = 1024;
/// Those of them that may have a `?`: they are compared one by one.
pub const WILDS_PER_LIST: usize = 16;

/// Exchanges of HTTP that one host can have at a time.
pub const EXCHANGES: u32 = 256;
/// Exchanges that act on one device.
pub const EXCHANGES_PER_DEVICE: usize = 16;
/// Devices with exchanges.
pub const HTTP_SLOTS: u32 = 1024;
/// Headers that an exchange's request may be told by, and its response.
pub const HTTP_FIELDS: usize = 4;
/// Headers that a response may lose, those of its framing included.
pub const HTTP_DROPPED: usize = 16;
/// Longest pattern of a path, bytes.
pub const HTTP_PATTERN: usize = 256;
/// Longest status with its reason, bytes.
pub const HTTP_STATUS: usize = 64;
/// Longest head of a request or response that is looked at, bytes.
pub const HTTP_HEAD: u32 = 4096;
/// What a response may get, headers and body together, bytes.
pub const HTTP_TAIL: usize = 8192;
/// Longest body that is merged with something, bytes.
pub const HTTP_MERGED: u64 = 1 << 20;
/// Requests of one connection that may wait for their responses.
pub const HTTP_PIPELINE: u32 = 16;
/// Exchanges that one response may be meant by.
pub const HTTP_CANDIDATES: u32 = 4;
/// Connections with a matched request at a time.
pub const HTTP_SOCKETS: u32 = 65_536;
