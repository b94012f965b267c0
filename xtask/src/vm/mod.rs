//! Runs commands as root in QEMU machines with each supported kernel.
//!
//! Most of the engine depends on what the kernel does with a packet, and the host has one kernel.
//! The guests are initrds made of Debian's cloud kernels and the host's own programs; nothing is
//! installed and everything is cached below `target/vm`.

pub mod archive;
pub mod console;
mod image;
pub mod packages;

use std::fs::{self, File};
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use console::Ended;
pub use console::Limits;

/// The kernels of the matrix: the oldest one supported, two long-term ones, the newest.
pub const KERNELS: [&str; 4] = ["5.10", "6.1", "6.12", "7.x"];

/// One command to run in one machine.
pub struct Job<'a> {
    /// One of [`KERNELS`].
    pub kernel: String,
    /// Programs of the host and the names they get in the guest's `/bin`.
    pub files: Vec<(PathBuf, String)>,
    /// Run by `sh` as root, without input.
    pub command: String,
    /// Guest time follows the executed instructions: exact and slow.
    pub icount: bool,
    /// How long the command may take, counted from the guest's first process.
    pub limits: Limits,
    /// Hears the lines as they come.
    pub each: &'a (dyn Fn(&str) + Sync),
}

/// What came of a job.
pub struct Outcome {
    /// The command's exit status.
    pub status: i32,
    /// What it printed, without console escapes.
    pub lines: Vec<String>,
    /// How often the machine was started: 2 when the first boot hung or crashed.
    pub boots: u32,
    /// Time until the kernel reached its first process.
    pub init: Duration,
    /// Time until the command was started.
    pub ready: Duration,
}

/// Options of `cargo xtask vm`.
#[derive(clap::Args)]
pub struct Args {
    /// The kernel to boot: 5.10, 6.1, 6.12 or 7.x
    #[arg(long, value_name = "VERSION", default_value = "6.12", value_parser = KERNELS)]
    kernel: String,
    /// Let guest time follow the executed instructions: exact and slow
    #[arg(long)]
    icount: bool,
    /// A program of the host to put into the guest's /bin; may be repeated
    #[arg(long, value_name = "PATH")]
    file: Vec<PathBuf>,
    /// Seconds the command may take
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    limit: u64,
    /// The command to run; without one there is a shell
    #[arg(last = true, value_name = "CMD")]
    command: Vec<String>,
}

/// Runs `cargo xtask vm`.
pub fn main(args: Args) -> Result<()> {
    let mut files = Vec::new();
    for path in args.file {
        let name = path.file_name().with_context(|| format!("{} is no file", path.display()))?;
        let name = name.to_string_lossy().into_owned();
        files.push((path, name));
    }
    if args.command.is_empty() {
        return shell(&args.kernel, &files, args.icount);
    }
    // One argument is a line of shell, several are one command.
    let command = match args.command.as_slice() {
        [line] => line.clone(),
        words => words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" "),
    };
    let limits = Limits::total(Duration::from_secs(args.limit));
    let each = &|line: &str| println!("{line}");
    let job = Job { kernel: args.kernel, files, command, icount: args.icount, limits, each };
    let outcome = run(&job)?;
    eprintln!(
        "vm: kernel {}, first process after {:.1} s, command after {:.1} s, {} boot(s), exit status {}",
        job.kernel,
        outcome.init.as_secs_f32(),
        outcome.ready.as_secs_f32(),
        outcome.boots,
        outcome.status
    );
    if outcome.status != 0 {
        bail!("the command ended with status {}", outcome.status);
    }
    Ok(())
}

