//! What a person sees of a run. Pure: numbers in, lines out.

use std::time::Duration;

use chaos_abi::http::{HttpCounters, passed};

use super::clock::for_people;
use super::state::{ExchangeState, RuleState, StrainState};

/// Columns when the terminal does not say.
const WIDTH: usize = 100;
/// Lines when the terminal does not say.
const HEIGHT: usize = 24;
/// Least room for a rule's description.
const NARROW: usize = 24;

/// Columns and lines of the terminal on stderr.
#[must_use]
pub fn terminal_size() -> (usize, usize) {
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: TIOCGWINSZ writes one `winsize`, and `size` is one.
    let answer = unsafe { libc::ioctl(libc::STDERR_FILENO, libc::TIOCGWINSZ, &raw mut size) };
    match (answer, size.ws_col, size.ws_row) {
        (0, columns, lines) if columns > 0 && lines > 0 => (columns.into(), lines.into()),
        _ => (WIDTH, HEIGHT),
    }
}

/// The table that is redrawn in place: one line per rule, cut to the terminal.
#[must_use]
pub fn frame(rules: &[(&RuleState, Option<Duration>)], size: (usize, usize)) -> Vec<String> {
    let (width, height) = size;
    let numbers: Vec<[String; 4]> = rules
        .iter()
        .map(|(state, left)| {
            [
                grouped(state.counters.matched),
                format!("{}{}", grouped(state.counters.injected), share(state)),
                format!("{:.1}", state.rate),
                time_left(state, *left),
            ]
        })
        .collect();
    let heads = ["MATCHED", "INJECTED", "RATE/S", "LEFT"];
    let widths: Vec<usize> = (0..heads.len())
        .map(|i| numbers.iter().map(|n| chars(&n[i])).chain([heads[i].len()]).max().unwrap_or(0))
        .collect();
    let taken: usize = widths.iter().map(|w| w + 2).sum();
    let longest = rules.iter().map(|(state, _)| chars(&state.rule.describes)).max().unwrap_or(0);
    let room = longest.max(4).min(width.saturating_sub(taken + 1).max(NARROW));
    let row = |first: &str, cells: &[&str]| {
        let mut line = format!("{:room$}", cut(first, room));
        for (cell, width) in cells.iter().zip(&widths) {
            line.push_str(&format!("  {cell:>width$}"));
        }
        cut(&line, width.saturating_sub(1).max(NARROW))
    };
    let mut lines = vec![row("RULE", &heads)];
    // The header, the line that counts the rest, and the one that the cursor rests on.
    let fits = height.saturating_sub(3).max(1);
    for ((state, _), cells) in rules.iter().zip(&numbers).take(fits) {
        lines.push(row(&state.rule.describes, &cells.each_ref().map(String::as_str)));
    }
    if rules.len() > fits {
        lines.push(format!("… and {} more rules", rules.len() - fits));
    }
    lines
}

/// One line per rule, for a log.
#[must_use]
pub fn line(state: &RuleState, left: Option<Duration>) -> String {
    format!(
        "{}: matched {}, injected {}{}{}, {:.1}/s, {}",
        state.rule.describes,
        grouped(state.counters.matched),
        grouped(state.counters.injected),
        share(state),
        unreadable(state),
        state.rate,
        match time_left(state, left).as_str() {
            "" => "until interrupted".to_owned(),
            left @ ("over" | "target gone") => left.to_owned(),
            left => format!("{left} left"),
        }
    )
}

/// What a rule came to, declared against observed.
#[must_use]
pub fn outcome(state: &RuleState) -> String {
    let declared = state
        .rule
        .declared
        .map(|share| format!(", declared {}", percent(share)))
        .unwrap_or_default();
    let path = if state.path.is_empty() { String::new() } else { format!(" [{}]", state.path) };
    format!(
        "{}: matched {}, injected {}{}{}{declared}{path}",
        state.rule.describes,
        grouped(state.counters.matched),
        grouped(state.counters.injected),
        share(state),
        unreadable(state),
    )
}

/// DNS queries that passed because they could not be read, where there were some.
fn unreadable(state: &RuleState) -> String {
    match state.counters.unreadable {
        0 => String::new(),
        n => format!(", {} passed unread", grouped(n)),
    }
}

