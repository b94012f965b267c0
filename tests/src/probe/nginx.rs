//! nginx, as people run it.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use crate::clock::wait_for;
use crate::ns::Ns;

/// What `/` answers.
pub const PAGE: &str = "a page that is somewhat longer than what takes its place\n";
/// Bytes of `/large`, which is sent from its file.
pub const LARGE: usize = 300_000;

/// A running nginx. Ends when dropped.
pub struct Nginx {
    child: Child,
    _folder: TempDir,
}

impl Nginx {
    /// That there is one.
    pub fn look() -> Result<()> {
        let status = Command::new("nginx").arg("-v").stderr(Stdio::null()).status();
        ensure!(status.context("start nginx")?.success(), "nginx -v fails");
        Ok(())
    }

    /// Starts it on every IPv4 address of a namespace.
    pub fn start(ns: &Ns, port: u16) -> Result<Self> {
        let text = format!("gzip on; gzip_types *; server {{ listen {port}; root $here; }}");
        Self::with(ns, port, &text)
    }

    /// Starts it with this in the block `http`, where `$here` is the folder of its pages. It
    /// listens at least at this port.
    pub fn with(ns: &Ns, port: u16, http: &str) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("kft-nginx-").tempdir().context("a folder")?;
        let here = folder.path().display().to_string();
        let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|name| format!("    {name}_temp_path {here}/{name};\n"))
            .concat();
        std::fs::write(folder.path().join("index.html"), PAGE).context("a page")?;
        std::fs::write(folder.path().join("large"), vec![b'x'; LARGE]).context("a page")?;
        std::fs::write(folder.path().join("empty"), "").context("a page")?;
        let http = http.replace("$here", &here);
        let text = format!(
            "daemon off;\nuser root;\nworker_processes 1;\n\
             pid {here}/nginx.pid;\nerror_log {here}/nginx.log;\n\
             events {{ worker_connections 16000; }}\nhttp {{\n    access_log off;\n    \
             keepalive_requests 1000000000;\n    sendfile on;\n{temporary}    {http}\n}}\n"
        );
        let config = folder.path().join("nginx.conf");
        std::fs::write(&config, text).context("a configuration")?;
        let child = ns
            .command("nginx")
            .args([Path::new("-e"), &folder.path().join("nginx.log"), Path::new("-c"), &config])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("start nginx")?;
        let nginx = Self { child, _folder: folder };
        let is_up = || {
            ns.run(|| Ok(std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()))
                .unwrap_or(false)
        };
        ensure!(wait_for(Duration::from_secs(20), is_up), "nginx does not answer");
        Ok(nginx)
    }
}

impl Drop for Nginx {
    /// Its master ends its workers.
    fn drop(&mut self) {
        // SAFETY: plain call on a child that has not been waited for.
        unsafe { libc::kill(self.child.id().cast_signed(), libc::SIGTERM) };
        let _ = self.child.wait();
    }
}
