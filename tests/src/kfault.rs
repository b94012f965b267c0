//! `kfault` as a person or a script runs it: a process with events on stdout.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::sync::{Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use serde_json::Value;

use crate::manifest::{File, Manifest};

/// A rule acts at most this long after the last heartbeat.
pub const LEASE: Duration = Duration::from_secs(5);

/// How long kfault may take to apply or recover, held packets aside. Generous: emulated
/// machines are slow.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the next runs report as the way that packets were held (`fq`, `line`, `direct`).
static PATHS: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// The ways that packets were held since the last call.
pub fn take_paths() -> Vec<String> {
    std::mem::take(&mut *PATHS.lock().unwrap_or_else(PoisonError::into_inner))
}

/// A command line that is being written.
#[derive(Debug, Default)]
pub struct Run {
    before: Vec<String>,
    args: Vec<String>,
    files: Vec<File>,
}

impl Run {
    /// Of one manifest.
    pub fn of(manifest: &Manifest) -> Result<Self> {
        Self::default().and(manifest)
    }

    /// And of another one.
    pub fn and(mut self, manifest: &Manifest) -> Result<Self> {
        self.files.push(manifest.write()?);
        Ok(self)
    }

    /// And of a file.
    #[must_use]
    pub fn file(mut self, file: File) -> Self {
        self.files.push(file);
        self
    }

    /// Dies at a fault point of the engine, `before` or `after` it.
    #[must_use]
    pub fn crashing(mut self, point: &str, stage: &str) -> Self {
        self.before = vec!["as-kfault-crashing".into(), point.into(), stage.into()];
        self
    }

    /// Sees no cgroup v2.
    #[must_use]
    pub fn without_v2(mut self) -> Self {
        self.before = vec!["as-kfault-without-v2".into()];
        self
    }

    /// `--target`
    #[must_use]
    pub fn target(self, word: &str) -> Self {
        self.flag("--target", word)
    }

    /// `--peer`
    #[must_use]
    pub fn peer(self, word: &str) -> Self {
        self.flag("--peer", word)
    }

    /// `--protect`
    #[must_use]
    pub fn protect(self, name: &str) -> Self {
        self.flag("--protect", name)
    }

    /// `--seed`
    #[must_use]
    pub fn seed(self, seed: u64) -> Self {
        self.flag("--seed", &seed.to_string())
    }

    /// `--duration`
    #[must_use]
    pub fn duration(self, duration: &str) -> Self {
        self.flag("--duration", duration)
    }

    /// `--dry-run`
    #[must_use]
    pub fn dry(mut self) -> Self {
        self.args.push("--dry-run".into());
        self
    }

    fn flag(mut self, name: &str, value: &str) -> Self {
        self.args.extend([name.into(), value.into()]);
        self
    }

    /// Starts it.
    pub fn spawn(self) -> Result<Kfault> {
        let mut args = self.before;
        if args.is_empty() {
            args.push("as-kfault".into());
        }
        args.push("run".into());
        args.extend(self.files.iter().map(|file| file.path().display().to_string()));
        args.extend(self.args);
        args.extend(["--output".into(), "json".into()]);
        Kfault::spawn(&args, self.files)
    }

    /// Starts it and waits until the faults act.
    pub fn start(self) -> Result<Kfault> {
        let experiments = self.files.len();
        let mut kfault = self.spawn()?;
        for _ in 0..experiments {
            kfault.event("applied")?;
        }
        Ok(kfault)
    }

    /// Runs it to its end, which must be this exit code; what it said.
    pub fn ends_with(self, code: i32) -> Result<Ended> {
        let ended = self.spawn()?.end()?;
        ensure!(
            ended.status.code() == Some(code),
            "kfault ended with {} and not with {code}: {}",
            ended.status,
            ended.errors
        );
        Ok(ended)
    }
}

/// A running kfault.
pub struct Kfault {
    child: Child,
    events: Receiver<Value>,
    seen: Vec<Value>,
    errors: Option<JoinHandle<String>>,
    _files: Vec<File>,
}

/// A kfault that has ended.
#[derive(Debug)]
pub struct Ended {
    /// How.
    pub status: ExitStatus,
    /// Every event.
    pub events: Vec<Value>,
    /// Its words for people.
    pub errors: String,
}

