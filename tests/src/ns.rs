//! Network namespaces, entered by a thread of their own.

use std::fs::File;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::thread::{self, JoinHandle};

use anyhow::{Context, Result, bail, ensure};

/// Every namespace of the tests begins with this.
pub const PREFIX: &str = "kft-";

/// A network namespace.
#[derive(Debug)]
pub struct Ns {
    name: String,
    file: File,
    is_named: bool,
}

impl Ns {
    /// Makes a named one, with loopback up.
    pub fn new(name: &str) -> Result<Self> {
        let name = format!("{PREFIX}{name}");
        ip(&["netns", "add", &name])?;
        let path = Self::path_of(&name);
        let file = File::open(&path).with_context(|| format!("open {}", path.display()))?;
        let ns = Self { name, file, is_named: true };
        ns.batch(&["link set lo up"])?;
        Ok(ns)
    }

    /// The one that the caller is in.
    pub fn here() -> Result<Self> {
        let file = File::open("/proc/thread-self/ns/net").context("open the own namespace")?;
        Ok(Self { name: "host".into(), file, is_named: false })
    }

    fn path_of(name: &str) -> PathBuf {
        PathBuf::from("/run/netns").join(name)
    }

    /// Its name, with the prefix.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// As `ip link … netns` wants it.
    #[must_use]
    pub fn handle(&self) -> String {
        if self.is_named { self.name.clone() } else { std::process::id().to_string() }
    }

    /// As `--target` and `--peer` want it.
    #[must_use]
    pub fn word(&self) -> String {
        format!("netns:{}", self.name)
    }

    /// Moves the calling thread there. It must be a thread that ends afterwards.
    fn enter(fd: i32) -> std::io::Result<()> {
        // SAFETY: plain call on a descriptor that the caller keeps open.
        if unsafe { libc::setns(fd, libc::CLONE_NEWNET) } == 0 {
            Ok(())
        } else {
            Err(std::io::Error::last_os_error())
        }
    }

    /// Runs `f` inside and waits for it.
    pub fn run<T: Send>(&self, f: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        let fd = self.file.as_raw_fd();
        let name = &self.name;
        thread::scope(|scope| {
            let inside = move || {
                Self::enter(fd).with_context(|| format!("enter {name}"))?;
                f()
            };
            match scope.spawn(inside).join() {
                Ok(result) => result,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }

    /// Starts `f` inside and goes on.
    pub fn spawn<T: Send + 'static>(
        &self,
        f: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<JoinHandle<Result<T>>> {
        let file = self.file.try_clone().context("keep a namespace")?;
        let name = self.name.clone();
        Ok(thread::spawn(move || {
            Self::enter(file.as_raw_fd()).with_context(|| format!("enter {name}"))?;
            f()
        }))
    }

    /// A command that starts inside.
    #[must_use]
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        let fd = self.file.as_raw_fd();
        // SAFETY: setns is async-signal-safe; the descriptor is inherited by the fork and the
        // namespace lives as long as `self`, which outlives the spawn.
        unsafe { command.pre_exec(move || Self::enter(fd)) };
        command
    }

    /// What a command that must succeed prints.
    pub fn output(&self, program: &str, args: &[&str]) -> Result<String> {
        let output = self
            .command(program)
            .args(args)
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("start {program}"))?;
        text_of(program, args, output)
    }

    /// Runs lines of `ip` inside, all in one process.
    pub fn batch(&self, lines: &[&str]) -> Result<()> {
        let output = self.feed(self.command("ip").args(["-batch", "-"]), lines)?;
        text_of("ip", lines, output).map(drop)
    }

    /// What lines of `tc` print, all in one process. A line that fails prints nothing.
    pub fn tc_batch(&self, lines: &[&str]) -> Result<String> {
        let output = self.feed(self.command("tc").args(["-force", "-batch", "-"]), lines)?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn feed(&self, command: &mut Command, lines: &[&str]) -> Result<Output> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("start iproute2")?;
        let text = lines.join("\n") + "\n";
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(text.as_bytes()).context("talk to iproute2")?;
        }
        child.wait_with_output().context("wait for iproute2")
    }

    /// Runs `tc` inside.
    pub fn tc(&self, line: &str) -> Result<String> {
        let words: Vec<&str> = line.split_whitespace().collect();
        self.output("tc", &words)
    }

