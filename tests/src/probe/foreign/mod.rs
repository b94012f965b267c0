//! Servers and clients that others wrote, as people run them.
//!
//! Servers answer three names, below any folder: `page` and `large` with a length, `chunks` in
//! chunks where the server can. Clients are given requests and where to send them, and tell what
//! came: [`Told`].

pub mod apache;
pub mod axum;
pub mod go;
pub mod java;
pub mod node;
pub mod python;

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use base64::Engine as _;
use tempfile::TempDir;

use crate::clock::wait_for;
use crate::ns::Ns;

/// What `page` is.
pub const PAGE: &str = "a page that is somewhat longer than what takes its place\n";
/// Bytes of `large`, each an `x`.
pub const LARGE: usize = 300_000;
/// Bytes of `chunks`, each a `y`.
pub const CHUNKS: usize = 2000;
/// Where the files of a server lie that has no handlers.
pub const FOLDERS: [&str; 3] = ["plain", "body", "status"];

/// How long such a program may take to start: a virtual machine has to be compiled for.
const PATIENCE: Duration = Duration::from_secs(60);

/// A server that runs. Ends when dropped.
pub struct Program {
    child: Child,
    /// What it reads.
    _folder: TempDir,
}

impl Program {
    /// Starts it and waits until it listens at this port.
    fn start(ns: &Ns, mut command: Command, folder: TempDir, port: u16) -> Result<Self> {
        let name = command.get_program().to_string_lossy().into_owned();
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("start {name}"))?;
        let mut program = Self { child, _folder: folder };
        let is_up = || {
            ns.run(|| Ok(std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()))
                .unwrap_or(false)
        };
        let mut has_ended = false;
        wait_for(PATIENCE, || {
            has_ended = !matches!(program.child.try_wait(), Ok(None));
            has_ended || is_up()
        });
        ensure!(!has_ended && is_up(), "{name} does not answer");
        Ok(program)
    }
}

impl Drop for Program {
    /// One that has workers ends them.
    fn drop(&mut self) {
        // SAFETY: plain call on a child that has not been waited for.
        unsafe { libc::kill(self.child.id().cast_signed(), libc::SIGTERM) };
        let child = &mut self.child;
        if !wait_for(Duration::from_secs(5), || !matches!(child.try_wait(), Ok(None))) {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A folder of a server's, open to whom the server becomes.
fn folder() -> Result<TempDir> {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::Builder::new().prefix("kft-foreign-").tempdir().context("a folder")?;
    std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755))
        .context("open a folder")?;
    Ok(folder)
}

/// Writes `page` and `large` below each of [`FOLDERS`].
fn files(root: &Path) -> Result<()> {
    for name in FOLDERS {
        let folder = root.join(name);
        std::fs::create_dir_all(&folder).context("a folder of pages")?;
        std::fs::write(folder.join("page"), PAGE).context("a page")?;
        std::fs::write(folder.join("large"), vec![b'x'; LARGE]).context("a page")?;
    }
    Ok(())
}

/// That a command can be run and succeeds; what it says.
fn succeeds(program: impl AsRef<std::ffi::OsStr>, args: &[&str]) -> Result<String> {
    let name = program.as_ref().to_string_lossy().into_owned();
    let output = Command::new(program).args(args).stdin(Stdio::null()).output();
    let output = output.with_context(|| format!("start {name}"))?;
    ensure!(output.status.success(), "{name} {} fails", args.join(" "));
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// What a client tells of one response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// The status.
    pub status: u16,
    /// `Content-Length`, as it is written.
    pub length: Option<String>,
    /// `X-New`.
    pub new: Option<String>,
    /// The body.
    pub body: Vec<u8>,
}

/// Requests: a method, and a path. A POST has a body of five bytes.
pub type Asked<'a> = [(&'a str, &'a str)];

/// Runs a client, which sends each of these to each of `bases`, one after the other.
fn ask(mut client: Command, asked: &Asked<'_>, bases: &[String]) -> Result<Vec<Told>> {
    let words = asked.iter().flat_map(|(method, path)| [*method, *path]);
    let output = client.args(words).arg("--").args(bases).stdin(Stdio::null()).output();
    let output = output.context("start a client")?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "the client failed: {}", errors.trim());
    let text = String::from_utf8(output.stdout).context("what the client says")?;
    text.lines().map(told).collect()
}

fn told(line: &str) -> Result<Told> {
    let words: Vec<&str> = line.split('\t').collect();
    let [status, length, new, body] = words[..] else { anyhow::bail!("the client said {line:?}") };
    let given = |word: &str| (word != "-").then(|| word.to_owned());
    Ok(Told {
        status: status.parse().with_context(|| format!("a status: {line:?}"))?,
        length: given(length),
        new: given(new),
        body: base64::engine::general_purpose::STANDARD.decode(body).context("a body")?,
    })
}
