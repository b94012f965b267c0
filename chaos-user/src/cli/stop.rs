//! `kfault stop`: ends what acts on a cluster, and waits until it has recovered.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::args::{Output, Stop};
use super::clock;
use super::exit::Exit;
use super::session::Signals;
use super::{cluster, complain, say};
use crate::api::kind::{Kind, SCHEDULE};
use crate::engine::chain;
use crate::kube::cache::Name;
use crate::kube::stop::{Look, Means, Scope, Standing, Stopper, id};
use crate::kube::{Client, client};

/// How often is looked.
const LOOK: Duration = Duration::from_millis(500);
/// How often is said what is waited for.
const PROGRESS: Duration = Duration::from_secs(5);
/// A schedule that was about to start something when it was asked to stop has done so by then.
const CALM: Duration = Duration::from_millis(1500);

/// Runs the command.
pub fn stop(args: &Stop) -> Exit {
    cluster::run("stop", async move {
        let mut voice = Voice::new(args);
        let done = match end(args, &mut voice).await {
            Ok(()) => Ok(()),
            Err((exit, message)) => {
                voice.event("failed", None, json!({ "exit": exit.code(), "error": message }));
                Err((exit, message))
            }
        };
        let exit = done.as_ref().map_or_else(|(exit, _)| *exit, |()| Exit::Done);
        voice.summary(exit);
        done
    })
}

async fn end(args: &Stop, voice: &mut Voice) -> Result<(), (Exit, String)> {
    let client: Client = client().await.map_err(|error| (Exit::Unable, chain(&error)))?;
    let mut signals = Signals::catch().map_err(|e| (Exit::Failed, format!("cannot start: {e}")))?;
    let scope = match args.objects.as_slice() {
        [] => Scope::All(args.namespace.clone()),
        names => Scope::These(names.to_vec()),
    };
    let means = if args.delete { Means::Delete } else { Means::Pause };
    let mut stopper = Stopper::new(client, scope, means);
    let missing = stopper.missing().await.map_err(|error| (Exit::Unable, chain(&error)))?;
    if !missing.is_empty() {
        let names: Vec<String> = missing.iter().map(id).collect();
        return Err((Exit::Refused, format!("there is no {}", names.join(", no "))));
    }
    let work = watch(&mut stopper, args.timeout, voice);
    tokio::select! {
        done = work => done,
        () = signals.next() => {
            Err((Exit::Interrupted, "interrupted; what was asked to end still ends".to_owned()))
        }
    }
}

