//! The support table: mechanism × kernel, made from what the kernel tests report.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;

const MARK: &str = "##kfault-report ";

/// What one mechanism came to on one kernel.
#[derive(Serialize, Deserialize)]
struct Cell {
    works: bool,
    /// The way packets were held, or why it does not work.
    why: String,
    /// A test has failed, which is more than a kernel that cannot.
    #[serde(skip)]
    has_failed: bool,
}

impl Cell {
    /// A test that failed decides, and what works decides over a kernel that cannot do all of it.
    fn weight(&self) -> u32 {
        if self.has_failed { 2 } else { u32::from(self.works) }
    }

    fn join(&mut self, other: Self) {
        if self.works && other.works {
            let ways = self.why.split(", ").chain(other.why.split(", "));
            let ways: BTreeSet<&str> = ways.filter(|way| !way.is_empty()).collect();
            self.why = ways.into_iter().collect::<Vec<_>>().join(", ");
        } else if other.weight() > self.weight() {
            *self = other;
        }
    }
}

/// One kernel.
#[derive(Serialize, Deserialize)]
pub struct Column {
    pub kernel: String,
    /// `6.12.107+deb13-cloud-amd64`
    release: String,
    cells: BTreeMap<String, Cell>,
    /// Tests that were skipped, and the proof that this kernel cannot.
    skips: BTreeMap<String, String>,
    /// Tests that failed.
    #[serde(skip)]
    pub failed: Vec<String>,
    /// For the line that ends the step.
    #[serde(skip)]
    pub summary: String,
}

impl Column {
    /// Reads what the kernel tests printed.
    pub fn read(kernel: &str, lines: &[String], is_ok: bool) -> Self {
        let mut column = Self::broken(kernel, "");
        column.failed.clear();
        for line in lines {
            if let Some(at) = line.find(MARK)
                && let Ok(row) = serde_json::from_str::<Value>(&line[at + MARK.len()..])
            {
                column.take(&row);
            } else if line.contains(" passed, ") && line.contains(" skipped with proof") {
                column.summary.clone_from(line);
            }
        }
        if !is_ok && column.failed.is_empty() {
            column.failed.push("ended without a result".to_owned());
            column.summary =
                lines.iter().rev().take(5).rev().cloned().collect::<Vec<_>>().join("; ");
        }
        column
    }

    /// A kernel whose tests gave no result.
    pub fn broken(kernel: &str, why: &str) -> Self {
        Self {
            kernel: kernel.to_owned(),
            release: String::new(),
            cells: BTreeMap::new(),
            skips: BTreeMap::new(),
            failed: vec![why.to_owned()],
            summary: why.to_owned(),
        }
    }

    /// Takes in what other tests came to on the same kernel.
    pub fn join(&mut self, other: Self) {
        if self.release.is_empty() {
            self.release = other.release;
        }
        for (mechanism, cell) in other.cells {
            match self.cells.entry(mechanism) {
                Entry::Vacant(place) => drop(place.insert(cell)),
                Entry::Occupied(mut known) => known.get_mut().join(cell),
            }
        }
        self.skips.extend(other.skips);
        self.failed.extend(other.failed);
        self.summary = format!("{}; {}", self.summary, other.summary);
    }

    fn take(&mut self, row: &Value) {
        let text = |key: &str| row[key].as_str().map(str::to_owned);
        let why = text("why").unwrap_or_default();
        if let Some(mechanism) = text("mechanism") {
            let works = row["state"] == "works";
            let has_failed = row["state"] == "failed";
            self.cells.insert(mechanism, Cell { works, why, has_failed });
        } else if let Some(test) = text("failed") {
            self.failed.push(test);
        } else if let Some(test) = text("skip") {
            self.skips.insert(test, why);
        } else if let Some(release) = text("kernel") {
            self.release = release;
        }
    }
}

/// All kernels of a run.
#[derive(Serialize, Deserialize)]
pub struct Support {
    pub columns: Vec<Column>,
}

impl Support {
    /// The table as Markdown, which people can read too.
    pub fn table(&self) -> String {
        let mechanisms: BTreeSet<&String> =
            self.columns.iter().flat_map(|column| column.cells.keys()).collect();
        let mut rows = vec![
            std::iter::once("mechanism".to_owned())
                .chain(self.columns.iter().map(|column| column.kernel.clone()))
                .collect::<Vec<_>>(),
        ];
        let mut reasons: Vec<String> = Vec::new();
        for mechanism in mechanisms {
            let mut row = vec![mechanism.clone()];
            for column in &self.columns {
                row.push(match column.cells.get(mechanism) {
                    None => "not tested".to_owned(),
                    Some(Cell { works: true, why, .. }) if why.is_empty() => "works".to_owned(),
                    Some(Cell { works: true, why, .. }) => format!("works ({why})"),
                    Some(Cell { works: false, why, .. }) => {
                        let at = reasons.iter().position(|reason| reason == why);
                        let at = at.unwrap_or_else(|| {
                            reasons.push(why.clone());
                            reasons.len() - 1
                        });
                        format!("missing [{}]", at + 1)
                    }
                });
            }
            rows.push(row);
        }
        let columns = rows[0].len();
        let widths: Vec<usize> = (0..columns)
            .map(|at| rows.iter().map(|row| row[at].chars().count()).max().unwrap_or(0))
            .collect();
        let line = |cells: Vec<String>| {
            let cells: Vec<String> =
                cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
            format!("| {} |\n", cells.join(" | "))
        };
        let rule = line(widths.iter().map(|width| "-".repeat(*width)).collect());
        let mut text = String::new();
        for (number, row) in rows.into_iter().enumerate() {
            text.push_str(&line(row));
            if number == 0 {
                text.push_str(&rule);
            }
        }
        for (number, reason) in reasons.iter().enumerate() {
            text.push_str(&format!("\n[{}] {}\n", number + 1, reason.trim()));
        }
        text
    }

