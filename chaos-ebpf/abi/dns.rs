//! Names that are answered, and how.

use crate::Shared;

/// The port of name servers.
pub const PORT: u32 = 53;

/// Room for a name as text and the zero byte behind it: a name of 255 bytes on the wire is a text
/// of at most 253.
pub const TEXT: usize = 254;

/// Bytes of a key in front of the text: the number of the list, big-endian.
pub const LIST: usize = 2;

/// Data of an LPM key: a list's number, then a name in lower case, labels joined by dots, and a
/// zero byte. A pattern that ends with `*` is the prefix in front of it; one that does not is the
/// whole text with its zero byte. So one lookup answers for all of them.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NameKey {
    /// The list, then the text.
    pub bytes: [u8; LIST + TEXT],
}

/// Words of a [`NameKey`].
pub const WORDS: usize = (LIST + TEXT) / 8;

/// A pattern with `?`: compared in place, as words of a [`NameKey`].
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wild {
    /// Shortest text that it matches.
    pub least: u32,
    /// Longest text that it matches.
    pub most: u32,
    /// What it says.
    pub text: [u64; WORDS],
    /// Which of its bits count; none of the list's number.
    pub mask: [u64; WORDS],
}

/// The key of a [`Wild`]: which one of which list.
#[must_use]
pub const fn wild_key(list: u32, number: u32) -> u32 {
    list << 16 | number
}

/// How a rule answers.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// Number of its list of names, or [`EVERY_NAME`].
    pub list: u32,
    /// How many patterns with `?` the list has.
    pub wilds: u32,
    /// One of [`reply`].
    pub reply: u32,
    /// Seconds that an answer may be kept.
    pub ttl: u32,
}

/// The list that holds every name.
pub const EVERY_NAME: u32 = 0;

/// What [`Answer::reply`] says. Below 16: a code as RFC 1035 section 4.1.1 numbers them.
pub mod reply {
    /// The server failed.
    pub const SERVFAIL: u32 = 2;
    /// There is no such name.
    pub const NXDOMAIN: u32 = 3;
    /// The server does not want to.
    pub const REFUSED: u32 = 5;
    /// An address at random; nothing for other types.
    pub const RANDOM: u32 = 16;
    /// No answer at all.
    pub const TIMEOUT: u32 = 17;
}

/// Addresses at random come from networks that nobody has: RFC 2544's for IPv4 (198.18.0.0/15)
/// and RFC 3849's for IPv6 (2001:db8::/32). No stranger gets what was meant for somebody else.
pub const RANDOM_V4: u32 = 0xc612_0000;
/// The bits of [`RANDOM_V4`] that are drawn.
pub const RANDOM_V4_HOST: u32 = 0x0001_ffff;
/// See [`RANDOM_V4`].
pub const RANDOM_V6: u32 = 0x2001_0db8;

const _: () = assert!(size_of::<NameKey>() == 256);
const _: () = assert!(size_of::<Wild>() == 8 + 16 * WORDS);
const _: () = assert!(size_of::<Answer>() == 16);

// SAFETY: `repr(C)`, integers only, sizes asserted.
unsafe impl Shared for NameKey {}
// SAFETY: as above.
unsafe impl Shared for Wild {}
// SAFETY: as above.
unsafe impl Shared for Answer {}
