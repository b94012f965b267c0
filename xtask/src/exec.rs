//! Running other programs: quietly with a moving line while they work, in full when they fail.

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;

use anyhow::{Context, Result, bail};

use crate::progress::Step;

/// What a program said and how it ended.
pub struct Said {
    /// Whether it exited with 0.
    pub is_ok: bool,
    /// How it ended, for people.
    pub status: String,
    /// Standard output and standard error, in the order of their lines.
    pub output: String,
    /// Standard output alone.
    pub stdout: String,
}

/// Runs a program and hands every line of its two outputs to `each` while it runs.
pub fn lines(command: &mut Command, mut each: impl FnMut(&str)) -> Result<Said> {
    let what = name(command);
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("start {what}"))?;
    let (sender, receiver) = mpsc::channel();
    let mut readers = Vec::new();
    if let Some(out) = child.stdout.take() {
        let sender = sender.clone();
        readers.push(thread::spawn(move || forward(out, true, &sender)));
    }
    if let Some(err) = child.stderr.take() {
        readers.push(thread::spawn(move || forward(err, false, &sender)));
    }
    let (mut output, mut stdout) = (String::new(), String::new());
    for (is_stdout, line) in receiver {
        each(&line);
        output.push_str(&line);
        output.push('\n');
        if is_stdout {
            stdout.push_str(&line);
            stdout.push('\n');
        }
    }
    for reader in readers {
        // A reader that panicked has lost nothing that its lines did not say.
        let _ = reader.join();
    }
    let status = child.wait().with_context(|| format!("wait for {what}"))?;
    Ok(Said { is_ok: status.success(), status: status.to_string(), output, stdout })
}

fn forward(from: impl std::io::Read, is_stdout: bool, to: &mpsc::Sender<(bool, String)>) {
    let mut reader = BufReader::new(from);
    let mut line = Vec::new();
    while let Ok(n) = reader.read_until(b'\n', &mut line) {
        if n == 0 {
            return;
        }
        let text = String::from_utf8_lossy(&line).trim_end_matches(['\n', '\r']).to_owned();
        if to.send((is_stdout, text)).is_err() {
            return;
        }
        line.clear();
    }
}

/// Runs a program below a step: its last line is shown while it works, all of it if it fails.
pub fn quiet(step: &Step, command: &mut Command) -> Result<Said> {
    let what = name(command);
    let said = lines(command, |line| step.note(line))?;
    if !said.is_ok {
        bail!("{what} failed ({}):\n{}", said.status, said.output.trim_end());
    }
    Ok(said)
}

/// Standard output of a short program.
pub fn read(command: &mut Command) -> Result<String> {
    let what = name(command);
    let said = command.output().with_context(|| format!("start {what}"))?;
    if !said.status.success() {
        bail!("{what}: {}: {}", said.status, String::from_utf8_lossy(&said.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&said.stdout).into_owned())
}

/// Runs a program that talks to the person directly and returns its exit code.
pub fn attached(command: &mut Command) -> Result<i32> {
    let what = name(command);
    let status = command.status().with_context(|| format!("start {what}"))?;
    Ok(status.code().unwrap_or(128))
}

/// The program and its arguments as one would type them.
pub fn name(command: &Command) -> String {
    let mut text = PathBuf::from(command.get_program())
        .file_name()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default();
    for arg in command.get_args() {
        text.push(' ');
        text.push_str(&arg.to_string_lossy());
    }
    text
}

/// Where a program lies: on the path, or in the folders of system programs, which an ordinary
/// user's path leaves out.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin", "/usr/local/sbin"].map(PathBuf::from))
        .map(|folder| folder.join(program))
        .find(|file| file.is_file())
}

/// A program to run, with a clear error where it is missing.
pub fn program(name: &str) -> Result<Command> {
    let file =
        find(name).with_context(|| format!("{name} is not installed: run `cargo xtask setup`"))?;
    Ok(Command::new(file))
}

/// The cargo that runs us.
pub fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(crate::root());
    // Set for us by the outer cargo, meant for nobody else.
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
            command.env_remove(&name);
        }
    }
    command
}

/// Whether we may do what only root may.
pub fn is_root() -> bool {
    // SAFETY: takes nothing, changes nothing, cannot fail.
    unsafe { libc::geteuid() == 0 }
}

/// From here on this thread, and every program that it starts, runs when nobody else wants the
/// processor. A machine that knows no such thing goes on as before.
pub fn stand_back() {
    // SAFETY: the parameter is valid, and the policy is that of this thread alone.
    unsafe {
        let mut parameter: libc::sched_param = std::mem::zeroed();
        parameter.sched_priority = 0;
        libc::sched_setscheduler(0, libc::SCHED_IDLE, &raw const parameter);
    }
}

/// The program must not outlive the thread that starts it. Where that thread stands back, the
/// program does so as a session: the scheduler shares the processors between sessions first
/// (sched(7), autogroup), and would give one that is idle by policy as much as any other.
pub fn until_we_end(command: &mut Command) {
    // SAFETY: takes nothing but the calling thread.
    let stands_back = unsafe { libc::sched_getscheduler(0) } == libc::SCHED_IDLE;
    // SAFETY: these calls are async-signal-safe; the strings are static and end with a zero.
    unsafe {
        command.pre_exec(move || {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            if stands_back {
                libc::setsid();
                let file = libc::open(c"/proc/self/autogroup".as_ptr(), libc::O_WRONLY);
                // A kernel without it shares by thread alone.
                if file >= 0 {
                    libc::write(file, c"19".as_ptr().cast(), 2);
                    libc::close(file);
                }
            }
            Ok(())
        });
    }
}
