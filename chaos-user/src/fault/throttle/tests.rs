use serde_json::{Value, json};

use super::*;
use crate::api::finding::Findings;
use crate::fault::fixture::read_spec;
use crate::plan::strain::{Amount, CpuQuota, IoLimit, Limits};

fn read(more: &Value) -> (Option<ThrottleChaos>, Findings) {
    read_spec(more, ThrottleChaos::read)
}

#[test]
fn what_is_read_is_written_back() {
    for more in [
        json!({ "cpu": { "quota": "20%" } }),
        json!({ "cpu": { "quota": "50%", "of": "limit" }, "pids": { "max": 20 } }),
        json!({ "memory": { "high": "64Mi" }, "duration": "30s", "containerNames": ["a"] }),
        json!({ "io": { "readBps": "1Mi", "writeIops": 10, "devices": ["8:0", "/dev/sda"] } }),
        json!({ "network": { "rate": "1mbit" }, "follow": true }),
        json!({ "freeze": true }),
    ] {
        let (first, findings) = read(&more);
        assert_eq!(findings, Findings::default(), "{more}");
        let first = first.unwrap();
        let (second, _) = read(&first.json());
        assert_eq!(second, Some(first));
    }
}

#[test]
fn fields_come_to_limits() {
    let limits = |more: Value| read(&more).0.unwrap().limits;
    let cpu = |quota: &str, of: &str| limits(json!({ "cpu": { "quota": quota, "of": of } })).cpu;
    assert_eq!(cpu("150%", "processor"), Some(CpuQuota::PercentOfOne(150.0)));
    assert_eq!(cpu("12.5%", "limit"), Some(CpuQuota::PercentOfLimit(12.5)));
    let high = |high: &str| limits(json!({ "memory": { "high": high } })).memory_high;
    assert_eq!(high("1.5Gi"), Some(Amount::Bytes(3 << 29)));
    assert_eq!(high("50%"), Some(Amount::PercentOfLimit(50.0)));
    let io = json!({ "io": { "readBps": "1k", "devices": ["8:16", "8:0", "8:0"] } });
    let disk =
        |n: &str| IoLimit { device: Some(n.into()), read_bps: Some(1000), ..IoLimit::default() };
    let want = Limits { io: vec![disk("8:0"), disk("8:16")], ..Limits::default() };
    assert_eq!(limits(io), want);
}

#[test]
fn what_is_out_of_range_or_missing_is_refused_by_its_field() {
    for (more, field) in [
        (json!({}), "spec"),
        (json!({ "cpu": {} }), "spec.cpu.quota"),
        (json!({ "cpu": { "quota": "20" } }), "spec.cpu.quota"),
        (json!({ "cpu": { "quota": "0%" } }), "spec.cpu.quota"),
        (json!({ "cpu": { "quota": "120%", "of": "limit" } }), "spec.cpu.quota"),
        (json!({ "cpu": { "quota": "20%", "of": "node" } }), "spec.cpu.of"),
        (json!({ "memory": { "high": "64MB" } }), "spec.memory.high"),
        (json!({ "memory": { "high": "101%" } }), "spec.memory.high"),
        (json!({ "memory": { "high": "0" } }), "spec.memory.high"),
        (json!({ "io": {} }), "spec.io"),
        (json!({ "io": { "readBps": "1Mi", "devices": ["sda"] } }), "spec.io.devices"),
        (json!({ "io": { "readIops": 0 } }), "spec.io.readIops"),
        (json!({ "pids": { "max": -1 } }), "spec.pids.max"),
        (json!({ "network": { "rate": "0mbit" } }), "spec.network.rate"),
        (json!({ "freeze": "yes" }), "spec.freeze"),
    ] {
        let (_, findings) = read(&more);
        let errors: Vec<_> = findings.errors.iter().map(|error| error.field()).collect();
        assert_eq!(errors, [field], "{more}: {findings:?}");
    }
}

#[test]
fn what_has_no_effect_is_said() {
    for more in [json!({ "freeze": false }), json!({ "freeze": true, "pids": { "max": 3 } })] {
        let (_, findings) = read(&more);
        assert_eq!((findings.errors.len(), findings.warnings.len()), (0, 1), "{more}");
    }
}
