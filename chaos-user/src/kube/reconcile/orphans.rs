//! NodeFaults whose experiment exists no more: dropped by force, say. Their agents let them go;
//! where there is no agent any more, nobody would.

use jiff::Timestamp;
use kube::ResourceExt;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use super::super::cache::{Cache, Name};
use super::super::events::Teller;
use super::super::{KubeError, objects};
use super::{Outcome, ask::unless_gone, is_silent};

/// What is left of an experiment on nodes that say nothing.
#[derive(Debug)]
pub struct Orphans {
    namespace: String,
    names: Vec<String>,
}

impl Orphans {
    /// Those of an experiment that exists no more; `None` where there are none.
    #[must_use]
    pub fn new(cache: &Cache, name: &Name, now: Timestamp) -> Option<Self> {
        let faults = cache.faults_of(name).into_iter().filter(|(node, fault)| {
            fault.object.metadata.deletion_timestamp.is_some() && is_silent(cache, node, now)
        });
        let names: Vec<String> = faults.map(|(_, fault)| fault.object.name_any()).collect();
        let namespace = objects::split(&name.key).0.to_owned();
        (!names.is_empty()).then_some(Self { namespace, names })
    }

    /// Lets them go.
    ///
    /// # Errors
    /// [`KubeError`]; the look is to be repeated.
    pub async fn act(self, teller: &Teller) -> Result<Outcome, KubeError> {
        let api = objects::of(&teller.client, &objects::node_faults(), &self.namespace);
        let patch = json!({ "metadata": { "finalizers": null } });
        for name in &self.names {
            let patched = api.patch(name, &PatchParams::default(), &Patch::Merge(&patch)).await;
            unless_gone(patched.map(drop), || format!("let the NodeFault {name} go"))?;
        }
        Ok(Outcome::default())
    }
}
