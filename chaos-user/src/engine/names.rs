//! Lists of names as the kernel looks them up: prefixes of one trie, and a few patterns that are
//! compared in place. Pure.

use chaos_abi::dns::{LIST, NameKey, TEXT, WORDS, Wild};

use crate::plan::names::{Names, Pattern};

/// A list of names for the kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NameTable {
    /// Bits of the text that count, and the key with the list's number left out.
    pub keys: Vec<(u32, NameKey)>,
    /// Patterns with `?`.
    pub wilds: Vec<Wild>,
}

impl NameTable {
    /// The table of a list.
    #[must_use]
    pub fn of(names: &Names) -> Self {
        let mut table = Self::default();
        for pattern in names.patterns() {
            if pattern.is_wild() {
                table.wilds.push(wild(pattern));
            } else {
                table.keys.push(key(pattern));
            }
        }
        table
    }
}

/// The key of a list.
#[must_use]
pub fn in_list(mut key: NameKey, list: u32) -> NameKey {
    let [.., high, low] = list.to_be_bytes();
    key.bytes[..LIST].copy_from_slice(&[high, low]);
    key
}

/// The text of a pattern as a key has it; behind it is zero.
fn text(pattern: &Pattern) -> NameKey {
    let mut key = NameKey { bytes: [0; LIST + TEXT] };
    for (place, byte) in key.bytes.iter_mut().skip(LIST).zip(pattern.text().bytes()) {
        *place = byte;
    }
    key
}

fn key(pattern: &Pattern) -> (u32, NameKey) {
    // The zero byte behind a whole name is part of it.
    let bytes = pattern.text().len() + usize::from(!pattern.is_prefix());
    let bits = u32::try_from((LIST + bytes) * 8).unwrap_or(0);
    (bits, text(pattern))
}

fn wild(pattern: &Pattern) -> Wild {
    let mut mask = NameKey { bytes: [0; LIST + TEXT] };
    for (place, byte) in mask.bytes.iter_mut().skip(LIST).zip(pattern.text().bytes()) {
        *place = if byte == b'?' { 0 } else { 0xff };
    }
    let length = u32::try_from(pattern.text().len()).unwrap_or(0);
    let most = if pattern.is_prefix() { TEXT as u32 } else { length };
    Wild { least: length, most, text: words(&text(pattern)), mask: words(&mask) }
}

fn words(key: &NameKey) -> [u64; WORDS] {
    let mut words = [0; WORDS];
    for (word, bytes) in words.iter_mut().zip(key.bytes.chunks_exact(8)) {
        *word = bytes.try_into().map_or(0, u64::from_ne_bytes);
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What the kernel does with a table.
    fn holds(table: &NameTable, name: &str) -> bool {
        let mut asked = NameKey { bytes: [0; LIST + TEXT] };
        asked.bytes[LIST..LIST + name.len()].copy_from_slice(name.to_ascii_lowercase().as_bytes());
        let is_prefix = |(bits, key): &(u32, NameKey)| {
            let bytes = *bits as usize / 8;
            key.bytes[LIST..bytes] == asked.bytes[LIST..bytes]
        };
        let asked_words = words(&asked);
        let is_like = |wild: &Wild| {
            let apart = (0..WORDS).any(|i| (asked_words[i] ^ wild.text[i]) & wild.mask[i] != 0);
            let length = name.len() as u32;
            !apart && length >= wild.least && length <= wild.most
        };
        table.keys.iter().any(is_prefix) || table.wilds.iter().any(is_like)
    }

    proptest! {
        #[test]
        fn tables_mean_what_patterns_mean(
            patterns in prop::collection::vec("[abA.?]{0,5}[*]?", 1..5),
            name in "[abB.]{0,6}",
        ) {
            let all = patterns.iter().map(|p| p.parse::<Pattern>().unwrap());
            let names = Names::of(all);
            prop_assert_eq!(holds(&NameTable::of(&names), &name), names.hold(&name));
        }
    }

    #[test]
    fn the_longest_pattern_has_room() {
        let name = "x".repeat(253);
        for text in [name.clone(), format!("{name}*"), "?".repeat(253)] {
            let table = NameTable::of(&Names::of([text.parse().unwrap()]));
            assert!(holds(&table, &name), "{text}");
            assert!(table.keys.iter().all(|(bits, _)| *bits <= 8 * (LIST + TEXT) as u32));
        }
    }

    #[test]
    fn a_list_has_its_number_in_front() {
        let key = in_list(NameKey { bytes: [7; LIST + TEXT] }, 0x0102);
        assert_eq!(key.bytes[..3], [1, 2, 7]);
    }
}
