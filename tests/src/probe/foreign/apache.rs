//! Apache httpd.

use std::fmt::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::{FOLDERS, Program, files, folder, succeeds};
use crate::ns::Ns;

/// Where Debian has its modules.
const MODULES: &str = "/usr/lib/apache2/modules";
const NEEDED: [&str; 3] = ["mpm_event", "authz_core", "cgid"];

/// What is started by the server has no length beforehand.
const SCRIPT: &str = "#!/bin/sh
printf 'Content-Type: text/plain\\r\\n\\r\\n'
line=yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy
for i in 1 2 3 4 5 6 7 8 9 10; do printf '%s%s' $line$line $line$line; sleep 0.002; done
";

fn module(name: &str) -> PathBuf {
    Path::new(MODULES).join(format!("mod_{name}.so"))
}

/// That there is one, with what is needed of it.
pub fn look() -> Result<()> {
    succeeds("apache2", &["-v"])?;
    for name in NEEDED {
        std::fs::metadata(module(name)).with_context(|| format!("apache2's module {name}"))?;
    }
    Ok(())
}

/// Starts it on every IPv4 address of a namespace.
pub fn start(ns: &Ns, port: u16) -> Result<Program> {
    start_with(ns, port, "none")
}

/// As it is without a word about it: it asks the kernel for connections that have said something
/// (`TCP_DEFER_ACCEPT`).
pub fn start_deferring(ns: &Ns, port: u16) -> Result<Program> {
    start_with(ns, port, "data")
}

fn start_with(ns: &Ns, port: u16, filter: &str) -> Result<Program> {
    let folder = folder()?;
    let here = folder.path().display().to_string();
    let pages = folder.path().join("pages");
    files(&pages)?;
    for name in FOLDERS {
        let script = pages.join(name).join("chunks");
        std::fs::write(&script, SCRIPT).context("a script")?;
        std::fs::set_permissions(&script, PermissionsExt::from_mode(0o755)).context("a script")?;
    }
    let mut text = format!(
        "ServerRoot {here}\nServerName probe\nListen 0.0.0.0:{port}\nPidFile {here}/pid\n\
         AcceptFilter http {filter}\nErrorLog {here}/log\nUser #65534\nGroup #65534\n"
    );
    for name in NEEDED {
        let _ = writeln!(text, "LoadModule {name}_module {}", module(name).display());
    }
    let _ = write!(
        text,
        "ScriptSock {here}/scripts\nStartServers 1\nServerLimit 2\nThreadsPerChild 8\n\
         MinSpareThreads 1\nMaxSpareThreads 16\nMaxRequestWorkers 16\nDocumentRoot {here}/pages\n\
         MaxKeepAliveRequests 0\nFileETag None\n<Files chunks>\nOptions +ExecCGI\nSetHandler cgi-script\n\
         </Files>\n"
    );
    let config = folder.path().join("httpd.conf");
    std::fs::write(&config, text).context("a configuration")?;
    let mut command = ns.command("apache2");
    command.arg("-f").arg(&config).arg("-DFOREGROUND");
    Program::start(ns, command, folder, port)
}
