//! `status.instances`: by record, what acts there.

use std::collections::BTreeMap;

use kube::ResourceExt;
use serde_json::{Value, json};

use super::super::cache;
use super::Look;
use crate::api::status::Status;
use crate::fault::Fault;
use crate::fault::stress::StressChaos;

impl Look {
    /// By record's id, what asks for its fault or who works there, for as long as that acts.
    pub(super) fn instances(&self, status: &Status) -> BTreeMap<String, Value> {
        let records = status.experiment.container_records.iter().flatten();
        let acting = records.filter(|record| record.phase.is_injected());
        match self.parsed.experiment.as_ref().map(|experiment| &experiment.fault) {
            Some(Fault::Network(_)) => acting
                .filter_map(|record| {
                    let identity = self.identity(&record.id);
                    let (fault, _) = self.task(&record.selector_key, identity)?;
                    let generation = fault.object.metadata.generation.unwrap_or_default();
                    Some((record.id.clone(), json!(generation)))
                })
                .collect(),
            Some(Fault::Stress(spec)) => acting
                .filter_map(|record| Some((record.id.clone(), self.workers(spec, &record.id)?)))
                .collect(),
            _ => BTreeMap::new(),
        }
    }

    /// Who loads a container and since when, as the API tells it.
    fn workers(&self, spec: &StressChaos, record: &str) -> Option<Value> {
        let of = |fault: &cache::Fault| {
            let strain = fault.status.strains.iter().find(|strain| strain.record == record)?;
            Some((fault.object.uid().unwrap_or_default(), strain.since?))
        };
        let (uid, since) = self.faults.values().find_map(of)?;
        let mut instance = json!({});
        if spec.load.cpu.is_some() {
            instance["uid"] = json!(format!("{uid}/cpu"));
            instance["startTime"] = json!(since);
        }
        if spec.load.memory.is_some() {
            instance["memoryUid"] = json!(format!("{uid}/memory"));
            instance["memoryStartTime"] = json!(since);
        }
        Some(instance)
    }
}
