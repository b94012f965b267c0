//! Processes that use what a cgroup limits, and say how they fare.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Seek, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tempfile::NamedTempFile;

use crate::cgroup::Cgroup;

/// What a process does when it is told to begin.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Work {
    /// Computes for ever.
    Spin,
    /// Counts in a file, once a millisecond, for ever.
    Count(String),
    /// Starts so many children that sleep; answers how many came to be and the errno of the first
    /// that did not.
    Fork(u32),
    /// Takes memory and touches all of it; answers when it has it.
    Eat(usize),
    /// Reads blocks from a disk past the page cache; answers when it has all.
    Read(Blocks),
    /// Writes to it in the same way.
    Write(Blocks),
    /// Writes to it through the page cache; answers when the disk has it.
    Buffered(Blocks),
}

/// Blocks of a disk.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Blocks {
    /// Its device node.
    pub disk: String,
    /// Bytes of each, a multiple of 4096.
    pub block: usize,
    /// How many.
    pub count: u64,
}

/// A process of its own in a cgroup. Ends when dropped, with its children.
#[derive(Debug)]
pub struct Worker {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Worker {
    /// Starts it and moves it; it does nothing yet.
    pub fn new(cgroup: &Cgroup, work: &Work) -> Result<Self> {
        let mut child = Command::new("/proc/self/exe")
            .args(["as-worker", &serde_json::to_string(work)?])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("start a worker")?;
        let stdin = child.stdin.take().context("a worker's stdin")?;
        let stdout = BufReader::new(child.stdout.take().context("a worker's stdout")?);
        let worker = Self { child, stdin, stdout };
        cgroup.take(worker.pid())?;
        Ok(worker)
    }

