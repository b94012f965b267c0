//! The disk of the node in a virtual machine, made of Debian's packages without installing any:
//! they are unpacked into a folder, and the folder becomes a file system.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::super::binaries::Binaries;
use crate::exec;
use crate::progress::{Step, step};
use crate::vm::archive::Archive;
use crate::vm::{self, packages};

/// Of the way in which the disk is made of all the rest.
const VERSION: u32 = 2;

/// Kernel and release go together.
const KERNEL: &str = "6.12";
const SUITE: &str = "trixie";

/// What a node runs. The rest is what these depend on.
const PACKAGES: [&str; 12] = [
    "busybox-static",
    "containerd",
    "containernetworking-plugins",
    "curl",
    "dropbear-bin",
    "iproute2",
    "kmod",
    "mount",
    "nftables",
    "runc",
    "systemd",
    "util-linux",
];

const INITRD: &str = include_str!("initrd.sh");

/// What is on the disk of settings, for it changes more often than the other one.
pub const SCRIPTS: [(&str, &str); 3] = [
    ("node.sh", include_str!("node.sh")),
    ("node.service", include_str!("node.service")),
    ("node.target", include_str!("node.target")),
];

const FOLDERS: [&str; 16] = [
    "usr/bin",
    "usr/sbin",
    "usr/lib",
    "usr/lib64",
    "proc",
    "sys",
    "dev",
    "run",
    "tmp",
    "root",
    "mnt",
    "etc",
    "etc/dropbear",
    "var/lib",
    "var/log",
    "var/tmp",
];

/// Folders that nobody looks into. Generators ask for services that are not wanted here.
const NEEDLESS: [&str; 6] = [
    "usr/share/doc",
    "usr/share/man",
    "usr/share/locale",
    "usr/share/bash-completion",
    "usr/lib/systemd/system-generators",
    "boot",
];

/// Files that installing would have made.
const FILES: [(&str, &str); 7] = [
    ("etc/passwd", "root:x:0:0:root:/root:/bin/sh\n"),
    ("etc/group", "root:x:0:\n"),
    ("etc/hosts", "127.0.0.1 localhost\n"),
    ("etc/fstab", ""),
    ("etc/resolv.conf", ""),
    ("etc/machine-id", "6b6661756c7400000000000000000020\n"),
    ("etc/os-release", "ID=debian\nPRETTY_NAME=\"Debian GNU/Linux 13 (trixie)\"\n"),
];

/// Programs of the initrd.
const APPLETS: [&str; 8] = ["sh", "mount", "insmod", "sleep", "mkdir", "tar", "cp", "switch_root"];

/// The file system's size. What is not used takes no room.
const SIZE: u64 = 4 << 30;

/// What the machine boots from.
pub struct Disk {
    pub kernel: PathBuf,
    pub initrd: PathBuf,
    pub image: PathBuf,
}

impl Disk {
    /// The one of today's packages, built if that has not been done.
    pub fn built(binaries: &Binaries) -> Result<Self> {
        let cache = vm::cache();
        let _lock = vm::lock(&cache)?;
        let kernel = packages::kernel(&cache, KERNEL)?;
        let folder = cache.join("node");
        fs::create_dir_all(&folder)?;
        let disk = Self {
            kernel: kernel.image.clone(),
            initrd: folder.join("initrd.cpio"),
            image: folder.join("disk.img"),
        };
        // A look at the mirror is good for a day, as for kernels.
        let (made_of, stamp) = (folder.join("made-of"), folder.join("checked"));
        let made = fs::read_to_string(&made_of).unwrap_or_default();
        let own = key(&kernel, binaries);
        let is_own = made.lines().next() == Some(&own) && disk.image.is_file();
        if is_own && packages::is_fresh(&stamp) {
            return Ok(disk);
        }
        let files = match packages::closure(&cache, SUITE, &PACKAGES) {
            Ok(files) => files,
            // An old node is better than none on a machine without a network.
            Err(error) if is_own => {
                eprintln!("{SUITE}: not refreshed ({error:#}), the node that is there is used");
                return Ok(disk);
            }
            Err(error) => return Err(error.context("fetch what the node is made of")),
        };
        let names: Vec<String> = files.iter().map(|file| name(file)).collect();
        let wanted = format!("{own}\n{}\n", names.join("\n"));
        if made != wanted || !disk.image.is_file() {
            step("make the disk of the virtual machine", |step| {
                // Whatever comes of it, it is another one.
                let _ = fs::remove_file(&made_of);
                let tree = Tree { root: folder.join("tree"), step };
                let made = tree.fill(&files, &kernel, binaries).and_then(|()| {
                    tree.image(&disk.image)?;
                    tree.initrd(&kernel, &disk.initrd)
                });
                let _ = fs::remove_dir_all(&tree.root);
                made
            })?;
            fs::write(&made_of, wanted)?;
        }
        fs::write(&stamp, "")?;
        Ok(disk)
    }
}

