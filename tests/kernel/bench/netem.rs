//! The kernel's own network emulator, as the peer of a comparison.

use anyhow::Result;
use kfault_tests::net::DEVICE;
use kfault_tests::ns::Ns;
use kfault_tests::stats::quantile;

use super::goal::{Findings, Goal};

/// netem on the device of a namespace. Goes when dropped.
pub struct Netem<'a>(&'a Ns);

impl<'a> Netem<'a> {
    /// Adds it, with room for everything that waits.
    pub fn add(ns: &'a Ns, words: &str) -> Result<Self> {
        ns.tc(&format!("qdisc add dev {DEVICE} root netem limit 200000 {words}"))?;
        Ok(Self(ns))
    }
}

impl Drop for Netem<'_> {
    fn drop(&mut self) {
        let _ = self.0.tc(&format!("qdisc del dev {DEVICE} root"));
    }
}

/// Why this kernel has no netem, found out by adding one; `None` when it has.
pub fn refusal() -> Result<Option<String>> {
    let ns = Ns::new("netem")?;
    let tried = ns.tc("qdisc add dev lo root netem delay 1ms");
    Ok(tried.err().map(|error| {
        let text = format!("{error:#}").replace('\n', " ");
        format!("no netem here: {text}")
    }))
}

/// Medians of `rounds` measurements, ours and netem's in turn; netem's where it is there.
pub struct Medians {
    /// Under kfault.
    pub ours: f64,
    /// Under netem, or why there is none.
    pub theirs: Result<f64, String>,
}

impl Medians {
    /// Measures.
    pub fn of(
        rounds: usize,
        mut ours: impl FnMut() -> Result<f64>,
        mut theirs: impl FnMut() -> Result<f64>,
    ) -> Result<Self> {
        let refused = refusal()?;
        let (mut a, mut b) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            a.push(ours()?);
            if refused.is_none() {
                b.push(theirs()?);
            }
        }
        let theirs = match refused {
            Some(why) => Err(why),
            None => Ok(quantile(&b, 0.5)),
        };
        Ok(Self { ours: quantile(&a, 0.5), theirs })
    }

    /// Prints it.
    pub fn tell(self, found: &mut Findings, figure: &str, unit: &'static str, goal: Goal) {
        match self.theirs {
            Ok(theirs) => found.against(figure, unit, self.ours, ("netem", theirs), goal),
            Err(why) => found.not_measured(figure, unit, Some(self.ours), goal, &why),
        }
    }
}