    /// Writes a file below `/proc/sys/net` of the namespace.
    pub fn sysctl(&self, path: &str, value: &str) -> Result<()> {
        self.run(|| {
            let path = format!("/proc/sys/net/{path}");
            std::fs::write(&path, value).with_context(|| format!("write {path}"))
        })
    }

    /// Removes the name now, as if the pod had gone.
    pub fn remove(&mut self) -> Result<()> {
        if std::mem::take(&mut self.is_named) {
            ip(&["netns", "del", &self.name])?;
        }
        Ok(())
    }
}

impl Drop for Ns {
    fn drop(&mut self) {
        // What cannot be removed is removed by the next run.
        let _ = self.remove();
    }
}

fn ip(args: &[&str]) -> Result<String> {
    let output = Command::new("ip").args(args).stdin(Stdio::null()).output().context("start ip")?;
    text_of("ip", args, output)
}

fn text_of(program: &str, args: &[&str], output: Output) -> Result<String> {
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    bail!(
        "{program} {}: {}: {}",
        args.join(" "),
        output.status,
        String::from_utf8_lossy(&output.stderr).trim()
    )
}

/// Removes the namespaces that a crashed run left behind.
pub fn remove_leftovers() -> Result<()> {
    for entry in std::fs::read_dir("/run/netns").into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with(PREFIX) {
            ip(&["netns", "del", &name])?;
        }
    }
    Ok(())
}

/// Moves this process into network, mount and process namespaces of its own, as a child of
/// itself, and returns there: what the tests do cannot touch the host, a crash of the tests
/// leaves no namespace behind, and an engine that is at work on this host is not disturbed.
///
/// The original process never returns from here: it waits and ends as the child ends.
pub fn leave_the_host() -> Result<()> {
    let flags = libc::CLONE_NEWNS | libc::CLONE_NEWNET | libc::CLONE_NEWPID;
    // SAFETY: plain call; no other thread runs yet.
    let done = unsafe { libc::unshare(flags) };
    ensure!(
        done == 0,
        "make namespaces for the tests (they need root): {}",
        std::io::Error::last_os_error()
    );
    // SAFETY: no other thread runs yet, so the child may go on as a whole program.
    let child = unsafe { libc::fork() };
    ensure!(child >= 0, "fork: {}", std::io::Error::last_os_error());
    if child > 0 {
        wait_and_end(child);
    }
    // SAFETY: plain call; the child dies with its parent.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
    mount(None, "/", None, libc::MS_REC | libc::MS_PRIVATE)?;
    mount(Some("tmpfs"), "/run", Some("tmpfs"), 0)?;
    mount(Some("proc"), "/proc", Some("proc"), 0)?;
    std::fs::create_dir_all("/run/netns").context("make /run/netns")?;
    Ns::here()?.batch(&["link set lo up"])
}

fn wait_and_end(child: libc::pid_t) -> ! {
    let mut status = 0;
    // The child handles Ctrl-C; we only pass its end on.
    // SAFETY: plain calls with valid pointers.
    unsafe {
        libc::signal(libc::SIGINT, libc::SIG_IGN);
        while libc::waitpid(child, &raw mut status, 0) < 0
            && std::io::Error::last_os_error().raw_os_error() == Some(libc::EINTR)
        {}
    }
    let code = if libc::WIFEXITED(status) {
        libc::WEXITSTATUS(status)
    } else {
        128 + libc::WTERMSIG(status)
    };
    std::process::exit(code)
}

/// Mounts over `target` in the namespace of the caller.
pub fn mount(
    source: Option<&str>,
    target: &str,
    kind: Option<&str>,
    flags: libc::c_ulong,
) -> Result<()> {
    let text = |s: &str| std::ffi::CString::new(s).context("a path with a zero byte");
    let source = source.map(text).transpose()?;
    let kind = kind.map(text).transpose()?;
    let target_text = text(target)?;
    let pointer =
        |s: &Option<std::ffi::CString>| s.as_ref().map_or(std::ptr::null(), |s| s.as_ptr());
    // SAFETY: every pointer is null or a string that lives until the end of the call.
    let done = unsafe {
        libc::mount(pointer(&source), target_text.as_ptr(), pointer(&kind), flags, std::ptr::null())
    };
    ensure!(done == 0, "mount over {target}: {}", std::io::Error::last_os_error());
    Ok(())
}
