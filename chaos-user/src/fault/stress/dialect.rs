//! The options of stress-ng, and of the memory worker of the public API, as far as the built-in
//! workers understand them.

use std::time::Duration;

use crate::api::bytes::Bytes;
use crate::api::duration::GoDuration;
use crate::api::finding::Findings;

/// What a line of options asks for. `None`: it does not say.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Wishes {
    /// Workers that compute; 0: one for each processor.
    pub cpu: Option<u32>,
    /// How much of a processor each uses, percent.
    pub cpu_load: Option<u32>,
    /// Workers that take memory; 0: one for each processor.
    pub vm: Option<u32>,
    /// How much they take together.
    pub vm_bytes: Option<Bytes>,
    /// Workers that flush.
    pub io: Option<u32>,
    /// Workers that write files.
    pub hdd: Option<u32>,
    /// Size of each one's file, bytes.
    pub hdd_bytes: Option<u64>,
    /// When all of it ends.
    pub timeout: Option<Duration>,
    /// How long memory takes to reach its size.
    pub ramp: Option<Duration>,
}

/// Whose options they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// stress-ng.
    StressNg,
    /// The public API's memory worker.
    MemStress,
}

/// What an option does.
#[derive(Clone, Copy)]
enum Does {
    Cpu,
    CpuLoad,
    Vm,
    VmBytes,
    Io,
    Hdd,
    HddBytes,
    Timeout,
    /// The memory worker's time to reach its size.
    Ramp,
    /// The memory worker's size, in the API's own units.
    Size,
    /// Has a value; the built-in workers have their own way.
    Ignored,
    /// Has no value, and is what the built-in workers do anyway, or concerns only the output.
    Nothing,
}

const STRESS_NG: [(&[&str], Does); 21] = [
    (&["--cpu", "-c"], Does::Cpu),
    (&["--cpu-load", "-l"], Does::CpuLoad),
    (&["--cpu-load-slice"], Does::Ignored),
    (&["--cpu-method"], Does::Ignored),
    (&["--vm", "-m"], Does::Vm),
    (&["--vm-bytes"], Does::VmBytes),
    (&["--vm-method"], Does::Ignored),
    (&["--vm-hang"], Does::Ignored),
    (&["--vm-keep"], Does::Nothing),
    (&["--vm-populate"], Does::Nothing),
    (&["--vm-locked"], Does::Nothing),
    (&["--io", "-i"], Does::Io),
    (&["--hdd", "-d"], Does::Hdd),
    (&["--hdd-bytes"], Does::HddBytes),
    (&["--timeout", "-t"], Does::Timeout),
    (&["--quiet", "-q"], Does::Nothing),
    (&["--verbose", "-v"], Does::Nothing),
    (&["--metrics"], Does::Nothing),
    (&["--metrics-brief"], Does::Nothing),
    (&["--times"], Does::Nothing),
    (&["--temp-path"], Does::Ignored),
];

const MEM_STRESS: [(&[&str], Does); 3] = [
    (&["--time", "-t"], Does::Ramp),
    (&["--size", "-s"], Does::Size),
    (&["--workers", "-w"], Does::Vm),
];

impl Program {
    fn options(self) -> &'static [(&'static [&'static str], Does)] {
        match self {
            Self::StressNg => &STRESS_NG,
            Self::MemStress => &MEM_STRESS,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::StressNg => "stress-ng",
            Self::MemStress => "the memory worker",
        }
    }

    /// Every option that is understood, for messages.
    fn known(self) -> String {
        self.options().iter().map(|(names, _)| names[0]).collect::<Vec<_>>().join(", ")
    }

    /// What an argument means, and the value that is part of it (`--cpu=2`, `-c2`).
    fn find(self, argument: &str) -> Option<(Does, Option<&str>)> {
        let exact = |name: &str| {
            let option = self.options().iter().find(|(names, _)| names.contains(&name))?;
            Some(option.1)
        };
        if let Some((name, value)) = argument.split_once('=') {
            return exact(name).map(|does| (does, Some(value)));
        }
        if let Some(does) = exact(argument) {
            return Some((does, None));
        }
        let is_short = !argument.starts_with("--") && argument.is_char_boundary(2);
        let (name, value) = is_short.then(|| argument.split_at_checked(2)).flatten()?;
        Some((exact(name)?, Some(value)))
    }
}

/// Most workers of one kind, as the API has it.
const MOST: u32 = 8192;