/// Runs a job. Boots a second time when the machine hangs or crashes, which emulation does now
/// and then; a second time is an error.
pub fn run(job: &Job<'_>) -> Result<Outcome> {
    let machine = Machine::prepare(&job.kernel, &job.files, &job.command, "")?;
    let mut boots = 0;
    loop {
        boots += 1;
        let boot = console::boot(machine.qemu(job.icount), job.limits, job.each)?;
        match boot.ended {
            Ended::Status(status) => {
                return Ok(Outcome {
                    status,
                    lines: boot.lines,
                    boots,
                    init: Duration::from_secs_f32(boot.times.0),
                    ready: Duration::from_secs_f32(boot.times.1),
                });
            }
            Ended::Broken(why) if boots < 2 => {
                eprintln!("vm: kernel {}: {why}; one more try", job.kernel);
            }
            Ended::Broken(why) => {
                let last = boot.console.len().saturating_sub(30);
                bail!(
                    "kernel {}: {why}, twice. The console's end:\n{}",
                    job.kernel,
                    boot.console[last..].join("\n")
                );
            }
        }
    }
}

/// A shell on the guest's console.
fn shell(kernel: &str, files: &[(PathBuf, String)], icount: bool) -> Result<()> {
    if !std::io::stdin().is_terminal() {
        bail!("a shell needs a terminal; give a command after `--`");
    }
    // SAFETY: an all-zero winsize is valid, and the ioctl writes one.
    let (rows, columns) = unsafe {
        let mut size: libc::winsize = std::mem::zeroed();
        libc::ioctl(0, libc::TIOCGWINSZ, &raw mut size);
        (size.ws_row.max(24), size.ws_col.max(80))
    };
    let term = std::env::var("TERM").unwrap_or_else(|_| "linux".to_owned());
    // The guest cannot see the size of this terminal, and a serial line has none.
    let environment = format!(
        "export KFAULT_SHELL=1 TERM={}\nstty -F /dev/console rows {rows} cols {columns}\n",
        quoted(&term)
    );
    let machine = Machine::prepare(kernel, files, "", &environment)?;
    eprintln!("vm: kernel {kernel}; Ctrl-A X ends the machine at once");
    let status = machine
        .qemu(icount)
        .status()
        .context("start qemu-system-x86_64 (Debian: qemu-system-x86)")?;
    if !status.success() {
        bail!("QEMU: {status}");
    }
    Ok(())
}

/// A kernel and an initrd of one job; the initrd goes when this does.
struct Machine {
    image: PathBuf,
    initrd: PathBuf,
}

impl Machine {
    fn prepare(
        version: &str,
        files: &[(PathBuf, String)],
        command: &str,
        environment: &str,
    ) -> Result<Machine> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let cache = cache();
        let run = cache.join("run");
        fs::create_dir_all(&run).with_context(|| format!("make {}", run.display()))?;
        let own = image::job(files, command, environment)?;
        let _lock = lock(&cache)?;
        let kernel = packages::kernel(&cache, version)?;
        let base = image::base(&cache, version, &kernel)?;
        clean(&run)?;
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let initrd = run.join(format!("{}-{number}.cpio", std::process::id()));
        let machine = Machine { image: kernel.image, initrd };
        fs::copy(&base, &machine.initrd).context("copy the initrd")?;
        let mut file = File::options().append(true).open(&machine.initrd)?;
        std::io::Write::write_all(&mut file, &own)?;
        Ok(machine)
    }

    fn qemu(&self, icount: bool) -> std::process::Command {
        console::qemu(&self.image, &self.initrd, icount)
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.initrd);
    }
}

/// Removes initrds whose process was killed before it could.
fn clean(run: &Path) -> Result<()> {
    for entry in fs::read_dir(run)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let owner = name.split('-').next().unwrap_or_default();
        if !Path::new("/proc").join(owner).exists() {
            let _ = fs::remove_file(entry.path());
        }
    }
    Ok(())
}

/// Held while something cached is built or replaced, in this process or another.
pub fn lock(cache: &Path) -> Result<File> {
    fs::create_dir_all(cache).with_context(|| format!("make {}", cache.display()))?;
    let lock = File::create(cache.join("lock"))?;
    lock.lock().context("lock the cache")?;
    Ok(lock)
}

/// The cache of this workspace.
pub fn cache() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    let target = target.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../target"));
    // apt wants absolute paths, and `..` in messages helps nobody.
    fs::create_dir_all(&target).and_then(|()| target.canonicalize()).unwrap_or(target).join("vm")
}

/// A word as the shell reads it back unchanged.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}
