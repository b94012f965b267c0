//! Where the kernel keeps a field of its own: read from the types that it tells of itself (BTF).

use std::fs;
use std::io;

/// The types of the running kernel.
const FILE: &str = "/sys/kernel/btf/vmlinux";
const MAGIC: u32 = 0xeb9f;
const STRUCT: u32 = 4;

/// The offset of a member of each struct, bytes.
///
/// # Errors
/// `NotFound` where the kernel tells nothing of one, or does not at all.
pub fn offsets<const N: usize>(of: [(&str, &str); N]) -> io::Result<[u32; N]> {
    let types = Types(fs::read(FILE)?);
    let mut all = [0; N];
    for (place, (of, member)) in all.iter_mut().zip(of) {
        *place = types.offset(of, member).ok_or_else(|| {
            io::Error::new(io::ErrorKind::NotFound, format!("{FILE} has no {of}.{member}"))
        })?;
    }
    Ok(all)
}

/// A file of types, as `Documentation/bpf/btf.rst` of the kernel has it.
struct Types(Vec<u8>);

impl Types {
    fn word(&self, at: usize) -> Option<u32> {
        let bytes = self.0.get(at..at + 4)?;
        bytes.try_into().map(u32::from_ne_bytes).ok()
    }

    fn offset(&self, of: &str, member: &str) -> Option<u32> {
        if self.word(0)? & 0xffff != MAGIC {
            return None;
        }
        let header = self.word(4)? as usize;
        let types = header + self.word(8)? as usize;
        let end = types + self.word(12)? as usize;
        let strings = header + self.word(16)? as usize;
        let is = |name: u32, text: &str| {
            let rest = self.0.get(strings + name as usize..);
            rest.and_then(|rest| rest.strip_prefix(text.as_bytes()))
                .is_some_and(|rest| rest.first() == Some(&0))
        };
        let mut at = types;
        while at < end {
            let (name, info) = (self.word(at)?, self.word(at + 4)?);
            let (kind, count) = (info >> 24 & 0x1f, (info & 0xffff) as usize);
            at += 12;
            if kind == STRUCT && is(name, of) {
                let member = (0..count)
                    .map(|i| at + 12 * i)
                    .find(|at| self.word(*at).is_some_and(|name| is(name, member)))?;
                let bits = self.word(member + 8)?;
                // With bit fields among the members the upper byte is a width.
                let bits = if info >> 31 != 0 { bits & 0x00ff_ffff } else { bits };
                return (bits % 8 == 0).then_some(bits / 8);
            }
            at += match kind {
                // Integers, variables and marks of declarations; arrays.
                1 | 14 | 17 => 4,
                3 => 12,
                // Structs, unions, sections, long enumerations; enumerations, prototypes.
                4 | 5 | 15 | 19 => 12 * count,
                6 | 13 => 8 * count,
                _ => 0,
            };
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_is_found_behind_types_of_every_kind() {
        let strings = b"\0tcp_sock\0copied\0copied_seq\0";
        let mut types: Vec<u32> = Vec::new();
        let mut put = |name: u32, kind: u32, count: u32, flag: u32, more: &[u32]| {
            types.extend([name, flag << 31 | kind << 24 | count, 0]);
            types.extend(more);
        };
        for (kind, words) in [(1, 1), (2, 0), (3, 3), (8, 0), (12, 0), (14, 1), (16, 0), (17, 1)] {
            put(0, kind, 0, 0, &vec![7; words]);
        }
        for (kind, each) in [(4, 3), (5, 3), (6, 2), (13, 2), (15, 3), (19, 3)] {
            put(0, kind, 2, 0, &vec![7; 2 * each]);
        }
        // A field of bits in front of it.
        put(1, STRUCT, 2, 1, &[10, 1, 3 << 24 | 29, 17, 1, 8 * 1700]);
        let body: Vec<u8> = types.iter().flat_map(|word| word.to_ne_bytes()).collect();
        let header = [MAGIC | 1 << 16, 24, 0, body.len() as u32, body.len() as u32, 30];
        let header: Vec<u8> = header.iter().flat_map(|word| word.to_ne_bytes()).collect();
        let types = Types([header, body, strings.to_vec()].concat());
        assert_eq!(types.offset("tcp_sock", "copied_seq"), Some(1700));
        assert_eq!(types.offset("tcp_sock", "copied"), None, "no whole number of bytes");
        assert_eq!(types.offset("tcp_sock", "other"), None);
        assert_eq!(types.offset("tcp", "copied_seq"), None);
        assert_eq!(Types(vec![0; 64]).offset("tcp_sock", "copied_seq"), None);
        assert_eq!(Types(Vec::new()).offset("tcp_sock", "copied_seq"), None);
    }
}
