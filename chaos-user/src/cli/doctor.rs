//! `kfault doctor`: what this kernel can do, by trying.

use std::fmt::Write as _;

use serde_json::json;

use super::args::{Doctor, Output};
use super::exit::Exit;
use super::say;
use crate::engine::probe::{self, Mechanism, State};

/// Runs the command.
pub fn doctor(args: &Doctor) -> Exit {
    let Doctor { output } = args;
    let mechanisms = probe::probe_all();
    let kernel = kernel();
    match output {
        Output::Json => say(&as_json(&kernel, &mechanisms).to_string()),
        Output::Text => say(as_text(&kernel, &mechanisms).trim_end()),
    }
    Exit::Done
}

/// The running kernel's release.
#[must_use]
pub fn kernel() -> String {
    std::fs::read_to_string("/proc/sys/kernel/osrelease")
        .map_or_else(|_| "unknown".into(), |release| release.trim().to_owned())
}

fn word(state: &State) -> &'static str {
    match state {
        State::Works => "works",
        State::Missing => "missing",
        State::Refused => "refused",
    }
}

fn as_json(kernel: &str, mechanisms: &[Mechanism]) -> serde_json::Value {
    let mechanisms: Vec<_> = mechanisms
        .iter()
        .map(|m| {
            json!({"name": m.name, "state": word(&m.state), "reason": m.reason, "serves": m.serves})
        })
        .collect();
    json!({"kernel": kernel, "mechanisms": mechanisms})
}

fn as_text(kernel: &str, mechanisms: &[Mechanism]) -> String {
    let width = mechanisms.iter().map(|m| m.name.chars().count()).max().unwrap_or(0).max(9);
    let mut text = format!("kernel {kernel}\n\n{:width$}  {:7}  SERVES\n", "MECHANISM", "STATE");
    for m in mechanisms {
        let serves = m.serves.join(", ");
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{:width$}  {:7}  {serves}", m.name, word(&m.state));
        if !m.reason.is_empty() {
            let _ = writeln!(text, "{:width$}  {:7}  {}", "", "", m.reason);
        }
    }
    let count = |state: &str| mechanisms.iter().filter(|m| word(&m.state) == state).count();
    let _ = writeln!(
        text,
        "\n{} work, {} missing, {} refused. A fault without any working mechanism is refused by \
         `kfault run` with exit code 3.",
        count("works"),
        count("missing"),
        count("refused"),
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some() -> Vec<Mechanism> {
        vec![
            Mechanism {
                name: "tcx",
                state: State::Works,
                reason: String::new(),
                serves: vec!["delay", "loss"],
            },
            Mechanism {
                name: "sch_fq",
                state: State::Missing,
                reason: "CONFIG_NET_SCH_FQ is not set".into(),
                serves: vec!["delay"],
            },
        ]
    }

    #[test]
    fn json_follows_the_contract() {
        assert_eq!(
            as_json("6.12", &some()),
            json!({"kernel": "6.12", "mechanisms": [
                {"name": "tcx", "state": "works", "reason": "", "serves": ["delay", "loss"]},
                {"name": "sch_fq", "state": "missing", "reason": "CONFIG_NET_SCH_FQ is not set",
                 "serves": ["delay"]},
            ]})
        );
    }

    #[test]
    fn the_table_gives_every_reason() {
        let text = as_text("6.12", &some());
        assert!(text.contains("sch_fq     missing  delay\n"), "{text}");
        assert!(text.contains("CONFIG_NET_SCH_FQ is not set"), "{text}");
        assert!(text.contains("1 work, 1 missing, 0 refused"), "{text}");
    }
}
