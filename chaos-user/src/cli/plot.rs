//! How the targets of strains fare, as a plot: processor and memory of their cgroups before,
//! while and after the strains act. Pure: measurements in, lines out.

use std::time::Instant;

use super::live::megabytes;

/// When a measurement was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Time {
    /// Before anything was applied.
    Before,
    /// While it acts.
    During,
    /// When all has ended.
    After,
}

/// What a cgroup has used up to some moment.
#[derive(Clone, Copy, Debug)]
pub struct Reading {
    /// When.
    pub at: Instant,
    /// Processor time so far, seconds.
    pub cpu_seconds: f64,
    /// Memory now, bytes.
    pub memory_bytes: u64,
}

/// The course of one target.
#[derive(Clone, Debug)]
pub struct Course {
    target: String,
    last: Option<Reading>,
    /// Share of one processor, and bytes.
    points: Vec<(Time, f64, u64)>,
}

/// Least room for the plot.
const NARROW: usize = 10;
/// Columns for the target's name at most.
const NAME: usize = 32;
const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

impl Course {
    /// Nothing is known yet.
    #[must_use]
    pub fn new(target: &str) -> Self {
        Self { target: target.to_owned(), last: None, points: Vec::new() }
    }

    /// Takes in a reading.
    pub fn take(&mut self, time: Time, reading: Reading) {
        if let Some(last) = self.last {
            let seconds = reading.at.duration_since(last.at).as_secs_f64();
            if seconds > 0.0 {
                let cpu = (reading.cpu_seconds - last.cpu_seconds).max(0.0) / seconds;
                self.points.push((time, cpu, reading.memory_bytes));
            }
        }
        self.last = Some(reading);
    }

    /// Means at one time: share of one processor, and bytes. `None`: nothing was measured then.
    #[must_use]
    pub fn mean(&self, time: Time) -> Option<(f64, u64)> {
        let points: Vec<_> = self.points.iter().filter(|point| point.0 == time).collect();
        let n = points.len();
        let cpu = points.iter().map(|point| point.1).sum::<f64>() / n as f64;
        let memory =
            points.iter().map(|point| u128::from(point.2)).sum::<u128>() / n.max(1) as u128;
        (n > 0).then_some((cpu, u64::try_from(memory).unwrap_or(u64::MAX)))
    }
}

/// The plots of all targets, two lines each, cut to the terminal.
#[must_use]
pub fn frame(courses: &[Course], (width, height): (usize, usize)) -> Vec<String> {
    let fits = height.saturating_sub(3) / 2;
    let mut lines = Vec::new();
    for course in courses.iter().take(fits) {
        let Some((_, cpu, memory)) = course.points.last() else { continue };
        let name: String = course.target.chars().take(NAME).collect();
        let cpu = format!("CPU {:.0} %", cpu * 100.0);
        let rows = [
            (name.as_str(), cpu, course.points.iter().map(|point| point.1).collect::<Vec<_>>()),
            ("", megabytes(*memory), course.points.iter().map(|p| p.2 as f64).collect()),
        ];
        for (name, value, values) in rows {
            let room = width.saturating_sub(NAME + 16).max(NARROW);
            lines.push(format!("{name:NAME$}  {value:>12}  {}", bars(&values, room)));
        }
    }
    lines
}

/// The last values as bars, the highest being the largest of all.
fn bars(values: &[f64], room: usize) -> String {
    let highest = values.iter().copied().fold(0.0, f64::max);
    let last = values.iter().skip(values.len().saturating_sub(room));
    last.map(|value| {
        let share = if highest > 0.0 { value / highest } else { 0.0 };
        BARS[((share * 7.0).round() as usize).min(7)]
    })
    .collect()
}

/// What it came to: one line per target that was measured at all three times.
#[must_use]
pub fn outcome(courses: &[Course]) -> Vec<String> {
    let line = |course: &Course| {
        let [before, during, after] =
            [Time::Before, Time::During, Time::After].map(|t| course.mean(t));
        let (before, during, after) = (before?, during?, after?);
        let cpu = |mean: (f64, u64)| format!("{:.1} %", mean.0 * 100.0);
        Some(format!(
            "{}: CPU {} before, {} meanwhile, {} after; memory {} before, {} meanwhile, {} after",
            course.target,
            cpu(before),
            cpu(during),
            cpu(after),
            megabytes(before.1),
            megabytes(during.1),
            megabytes(after.1),
        ))
    };
    courses.iter().filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn course() -> Course {
        let start = Instant::now();
        let mut course = Course::new("unit:web.service");
        let mut used = 0.0;
        for n in 0..12u32 {
            let time = match n {
                0..3 => Time::Before,
                3..9 => Time::During,
                _ => Time::After,
            };
            let (more, memory) =
                if time == Time::During { (0.3, 256_000_000) } else { (0.0, 8_000_000) };
            used += more;
            let at = start + Duration::from_millis(500) * n;
            course.take(time, Reading { at, cpu_seconds: used, memory_bytes: memory });
        }
        course
    }

    #[test]
    fn the_plot_rises_and_falls_and_fits() {
        for width in [60, 80, 200] {
            let lines = frame(&[course()], (width, 24));
            assert_eq!(lines.len(), 2);
            assert!(lines[0].ends_with("▁▁██████▁▁▁"), "{}", lines[0]);
            assert!(lines.iter().all(|line| line.chars().count() <= width), "{lines:?}");
        }
        assert!(frame(&[course()], (80, 4)).is_empty(), "no room at all");
    }

    #[test]
    fn the_outcome_has_all_three_times() {
        assert_eq!(
            outcome(&[course()]),
            ["unit:web.service: CPU 0.0 % before, 60.0 % meanwhile, 0.0 % after; memory 8.0 MB \
              before, 256.0 MB meanwhile, 8.0 MB after"]
        );
        assert!(outcome(&[Course::new("a")]).is_empty());
    }
}
