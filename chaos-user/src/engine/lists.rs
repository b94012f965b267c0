//! Lists of names in the kernel's tables. Rules with the same names share one list.

use std::collections::BTreeMap;

use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{HashMap, MapData};
use chaos_abi::dns::{Answer, EVERY_NAME, LIST, wild_key};

use super::error::EngineError;
use super::names::{NameTable, in_list};
use super::object::{Object, Pod, map_error};
use super::wire;
use crate::plan;
use crate::plan::names::Names;

/// Which lists there are.
#[derive(Debug, Default)]
pub struct Lists {
    /// Number of each list, and how many rules name it.
    numbers: BTreeMap<Names, (u32, usize)>,
    /// The list of each rule that has one.
    by_rule: BTreeMap<u32, Names>,
}

impl Lists {
    /// The smallest number that is free; 0 is taken.
    fn free(&self) -> u32 {
        let taken = |number: &u32| self.numbers.values().any(|(other, _)| other == number);
        (EVERY_NAME + 1..).find(|number| !taken(number)).unwrap_or(u32::MAX)
    }
}

impl Object {
    /// Writes how the rule of this index answers.
    ///
    /// # Errors
    /// "the map is full"; nothing of it is left then.
    pub fn set_answer(&mut self, index: u32, answer: &plan::Answer) -> Result<(), EngineError> {
        // An undone removal finds what the removal left.
        self.clear_answer(index);
        let table = NameTable::of(&answer.names);
        let mut list = EVERY_NAME;
        if !answer.names.is_every() {
            let known = self.lists.numbers.get(&answer.names).copied();
            let (number, users) = known.unwrap_or_else(|| (self.lists.free(), 0));
            list = number;
            if users == 0
                && let Err(error) = self.write_list(list, &table)
            {
                self.remove_list(list, &table);
                return Err(error);
            }
            self.lists.numbers.insert(answer.names.clone(), (list, users + 1));
            self.lists.by_rule.insert(index, answer.names.clone());
        }
        let wire: Answer = wire::answer(answer, list, table.wilds.len());
        self.set("ANSWERS", index, wire)
    }

    /// Forgets what [`Object::set_answer`] wrote, and the list when nobody else has it.
    pub fn clear_answer(&mut self, index: u32) {
        let Some(names) = self.lists.by_rule.remove(&index) else { return };
        let Some((list, users)) = self.lists.numbers.get_mut(&names) else { return };
        *users -= 1;
        if *users == 0 {
            let list = *list;
            self.lists.numbers.remove(&names);
            self.remove_list(list, &NameTable::of(&names));
        }
    }

    fn write_list(&mut self, list: u32, table: &NameTable) -> Result<(), EngineError> {
        let mut names: LpmTrie<&mut MapData, [u8; LEN], u32> =
            LpmTrie::try_from(self.map_mut("NAMES")?).map_err(map_error("NAMES"))?;
        for (bits, key) in &table.keys {
            let key = Key::new(*bits, in_list(*key, list).bytes);
            names.insert(&key, 1, 0).map_err(map_error("NAMES"))?;
        }
        let mut wilds: HashMap<&mut MapData, u32, Pod<chaos_abi::dns::Wild>> =
            HashMap::try_from(self.map_mut("WILDS")?).map_err(map_error("WILDS"))?;
        for (number, wild) in (0..).zip(&table.wilds) {
            wilds.insert(wild_key(list, number), Pod(*wild), 0).map_err(map_error("WILDS"))?;
        }
        Ok(())
    }

    /// What is not there is removed.
    fn remove_list(&mut self, list: u32, table: &NameTable) {
        if let Ok(map) = self.map_mut("NAMES")
            && let Ok(mut names) = LpmTrie::<&mut MapData, [u8; LEN], u32>::try_from(map)
        {
            for (bits, key) in &table.keys {
                let _ = names.remove(&Key::new(*bits, in_list(*key, list).bytes));
            }
        }
        if let Ok(map) = self.map_mut("WILDS")
            && let Ok(mut wilds) =
                HashMap::<&mut MapData, u32, Pod<chaos_abi::dns::Wild>>::try_from(map)
        {
            for (number, _) in (0..).zip(&table.wilds) {
                let _ = wilds.remove(&wild_key(list, number));
            }
        }
    }
}

/// Bytes of a key.
const LEN: usize = LIST + chaos_abi::dns::TEXT;