    /// Starts it, and lets it begin.
    pub fn start(cgroup: &Cgroup, work: &Work) -> Result<Self> {
        let mut worker = Self::new(cgroup, work)?;
        worker.begin()?;
        Ok(worker)
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Lets it begin, once more where that makes sense.
    pub fn begin(&mut self) -> Result<()> {
        writeln!(self.stdin).context("talk to a worker")
    }

    /// Its answer.
    pub fn answer<T: DeserializeOwned>(&mut self) -> Result<T> {
        let mut line = String::new();
        self.stdout.read_line(&mut line).context("listen to a worker")?;
        serde_json::from_str(&line).with_context(|| format!("a worker said {line:?}"))
    }

    /// Lets it do its work once; how long that took.
    pub fn time(&mut self) -> Result<Duration> {
        let start = Instant::now();
        self.begin()?;
        let _: bool = self.answer()?;
        Ok(start.elapsed())
    }

    /// Processor time that it has used so far (`schedstat`).
    pub fn cpu(&self) -> Result<Duration> {
        cpu_of(self.pid())
    }

    /// How much of one processor it uses during a time.
    pub fn share(&self, during: Duration) -> Result<f64> {
        let (start, before) = (Instant::now(), self.cpu()?);
        std::thread::sleep(during);
        let used = self.cpu()?.saturating_sub(before);
        Ok(used.as_secs_f64() / start.elapsed().as_secs_f64())
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // A frozen process of v2 can be killed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Processor time that a process has used so far.
pub fn cpu_of(pid: u32) -> Result<Duration> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/schedstat"))
        .with_context(|| format!("read the processor time of {pid}"))?;
    let ns = text.split(' ').next().and_then(|word| word.parse().ok());
    ns.map(Duration::from_nanos).context("no number in schedstat")
}

/// A worker that counts, and what it has counted.
#[derive(Debug)]
pub struct Counter {
    _worker: Worker,
    file: NamedTempFile,
}

impl Counter {
    /// Starts one.
    pub fn start(cgroup: &Cgroup) -> Result<Self> {
        let file = NamedTempFile::new().context("make a file to count in")?;
        let work = Work::Count(file.path().display().to_string());
        Ok(Self { _worker: Worker::start(cgroup, &work)?, file })
    }

    fn value(&self) -> Result<u64> {
        let mut bytes = [0; 8];
        let read = self.file.as_file().read_at(&mut bytes, 0).context("read a counter")?;
        Ok(if read == 8 { u64::from_le_bytes(bytes) } else { 0 })
    }

    /// How far it counts within a time.
    pub fn counts_in(&self, time: Duration) -> Result<u64> {
        let before = self.value()?;
        std::thread::sleep(time);
        Ok(self.value()? - before)
    }

    /// Whether it goes on.
    pub fn runs(&self) -> bool {
        self.counts_in(Duration::from_millis(100)).is_ok_and(|count| count > 0)
    }
}

/// What the process does: its work once per line of stdin.
pub fn labour(work: &str) -> Result<()> {
    // SAFETY: plain call; a child that is left ends with us.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
    let work: Work = serde_json::from_str(work).context("read the work")?;
    let mut eaten = Vec::new();
    for line in std::io::stdin().lock().lines() {
        line.context("read when to begin")?;
        let answer = match &work {
            Work::Spin => {
                // No hint to the processor: emulated ones leave their fast path at each.
                let mut number = 1_u64;
                loop {
                    number = std::hint::black_box(number.wrapping_mul(3));
                }
            }
            Work::Count(file) => count(Path::new(file))?,
            Work::Fork(most) => serde_json::to_string(&fork(*most))?,
            Work::Eat(bytes) => {
                let mut memory = vec![0_u8; *bytes];
                memory.iter_mut().step_by(4096).for_each(|byte| *byte = 1);
                eaten.push(std::hint::black_box(memory));
                "true".into()
            }
            Work::Read(Blocks { disk, block, count }) => {
                let mut file = direct(disk)?;
                let mut memory = vec![0_u8; block + 4096];
                let at = aligned(&memory);
                for _ in 0..*count {
                    file.read_exact(&mut memory[at..at + block]).context("read a disk")?;
                }
                "true".into()
            }
            Work::Write(Blocks { disk, block, count }) => {
                let mut file = direct(disk)?;
                file.rewind().context("rewind a disk")?;
                let memory = vec![1_u8; block + 4096];
                let at = aligned(&memory);
                for _ in 0..*count {
                    file.write_all(&memory[at..at + block]).context("write a disk")?;
                }
                "true".into()
            }
            Work::Buffered(Blocks { disk, block, count }) => {
                let file = OpenOptions::new().write(true).open(disk).context("open a disk")?;
                for number in 0..*count {
                    file.write_all_at(&vec![1; *block], number * *block as u64)
                        .context("write to a disk's cache")?;
                }
                file.sync_all().context("sync a disk")?;
                "true".into()
            }
        };
        println!("{answer}");
    }
    Ok(())
}

fn count(file: &Path) -> Result<String> {
    let file = OpenOptions::new().write(true).open(file).context("open the counter's file")?;
    for number in 1_u64.. {
        file.write_all_at(&number.to_le_bytes(), 0).context("count")?;
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(String::new())
}

/// As many children as there may be, which end again.
fn fork(most: u32) -> (u32, i32) {
    let (mut children, mut errno) = (Vec::new(), 0);
    for _ in 0..most {
        // SAFETY: this process has one thread, and the child does nothing but wait to be killed,
        // or ends with us.
        match unsafe { libc::fork() } {
            // SAFETY: plain calls.
            0 => unsafe {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                loop {
                    libc::pause();
                }
            },
            child if child > 0 => children.push(child),
            _ => {
                errno = super::errno(&std::io::Error::last_os_error());
                break;
            }
        }
    }
    let made = u32::try_from(children.len()).unwrap_or(u32::MAX);
    for child in children {
        // SAFETY: plain calls; the child is ours and has not been waited for.
        unsafe {
            libc::kill(child, libc::SIGKILL);
            libc::waitpid(child, std::ptr::null_mut(), 0);
        }
    }
    (made, errno)
}

fn direct(disk: &str) -> Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).custom_flags(libc::O_DIRECT);
    options.open(disk).with_context(|| format!("open {disk}"))
}

/// Where in it a page begins: the disk wants its blocks there.
fn aligned(memory: &[u8]) -> usize {
    memory.as_ptr().align_offset(4096)
}

/// A disk of the tests' own: a loop device over a file. Goes when dropped.
#[derive(Debug)]
pub struct Disk {
    device: File,
    path: String,
    _file: NamedTempFile,
}

const LOOP_SET_FD: libc::c_ulong = 0x4C00;
const LOOP_CLR_FD: libc::c_ulong = 0x4C01;
const LOOP_CTL_GET_FREE: libc::c_ulong = 0x4C82;

impl Disk {
    /// Makes one.
    pub fn new(bytes: u64) -> Result<Self> {
        use std::os::fd::AsRawFd;
        let file = NamedTempFile::new().context("make a disk's file")?;
        file.as_file().set_len(bytes).context("make a disk's file large")?;
        let control = File::open("/dev/loop-control").context("open /dev/loop-control")?;
        // Somebody else may take the number before we do.
        for _ in 0..20 {
            // SAFETY: a plain call without an argument on a valid descriptor.
            let number = unsafe { libc::ioctl(control.as_raw_fd(), LOOP_CTL_GET_FREE as _) };
            ensure!(number >= 0, "find a loop device: {}", std::io::Error::last_os_error());
            let path = format!("/dev/loop{number}");
            let mut options = OpenOptions::new();
            let device = options.read(true).write(true).open(&path);
            let device = device.with_context(|| format!("open {path}"))?;
            let backing = file.as_file().as_raw_fd();
            // SAFETY: both descriptors are valid, the argument is one of them.
            if unsafe { libc::ioctl(device.as_raw_fd(), LOOP_SET_FD as _, backing) } == 0 {
                return Ok(Self { device, path, _file: file });
            }
        }
        anyhow::bail!("bind a loop device: {}", std::io::Error::last_os_error())
    }

    /// Its device node.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        use std::os::fd::AsRawFd;
        // SAFETY: a plain call without an argument on a valid descriptor.
        unsafe { libc::ioctl(self.device.as_raw_fd(), LOOP_CLR_FD as _, 0) };
    }
}
