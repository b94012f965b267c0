//! Figures, what they are compared with, and whether that is good enough.

use std::fmt::Write as _;

use serde_json::{Value, json};

/// What a figure shall be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Goal {
    /// Ours at most this much.
    AtMost(f64),
    /// Ours not more than the peer's, but for this much that nobody could tell apart.
    NotAbovePeer(f64),
    /// Ours by the peer's at least this much.
    Ratio(f64),
    /// Ours by the peer's between these.
    Between(f64, f64),
    /// The peer's (what was declared) inside the interval that ours allows.
    Inside(f64, f64),
    /// Printed for people only.
    Told,
}

impl Goal {
    fn is_met(self, ours: f64, peer: Option<f64>) -> Option<bool> {
        let ratio = peer.map(|peer| ours / peer);
        match self {
            Self::AtMost(most) => Some(ours <= most),
            Self::NotAbovePeer(apart) => peer.map(|peer| ours < peer + apart),
            Self::Ratio(least) => ratio.map(|ratio| ratio >= least),
            // To two digits, as the bounds are written.
            Self::Between(least, most) => {
                ratio.map(|ratio| (least - 0.005..most + 0.005).contains(&ratio))
            }
            Self::Inside(low, high) => peer.map(|peer| (low..=high).contains(&peer)),
            Self::Told => None,
        }
    }

    fn describe(self) -> String {
        match self {
            Self::AtMost(most) => format!("≤ {most}"),
            Self::NotAbovePeer(apart) => format!("≤ peer, to {apart}"),
            Self::Ratio(least) => format!("ratio ≥ {least}"),
            Self::Between(least, most) => format!("ratio {least}–{most}"),
            Self::Inside(low, high) => format!("declared in {low:.5}–{high:.5}"),
            Self::Told => String::new(),
        }
    }
}

#[derive(Debug)]
enum Verdict {
    Met,
    Missed,
    /// No goal.
    Told,
    /// This kernel or machine cannot, which was tried.
    NotMeasured(String),
    /// Nobody expected this.
    Failed(String),
}

impl Verdict {
    fn describe(&self) -> String {
        match self {
            Self::Met => "met".into(),
            Self::Missed => "missed".into(),
            Self::Told => String::new(),
            Self::NotMeasured(why) => format!("not measured: {why}"),
            Self::Failed(why) => format!("failed: {why}"),
        }
    }
}

#[derive(Debug)]
struct Finding {
    row: &'static str,
    figure: String,
    unit: &'static str,
    ours: Option<f64>,
    peer: Option<(&'static str, f64)>,
    goal: String,
    verdict: Verdict,
}

impl Finding {
    fn ratio(&self) -> Option<f64> {
        let (_, peer) = self.peer?;
        self.ours.map(|ours| ours / peer).filter(|ratio| ratio.is_finite())
    }

    fn cells(&self) -> [String; 8] {
        let peer =
            self.peer.map_or_else(String::new, |(name, value)| format!("{} {name}", digits(value)));
        [
            self.row.to_owned(),
            self.figure.clone(),
            self.ours.map_or_else(|| "–".into(), digits),
            self.unit.to_owned(),
            peer,
            self.ratio().map_or_else(String::new, digits),
            self.goal.clone(),
            self.verdict.describe(),
        ]
    }

    fn json(&self) -> Value {
        let (verdict, why) = match &self.verdict {
            Verdict::Met => ("met", None),
            Verdict::Missed => ("missed", None),
            Verdict::Told => ("told", None),
            Verdict::NotMeasured(why) => ("not measured", Some(why)),
            Verdict::Failed(why) => ("failed", Some(why)),
        };
        json!({
            "row": self.row,
            "figure": self.figure,
            "unit": self.unit,
            "ours": self.ours,
            "peer": self.peer.map(|(name, _)| name),
            "theirs": self.peer.map(|(_, value)| value),
            "ratio": self.ratio(),
            "goal": self.goal,
            "verdict": verdict,
            "why": why,
        })
    }
}

/// Four significant digits, as far as there are so many.
fn digits(value: f64) -> String {
    match value.abs() {
        v if v >= 1000.0 => format!("{value:.0}"),
        v if v >= 100.0 => format!("{value:.1}"),
        v if v >= 10.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

/// Everything that was found so far.
#[derive(Debug, Default)]
pub struct Findings {
    row: &'static str,
    all: Vec<Finding>,
}

impl Findings {
    /// What follows belongs to this row.
    pub fn begin(&mut self, row: &'static str) {
        self.row = row;
    }

    /// A figure of ours alone.
    pub fn ours(&mut self, figure: impl Into<String>, unit: &'static str, ours: f64, goal: Goal) {
        self.add(figure.into(), unit, Some(ours), None, goal, None);
    }

    /// A figure beside a peer's.
    pub fn against(
        &mut self,
        figure: impl Into<String>,
        unit: &'static str,
        ours: f64,
        peer: (&'static str, f64),
        goal: Goal,
    ) {
        self.add(figure.into(), unit, Some(ours), Some(peer), goal, None);
    }

    /// A figure that this kernel or machine cannot give; ours where there is one.
    pub fn not_measured(
        &mut self,
        figure: impl Into<String>,
        unit: &'static str,
        ours: Option<f64>,
        goal: Goal,
        why: &str,
    ) {
        let verdict = Verdict::NotMeasured(why.to_owned());
        self.add(figure.into(), unit, ours, None, goal, Some(verdict));
    }

    /// The row broke.
    pub fn failed(&mut self, why: &str) {
        let verdict = Verdict::Failed(why.to_owned());
        self.add("the rest".into(), "", None, None, Goal::Told, Some(verdict));
    }

    fn add(
        &mut self,
        figure: String,
        unit: &'static str,
        ours: Option<f64>,
        peer: Option<(&'static str, f64)>,
        goal: Goal,
        verdict: Option<Verdict>,
    ) {
        let judged = || match ours.and_then(|o| goal.is_met(o, peer.map(|(_, value)| value))) {
            Some(true) => Verdict::Met,
            Some(false) => Verdict::Missed,
            None => Verdict::Told,
        };
        let verdict = verdict.unwrap_or_else(judged);
        let goal = goal.describe();
        let finding = Finding { row: self.row, figure, unit, ours, peer, goal, verdict };
        // At once, for the case that a later row hangs the machine.
        println!("{}", finding.cells().join(" | "));
        self.all.push(finding);
    }

    /// One JSON object per figure.
    #[must_use]
    pub fn lines(&self) -> Vec<Value> {
        self.all.iter().map(Finding::json).collect()
    }

    /// For people.
    #[must_use]
    pub fn table(&self) -> String {
        let head = ["row", "figure", "ours", "unit", "peer", "ratio", "goal", "verdict"];
        let rows: Vec<[String; 8]> = std::iter::once(head.map(|word| word.to_uppercase()))
            .chain(self.all.iter().map(Finding::cells))
            .collect();
        let widths: [usize; 8] = std::array::from_fn(|column| {
            rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0)
        });
        let mut text = String::from("\n");
        for row in rows {
            let cells: Vec<String> = row
                .iter()
                .zip(widths)
                .map(|(cell, width)| format!("{cell}{}", " ".repeat(width - cell.chars().count())))
                .collect();
            let _ = writeln!(text, "{}", cells.join("  ").trim_end());
        }
        text
    }
}