/// Reads a line, split at spaces. What is not understood is an error at `path`.
pub fn read<'a>(
    program: Program,
    arguments: impl IntoIterator<Item = &'a str>,
    path: &str,
    findings: &mut Findings,
) -> Wishes {
    let mut wishes = Wishes::default();
    let mut arguments = arguments.into_iter().peekable();
    // Users write the program's own name, too.
    arguments.next_if(|first| *first == "stress-ng" || first.ends_with("/stress-ng"));
    while let Some(argument) = arguments.next() {
        let Some((does, value)) = program.find(argument) else {
            let reason = format!(
                "is no option that the built-in workers understand; of those of {} they know: {}",
                program.name(),
                program.known()
            );
            findings.unsupported(path, &argument, reason);
            return wishes;
        };
        if matches!(does, Does::Nothing) {
            if value.is_some() {
                findings.invalid(path, &argument, "this option has no value; write it alone");
            }
            continue;
        }
        let Some(value) = value.or_else(|| arguments.next()) else {
            findings.invalid(path, &argument, "its value is missing; write it behind the option");
            return wishes;
        };
        if let Err(reason) = wishes.take(does, value) {
            findings.invalid(path, &format!("{argument} {value}"), reason);
        } else if matches!(does, Does::Ignored) {
            let message = format!(
                "{argument} {value} has no effect: the built-in workers have their own way"
            );
            findings.warn(path, message);
        }
    }
    wishes
}

impl Wishes {
    fn take(&mut self, does: Does, value: &str) -> Result<(), String> {
        match does {
            Does::Cpu => self.cpu = Some(workers(value)?),
            Does::CpuLoad => self.cpu_load = Some(percent(value)?),
            Does::Vm => self.vm = Some(workers(value)?),
            Does::VmBytes => self.vm_bytes = Some(binary(value)?),
            Does::Io => self.io = Some(workers(value)?),
            Does::Hdd => self.hdd = Some(workers(value)?),
            Does::HddBytes => match binary(value)? {
                Bytes::Count(count) if count > 0 => self.hdd_bytes = Some(count),
                _ => return Err("write a size above 0, for example 64m".to_owned()),
            },
            Does::Timeout => self.timeout = seconds(value)?,
            Does::Ramp => {
                let ramp = value.parse::<GoDuration>().map_err(|e| format!("{e}; write 10s"))?;
                self.ramp = Some(ramp.to_std().ok_or("is below zero; write 10s")?);
            }
            Does::Size => {
                self.vm_bytes = Some(value.parse().map_err(|e| format!("{e}; write 256MB"))?);
            }
            Does::Ignored | Does::Nothing => {}
        }
        Ok(())
    }
}

fn workers(value: &str) -> Result<u32, String> {
    let allowed = format!("allowed: a number of workers from 0 (one for each processor) to {MOST}");
    // A negative number means all processors that are online; 0 those that are configured.
    let number: i64 = value.parse().map_err(|_| allowed.clone())?;
    u32::try_from(number.max(0)).ok().filter(|n| *n <= MOST).ok_or(allowed)
}

fn percent(value: &str) -> Result<u32, String> {
    let number = value.parse().ok().filter(|n: &u32| *n <= 100);
    number.ok_or_else(|| "allowed: a whole number of percent from 0 to 100".to_owned())
}

/// stress-ng's sizes: multiples of 1024, or a percentage.
fn binary(value: &str) -> Result<Bytes, String> {
    const WAY_OUT: &str = "write a number with b, k, m, g or t (multiples of 1024), or a \
                           percentage from 0% to 100%";
    let wrong = || WAY_OUT.to_owned();
    if let Some(number) = value.strip_suffix('%') {
        let percent = number.parse().ok().filter(|n: &u8| *n <= 100);
        return percent.map(Bytes::Percent).ok_or_else(wrong);
    }
    let digits = value.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let power = match value[digits.len()..].to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" => 10,
        "m" | "mb" => 20,
        "g" | "gb" => 30,
        "t" | "tb" => 40,
        _ => return Err(wrong()),
    };
    let number: u64 = digits.parse().map_err(|_| wrong())?;
    number.checked_mul(1 << power).map(Bytes::Count).ok_or_else(wrong)
}

/// stress-ng's times: seconds, or with a unit. 0: no end.
fn seconds(value: &str) -> Result<Option<Duration>, String> {
    const WAY_OUT: &str = "write seconds, or a number with s, m, h, d or y";
    let digits = value.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match value[digits.len()..].to_ascii_lowercase().as_str() {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        "y" => 31_556_926,
        _ => return Err(WAY_OUT.to_owned()),
    };
    let number: u64 = digits.parse().map_err(|_| WAY_OUT.to_owned())?;
    let all = number.checked_mul(unit).ok_or_else(|| WAY_OUT.to_owned())?;
    Ok((all > 0).then_some(Duration::from_secs(all)))
}
