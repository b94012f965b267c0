//! The templates of the Helm chart, written from the plain manifests of `deploy`, so that the two
//! ways to install are one.
//!
//! In a manifest, `KEY: VALUE # helm: EXPRESSION` has another value in the chart, and a line
//! `# helm+ TEXT` is the chart's alone. Namespace and image are replaced wherever they stand.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context, Result};

/// The chart's folder in the repository.
#[cfg(test)]
const CHART: &str = "deploy/helm/kfault";
/// Manifests that become templates of the same name.
const MANIFESTS: [&str; 3] = ["agent.yaml", "controller.yaml", "policy.yaml"];
/// The configurations of the webhooks, which a program writes: they have no comments.
const WEBHOOKS: &str = "webhooks.yaml";

/// What is another thing in every release.
const EVERYWHERE: [(&str, &str); 3] = [
    ("namespace: chaos-mesh", "namespace: {{ .Release.Namespace }}"),
    ("system:serviceaccount:chaos-mesh:", "system:serviceaccount:{{ .Release.Namespace }}:"),
    (
        concat!("kfault.test/kfault:", env!("CARGO_PKG_VERSION")),
        r#"{{ include "kfault.image" . }}"#,
    ),
];

const VALUE: &str = " # helm: ";
const LINE: &str = "# helm+ ";

/// Names of the templates that are written.
pub fn written() -> impl Iterator<Item = &'static str> {
    MANIFESTS.into_iter().chain([WEBHOOKS])
}

/// The templates: text by file name.
pub fn templates(webhooks: &str) -> Result<BTreeMap<String, String>> {
    let mut all = BTreeMap::new();
    for name in MANIFESTS {
        let file = crate::root().join("deploy").join(name);
        let text = fs::read_to_string(&file).with_context(|| format!("deploy/{name}"))?;
        all.insert(name.to_owned(), template(name, &text));
    }
    all.insert(WEBHOOKS.to_owned(), template(WEBHOOKS, &marked(webhooks)));
    Ok(all)
}

/// One manifest as a template.
fn template(name: &str, text: &str) -> String {
    let head = format!("{{{{- /* Written by `cargo xtask crds` from deploy/{name}. */ -}}}}\n");
    text.lines().fold(head, |out, line| out + &templated(line) + "\n")
}

fn templated(line: &str) -> String {
    let indent = &line[..line.len() - line.trim_start().len()];
    if let Some(text) = line.trim_start().strip_prefix(LINE) {
        return format!("{indent}{text}");
    }
    if let Some((plain, expression)) = line.split_once(VALUE) {
        let key = plain.split_once(": ").map_or(plain, |(key, _)| key);
        return format!("{key}: {expression}");
    }
    let replace = |line: String, (from, to): (&str, &str)| line.replace(from, to);
    EVERYWHERE.into_iter().fold(line.to_owned(), replace)
}

/// The webhooks with the comments that other manifests have of themselves.
fn marked(text: &str) -> String {
    let mut out = String::new();
    for line in text.lines() {
        out.push_str(line);
        match line {
            "  failurePolicy: Fail" => {
                out.push_str(" # helm: {{ .Values.webhook.FailurePolicy }}");
                // Elsewhere nobody serves, and nobody shall be asked.
                for own in [
                    "{{- if not .Values.clusterScoped }}",
                    "namespaceSelector:",
                    r#"  matchLabels: {kubernetes.io/metadata.name: {{ include "kfault.target" . }}}"#,
                    "{{- end }}",
                ] {
                    out.push_str(&format!("\n  {LINE}{own}"));
                }
            }
            "  timeoutSeconds: 5" => out.push_str(" # helm: {{ .Values.webhook.timeoutSeconds }}"),
            _ => {}
        }
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use serde_norway::Value;

    use super::*;

    fn read(path: &str) -> String {
        fs::read_to_string(crate::root().join(path)).unwrap()
    }

    fn yaml(text: &str) -> Value {
        serde_norway::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    #[test]
    fn values_lines_and_names_are_replaced_and_the_rest_stays() {
        let version = env!("CARGO_PKG_VERSION");
        for (line, wanted) in [
            ("  replicas: 1 # helm: {{ .Values.n }}", "  replicas: {{ .Values.n }}".to_owned()),
            ("    # helm+ {{- if .Values.n }}", "    {{- if .Values.n }}".to_owned()),
            ("  # a comment: it stays", "  # a comment: it stays".to_owned()),
            ("  namespace: chaos-mesh", "  namespace: {{ .Release.Namespace }}".to_owned()),
            (
                &format!("  image: kfault.test/kfault:{version}"),
                r#"  image: {{ include "kfault.image" . }}"#.to_owned(),
            ),
        ] {
            assert_eq!(templated(line), wanted);
        }
    }

    #[test]
    fn every_manifest_has_something_of_its_own_in_the_chart() {
        let all = templates("  failurePolicy: Fail\n  timeoutSeconds: 5\n").unwrap();
        assert_eq!(all.len(), MANIFESTS.len() + 1);
        for (name, text) in &all {
            assert!(text.contains("{{ .") && !text.contains("chaos-mesh\n"), "{name}:\n{text}");
            assert!(!text.contains("# helm"), "{name}:\n{text}");
        }
        assert!(all[WEBHOOKS].contains("  namespaceSelector:\n"));
    }

    /// What a manifest says plainly is what the chart does without being told anything.
    #[test]
    fn every_default_of_the_chart_is_the_value_of_the_plain_manifest() {
        let values = yaml(&read(&format!("{CHART}/values.yaml")));
        let webhooks = marked("  failurePolicy: Fail\n  timeoutSeconds: 5\n");
        let texts = MANIFESTS.map(|name| read(&format!("deploy/{name}"))).join("\n") + &webhooks;
        let mut count = 0;
        for line in texts.lines() {
            let Some((plain, expression)) = line.split_once(VALUE) else { continue };
            let path = expression
                .trim_start_matches("{{ ")
                .trim_start_matches("quote ")
                .trim_start_matches("toJson ")
                .strip_prefix(".Values.");
            let Some(path) = path.map(|path| path.trim_end_matches(" }}")) else { continue };
            let (_, plain) = plain.split_once(": ").unwrap();
            let default = path.split('.').fold(&values, |value, key| &value[key]);
            assert_eq!(*default, yaml(plain), "{path}");
            count += 1;
        }
        assert!(count >= 10, "{count} values");
    }

    #[test]
    fn the_chart_has_the_version_of_the_program() {
        let chart = yaml(&read(&format!("{CHART}/Chart.yaml")));
        for key in ["version", "appVersion"] {
            assert_eq!(chart[key], env!("CARGO_PKG_VERSION"), "{key}");
        }
    }
}