    /// Which kernels they were.
    pub fn releases(&self) -> String {
        // What somebody has named a kernel of their own says nothing to others.
        let release = |column: &Column| match column.kernel.as_str() {
            "native" => column.release.split('-').next().unwrap_or_default().to_owned(),
            _ => column.release.clone(),
        };
        let known = self.columns.iter().filter(|column| !column.release.is_empty());
        known
            .map(|column| format!("{} is `{}`", column.kernel, release(column)))
            .collect::<Vec<_>>()
            .join(", ")
    }

    /// Every skip with its proof.
    pub fn skips(&self) -> String {
        let mut text = String::new();
        for column in &self.columns {
            for (test, why) in &column.skips {
                text.push_str(&format!("skipped on {}: {test}: {why}\n", column.kernel));
            }
        }
        text
    }

    /// Keeps the table for `docs`.
    pub fn save(&self) -> Result<()> {
        fs::write(file(), serde_json::to_string_pretty(self)?).context("keep the support table")
    }

    /// Puts what all tests of one mechanism came to into the table of the last whole run. A filter
    /// that is no mechanism's name has run a part of one, and changes nothing.
    pub fn renew(self, mechanism: &str) -> Result<()> {
        let Ok(mut last) = Self::last() else { return Ok(()) };
        for column in self.columns {
            let known = last.columns.iter_mut().find(|known| known.kernel == column.kernel);
            if let Some(known) = known.filter(|known| known.release == column.release) {
                known.cells.extend(column.cells.into_iter().filter(|(name, _)| name == mechanism));
            }
        }
        last.save()
    }

    /// The table of the last whole run.
    pub fn last() -> Result<Self> {
        let text = fs::read_to_string(file())
            .context("no support table yet: run `cargo xtask test` first")?;
        serde_json::from_str(&text).context("read the support table")
    }
}

fn file() -> PathBuf {
    crate::target_dir().join("support.json")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<String> {
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn a_report_becomes_a_column() {
        let said = lines(
            "test delay::holds ... ok\ntest loss::is_silent   ... FAILED\n\
             1 passed, 1 failed, 0 skipped with proof\n\
             ##kfault-report {\"kernel\":\"6.1.0\"}\n\
             ##kfault-report {\"mechanism\":\"delay\",\"state\":\"works\",\"why\":\"fq\"}\n\
             ##kfault-report {\"failed\":\"is_silent\",\"why\":\"it is not\"}\n\
             ##kfault-report {\"mechanism\":\"loss\",\"state\":\"failed\",\"why\":\"is_silent failed\"}",
        );
        let column = Column::read("6.1", &said, false);
        assert_eq!(column.failed, ["is_silent"]);
        assert_eq!(column.summary, "1 passed, 1 failed, 0 skipped with proof");
        let table = Support { columns: vec![column] }.table();
        assert!(table.contains("| delay     | works (fq)"), "{table}");
        assert!(table.contains("missing [1]") && table.contains("[1] is_silent failed"), "{table}");
    }

    #[test]
    fn parts_of_a_run_become_one_column() {
        let part = |rows: &[(&str, &str, &str)]| {
            let row = |(mechanism, state, why): &(&str, &str, &str)| {
                let row = serde_json::json!({"mechanism": mechanism, "state": state, "why": why});
                format!("{MARK}{row}")
            };
            Column::read("6.1", &rows.iter().map(row).collect::<Vec<_>>(), true)
        };
        let mut column = part(&[("delay", "works", "fq"), ("dns", "missing", "cannot")]);
        column.join(part(&[
            ("delay", "works", "line"),
            ("dns", "works", ""),
            ("rate", "works", ""),
        ]));
        let state = |column: &Column, of: &str| {
            let cell = &column.cells[of];
            (cell.works, cell.why.clone())
        };
        assert_eq!(state(&column, "delay"), (true, "fq, line".to_owned()));
        assert_eq!(state(&column, "dns"), (true, String::new()));
        assert_eq!(state(&column, "rate"), (true, String::new()));
        column.join(part(&[("rate", "failed", "too slow")]));
        column.join(part(&[("rate", "works", "")]));
        assert_eq!(state(&column, "rate"), (false, "too slow".to_owned()));
    }

    #[test]
    fn a_run_that_died_has_failed() {
        let column = Column::read("7.x", &lines("test delay::holds ... "), false);
        assert_eq!(column.failed, ["ended without a result"]);
    }
}
