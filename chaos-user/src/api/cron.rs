//! When a schedule starts something: cron expressions with optional seconds, descriptors, and
//! intervals, as the API's own parser (robfig/cron v3) takes them.

use std::str::FromStr;
use std::time::Duration;

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, Zoned};
use thiserror::Error;

use super::duration::GoDuration;

/// After so many years without a day that fits there is none (29 February comes every eighth year
/// at the least).
const YEARS: i16 = 9;

/// Moments at which something starts.
#[derive(Clone, Debug, PartialEq)]
pub struct Cron {
    when: When,
    /// Of the fields; `None` is the controller's own, which is UTC.
    zone: Option<TimeZone>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum When {
    Every(Duration),
    Fields(Box<Fields>),
}

/// One bit per value.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Fields {
    second: u64,
    minute: u64,
    hour: u64,
    day: Days,
    month: u64,
    weekday: Days,
}

/// Days are special: with both kinds of them restricted, one that fits is enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Days {
    bits: u64,
    is_any: bool,
}

/// Why a text is no schedule.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CronError {
    /// Nothing there.
    #[error("is empty; write five fields (minute hour day month weekday), or @every 5m")]
    Empty,
    /// Not five or six fields.
    #[error(
        "has {0} fields; it takes five (minute hour day month weekday), or six with seconds in front"
    )]
    Count(usize),
    /// A field's part that cannot be read.
    #[error("{field}: \"{part}\": {reason}")]
    Part {
        /// Which.
        field: &'static str,
        /// As it was written.
        part: String,
        /// Why.
        reason: String,
    },
    /// A descriptor that does not exist.
    #[error(
        "unknown descriptor \"{0}\" (allowed: @yearly, @annually, @monthly, @weekly, @daily, @midnight, @hourly, @every DURATION)"
    )]
    Descriptor(String),
    /// An interval that is none.
    #[error("@every \"{0}\": {1}")]
    Every(String, String),
    /// A time zone that nobody knows.
    #[error("unknown time zone \"{0}\"; names are as in Europe/Berlin")]
    Zone(String),
}

struct Bounds {
    field: &'static str,
    least: u32,
    most: u32,
    names: &'static [&'static str],
}

const SECOND: Bounds = Bounds { field: "second", least: 0, most: 59, names: &[] };
const MINUTE: Bounds = Bounds { field: "minute", least: 0, most: 59, names: &[] };
const HOUR: Bounds = Bounds { field: "hour", least: 0, most: 23, names: &[] };
const DAY: Bounds = Bounds { field: "day", least: 1, most: 31, names: &[] };
const MONTH: Bounds = Bounds {
    field: "month",
    least: 1,
    most: 12,
    names: &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"],
};
const WEEKDAY: Bounds = Bounds {
    field: "weekday",
    least: 0,
    most: 6,
    names: &["sun", "mon", "tue", "wed", "thu", "fri", "sat"],
};

impl FromStr for Cron {
    type Err = CronError;

    fn from_str(text: &str) -> Result<Self, CronError> {
        let mut text = text.trim();
        let mut zone = None;
        if let Some(rest) = text.strip_prefix("TZ=").or_else(|| text.strip_prefix("CRON_TZ=")) {
            let (name, fields) = rest.split_once(' ').unwrap_or((rest, ""));
            zone = Some(time_zone(name)?);
            text = fields.trim();
        }
        if text.is_empty() {
            return Err(CronError::Empty);
        }
        let when = if text.starts_with('@') { descriptor(text)? } else { fields(text)? };
        Ok(Self { when, zone })
    }
}

fn time_zone(name: &str) -> Result<TimeZone, CronError> {
    match name {
        // "Local" is the controller's, which has no other.
        "UTC" | "Local" | "" => Ok(TimeZone::UTC),
        _ => TimeZone::get(name).map_err(|_| CronError::Zone(name.to_owned())),
    }
}

