use serde_json::{Value, json};

use super::*;
use crate::api::finding::Findings;
use crate::fault::fixture::read_spec;
use crate::plan::strain::{Amount, CpuLoad, DiskLoad, Load, MemoryLoad};

fn read(more: &Value) -> (Option<StressChaos>, Findings) {
    read_spec(more, StressChaos::read)
}

fn load(more: &Value) -> Load {
    let (read, findings) = read(more);
    assert_eq!(findings.errors, [], "{more}");
    read.unwrap().load
}

fn refusal(more: &Value) -> String {
    let (_, findings) = read(more);
    assert_eq!(findings.errors.len(), 1, "{more}: {findings:?}");
    findings.errors[0].to_string()
}

fn cpu(workers: u32, percent: u32) -> Option<CpuLoad> {
    Some(CpuLoad { workers, percent })
}

#[test]
fn what_is_read_is_written_back() {
    for more in [
        json!({ "stressors": { "cpu": { "workers": 2, "load": 30 } } }),
        json!({ "stressors": { "cpu": { "workers": 1, "options": ["--cpu-method", "fft"] } } }),
        json!({
            "stressors": { "memory": {
                "workers": 4, "size": "256MB", "oomScoreAdj": -500, "options": ["--time", "10s"],
            } },
            "containerNames": ["app"], "duration": "30s",
            "kfault": { "memoryOf": "limit", "follow": true },
        }),
        json!({ "stressngStressors": "--cpu 2 --timeout 10s" }),
    ] {
        let (first, findings) = read(&more);
        assert_eq!(findings.errors, [], "{more}");
        let first = first.unwrap();
        let (second, _) = read(&first.json());
        assert_eq!(second, Some(first));
    }
}

#[test]
fn fields_and_options_come_to_a_load() {
    let both = json!({ "stressors": {
        "cpu": { "workers": 2, "load": 30, "options": ["--cpu-load=60", "-c3"] },
        "memory": { "workers": 2, "size": "256MB", "oomScoreAdj": 7, "options": ["--time 10s"] },
    } });
    let memory = MemoryLoad {
        workers: 2,
        size: Amount::Bytes(256_000_000),
        ramp_ns: 10_000_000_000,
        oom_score_adj: 7,
    };
    let want = Load { cpu: cpu(3, 60), memory: Some(memory), ..Load::default() };
    assert_eq!(load(&both), want);
    let full = json!({ "stressors": { "cpu": { "workers": 1 } } });
    assert_eq!(load(&full).cpu, cpu(1, 100));
}

#[test]
fn the_dialect_of_stress_ng_is_understood() {
    let line = json!({
        "stressngStressors":
            "stress-ng --cpu 2 -l 30 --vm 2 --vm-bytes 64m --vm-keep --io 1 --hdd 1 --hdd-bytes 1g -t 2m",
    });
    let (read, findings) = read(&line);
    assert_eq!(findings, Findings::default());
    let read = read.unwrap();
    assert_eq!(read.timeout, Some(std::time::Duration::from_secs(120)));
    let memory =
        MemoryLoad { workers: 2, size: Amount::Bytes(64 << 20), ramp_ns: 0, oom_score_adj: 0 };
    assert_eq!(
        read.load,
        Load {
            cpu: cpu(2, 30),
            memory: Some(memory),
            sync_workers: 1,
            disk: Some(DiskLoad { workers: 1, bytes: 1 << 30 }),
        }
    );
    // 0 is one for each processor, as in stress-ng.
    assert_eq!(load(&json!({ "stressngStressors": "--cpu 0" })).cpu, cpu(0, 100));
}

#[test]
fn an_unknown_option_is_refused_by_name_with_the_known_ones() {
    for (more, option) in [
        (json!({ "stressngStressors": "--fork 4" }), "--fork"),
        (
            json!({ "stressors": { "cpu": { "workers": 1, "options": ["--matrix", "1"] } } }),
            "--matrix",
        ),
        (
            json!({ "stressors": { "memory": { "workers": 1, "size": "1MB", "options": ["--x"] } } }),
            "--x",
        ),
    ] {
        let text = refusal(&more);
        assert!(text.contains(option) && text.contains("they know: --"), "{text}");
    }
    for line in ["--cpu", "--cpu many", "--cpu 9000", "--cpu-load 101 --cpu 1", "--cpu 1 -t soon"] {
        refusal(&json!({ "stressngStressors": line }));
    }
    refusal(&json!({ "stressngStressors": "--quiet" }));
}

#[test]
fn what_is_out_of_range_or_missing_is_refused_by_its_field() {
    for (stressors, field) in [
        (json!({ "cpu": { "workers": 8193 } }), "workers"),
        (json!({ "cpu": { "workers": -1 } }), "workers"),
        (json!({ "cpu": { "workers": 1, "load": 101 } }), "load"),
        (json!({ "cpu": { "load": 1 } }), "workers"),
        (json!({ "memory": { "workers": 1, "size": "much" } }), "size"),
        (json!({ "memory": { "workers": 1, "size": "101%" } }), "size"),
        (json!({ "memory": { "workers": 1, "size": "1MB", "oomScoreAdj": 1001 } }), "oomScoreAdj"),
        (json!({}), "stressors"),
    ] {
        let (_, findings) = read(&json!({ "stressors": stressors }));
        let [error] = findings.errors.as_slice() else { panic!("{stressors}: {findings:?}") };
        assert!(error.field().starts_with("spec.stressors"), "{error}");
        assert!(error.field().ends_with(field), "{error}");
    }
    let (_, findings) = read(&json!({}));
    assert_eq!(findings.errors[0].field(), "spec.stressors");
}

#[test]
fn what_has_no_effect_is_said() {
    for (more, field) in [
        (json!({ "stressors": { "cpu": { "workers": 0 } } }), "spec.stressors.cpu.workers"),
        (json!({ "stressors": { "memory": { "workers": 1 } } }), "spec.stressors.memory.size"),
        (
            json!({ "stressors": { "memory": { "workers": 1, "size": "25%" } } }),
            "spec.stressors.memory.size",
        ),
        (
            json!({ "stressors": { "cpu": { "workers": 1 } }, "stressngStressors": "--cpu 1" }),
            "spec.stressors",
        ),
        (json!({ "stressngStressors": "--cpu 1 --cpu-method fft" }), "spec.stressngStressors"),
    ] {
        let (_, findings) = read(&more);
        assert_eq!((findings.errors.len(), findings.warnings.len()), (0, 1), "{more}");
        assert_eq!(findings.warnings[0].field, field);
    }
}

#[test]
fn a_percentage_is_of_the_node_or_of_the_limit() {
    let size = |kfault: Value| {
        let memory = json!({ "memory": { "workers": 1, "size": "25%" } });
        load(&json!({ "stressors": memory, "kfault": kfault })).memory.unwrap().size
    };
    assert_eq!(size(json!({})), Amount::PercentOfNode(25.0));
    assert_eq!(size(json!({ "memoryOf": "node" })), Amount::PercentOfNode(25.0));
    assert_eq!(size(json!({ "memoryOf": "limit" })), Amount::PercentOfLimit(25.0));
}
