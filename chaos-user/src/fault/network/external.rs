//! One entry of `externalTargets`: an address, a prefix or a name, each with or without a port.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use ipnet::IpNet;
use thiserror::Error;

use crate::plan::{Name, Prefix};

/// An entry of `externalTargets`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum External {
    /// Addresses. `masked` tells that the text had bits set behind the prefix.
    Prefix {
        /// The prefix, with its port.
        prefix: Prefix,
        /// Host bits were dropped.
        masked: bool,
    },
    /// A name of the DNS.
    Name(Name),
}

/// Why a text is no external target.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ExternalError {
    /// Nothing there.
    #[error("is empty")]
    Empty,
    /// `http://…`
    #[error("is a URL; write its host, and :PORT where only one port is meant")]
    Url,
    /// The port is not a number from 1 to 65535.
    #[error("\"{0}\" is no port (allowed: 1 to 65535)")]
    Port(String),
    /// The part in front of `/` is no address, or the prefix is too long.
    #[error(
        "\"{0}\" is no prefix (allowed: an address, a slash, and 0 to 32 for IPv4 or 0 to 128 for IPv6)"
    )]
    Prefix(String),
    /// Brackets without an IPv6 address inside.
    #[error("\"{0}\" is no IPv6 address in brackets")]
    Brackets(String),
    /// More colons than a port needs, and no IPv6 address.
    #[error("\"{0}\" is no IPv6 address; with a port it needs brackets: [2001:db8::1]:80")]
    Colons(String),
    /// `fe80::1%eth0`
    #[error("has a zone (%); link-local addresses cannot be targets")]
    Zone,
    /// `10.0.0.300`
    #[error("\"{0}\" looks like an IPv4 address and is none")]
    Address(String),
    /// Not a name that the DNS can hold.
    #[error(
        "\"{0}\" is no name of the DNS (letters, digits, '-', '_' and '.', at most 253 characters, 63 between points)"
    )]
    Name(String),
}

impl FromStr for External {
    type Err = ExternalError;

    fn from_str(text: &str) -> Result<Self, ExternalError> {
        if text.is_empty() {
            return Err(ExternalError::Empty);
        }
        if text.contains("://") {
            return Err(ExternalError::Url);
        }
        if text.contains('%') {
            return Err(ExternalError::Zone);
        }
        if let Some(rest) = text.strip_prefix('[') {
            return bracketed(text, rest);
        }
        if let Some((address, rest)) = text.split_once('/') {
            let (length, number) = port(rest)?;
            return prefix(&format!("{address}/{length}"), number);
        }
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(host(address, None));
        }
        let (name, number) = port(text)?;
        match name.parse::<Ipv4Addr>() {
            Ok(address) => Ok(host(address.into(), number)),
            // 1:2:3:4:5:6:7:8:80
            Err(_) if name.contains(':') => Err(ExternalError::Colons(text.to_owned())),
            Err(_) => Ok(Self::Name(Name { host: dns(name)?, port: number })),
        }
    }
}

/// `[v6]`, `[v6]:port`, `[v6/length]:port`.
fn bracketed(text: &str, rest: &str) -> Result<External, ExternalError> {
    let wrong = || ExternalError::Brackets(text.to_owned());
    let (inside, behind) = rest.split_once(']').ok_or_else(wrong)?;
    let number = match port(behind)? {
        ("", number) => number,
        _ => return Err(wrong()),
    };
    if inside.contains('/') {
        return prefix(inside, number);
    }
    let address: Ipv6Addr = inside.parse().map_err(|_| wrong())?;
    Ok(host(IpAddr::V6(address), number))
}

/// What stands in front of the last colon, and the port behind it, where there is one.
fn port(text: &str) -> Result<(&str, Option<u16>), ExternalError> {
    let Some((front, digits)) = text.rsplit_once(':') else { return Ok((text, None)) };
    let number = Some(digits)
        .filter(|digits| digits.bytes().all(|b| b.is_ascii_digit()))
        .and_then(|digits| digits.parse::<u16>().ok())
        .filter(|number| *number != 0)
        .ok_or_else(|| ExternalError::Port(digits.to_owned()))?;
    Ok((front, Some(number)))
}

fn prefix(text: &str, port: Option<u16>) -> Result<External, ExternalError> {
    let written: IpNet = text.parse().map_err(|_| ExternalError::Prefix(text.to_owned()))?;
    let net = written.trunc();
    Ok(External::Prefix { prefix: Prefix { net: unmapped(net), port }, masked: net != written })
}

/// A prefix of IPv4 addresses in IPv6 clothes (`::ffff:10.0.0.0/104`) as the IPv4 prefix that its
/// packets have.
fn unmapped(net: IpNet) -> IpNet {
    const CLOTHES: u8 = 96;
    let (length, address) = (net.prefix_len(), net.addr().to_canonical());
    match (net, address, length.checked_sub(CLOTHES)) {
        (IpNet::V6(_), IpAddr::V4(_), Some(length)) => IpNet::new(address, length).unwrap_or(net),
        _ => net,
    }
}