fn descriptor(text: &str) -> Result<When, CronError> {
    if let Some(written) = text.strip_prefix("@every ") {
        let bad = |reason: String| CronError::Every(written.to_owned(), reason);
        let duration: GoDuration =
            written.parse().map_err(|e: super::duration::DurationError| bad(e.to_string()))?;
        // Whole seconds, and one at the least: as upstream.
        let seconds = duration.to_std().ok_or_else(|| bad("is below zero".to_owned()))?.as_secs();
        return Ok(When::Every(Duration::from_secs(seconds.max(1))));
    }
    fields(match text {
        "@yearly" | "@annually" => "0 0 1 1 *",
        "@monthly" => "0 0 1 * *",
        "@weekly" => "0 0 * * 0",
        "@daily" | "@midnight" => "0 0 * * *",
        "@hourly" => "0 * * * *",
        _ => return Err(CronError::Descriptor(text.to_owned())),
    })
}

fn fields(text: &str) -> Result<When, CronError> {
    let mut words: Vec<&str> = text.split_whitespace().collect();
    if words.len() == 5 {
        words.insert(0, "0");
    }
    let [second, minute, hour, day, month, weekday] = words[..] else {
        return Err(CronError::Count(words.len()));
    };
    Ok(When::Fields(Box::new(Fields {
        second: field(second, &SECOND)?.bits,
        minute: field(minute, &MINUTE)?.bits,
        hour: field(hour, &HOUR)?.bits,
        day: field(day, &DAY)?,
        month: field(month, &MONTH)?.bits,
        weekday: field(weekday, &WEEKDAY)?,
    })))
}

fn field(text: &str, bounds: &Bounds) -> Result<Days, CronError> {
    let mut all = Days { bits: 0, is_any: false };
    for part in text.split(',').filter(|part| !part.is_empty()) {
        let reason = match range(part, bounds) {
            Ok(one) => {
                all.bits |= one.bits;
                all.is_any |= one.is_any;
                continue;
            }
            Err(reason) => reason,
        };
        return Err(CronError::Part { field: bounds.field, part: part.to_owned(), reason });
    }
    if all.bits == 0 {
        let reason = "names no value".to_owned();
        return Err(CronError::Part { field: bounds.field, part: text.to_owned(), reason });
    }
    Ok(all)
}

/// `*`, `?`, `5`, `1-5`, each with a step: `*/10`, `5/10` (from 5 on), `1-31/2`.
fn range(part: &str, bounds: &Bounds) -> Result<Days, String> {
    let mut pieces = part.split('/');
    let values = pieces.next().unwrap_or_default();
    let step = pieces.next().map(number).transpose()?;
    if pieces.next().is_some() {
        return Err("more than one step".to_owned());
    }
    let mut ends = values.split('-');
    let first = ends.next().unwrap_or_default();
    let (least, mut most, is_any, is_single) = if matches!(first, "*" | "?") {
        (bounds.least, bounds.most, step.unwrap_or(1) == 1, false)
    } else {
        let least = value(first, bounds)?;
        let most = ends.next().map(|text| value(text, bounds)).transpose()?;
        (least, most.unwrap_or(least), false, most.is_none())
    };
    if ends.next().is_some() {
        return Err("more than one range".to_owned());
    }
    if is_single && step.is_some() {
        most = bounds.most;
    }
    if least < bounds.least || most > bounds.most {
        return Err(format!("must be from {} to {}", bounds.least, bounds.most));
    }
    if least > most {
        return Err("begins after it ends".to_owned());
    }
    let step = step.unwrap_or(1);
    if step == 0 {
        return Err("a step must be above zero".to_owned());
    }
    let bits = (least..=most).step_by(step as usize).fold(0, |bits, value| bits | 1 << value);
    Ok(Days { bits, is_any })
}

fn value(text: &str, bounds: &Bounds) -> Result<u32, String> {
    match bounds.names.iter().position(|name| name.eq_ignore_ascii_case(text)) {
        Some(at) => Ok(at as u32 + bounds.least),
        None => number(text),
    }
}

fn number(text: &str) -> Result<u32, String> {
    text.parse().map_err(|_| format!("\"{text}\" is no number"))
}

impl Cron {
    /// The first moment after `after`; `None` when no day fits (30 February).
    #[must_use]
    pub fn next(&self, after: Timestamp) -> Option<Timestamp> {
        let second = Timestamp::from_second(after.as_second()).ok()?;
        match &self.when {
            When::Every(interval) => {
                second.checked_add(SignedDuration::try_from(*interval).ok()?).ok()
            }
            When::Fields(fields) => {
                let start = second.checked_add(SignedDuration::from_secs(1)).ok()?;
                let zone = self.zone.clone().unwrap_or(TimeZone::UTC);
                fields.from(start.to_zoned(zone)).map(|time| time.timestamp())
            }
        }
    }

