//! A container by its id, the beginning of one, or its name.

use super::container;
use super::local::{Host, LISTED, Scope, there_is};
use super::word::Word;
use super::{NodeError, process, some_of};

impl Host {
    /// The container that a word means.
    pub(super) fn container(&self, word: &Word, name: &str) -> Result<Scope, NodeError> {
        let paths = self.cgroups(word)?;
        let known = container::containers(&paths);
        let by_name = container::ids_by_name(&self.roots.docker, name);
        let is_match = |id: &str| {
            by_name.iter().any(|found| found == id)
                || container::may_be_id(name) && id.starts_with(name)
        };
        let hits: Vec<&(&str, &str)> = known.iter().filter(|(id, _)| is_match(id)).collect();
        let short = |id: &str| id.chars().take(12).collect::<String>();
        match hits.as_slice() {
            [(_, path)] => {
                let scope = self.of_cgroup(word.to_string(), path)?;
                let leader = process::first(&self.roots.proc, &self.pids_in_cgroup(path)?);
                Ok(Scope { leader: leader.unwrap_or_default(), ..scope })
            }
            [] if by_name.is_empty() => Err(NodeError::Nothing {
                word: word.to_string(),
                there_is: format!(
                    "{} (names are known for Docker only; elsewhere give the id)",
                    there_is("containers", known.iter().map(|(id, _)| short(id)))
                ),
            }),
            [] => Err(NodeError::Nothing {
                word: word.to_string(),
                there_is: format!(
                    "container {} has no cgroup below {}: it does not run, or its runtime uses \
                     other hierarchies only (target its process with pid:N then)",
                    short(&by_name[0]),
                    self.tree(word)?.mount().display()
                ),
            }),
            several => Err(NodeError::Ambiguous {
                word: word.to_string(),
                candidates: some_of(
                    &several.iter().map(|(id, _)| short(id)).collect::<Vec<_>>(),
                    LISTED,
                ),
                way_out: "give more of the id",
            }),
        }
    }
}
