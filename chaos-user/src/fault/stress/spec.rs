//! The fields of a load: reading them, defaulting them, writing them back.

use std::time::Duration;

use serde_json::{Value, json};

use super::dialect::{self, Program, Wishes};
use crate::api::bytes::Bytes;
use crate::api::duration::GoDuration;
use crate::api::fields::Fields;
use crate::api::finding::Findings;
use crate::api::written::Written;
use crate::fault::{Choice, read_duration};
use crate::plan::strain::{Amount, CpuLoad, DiskLoad, Load, MemoryLoad};

/// `spec` of the kind, defaults filled in.
#[derive(Clone, Debug, PartialEq)]
pub struct StressChaos {
    /// Who is hit.
    pub source: Choice,
    /// `stressors.cpu`.
    pub cpu: Option<Cpu>,
    /// `stressors.memory`.
    pub memory: Option<Memory>,
    /// `stressngStressors`: a line of options, which counts in place of `stressors`.
    pub line: Option<String>,
    /// Which containers; none: the first of each pod.
    pub container_names: Vec<String>,
    /// How long; `None`: until recovered.
    pub duration: Option<Written<GoDuration>>,
    /// What this project adds to the kind.
    pub kfault: Extension,
    /// What all of it comes to.
    pub load: Load,
    /// When the workers end by themselves, as their options have it.
    pub timeout: Option<Duration>,
}

/// `stressors.cpu`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cpu {
    /// How many work at it.
    pub workers: u32,
    /// How busy each keeps one processor, percent. `None`: 100.
    pub load: Option<u32>,
    /// Options of stress-ng.
    pub options: Vec<String>,
}

/// `stressors.memory`.
#[derive(Clone, Debug, PartialEq)]
pub struct Memory {
    /// How many work at it.
    pub workers: u32,
    /// How much they take together.
    pub size: Option<Written<Bytes>>,
    /// How willingly the kernel ends them when memory is short.
    pub oom_score_adj: i32,
    /// Options of the memory worker.
    pub options: Vec<String>,
}

/// `spec.kfault`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Extension {
    /// What a percentage of memory is of: the container's limit, or (`None`: not given) the node.
    pub memory_of: Option<MemoryOf>,
    /// Act on workloads that appear later, too (clusters only).
    pub follow: bool,
}

/// What a percentage of memory is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemoryOf {
    /// All memory of the node, as the public API has it.
    Node,
    /// The container's limit.
    Limit,
}

const MEMORY_OF: [(&str, MemoryOf); 2] = [("node", MemoryOf::Node), ("limit", MemoryOf::Limit)];
/// Most workers, as the API has it.
const MOST: u64 = 8192;
const SIZE: &str = "write a size, for example \"256MB\", or a percentage, for example \"25%\"";
/// Size of a file that is written where the options do not say, bytes.
const FILE: u64 = 64 << 20;

impl StressChaos {
    /// Reads `spec`; `namespace` is the object's own.
    pub fn read(mut fields: Fields<'_>, namespace: &str, findings: &mut Findings) -> Option<Self> {
        let source = Choice::read(&mut fields, namespace, findings);
        let has_stressors = fields.has("stressors");
        let (cpu, memory) = stressors(&mut fields, findings);
        let line = fields.text("stressngStressors", findings).filter(|text| !text.is_empty());
        if !has_stressors && line.is_none() {
            let reason = "what is to be loaded: cpu, memory or both (or a line of stress-ng's \
                          options in spec.stressngStressors)";
            findings.missing("spec.stressors", reason);
        }
        let container_names = fields.texts("containerNames", findings);
        let duration = read_duration(&mut fields, findings);
        if let Some(name) = fields.text("remoteCluster", findings).filter(|name| !name.is_empty()) {
            let way_out = "apply the experiment in that cluster itself";
            findings.unsupported("spec.remoteCluster", &name, way_out);
        }
        let kfault = Extension::read(&mut fields, findings);
        fields.finish(findings);
        let mut spec = Self {
            source: source?,
            cpu,
            memory,
            line: line.map(str::to_owned),
            container_names,
            duration,
            kfault,
            load: Load::default(),
            timeout: None,
        };
        spec.understand(findings);
        Some(spec)
    }