    /// The last moment in `(after, until]`, and whether there was another one before it. An
    /// interval counts from `after`. However many there were, the work is bounded.
    #[must_use]
    pub fn last(&self, after: Timestamp, until: Timestamp) -> Option<(Timestamp, bool)> {
        let first = self.next(after).filter(|first| *first <= until)?;
        if let When::Every(interval) = &self.when {
            let interval = i64::try_from(interval.as_secs()).ok()?.max(1);
            let more = (until.as_second() - first.as_second()) / interval;
            let last = Timestamp::from_second(first.as_second() + more * interval).ok()?;
            return Some((last, more > 0));
        }
        // Whether there is a moment in (x, until] turns from yes to no once as x grows.
        let (mut yes, mut no) = (after.as_second(), until.as_second());
        while no - yes > 1 {
            let middle = yes + (no - yes) / 2;
            let next = Timestamp::from_second(middle).ok().and_then(|at| self.next(at));
            if next.is_some_and(|at| at <= until) { yes = middle } else { no = middle }
        }
        let last = self.next(Timestamp::from_second(yes).ok()?)?;
        Some((last, last > first))
    }
}

impl Fields {
    /// The first moment at or after `time`. It advances in real time, so that an hour that a
    /// clock change leaves out has no moment and one that comes twice has two: as upstream.
    fn from(&self, mut time: Zoned) -> Option<Zoned> {
        let last_year = time.year().checked_add(YEARS)?;
        while time.year() <= last_year {
            if !has(self.month, time.month()) {
                let date = time.date().first_of_month();
                let next = date.checked_add(jiff::Span::new().months(1)).ok()?;
                time = midnight(next, &time)?;
            } else if !self.has_day(&time) {
                time = midnight(time.date().tomorrow().ok()?, &time)?;
            } else if !has(self.hour, time.hour()) {
                let passed = i64::from(time.minute()) * 60 + i64::from(time.second());
                time = later(&time, 3600 - passed)?;
            } else if !has(self.minute, time.minute()) {
                time = later(&time, 60 - i64::from(time.second()))?;
            } else if !has(self.second, time.second()) {
                time = later(&time, 1)?;
            } else {
                return Some(time);
            }
        }
        None
    }

    fn has_day(&self, time: &Zoned) -> bool {
        let day = has(self.day.bits, time.day());
        let weekday = has(self.weekday.bits, time.weekday().to_sunday_zero_offset());
        if self.day.is_any || self.weekday.is_any { day && weekday } else { day || weekday }
    }
}

fn has(bits: u64, value: i8) -> bool {
    u32::try_from(value).is_ok_and(|value| bits >> value & 1 == 1)
}

fn midnight(date: Date, like: &Zoned) -> Option<Zoned> {
    date.at(0, 0, 0, 0).to_zoned(like.time_zone().clone()).ok()
}