/// A name for what we put in.
fn key(kernel: &packages::Kernel, binaries: &Binaries) -> String {
    let mut hasher = DefaultHasher::new();
    (VERSION, PACKAGES, INITRD, FOLDERS, NEEDLESS, FILES, APPLETS, SIZE).hash(&mut hasher);
    format!("{} {} {:016x}", kernel.name, name(&binaries.folder), hasher.finish())
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// What becomes the file system.
struct Tree<'a> {
    root: PathBuf,
    step: &'a Step,
}

impl Tree<'_> {
    fn fill(
        &self,
        packages: &[PathBuf],
        kernel: &packages::Kernel,
        binaries: &Binaries,
    ) -> Result<()> {
        let _ = fs::remove_dir_all(&self.root);
        for folder in FOLDERS {
            fs::create_dir_all(self.root.join(folder))?;
        }
        // Before the first package, which expects them.
        for folder in ["bin", "sbin", "lib", "lib64"] {
            symlink(format!("usr/{folder}"), self.root.join(folder))?;
        }
        symlink("/run", self.root.join("var/run"))?;
        for package in packages {
            self.step.note(&name(package));
            exec::read(exec::program("dpkg-deb")?.arg("-x").arg(package).arg(&self.root))?;
        }
        for folder in NEEDLESS {
            let _ = fs::remove_dir_all(self.root.join(folder));
        }
        for (file, text) in FILES {
            fs::write(self.root.join(file), text).with_context(|| format!("write {file}"))?;
        }
        let busybox = self.root.join("usr/bin/busybox");
        for applet in exec::read(std::process::Command::new(busybox).arg("--list"))?.lines() {
            let folders = ["usr/bin", "usr/sbin"].map(|folder| self.root.join(folder));
            if folders.iter().all(|folder| folder.join(applet).symlink_metadata().is_err()) {
                symlink("busybox", folders[0].join(applet))?;
            }
        }
        let program = self.root.join("usr/bin/hyperkube");
        fs::copy(binaries.hyperkube(), &program).context("copy Kubernetes")?;
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
        self.modules(kernel)
    }

    /// Unpacked, for kmod reads packed ones only with a library that no package asks for.
    fn modules(&self, kernel: &packages::Kernel) -> Result<()> {
        let place = self.root.join("usr/lib/modules");
        fs::create_dir_all(&place)?;
        let from = kernel.modules.canonicalize().context("the kernel's modules")?;
        exec::read(exec::program("cp")?.arg("-r").arg(&from).arg(&place))?;
        let mut find = exec::program("find")?;
        find.arg(&place).args(["-name", "*.ko.xz", "-exec", "xz", "-d", "{}", "+"]);
        exec::read(&mut find)?;
        exec::read(exec::program("depmod")?.arg("-b").arg(&self.root).arg(name(&from))).map(drop)
    }

    fn image(&self, image: &Path) -> Result<()> {
        self.step.note("the file system");
        let aside = image.with_extension("new");
        let file = fs::File::create(&aside)?;
        file.set_len(SIZE)?;
        drop(file);
        let mut command = exec::program("mke2fs")?;
        // No journal: it is thrown away after every use. No loop device either.
        command.args(["-q", "-F", "-t", "ext4", "-O", "^has_journal"]);
        command.args(["-E", "lazy_itable_init=1", "-d"]).arg(&self.root).arg(&aside);
        exec::read(&mut command)?;
        fs::rename(&aside, image).context("move the disk to its place")
    }

    /// What mounts the disk: the one driver that the kernel does not have built in, and busybox.
    fn initrd(&self, kernel: &packages::Kernel, initrd: &Path) -> Result<()> {
        let release = name(&kernel.modules.canonicalize()?);
        let drivers = self.root.join("usr/lib/modules").join(release).join("kernel/drivers");
        let mut archive = Archive::new();
        for folder in ["dev", "root"] {
            archive.dir(folder);
        }
        archive.copy(&self.root.join("usr/bin/busybox"), "bin/busybox", 0o755)?;
        for applet in APPLETS {
            archive.link(&format!("bin/{applet}"), "busybox");
        }
        archive.copy(&drivers.join("block/virtio_blk.ko"), "virtio_blk.ko", 0o644)?;
        archive.file("init", 0o755, INITRD.as_bytes());
        fs::write(initrd, archive.finish()).context("write the initrd")
    }
}