    /// Works out what the fields come to.
    fn understand(&mut self, findings: &mut Findings) {
        if let Some(line) = self.line.clone() {
            const PATH: &str = "spec.stressngStressors";
            if self.cpu.is_some() || self.memory.is_some() {
                let message = "has no effect: spec.stressngStressors counts in its place";
                findings.warn("spec.stressors", message);
            }
            let wishes = dialect::read(Program::StressNg, line.split_whitespace(), PATH, findings);
            self.take(&wishes, PATH, findings);
            if self.load == Load::default() && findings.errors.is_empty() {
                let reason = "asks for no worker; name some, for example \"--cpu 2 --cpu-load 30\"";
                findings.invalid(PATH, &line, reason);
            }
            return;
        }
        if let Some(cpu) = self.cpu.clone() {
            const PATH: &str = "spec.stressors.cpu.options";
            let options = cpu.options.iter().flat_map(|text| text.split_whitespace());
            let wishes = dialect::read(Program::StressNg, options, PATH, findings);
            let wishes = Wishes {
                // Later ones count, as on a command line.
                cpu: wishes.cpu.or((cpu.workers > 0).then_some(cpu.workers)),
                cpu_load: wishes.cpu_load.or(cpu.load),
                ..wishes
            };
            if cpu.workers == 0 && wishes.cpu.is_none() {
                findings.warn("spec.stressors.cpu.workers", "is 0: no processor is loaded");
            }
            self.take(&wishes, PATH, findings);
        }
        if let Some(memory) = self.memory.clone() {
            const PATH: &str = "spec.stressors.memory.options";
            let options = memory.options.iter().flat_map(|text| text.split_whitespace());
            let wishes = dialect::read(Program::MemStress, options, PATH, findings);
            let workers = wishes.vm.unwrap_or(memory.workers);
            let size = wishes.vm_bytes.or(memory.size.as_ref().map(|size| size.value));
            if workers == 0 {
                findings.warn("spec.stressors.memory.workers", "is 0: no memory is taken");
                return;
            }
            let Some(size) = size else {
                findings.warn("spec.stressors.memory.size", "is not given: no memory is taken");
                return;
            };
            let ramp = wishes.ramp.unwrap_or_default();
            self.load.memory = Some(MemoryLoad {
                workers,
                size: self.amount(size, "spec.stressors.memory.size", findings),
                ramp_ns: u64::try_from(ramp.as_nanos()).unwrap_or(u64::MAX),
                oom_score_adj: memory.oom_score_adj,
            });
        }
    }

    fn take(&mut self, wishes: &Wishes, path: &str, findings: &mut Findings) {
        if let Some(workers) = wishes.cpu {
            let percent = wishes.cpu_load.unwrap_or(100);
            if percent == 0 {
                findings.warn(path, "a load of 0 %: the workers do nothing");
            }
            self.load.cpu = Some(CpuLoad { workers, percent });
        }
        if let Some(workers) = wishes.vm {
            // stress-ng's own size where none is given.
            let size = wishes.vm_bytes.unwrap_or(Bytes::Count(256 << 20));
            let size = self.amount(size, path, findings);
            self.load.memory = Some(MemoryLoad { workers, size, ramp_ns: 0, oom_score_adj: 0 });
        }
        if let Some(workers) = wishes.io {
            self.load.sync_workers = workers.max(1);
        }
        if let Some(workers) = wishes.hdd {
            let bytes = wishes.hdd_bytes.unwrap_or(FILE);
            self.load.disk = Some(DiskLoad { workers: workers.max(1), bytes });
        }
        self.timeout = wishes.timeout;
    }

    fn amount(&self, bytes: Bytes, path: &str, findings: &mut Findings) -> Amount {
        match (bytes, self.kfault.memory_of) {
            (Bytes::Count(count), _) => Amount::Bytes(count),
            (Bytes::Percent(percent), Some(MemoryOf::Limit)) => {
                Amount::PercentOfLimit(percent.into())
            }
            (Bytes::Percent(percent), given) => {
                if given.is_none() {
                    let message = format!(
                        "is {percent} % of the node's memory, as the API has it, not of the \
                         container's limit; spec.kfault.memoryOf: limit means the limit, node \
                         silences this"
                    );
                    findings.warn(path, message);
                }
                Amount::PercentOfNode(percent.into())
            }
        }
    }

