//! `image`: container images as archives, written without a container engine, from the static
//! program and from programs that are installed here. `cluster load` reads them, and so does
//! every engine.

mod archive;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::progress::step;
use crate::setup::{self, Group};
use crate::{build, cluster, exec};
use archive::Image;

/// What the pods of the test cluster are held together by.
pub const PAUSE: &str = "kfault.test/pause:1";
/// kfault.
pub const KFAULT: &str = concat!("kfault.test/kfault:", env!("CARGO_PKG_VERSION"));
/// A web server, with a client and a shell.
pub const APP: &str = "kfault.test/nginx:1";
const BUSYBOX: &str = "kfault.test/busybox:1";
const COREDNS: &str = "kfault.test/coredns:1";

/// Options of `cargo xtask image`.
#[derive(clap::Args)]
pub struct Args {
    /// Only these: kfault, app, busybox, pause
    #[arg(value_name = "IMAGE", value_parser = ["kfault", "app", "busybox", "pause"])]
    images: Vec<String>,
}

/// A name on the command line, and what it stands for.
type Writer = (&'static str, fn() -> Result<PathBuf>);

/// The command.
pub fn main(args: Args) -> Result<()> {
    let all: [Writer; 4] =
        [("kfault", kfault), ("app", app), ("busybox", busybox), ("pause", pause)];
    for (name, write) in all {
        if args.images.is_empty() || args.images.iter().any(|wanted| wanted == name) {
            println!("{}", write()?.display());
        }
    }
    Ok(())
}

/// The static program and nothing else.
pub fn kfault() -> Result<PathBuf> {
    let program = build::kfault()?;
    written(KFAULT, "kfault", || {
        let mut image = Image::new(KFAULT).entrypoint(&["/kfault"]).command(&["pause"]);
        image.copy(&program, "/kfault", 0o755)?;
        Ok(image)
    })
}

/// A web server to do harm to, with a client and a shell to look at it.
pub fn app() -> Result<PathBuf> {
    setup::need(&[Group::Image])?;
    written(APP, "app", || {
        let mut image = Image::new(APP).entrypoint(&["nginx", "-g", "daemon off;"]);
        base(&mut image)?;
        for name in ["nginx", "curl"] {
            let file = exec::find(name).with_context(|| format!("{name} is not installed"))?;
            image.program(&file)?;
        }
        // The C library loads these by name, so that no list of libraries has them.
        for library in ["libnss_files.so.2", "libnss_dns.so.2", "libresolv.so.2"] {
            let folder = format!("/lib/{}-linux-gnu", std::env::consts::ARCH);
            let file = Path::new(&folder).join(library);
            if file.exists() {
                image.copy(&file, &file.display().to_string(), 0o755)?;
            }
        }
        image.file("/etc/nginx/nginx.conf", 0o644, NGINX.as_bytes())?;
        image.file("/usr/share/nginx/html/index.html", 0o644, INDEX.as_bytes())?;
        for folder in ["/var/lib/nginx", "/var/log/nginx", "/run"] {
            image.folder(folder, 0o755)?;
        }
        // Opened before the configuration is read.
        image.link("/var/log/nginx/error.log", "/dev/stderr")?;
        Ok(image)
    })
}

/// A shell with the usual programs.
pub fn busybox() -> Result<PathBuf> {
    setup::need(&[Group::Image])?;
    written(BUSYBOX, "busybox", || {
        let mut image = Image::new(BUSYBOX).command(&["/bin/sh"]);
        base(&mut image)?;
        Ok(image)
    })
}

/// A program that waits. Busybox's shell is one that needs no compiler.
pub fn pause() -> Result<PathBuf> {
    setup::need(&[Group::Image])?;
    written(PAUSE, "pause", || {
        // `wait` lets the signal through that the end of a pod starts with, and reaps orphans.
        let script = "trap 'exit 0' TERM INT; while :; do sleep 86400 & wait $!; done";
        let mut image = Image::new(PAUSE).entrypoint(&["/bin/sh", "-c", script]);
        image.copy(&find_busybox()?, "/bin/busybox", 0o755)?;
        for name in ["sh", "sleep"] {
            image.link(&format!("/bin/{name}"), "busybox")?;
        }
        Ok(image)
    })
}

/// The test cluster's DNS server. Kept, for it is the largest of them.
pub fn coredns() -> Result<PathBuf> {
    let program = cluster::coredns()?;
    let path = place("coredns");
    // We are what it is made of, too.
    if is_newer(&path, &program) && is_newer(&path, &std::env::current_exe()?) {
        return Ok(path);
    }
    written(COREDNS, "coredns", || {
        let mut image = Image::new(COREDNS).entrypoint(&["/coredns"]);
        image.copy(&program, "/coredns", 0o755)?;
        image.folder("/tmp", 0o1777)?;
        Ok(image)
    })
}

fn is_newer(file: &Path, than: &Path) -> bool {
    let time = |path: &Path| path.metadata().and_then(|data| data.modified()).ok();
    time(file) > time(than)
}

fn place(file: &str) -> PathBuf {
    crate::target_dir().join("images").join(format!("{file}.tar"))
}

fn written(name: &str, file: &str, image: impl FnOnce() -> Result<Image>) -> Result<PathBuf> {
    let path = place(file);
    step(format!("write the image {name}"), |_| image()?.write(&path))?;
    Ok(path)
}

/// Busybox under all of its names, and the files that programs expect.
fn base(image: &mut Image) -> Result<()> {
    let busybox = find_busybox()?;
    image.copy(&busybox, "/bin/busybox", 0o755)?;
    for name in exec::read(std::process::Command::new(&busybox).arg("--list"))?.lines() {
        if name != "busybox" {
            image.link(&format!("/bin/{name}"), "busybox")?;
        }
    }
    image.file("/etc/passwd", 0o644, PASSWD.as_bytes())?;
    image.file("/etc/group", 0o644, GROUP.as_bytes())?;
    image.folder("/tmp", 0o1777)?;
    image.folder("/root", 0o700)
}

fn find_busybox() -> Result<PathBuf> {
    exec::find("busybox").context("busybox is not installed: run `cargo xtask setup`")
}

const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n";
const GROUP: &str = "root:x:0:\nnogroup:x:65534:\n";

const NGINX: &str = "\
user nobody nogroup;
worker_processes 1;
pid /run/nginx.pid;
error_log /dev/stderr;
events {}
http {
    default_type text/html;
    access_log /dev/stdout;
    server {
        listen 80;
        listen [::]:80;
        root /usr/share/nginx/html;
        # Which pod has answered.
        location = /host {
            default_type text/plain;
            return 200 \"$hostname\\n\";
        }
    }
}
";

const INDEX: &str =
    "<!DOCTYPE html>\n<title>kfault</title>\n<p>hello from the test application</p>\n";
