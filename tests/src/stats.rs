//! What a sample says.

/// Two-sided 99.9 % quantile of the normal distribution.
const Z: f64 = 3.290_526_731_491_9;

/// Whether `hits` of `n` is what probability `p` gives in 99.9 % of all samples (Wilson's
/// interval around the observed share, widened by half a hit).
#[must_use]
pub fn is_likely(hits: u64, n: u64, p: f64) -> bool {
    let (low, high) = interval(hits, n);
    (low..=high).contains(&p)
}

/// The 99.9 % interval of the share behind `hits` of `n`.
#[must_use]
pub fn interval(hits: u64, n: u64) -> (f64, f64) {
    interval_of(hits as f64, n as f64)
}

fn interval_of(hits: f64, n: f64) -> (f64, f64) {
    if n == 0.0 {
        return (0.0, 1.0);
    }
    let bound = |hits: f64, sign: f64| {
        let share = hits / n;
        let z2 = Z * Z;
        let middle = share + z2 / (2.0 * n);
        let width = Z * ((share * (1.0 - share) + z2 / (4.0 * n)) / n).sqrt();
        (middle + sign * width) / (1.0 + z2 / n)
    };
    // Rounding must not exclude what is certain.
    let low = if hits < 0.5 { 0.0 } else { bound(hits - 0.5, -1.0).max(0.0) };
    let high = if hits > n - 0.5 { 1.0 } else { bound(hits + 0.5, 1.0).min(1.0) };
    (low, high)
}

/// [`is_likely`] for decisions with memory: `n` of them say as much as
/// `n (1 - r) / (1 + r)` independent ones, `r` being their lag-1 autocorrelation.
#[must_use]
pub fn is_likely_with_memory(hits: u64, n: u64, p: f64, r: f64) -> bool {
    let weight = (1.0 - r) / (1.0 + r);
    let (low, high) = interval_of(hits as f64 * weight, n as f64 * weight);
    (low..=high).contains(&p)
}

/// Arithmetic mean; NaN of nothing.
#[must_use]
pub fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// Standard deviation; NaN of nothing.
#[must_use]
pub fn deviation(values: &[f64]) -> f64 {
    let m = mean(values);
    (values.iter().map(|v| (v - m).powi(2)).sum::<f64>() / values.len() as f64).sqrt()
}

/// Autocorrelation at lag 1; NaN when nothing varies.
#[must_use]
pub fn lag1(values: &[f64]) -> f64 {
    let m = mean(values);
    let variance: f64 = values.iter().map(|v| (v - m).powi(2)).sum();
    let together: f64 = values.windows(2).map(|w| (w[0] - m) * (w[1] - m)).sum();
    together / variance
}

/// The value below which a share `q` of all lies; NaN of nothing.
#[must_use]
pub fn quantile(values: &[f64], q: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let last = sorted.len().saturating_sub(1);
    sorted.get((last as f64 * q).round() as usize).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fair_share_is_likely_and_a_wrong_one_is_not() {
        assert!(is_likely(1000, 10_000, 0.1));
        assert!(is_likely(1090, 10_000, 0.1));
        assert!(!is_likely(1200, 10_000, 0.1));
        assert!(!is_likely(800, 10_000, 0.1));
        assert!(is_likely(0, 100, 0.0));
        assert!(is_likely(100, 100, 1.0));
        assert!(!is_likely(99, 10_000, 1.0));
    }

    #[test]
    fn memory_widens_the_interval() {
        assert!(!is_likely(1200, 10_000, 0.1));
        assert!(is_likely_with_memory(1200, 10_000, 0.1, 0.8));
    }

    #[test]
    fn lag1_sees_alternation_and_runs() {
        let alternating: Vec<f64> = (0..1000).map(|i| f64::from(i % 2)).collect();
        assert!(lag1(&alternating) < -0.99);
        let runs: Vec<f64> = (0..1000).map(|i| f64::from(i / 100 % 2)).collect();
        assert!(lag1(&runs) > 0.9);
    }

    #[test]
    fn quantiles_are_values_of_the_sample() {
        let values: Vec<f64> = (0..=100).rev().map(f64::from).collect();
        assert_eq!((quantile(&values, 0.5), quantile(&values, 0.99)), (50.0, 99.0));
        assert!(quantile(&[], 0.5).is_nan());
    }
}