/// What an exchange does, for a log and at the end.
#[must_use]
pub fn exchange_line(state: &ExchangeState) -> String {
    let HttpCounters { seen, matched, acted, passed } = state.counters;
    let mut line = format!(
        "{}: {} requests, matched {}, injected {}",
        state.exchange.describes,
        grouped(seen),
        grouped(matched),
        grouped(acted)
    );
    for (reason, count) in passed::NAMES.into_iter().zip(passed).filter(|(_, count)| *count > 0) {
        line.push_str(&format!(", passed ({reason}) {}", grouped(count)));
    }
    line
}

/// Less is what a worker process needs for itself.
const MENTIONED: u64 = 4_000_000;

/// What a strain does, for a log and at the end.
#[must_use]
pub fn strain_line(state: &StrainState) -> String {
    let figures = &state.figures;
    let mut parts = Vec::new();
    if figures.workers > 0 {
        parts.push(format!("{} of {} workers at work", figures.running, figures.workers));
        parts.push(format!("{:.1} s of processor time", figures.cpu_seconds));
    }
    if figures.resident_peak_bytes >= MENTIONED {
        parts.push(format!("at most {} of memory", megabytes(figures.resident_peak_bytes)));
    }
    let counted = [
        (figures.restarts, "restarts"),
        (figures.oom_kills, "killed for want of memory"),
        (u64::from(figures.limits_set), "limits set"),
        (figures.throttled_periods, "periods throttled"),
        (figures.memory_high_events, "times slowed down for memory"),
    ];
    parts.extend(counted.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{n} {what}")));
    if state.is_gone {
        parts.push("target gone".to_owned());
    }
    if parts.is_empty() {
        parts.push("ended".to_owned());
    }
    format!("{}: {}", state.strain.describes, parts.join(", "))
}

/// Bytes as people read them.
#[must_use]
pub fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}

fn time_left(state: &RuleState, left: Option<Duration>) -> String {
    match left {
        _ if state.is_gone => "target gone".into(),
        None => String::new(),
        Some(Duration::ZERO) => "over".into(),
        // A countdown that begins at the whole duration and ends at "over".
        Some(left) => for_people(Duration::from_secs_f64(left.as_secs_f64().ceil())),
    }
}

fn share(state: &RuleState) -> String {
    match state.counters.matched {
        0 => String::new(),
        matched => format!(" ({})", percent(state.counters.injected as f64 / matched as f64)),
    }
}

fn percent(share: f64) -> String {
    let percent = share * 100.0;
    let digits = if percent == percent.round() { 0 } else { 2 };
    format!("{percent:.digits$} %")
}

/// 1234567 → 1 234 567
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

fn chars(text: &str) -> usize {
    text.chars().count()
}

fn cut(text: &str, width: usize) -> String {
    if chars(text) <= width {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(width.saturating_sub(1)).collect();
    short.push('…');
    short
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::super::state::{State, sample};
    use super::*;
    use crate::plan::Plan;

    fn state(rules: usize) -> State {
        let rules = (0..rules).map(|n| sample::rule(&format!("r{n}"), None)).collect();
        let mut state = State::new(&Plan { rules, ..Plan::default() });
        state.take(sample::report("r0", 1_234_567, true), Instant::now());
        state
    }

    #[test]
    fn the_table_fits_the_terminal() {
        let state = state(40);
        let rules: Vec<_> =
            state.rules.iter().map(|s| (s, Some(Duration::from_millis(27_100)))).collect();
        for (width, height) in [(60, 10), (80, 24), (100, 30), (200, 50)] {
            let lines = frame(&rules, (width, height));
            assert!(lines.len() < height, "{} lines in {height}", lines.len());
            for line in &lines {
                assert!(chars(line) < width, "{} in {width}: {line}", chars(line));
            }
            assert!(lines[1].contains("1 234 567"), "{}", lines[1]);
            assert!(width < 80 || lines[1].contains("28 s"), "{}", lines[1]);
        }
        assert_eq!(frame(&rules, (80, 10)).last().unwrap(), "… and 33 more rules");
    }

    #[test]
    fn a_log_line_says_everything() {
        let state = state(1);
        let text = line(&state.rules[0], None);
        assert!(text.contains("matched 1 234 567, injected 617 283 (50.00 %)"), "{text}");
        assert!(text.ends_with("until interrupted"), "{text}");
        let text = outcome(&state.rules[0]);
        assert!(text.ends_with("declared 100 % [fq]"), "{text}");
    }

    #[test]
    fn nothing_matched_is_no_share() {
        let state = State::new(&Plan { rules: vec![sample::rule("a", None)], ..Plan::default() });
        assert!(line(&state.rules[0], Some(Duration::ZERO)).ends_with("injected 0, 0.0/s, over"));
    }
}