/// One address. An IPv4 address in IPv6 clothes travels as IPv4.
fn host(address: IpAddr, port: Option<u16>) -> External {
    External::Prefix { prefix: Prefix { net: address.to_canonical().into(), port }, masked: false }
}

fn dns(text: &str) -> Result<String, ExternalError> {
    let name = text.strip_suffix('.').unwrap_or(text);
    if !name.is_empty() && name.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
        return Err(ExternalError::Address(text.to_owned()));
    }
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    if name.len() <= 253 && name.split('.').all(label) {
        Ok(text.to_owned())
    } else {
        Err(ExternalError::Name(text.to_owned()))
    }
}

impl fmt::Display for External {
    /// Parses back to an equal entry.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Prefix { prefix, .. } => f.write_str(&prefix_text(prefix)),
            Self::Name(name) => f.write_str(&name_text(name)),
        }
    }
}

/// A prefix as `externalTargets` writes it; a single address goes without its length.
#[must_use]
pub fn prefix_text(prefix: &Prefix) -> String {
    let Prefix { net, port } = prefix;
    let single = net.prefix_len() == net.max_prefix_len();
    let what = if single { net.addr().to_string() } else { net.to_string() };
    match (port, net) {
        (None, _) => what,
        (Some(port), IpNet::V6(_)) => format!("[{what}]:{port}"),
        (Some(port), IpNet::V4(_)) => format!("{what}:{port}"),
    }
}

/// A name as `externalTargets` writes it.
#[must_use]
pub fn name_text(name: &Name) -> String {
    let Name { host, port } = name;
    match port {
        None => host.clone(),
        Some(port) => format!("{host}:{port}"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_form_of_address_prefix_and_name_is_read() {
        for (text, want) in [
            ("10.1.2.3", "10.1.2.3/32"),
            ("10.1.2.3:80", "10.1.2.3/32 80"),
            ("10.0.0.0/8", "10.0.0.0/8"),
            ("10.0.0.0/8:443", "10.0.0.0/8 443"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("2001:db8::1", "2001:db8::1/128"),
            ("::1", "::1/128"),
            ("[2001:db8::1]", "2001:db8::1/128"),
            ("[2001:db8::1]:80", "2001:db8::1/128 80"),
            ("2001:db8::/32", "2001:db8::/32"),
            ("2001:db8::/32:53", "2001:db8::/32 53"),
            ("[2001:db8::/32]:53", "2001:db8::/32 53"),
            ("::ffff:10.0.0.1", "10.0.0.1/32"),
            ("example.com", "example.com"),
            ("example.com.:65535", "example.com. 65535"),
            ("_sip._tcp.x-y.example", "_sip._tcp.x-y.example"),
            ("db", "db"),
        ] {
            let (what, port) = match text.parse().unwrap() {
                External::Prefix { prefix, .. } => (prefix.net.to_string(), prefix.port),
                External::Name(name) => (name.host, name.port),
            };
            let got = port.map_or(what.clone(), |port| format!("{what} {port}"));
            assert_eq!(got, want, "{text}");
        }
    }

    #[test]
    fn host_bits_of_a_prefix_are_dropped_and_remembered() {
        let External::Prefix { prefix, masked } = "10.1.2.3/8".parse().unwrap() else { panic!() };
        assert_eq!((prefix.net.to_string().as_str(), masked), ("10.0.0.0/8", true));
    }

    #[test]
    fn what_is_no_target_is_refused() {
        for text in [
            "",
            " ",
            "10.0.0.300",
            "1.2.3",
            "10.0.0.0/33",
            "10.0.0.0/",
            "/8",
            "2001:db8::/129",
            "a b",
            "http://example.com",
            "example.com:0",
            "example.com:65536",
            "example.com:http",
            "example.com:",
            "[::1",
            "[::1]80",
            "[10.0.0.1]:80",
            "[]",
            "fe80::1%eth0",
            "-a.example",
            "a..b",
            "*.example.com",
            "10.0.0.1:80:90",
            "10.0.0.0/8:80:90",
            "example.com/24",
            ":80",
            ".",
        ] {
            assert!(text.parse::<External>().is_err(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn what_it_prints_it_reads(v6: bool, bits: u128, length in 0u8..=128, port in proptest::option::of(1u16..)) {
            let net = if v6 {
                IpNet::new(IpAddr::V6(Ipv6Addr::from_bits(bits)), length)
            } else {
                IpNet::new(IpAddr::V4(Ipv4Addr::from_bits(bits as u32)), length / 4)
            };
            let prefix = Prefix { net: net.unwrap().trunc(), port };
            // An IPv4 address in IPv6 clothes reads as IPv4.
            prop_assume!(prefix.net.addr().to_canonical() == prefix.net.addr());
            let external = External::Prefix { prefix, masked: false };
            prop_assert_eq!(external.to_string().parse(), Ok(external));
        }

        #[test]
        fn no_text_makes_it_panic(text in "\\PC*") {
            let _ = text.parse::<External>();
        }

        #[test]
        fn no_likely_text_makes_it_panic(text in "\\[?[0-9a-f:.é]{0,12}(/[0-9]{0,3})?\\]?(:[0-9]{0,6})?") {
            let _ = text.parse::<External>();
        }
    }
}
