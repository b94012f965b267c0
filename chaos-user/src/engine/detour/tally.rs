//! What the detour counts.

use std::collections::BTreeMap;

use crate::engine::message::{Armed, Note, Odd};

/// What was counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Responses that each exchange means.
    pub meant: BTreeMap<usize, u64>,
    /// Messages that became what their edits ask for.
    pub edited: u64,
    /// Those that each exchange has acted on.
    pub acted: BTreeMap<usize, u64>,
    /// Bodies that could not be patched.
    pub unpatched: u64,
    /// Those that each exchange would have patched.
    pub left: BTreeMap<usize, u64>,
    /// Responses that each exchange may mean, and that were not understood.
    pub unread: BTreeMap<usize, u64>,
    /// Connections that pass as they are, by reason.
    pub odd: BTreeMap<Odd, u64>,
    /// Connections that were let go because memory was short.
    pub overrun: u64,
    /// Connections that were cut because they took nothing and memory was short.
    pub cut: u64,
}

impl Tally {
    /// `meant`: the exchanges that mean the message that is under way.
    pub fn note(&mut self, note: Note, armed: &[Armed], meant: &mut Vec<usize>) {
        let patches = |i: usize| {
            let edit = armed.get(i).and_then(|armed| armed.edit.as_ref());
            edit.is_some_and(|edit| edit.patch.body.is_some())
        };
        match note {
            Note::Meant(i) => {
                *self.meant.entry(i).or_default() += 1;
                meant.push(i);
            }
            Note::Edited => {
                self.edited += 1;
                meant.drain(..).for_each(|i| *self.acted.entry(i).or_default() += 1);
            }
            Note::Unpatched(_) => {
                self.unpatched += 1;
                for i in meant.drain(..) {
                    let which = if patches(i) { &mut self.left } else { &mut self.acted };
                    *which.entry(i).or_default() += 1;
                }
            }
            Note::MethodStays => {}
            Note::Odd(odd) => *self.odd.entry(odd).or_default() += 1,
        }
    }
}