    /// `spec` with its defaults, as a manifest writes it. Reads back to an equal value.
    #[must_use]
    pub fn json(&self) -> Value {
        let mut value = json!(self.source);
        if let Some(Cpu { workers, load, options }) = &self.cpu {
            let cpu = &mut value["stressors"]["cpu"];
            cpu["workers"] = json!(workers);
            if let Some(load) = load {
                cpu["load"] = json!(load);
            }
            if !options.is_empty() {
                cpu["options"] = json!(options);
            }
        }
        if let Some(Memory { workers, size, oom_score_adj, options }) = &self.memory {
            let memory = &mut value["stressors"]["memory"];
            memory["workers"] = json!(workers);
            if let Some(size) = size {
                memory["size"] = json!(size);
            }
            if *oom_score_adj != 0 {
                memory["oomScoreAdj"] = json!(oom_score_adj);
            }
            if !options.is_empty() {
                memory["options"] = json!(options);
            }
        }
        if let Some(line) = &self.line {
            value["stressngStressors"] = json!(line);
        }
        if !self.container_names.is_empty() {
            value["containerNames"] = json!(self.container_names);
        }
        if let Some(duration) = &self.duration {
            value["duration"] = json!(duration);
        }
        if let Some(kfault) = self.kfault.json() {
            value["kfault"] = kfault;
        }
        value
    }
}

fn stressors(fields: &mut Fields<'_>, findings: &mut Findings) -> (Option<Cpu>, Option<Memory>) {
    let Some(mut fields) = fields.object("stressors", findings) else { return (None, None) };
    if !fields.has("cpu") && !fields.has("memory") {
        findings.missing("spec.stressors", "cpu or memory: missing stressors");
    }
    let cpu = fields.object("cpu", findings).and_then(|mut fields| {
        fields.require("workers", "how many work at it, 0 to 8192", findings);
        let workers = fields.number("workers", 0, MOST, findings);
        let load = fields.number("load", 0, 100, findings);
        let options = fields.texts("options", findings);
        fields.finish(findings);
        let load = load.and_then(|load| u32::try_from(load).ok());
        Some(Cpu { workers: u32::try_from(workers?).ok()?, load, options })
    });
    let memory = fields.object("memory", findings).and_then(|mut fields| {
        fields.require("workers", "how many work at it, 0 to 8192", findings);
        let workers = fields.number("workers", 0, MOST, findings);
        // An empty text is as good as none.
        let is_empty = matches!(fields.value("size"), Some(Value::String(text)) if text.is_empty());
        let size = if is_empty { None } else { fields.parsed("size", SIZE, findings) };
        let score = fields.integer("oomScoreAdj", -1000, 1000, findings).unwrap_or_default();
        let options = fields.texts("options", findings);
        fields.finish(findings);
        Some(Memory {
            workers: u32::try_from(workers?).ok()?,
            size,
            oom_score_adj: i32::try_from(score).unwrap_or_default(),
            options,
        })
    });
    fields.finish(findings);
    (cpu, memory)
}

impl Extension {
    fn read(parent: &mut Fields<'_>, findings: &mut Findings) -> Self {
        let Some(mut fields) = parent.object("kfault", findings) else { return Self::default() };
        let extension = Self {
            memory_of: fields.word("memoryOf", &MEMORY_OF, findings),
            follow: fields.switch("follow", findings).unwrap_or_default(),
        };
        fields.finish(findings);
        extension
    }

    fn json(&self) -> Option<Value> {
        let mut value = json!({});
        if let Some(of) = self.memory_of {
            let word = MEMORY_OF.iter().find(|(_, value)| *value == of);
            value["memoryOf"] = json!(word.map(|(word, _)| word));
        }
        if self.follow {
            value["follow"] = json!(true);
        }
        (value != json!({})).then_some(value)
    }
}