/// Asks and looks until everything has ended.
async fn watch(
    stopper: &mut Stopper,
    timeout: Duration,
    voice: &mut Voice,
) -> Result<(), (Exit, String)> {
    let start = Instant::now();
    let mut said = start;
    let mut calm: Option<Instant> = None;
    loop {
        let (is_asking, pending) = match stopper.look().await {
            Ok(look) => {
                voice.take(&look);
                (!look.asked.is_empty(), voice.pending())
            }
            Err(error) if !stopper.has_asked => return Err((Exit::Unable, chain(&error))),
            Err(error) => (true, vec![chain(&error)]),
        };
        if is_asking || !pending.is_empty() {
            calm = None;
        }
        if pending.is_empty() && !is_asking {
            let since = *calm.get_or_insert_with(Instant::now);
            if !stopper.has_asked || since.elapsed() >= CALM {
                return voice.verdict();
            }
        }
        if start.elapsed() >= timeout {
            let waited = clock::for_people(timeout);
            let what = pending.join("; ");
            let message = format!(
                "not over after {waited}: {what}. Is the controller running? It goes on ending them; \
                 --timeout waits longer"
            );
            return Err((Exit::Failed, message));
        }
        if said.elapsed() >= PROGRESS && !pending.is_empty() {
            said = Instant::now();
            complain(&format!("stop: waiting for {}", pending.join("; ")));
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// What is said, to whom, and what was seen so far.
struct Voice {
    output: Output,
    means: Means,
    seen: BTreeMap<Name, Standing>,
}

impl Voice {
    fn new(args: &Stop) -> Self {
        let means = if args.delete { Means::Delete } else { Means::Pause };
        Self { output: args.output, means, seen: BTreeMap::new() }
    }

    /// Says what is new.
    fn take(&mut self, look: &Look) {
        for name in &look.asked {
            let word = if self.means == Means::Pause { "paused" } else { "deleted" };
            self.tell(word, name, "");
        }
        for (name, standing) in &look.all {
            let before = self.seen.insert(name.clone(), standing.clone());
            if before.as_ref() == Some(standing) {
                continue;
            }
            match standing {
                Standing::Ended => self.tell("recovered", name, ""),
                Standing::Done => {
                    let why = "it was over when it was done: nothing to pause or to recover";
                    self.tell("skipped", name, why);
                }
                Standing::Unstoppable(why) => self.tell("skipped", name, why),
                Standing::Ending(_) => {}
            }
        }
        let is_there = |name: &Name| look.all.iter().any(|(other, _)| other == name);
        let gone: Vec<Name> = self
            .seen
            .iter()
            .filter(|(name, standing)| **standing != Standing::Ended && !is_there(name))
            .map(|(name, _)| name.clone())
            .collect();
        for name in gone {
            self.tell("recovered", &name, "it is gone");
            self.seen.insert(name, Standing::Ended);
        }
    }

    /// What has not ended yet, in words.
    fn pending(&self) -> Vec<String> {
        let all = self.seen.iter().filter_map(|(name, standing)| match standing {
            Standing::Ending(why) => Some(format!("{} ({why})", id(name))),
            _ => None,
        });
        all.collect()
    }

    /// Nothing is waited for any more: is that good?
    fn verdict(&self) -> Result<(), (Exit, String)> {
        let all = self.seen.iter().filter_map(|(name, standing)| match standing {
            Standing::Unstoppable(why) => Some(format!("{}: {why}", id(name))),
            _ => None,
        });
        let all: Vec<String> = all.collect();
        if all.is_empty() { Ok(()) } else { Err((Exit::Failed, all.join("; "))) }
    }

    fn tell(&self, word: &str, name: &Name, why: &str) {
        let more = if why.is_empty() { json!({}) } else { json!({ "reason": why }) };
        self.event(word, Some(name), more);
        if self.output == Output::Text {
            let why = if why.is_empty() { String::new() } else { format!(": {why}") };
            say(&format!("{word:<9} {}{why}", id(name)));
        }
    }

    fn event(&self, word: &str, name: Option<&Name>, more: Value) {
        if self.output != Output::Json {
            return;
        }
        let mut event = json!({
            "event": word,
            "time": clock::now(),
            "experiment": name.map(id),
        });
        for (key, value) in more.as_object().into_iter().flatten() {
            event[key] = value.clone();
        }
        say(&event.to_string());
    }

    fn summary(&self, exit: Exit) {
        let of = |wanted: fn(&Standing) -> bool| -> Vec<String> {
            let all = self.seen.iter().filter(|(_, standing)| wanted(standing));
            all.map(|(name, _)| id(name)).collect()
        };
        let ended = of(|standing| *standing == Standing::Ended);
        let skipped = of(|it| matches!(it, Standing::Done | Standing::Unstoppable(_)));
        let pending = of(|standing| matches!(standing, Standing::Ending(_)));
        if self.output == Output::Text && exit == Exit::Done {
            say(&if self.seen.is_empty() {
                "Nothing to stop: there is no experiment and no schedule.".to_owned()
            } else {
                let (ended, skipped) = (ended.len(), skipped.len());
                format!("Nothing acts any more: {ended} recovered, {skipped} skipped.")
            });
        }
        self.event(
            "summary",
            None,
            json!({
                "exit": exit.code(), "recovered": ended, "skipped": skipped, "pending": pending,
            }),
        );
    }
}

/// Reads `KIND/NAMESPACE/NAME`.
pub fn object(text: &str) -> Result<Name, String> {
    const WAY_OUT: &str = "write KIND/NAMESPACE/NAME, for example networkchaos/default/web-delay";
    let parts: Vec<&str> = text.split('/').collect();
    let [kind, namespace, name] = parts.as_slice() else { return Err(WAY_OUT.to_owned()) };
    if namespace.is_empty() || name.is_empty() {
        return Err(WAY_OUT.to_owned());
    }
    let singular = if kind.eq_ignore_ascii_case("schedules") { SCHEDULE } else { kind };
    let known = Kind::nearly(singular).and_then(Kind::find);
    let known = known.filter(|kind| kind.is_experiment() || kind.name() == SCHEDULE);
    let Some(known) = known else {
        let mut all: Vec<&str> = Kind::experiments().map(Kind::name).collect();
        all.push(SCHEDULE);
        return Err(format!("{kind} is no kind that can be stopped; there are {}", all.join(", ")));
    };
    Ok(Name { kind: known.name(), key: format!("{namespace}/{name}") })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn voice() -> Voice {
        Voice { output: Output::Json, means: Means::Delete, seen: BTreeMap::new() }
    }

    fn look(all: &[(&str, Standing)]) -> Look {
        let all = all.iter().map(|(text, standing)| (object(text).unwrap(), standing.clone()));
        Look { asked: Vec::new(), all: all.collect() }
    }

    #[test]
    fn objects_are_named_as_kubectl_names_them() {
        let name = object("networkchaos/default/web-delay").unwrap();
        assert_eq!(id(&name), format!("{}/default/web-delay", Kind::Network.name()));
        assert_eq!(object("schedules/shop/often").unwrap().kind, SCHEDULE);
        for wrong in ["web-delay", "networkchaos/web-delay", "networkchaos//x", "pod/a/b"] {
            assert!(object(wrong).is_err(), "{wrong}");
        }
        assert!(object("workflow/a/b").unwrap_err().contains(SCHEDULE));
    }

    #[test]
    fn what_is_gone_has_recovered_and_what_is_there_is_waited_for() {
        let mut voice = voice();
        let ending = || Standing::Ending("1 of 1 targets not recovered".to_owned());
        voice.take(&look(&[("networkchaos/n/a", ending()), ("schedule/n/b", ending())]));
        assert_eq!(voice.pending().len(), 2);
        voice.take(&look(&[("networkchaos/n/a", ending())]));
        assert_eq!(voice.pending().len(), 1);
        assert!(voice.pending()[0].contains("n/a (1 of 1 targets"));
        voice.take(&look(&[]));
        assert!(voice.pending().is_empty());
        assert_eq!(voice.verdict(), Ok(()));
    }

    #[test]
    fn what_cannot_be_stopped_is_a_failure_and_what_is_done_is_none() {
        let mut voice = voice();
        voice.take(&look(&[("podchaos/n/a", Standing::Done)]));
        assert_eq!(voice.verdict(), Ok(()));
        voice.take(&look(&[("podchaos/n/a", Standing::Unstoppable("why".to_owned()))]));
        assert_eq!(voice.verdict().unwrap_err().0, Exit::Failed);
    }
}
