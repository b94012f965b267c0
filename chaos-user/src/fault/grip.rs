//! What loads and limits have in common: a strain for each chosen workload.

use std::time::Duration;

use super::{Experiment, LowerError, Lowered, Options};
use crate::plan::strain::{Amount, Grip, Strain};
use crate::select::Workload;

/// A strain with this grip on every workload. `last`: when it ends whatever the experiment says.
/// `words` is what it does, as "2 workers at 30 % of a processor each".
///
/// # Errors
/// [`LowerError::NoCgroup`] for a workload that is a network and no more.
pub fn lower(
    experiment: &Experiment,
    sources: &[Workload],
    options: &Options,
    last: Option<Duration>,
    grip: &Grip,
    words: &str,
) -> Result<Lowered, LowerError> {
    let mut lowered = Lowered::default();
    if sources.is_empty() {
        let message = "the random share chose no workload this time: nothing happens";
        lowered.warn("spec.selector", message);
    }
    for source in sources {
        let Some(place) = source.place.clone() else {
            let (experiment, workload) = (experiment.id(), source.name.clone());
            return Err(LowerError::NoCgroup { experiment, workload });
        };
        let known = lowered
            .strains
            .iter()
            .find(|one| !source.is_unbound() && one.place.cgroup == place.cgroup);
        if let Some(known) = known {
            let message = format!("{} is {} once more; it counts once", source.name, known.target);
            lowered.warn("spec.selector", message);
            continue;
        }
        let duration = options.duration.or_else(|| experiment.duration());
        lowered.strains.push(Strain {
            id: format!("{}/{}", experiment.id(), source.name),
            experiment: experiment.id(),
            target: source.name.clone(),
            place,
            grip: grip.clone(),
            describes: format!("{words} in {}", source.name),
            duration: duration.into_iter().chain(last).min(),
            dry_run: options.dry_run,
        });
    }
    lowered.strains.sort_by(|a, b| a.id.cmp(&b.id));
    Ok(lowered)
}

/// "256 MB", "25 % of the node's memory".
#[must_use]
pub fn amount(amount: Amount) -> String {
    match amount {
        Amount::Bytes(bytes) => size(bytes),
        Amount::PercentOfNode(percent) => format!("{percent} % of the node's memory"),
        Amount::PercentOfLimit(percent) => format!("{percent} % of the target's own limit"),
    }
}

/// Bytes in the largest unit, decimal or binary, that they are a round number of.
#[must_use]
pub fn size(bytes: u64) -> String {
    const UNITS: [(&str, u64); 8] = [
        ("TiB", 1 << 40),
        ("TB", 1_000_000_000_000),
        ("GiB", 1 << 30),
        ("GB", 1_000_000_000),
        ("MiB", 1 << 20),
        ("MB", 1_000_000),
        ("KiB", 1 << 10),
        ("kB", 1_000),
    ];
    let round = UNITS.iter().find(|(_, unit)| bytes >= *unit && bytes.is_multiple_of(*unit));
    match round {
        Some((name, unit)) => format!("{} {name}", bytes / unit),
        None if bytes >= 10_000_000 => format!("{:.1} MB", bytes as f64 / 1e6),
        None => format!("{bytes} bytes"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_told_as_they_were_written() {
        for (bytes, want) in [
            (256_000_000, "256 MB"),
            (64 << 20, "64 MiB"),
            (1 << 30, "1 GiB"),
            (1_500, "1500 bytes"),
            (12_345_678, "12.3 MB"),
            (0, "0 bytes"),
        ] {
            assert_eq!(size(bytes), want);
        }
    }
}
