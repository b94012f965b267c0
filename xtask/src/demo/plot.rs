//! Latency over time, as text.

use std::time::Duration;

const COLUMNS: usize = 72;

/// One request.
pub struct Sample {
    /// When it started.
    pub at: Duration,
    /// What it took.
    pub latency: Duration,
}

/// Every request as a point; below, where the fault began and ended.
pub fn plot(samples: &[Sample], applied: Duration, recovered: Duration, total: Duration) -> String {
    let end = samples.iter().map(|sample| sample.at).max().unwrap_or(total).max(total);
    let column = |at: Duration| {
        let share = at.as_secs_f64() / end.as_secs_f64();
        to_cell(share, COLUMNS)
    };
    let highest = samples.iter().map(|s| s.latency.as_secs_f64() * 1e3).fold(1.0, f64::max);
    let (unit, units) = scale(highest);
    // Labels stand at whole units, and about ten rows are enough to see a shape.
    let per_unit = 10_usize.div_ceil(units);
    let rows = units * per_unit + 1;
    let mut cells = vec![[' '; COLUMNS]; rows];
    for sample in samples {
        let share = sample.latency.as_secs_f64() * 1e3 / (unit * units as f64);
        cells[rows - 1 - to_cell(share, rows)][column(sample.at)] = '●';
    }
    let mut text = String::from(" time to connect of one request\n");
    for (number, row) in cells.iter().enumerate() {
        let above = rows - 1 - number;
        let label = if above % per_unit == 0 {
            format!("{:>6} ms ┤", unit * (above / per_unit) as f64)
        } else {
            " ".repeat(10) + "│"
        };
        let line: String = row.iter().collect();
        text.push_str(&format!("{label}{}\n", line.trim_end()));
    }
    let (from, to) = (column(applied), column(recovered));
    let axis: String =
        (0..COLUMNS).map(|at| if at == from || at == to { '┬' } else { '─' }).collect();
    text.push_str(&format!("{}└{axis}\n", " ".repeat(10)));
    let mut words = vec![' '; 11 + COLUMNS + 12];
    for (at, word) in [(from, "applied"), (to, "recovered")] {
        for (offset, letter) in word.chars().enumerate() {
            words[11 + at + offset] = letter;
        }
    }
    text.push_str(words.iter().collect::<String>().trim_end());
    text.push('\n');
    text
}

fn to_cell(share: f64, cells: usize) -> usize {
    // The cast saturates, and the cell is bounded below.
    ((share * (cells - 1) as f64).round() as usize).min(cells - 1)
}

/// A power of ten and how many of them hold the highest value.
fn scale(highest: f64) -> (f64, usize) {
    let unit = 10_f64.powf(highest.log10().floor());
    (unit, (highest / unit).ceil() as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scale_holds_the_highest_value() {
        assert_eq!(scale(500.3), (100.0, 6));
        assert_eq!(scale(1.0), (1.0, 1));
        assert_eq!(scale(1000.0), (1000.0, 1));
    }

    #[test]
    fn a_fault_is_a_plateau() {
        let ms = Duration::from_millis;
        let samples: Vec<Sample> = (0..100)
            .map(|n| Sample {
                at: ms(n * 100),
                latency: if (30..60).contains(&n) { ms(500) } else { ms(1) },
            })
            .collect();
        let text = plot(&samples, ms(3000), ms(6000), ms(9900));
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.iter().filter(|line| line.contains('●')).count(), 2, "{text}");
        assert!(lines[1].starts_with("   500 ms ┤") && lines[1].contains("●●●●"), "{text}");
        assert!(text.contains("applied") && text.contains("recovered"), "{text}");
    }
}
