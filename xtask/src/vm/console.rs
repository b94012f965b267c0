//! Runs QEMU and reads the guest's console.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::exec;

/// A boot now and then hangs before the first process; a good one takes a few seconds, and
/// several times that on a busy machine.
pub const INIT_LIMIT: Duration = Duration::from_secs(180);

/// What the first process says.
pub const INIT: &str = "##kfault-init";
const READY: &str = "##kfault-ready ";
const EXIT: &str = "##kfault-exit ";

/// How one boot ended.
pub(super) enum Ended {
    /// The command ran; its exit status.
    Status(i32),
    /// It did not get that far; why.
    Broken(String),
}

/// What one boot gave.
pub(super) struct Boot {
    pub(super) ended: Ended,
    /// What the command printed.
    pub(super) lines: Vec<String>,
    /// Everything on the console, for the report of a failure.
    pub(super) console: Vec<String>,
    /// Seconds until the init script ran and until the command started.
    pub(super) times: (f32, f32),
}

/// What every kernel is told.
pub const KERNEL: &str =
    "console=ttyS0 quiet panic=-1 tsc=reliable clocksource=tsc mitigations=off";

/// Options of every machine. They were chosen by measurement: one emulated CPU in one thread
/// repeats best (two of them crash kernels that patch their own text), and `cx16` and `la57`
/// crashed guests.
pub const EMULATION: [&str; 8] = [
    "-accel",
    "tcg,thread=single,tb-size=256",
    "-smp",
    "1",
    "-cpu",
    "max,-cx16,-la57",
    "-nographic",
    "-no-reboot",
];

/// The QEMU command line.
pub(super) fn qemu(image: &Path, initrd: &Path, icount: bool) -> Command {
    let mut command = Command::new("qemu-system-x86_64");
    if icount {
        command.args(["-icount", "shift=1,sleep=off"]);
    }
    command.args(EMULATION);
    command.args(["-m", "1500", "-nic", "none", "-kernel"]).arg(image);
    command.arg("-initrd").arg(initrd).arg("-append");
    // The serial line is slow under emulation, so the kernel says only what is wrong.
    command.arg(KERNEL);
    // A guest must not outlive a test run that was killed.
    exec::until_we_end(&mut command);
    command
}

/// Ends QEMU whatever happens.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// How long a machine may take once it has reached its first process.
#[derive(Clone, Copy)]
pub struct Limits {
    /// All in all.
    pub total: Duration,
    /// Between two lines. A machine that hangs says nothing, and one that is slow does: this
    /// tells the two apart however busy the host is.
    pub silence: Duration,
}

impl Limits {
    /// For commands that may be silent all the time.
    #[must_use]
    pub fn total(total: Duration) -> Self {
        Self { total, silence: total }
    }
}

/// Boots once and reads the console until the command has ended or a limit is over.
pub(super) fn boot(mut qemu: Command, limits: Limits, each: &dyn Fn(&str)) -> Result<Boot> {
    let start = Instant::now();
    qemu.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut running =
        Running(qemu.spawn().context("start qemu-system-x86_64 (Debian: qemu-system-x86)")?);
    let (sender, receiver) = mpsc::channel();
    if let Some(stdout) = running.0.stdout.take() {
        read(stdout, sender.clone());
    }
    if let Some(stderr) = running.0.stderr.take() {
        read(stderr, sender);
    }
    let mut boot = Boot {
        ended: Ended::Broken(String::new()),
        lines: Vec::new(),
        console: Vec::new(),
        times: (0.0, 0.0),
    };
    let (mut init, mut ready) = (false, false);
    let mut total = start + INIT_LIMIT;
    let mut end = total;
    loop {
        let line = match receiver.recv_timeout(end.saturating_duration_since(Instant::now())) {
            Ok(line) => line,
            Err(RecvTimeoutError::Timeout) => {
                let why = match (init, end < total) {
                    (false, _) => "hung before the first process",
                    (true, true) => "silent for too long, so it hangs,",
                    (true, false) => "over the time limit",
                };
                boot.ended =
                    Ended::Broken(format!("{why} after {:.0} s", start.elapsed().as_secs_f32()));
                return Ok(boot);
            }
            Err(RecvTimeoutError::Disconnected) => {
                boot.ended =
                    Ended::Broken("the machine ended by itself (a crash of the guest?)".to_owned());
                return Ok(boot);
            }
        };
        if init {
            end = total.min(Instant::now() + limits.silence);
        }
        boot.console.push(line.clone());
        let seconds = start.elapsed().as_secs_f32();
        if !init {
            if line.contains(INIT) {
                init = true;
                boot.times.0 = seconds;
                total = Instant::now() + limits.total;
                end = total.min(Instant::now() + limits.silence);
            }
        } else if !ready {
            if line.contains(READY) {
                ready = true;
                boot.times.1 = seconds;
            }
        } else if let Some(at) = line.find(EXIT) {
            // A line without a newline at its end stands before the marker.
            if at > 0 {
                boot.keep(&line[..at], each);
            }
            let status = line[at + EXIT.len()..].trim();
            boot.ended = match status.parse() {
                Ok(status) => Ended::Status(status),
                Err(_) => Ended::Broken(format!("unreadable exit status '{status}'")),
            };
            return Ok(boot);
        } else {
            boot.keep(&line, each);
        }
    }
}

impl Boot {
    fn keep(&mut self, line: &str, each: &dyn Fn(&str)) {
        each(line);
        self.lines.push(line.to_owned());
    }
}

/// Sends cleaned lines from a thread, so that the reader can wait with a limit.
fn read(from: impl std::io::Read + Send + 'static, sender: mpsc::Sender<String>) {
    std::thread::spawn(move || {
        let mut from = BufReader::new(from);
        let mut bytes = Vec::new();
        while from.read_until(b'\n', &mut bytes).is_ok_and(|count| count > 0) {
            if sender.send(clean(&String::from_utf8_lossy(&bytes))).is_err() {
                return;
            }
            bytes.clear();
        }
    });
}

/// Removes what a serial console adds: carriage returns and the firmware's escape sequences.
///
/// Colours of the command go with them, since the lines are compared and stored.
fn clean(line: &str) -> String {
    let mut out = String::with_capacity(line.len());
    let mut chars = line.trim_end_matches(['\n', '\r']).chars();
    while let Some(c) = chars.next() {
        match c {
            '\u{1b}' => match chars.next() {
                Some('[') => {
                    chars.by_ref().find(|c| ('@'..='~').contains(c));
                }
                Some('(' | ')') => {
                    chars.next();
                }
                _ => {}
            },
            '\r' => {}
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::clean;

    #[test]
    fn console_lines_are_cleaned() {
        assert_eq!(clean("\u{1b}c\u{1b}[?7l\u{1b}[2Jhello\r\n"), "hello");
        assert_eq!(clean("\u{1b}[1;31mred\u{1b}[0m\ttext\r\r\n"), "red\ttext");
        assert_eq!(clean(""), "");
    }
}