impl Kfault {
    fn spawn(args: &[String], files: Vec<File>) -> Result<Self> {
        let mut child = Command::new("/proc/self/exe")
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("start kfault")?;
        let stdout = child.stdout.take().context("kfault's stdout")?;
        let mut stderr = child.stderr.take().context("kfault's stderr")?;
        let (tell, events) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let event = serde_json::from_str(&line).unwrap_or_else(
                    |error| serde_json::json!({"not json": error.to_string(), "line": line}),
                );
                if tell.send(event).is_err() {
                    return;
                }
            }
        });
        let errors = std::thread::spawn(move || {
            let mut text = String::new();
            let _ = stderr.read_to_string(&mut text);
            text
        });
        Ok(Self { child, events, seen: Vec::new(), errors: Some(errors), _files: files })
    }

    /// Its process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for the next event of this name.
    pub fn event(&mut self, name: &str) -> Result<Value> {
        let end = Instant::now() + PATIENCE;
        loop {
            match self.events.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(event) => {
                    self.seen.push(event.clone());
                    if event["event"] == name {
                        return Ok(event);
                    }
                }
                Err(RecvTimeoutError::Timeout) => {
                    bail!("no event {name:?} within {PATIENCE:?}; so far: {:?}", self.seen)
                }
                Err(RecvTimeoutError::Disconnected) => {
                    let ended = self.wait(PATIENCE)?;
                    bail!(
                        "kfault ended with {} before the event {name:?}: {}",
                        ended.status,
                        ended.errors.trim()
                    )
                }
            }
        }
    }

    /// Sends a signal.
    pub fn signal(&self, number: i32) -> Result<()> {
        let pid = libc::pid_t::try_from(self.child.id()).context("a process id")?;
        // SAFETY: plain call; the child has not been waited for, so the id is still its own.
        let done = unsafe { libc::kill(pid, number) };
        ensure!(done == 0, "signal kfault: {}", std::io::Error::last_os_error());
        Ok(())
    }

    /// Interrupts it as Ctrl-C would; it must recover and say so. Its summary.
    pub fn stop(self) -> Result<Summary> {
        self.stop_within(PATIENCE)
    }

    /// As [`Kfault::stop`], where held packets may take longer.
    pub fn stop_within(mut self, patience: Duration) -> Result<Summary> {
        self.signal(libc::SIGINT)?;
        let ended = self.wait(patience)?;
        ensure!(
            ended.status.code() == Some(130),
            "interrupted, kfault ended with {} and not with 130: {}",
            ended.status,
            ended.errors
        );
        ended.summary()
    }

    /// Kills it, as nothing can be caught.
    pub fn kill(mut self) -> Result<()> {
        self.signal(libc::SIGKILL)?;
        self.wait(PATIENCE).map(drop)
    }

    /// Waits for its own end.
    pub fn end(mut self) -> Result<Ended> {
        self.wait(PATIENCE)
    }

    /// Waits for its own end, which must be a success. Its summary.
    pub fn finish(self) -> Result<Summary> {
        let ended = self.end()?;
        ensure!(
            ended.status.code() == Some(0),
            "kfault ended with {} and not with 0: {}",
            ended.status,
            ended.errors
        );
        ended.summary()
    }

    fn wait(&mut self, patience: Duration) -> Result<Ended> {
        let end = Instant::now() + patience;
        let status = loop {
            if let Some(status) = self.child.try_wait().context("wait for kfault")? {
                break status;
            }
            ensure!(Instant::now() < end, "kfault did not end within {patience:?}");
            std::thread::sleep(Duration::from_millis(5));
        };
        while let Ok(event) = self.events.recv_timeout(PATIENCE) {
            self.seen.push(event);
        }
        let errors = match self.errors.take() {
            Some(thread) => thread.join().map_err(|_| anyhow!("reading stderr failed"))?,
            None => String::new(),
        };
        Ok(Ended { status, events: std::mem::take(&mut self.seen), errors })
    }
}

impl Drop for Kfault {
    fn drop(&mut self) {
        // A test that fails half-way must not leave a fault to the next one.
        if let Ok(None) = self.child.try_wait() {
            let _ = self.signal(libc::SIGCONT);
            let _ = self.signal(libc::SIGINT);
            if self.wait(Duration::from_secs(20)).is_err() {
                let _ = self.child.kill();
                let _ = self.child.wait();
            }
        }
    }
}

impl Ended {
    /// The last event, which must be the summary.
    pub fn summary(&self) -> Result<Summary> {
        let last = self.events.last().context("kfault printed no event")?;
        ensure!(last["event"] == "summary", "the last event is no summary: {last}");
        if let Some(bad) = self.events.iter().find(|event| event.get("not json").is_some()) {
            bail!("stdout holds something that is no event: {bad}");
        }
        let summary = Summary(last.clone());
        let mut paths = PATHS.lock().unwrap_or_else(PoisonError::into_inner);
        for rule in summary.rules() {
            if let Some(path) = rule["path"].as_str()
                && !paths.iter().any(|seen| seen == path)
            {
                paths.push(path.into());
            }
        }
        Ok(summary)
    }
}

/// The last event of a run.
#[derive(Clone, Debug)]
pub struct Summary(Value);

impl Summary {
    /// Its rules.
    #[must_use]
    pub fn rules(&self) -> &[Value] {
        self.0["rules"].as_array().map_or(&[], Vec::as_slice)
    }

    /// A counter, summed over all rules.
    #[must_use]
    pub fn total(&self, counter: &str) -> u64 {
        self.rules().iter().filter_map(|rule| rule[counter].as_u64()).sum()
    }

    /// A counter of its exchanges, summed.
    #[must_use]
    pub fn exchanged(&self, counter: &str) -> u64 {
        let all = self.0["exchanges"].as_array().map_or(&[][..], Vec::as_slice);
        all.iter().filter_map(|one| one[counter].as_u64()).sum()
    }

    /// What its exchanges let pass for a reason, summed.
    #[must_use]
    pub fn passed(&self, reason: &str) -> u64 {
        let all = self.0["exchanges"].as_array().map_or(&[][..], Vec::as_slice);
        all.iter().filter_map(|one| one["passed"][reason].as_u64()).sum()
    }

    /// The event.
    #[must_use]
    pub fn json(&self) -> &Value {
        &self.0
    }
}

/// Runs a command of kfault to its end, which must be this exit code; its stdout.
pub fn command(args: &[&str], code: i32) -> Result<String> {
    let output = Command::new("/proc/self/exe")
        .arg("as-kfault")
        .args(args)
        .stdin(Stdio::null())
        .output()
        .context("start kfault")?;
    ensure!(
        output.status.code() == Some(code),
        "kfault {} ended with {} and not with {code}: {}",
        args.join(" "),
        output.status,
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