fn later(time: &Zoned, seconds: i64) -> Option<Zoned> {
    time.checked_add(SignedDuration::from_secs(seconds)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn cron(text: &str) -> Cron {
        text.parse().unwrap()
    }

    #[test]
    fn the_next_moment_is_the_first_that_fits() {
        for (text, after, next) in [
            ("* * * * *", "2026-01-01T00:00:00Z", "2026-01-01T00:01:00Z"),
            ("* * * * * *", "2026-01-01T00:00:00.5Z", "2026-01-01T00:00:01Z"),
            ("*/15 * * * *", "2026-01-01T00:46:00Z", "2026-01-01T01:00:00Z"),
            ("5/20 * * * *", "2026-01-01T00:26:00Z", "2026-01-01T00:45:00Z"),
            ("30 2 * * mon-fri", "2026-01-03T00:00:00Z", "2026-01-05T02:30:00Z"),
            ("0 0 29 2 ?", "2026-01-01T00:00:00Z", "2028-02-29T00:00:00Z"),
            // Both kinds of days restricted: either is enough.
            ("0 0 13 * FRI", "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"),
            // A step on a star is a restriction, too.
            ("0 0 */10 * sun", "2026-01-02T00:00:00Z", "2026-01-04T00:00:00Z"),
            ("@hourly", "2026-01-01T00:00:00Z", "2026-01-01T01:00:00Z"),
            ("@weekly", "2026-01-01T00:00:00Z", "2026-01-04T00:00:00Z"),
            ("@every 1h30m", "2026-01-01T00:00:00Z", "2026-01-01T01:30:00Z"),
            ("@every 10ms", "2026-01-01T00:00:00Z", "2026-01-01T00:00:01Z"),
            ("TZ=Asia/Kolkata 0 9 * * *", "2026-01-01T00:00:00Z", "2026-01-01T03:30:00Z"),
        ] {
            assert_eq!(cron(text).next(at(after)), Some(at(next)), "{text}");
        }
        assert_eq!(cron("0 0 30 2 *").next(at("2026-01-01T00:00:00Z")), None);
    }

    #[test]
    fn an_hour_that_is_left_out_has_no_moment_and_one_that_comes_twice_has_two() {
        let berlin = cron("CRON_TZ=Europe/Berlin 30 2 * * *");
        let next = berlin.next(at("2026-03-28T12:00:00Z")).unwrap();
        assert_eq!(next, at("2026-03-30T00:30:00Z"));
        let first = berlin.next(at("2026-10-24T12:00:00Z")).unwrap();
        assert_eq!(first, at("2026-10-25T00:30:00Z"));
        assert_eq!(berlin.next(first), Some(at("2026-10-25T01:30:00Z")));
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, word) in [
            ("", "empty"),
            ("TZ=UTC", "empty"),
            ("* * * *", "4 fields"),
            ("* * * * * * *", "7 fields"),
            ("60 * * * *", "from 0 to 59"),
            ("* * 0 * *", "from 1 to 31"),
            ("* * * * 7", "from 0 to 6"),
            ("5-1 * * * *", "begins after"),
            ("*/0 * * * *", "above zero"),
            ("1/2/3 * * * *", "more than one step"),
            ("1-2-3 * * * *", "more than one range"),
            ("x * * * *", "is no number"),
            (", * * * *", "names no value"),
            ("@never", "unknown descriptor"),
            ("@every 5", "missing unit"),
            ("TZ=Mars/Base * * * * *", "unknown time zone"),
        ] {
            let error = text.parse::<Cron>().unwrap_err().to_string();
            assert!(error.contains(word), "{text}: {error}");
        }
    }

    #[test]
    fn the_last_moment_is_found_without_counting_all() {
        let (after, until) = (at("2020-01-01T00:00:00Z"), at("2026-01-01T00:00:30Z"));
        assert_eq!(cron("* * * * * *").last(after, until), Some((until, true)));
        let daily = cron("0 12 * * *").last(after, until);
        assert_eq!(daily, Some((at("2025-12-31T12:00:00Z"), true)));
        let once = cron("0 0 29 2 *").last(at("2023-01-01T00:00:00Z"), until);
        assert_eq!(once, Some((at("2024-02-29T00:00:00Z"), false)));
        assert_eq!(cron("0 0 29 2 *").last(at("2025-01-01T00:00:00Z"), until), None);
        let every = cron("@every 7s").last(at("2026-01-01T00:00:00Z"), until);
        assert_eq!(every, Some((at("2026-01-01T00:00:28Z"), true)));
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "\\PC{0,40}") {
            let _ = text.parse::<Cron>();
        }

        #[test]
        fn moments_go_on_and_the_last_one_is_the_last(
            minute in 0..60u32, step in 1..30u32, start in 1_700_000_000i64..1_800_000_000,
            span in 0..100_000i64,
        ) {
            let cron = cron(&format!("{minute}/{step} * * * *"));
            let after = Timestamp::from_second(start).unwrap();
            let until = Timestamp::from_second(start + span).unwrap();
            let mut all = Vec::new();
            let mut now = after;
            while let Some(next) = cron.next(now).filter(|next| *next <= until) {
                prop_assert!(next > now);
                all.push(next);
                now = next;
            }
            prop_assert_eq!(cron.last(after, until), all.last().map(|last| (*last, all.len() > 1)));
        }
    }
}
