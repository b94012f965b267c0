//! Builds the initrd: a userland from the host's own programs, the modules, and the init script.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

use anyhow::{Context, Result, bail};

use super::archive::Archive;
use super::packages::Kernel;

const INIT: &str = include_str!("init.sh");

/// The host's programs that tests use; busybox has the rest.
const PROGRAMS: [&str; 16] = [
    "bash",
    "ip",
    "tc",
    "iperf3",
    "ping",
    "nginx",
    "curl",
    "ethtool",
    "bpftool",
    "timeout",
    "setpriv",
    "ss",
    "iptables",
    "iptables-save",
    "ip6tables-save",
    "ip6tables",
];

/// What the engine and the tests need. Absent or built-in ones are skipped: the kernels differ.
const MODULES: [&str; 25] = [
    "veth",
    "ifb",
    "sch_fq",
    "sch_netem",
    "sch_ingress",
    "cls_bpf",
    "act_mirred",
    "cls_matchall",
    "cls_u32",
    "act_gact",
    "dummy",
    "sch_htb",
    "sch_tbf",
    "sch_prio",
    "tun",
    "bridge",
    "sch_fq_codel",
    "ip_tables",
    "iptable_filter",
    "ip6_tables",
    "xt_tcpudp",
    "nf_tables",
    "nft_compat",
    "netkit",
    "loop",
];

/// Where programs lie on a Debian host, whatever the caller's `PATH` says.
const FOLDERS: [&str; 6] =
    ["/usr/bin", "/usr/sbin", "/bin", "/sbin", "/usr/local/bin", "/usr/local/sbin"];

/// Small files that the C library, nginx and iproute2 look for.
const ETC: [(&str, &str); 6] = [
    (
        "/etc/passwd",
        "root:x:0:0:root:/root:/bin/bash\nwww-data:x:33:33:www-data:/var/www:/bin/false\n\
         nobody:x:65534:65534:nobody:/:/bin/false\n",
    ),
    ("/etc/group", "root:x:0:\nadm:x:4:\ntty:x:5:\nwww-data:x:33:\nnogroup:x:65534:\n"),
    ("/etc/hosts", "127.0.0.1 localhost kfault-vm\n::1 localhost ip6-localhost\n"),
    (
        "/etc/nsswitch.conf",
        "passwd: files\ngroup: files\nhosts: files dns\nservices: files\nprotocols: files\n",
    ),
    ("/etc/resolv.conf", ""),
    // As Debian's: a name in /etc/hosts may have several addresses.
    ("/etc/host.conf", "multi on\n"),
];

const EMPTY: [&str; 15] = [
    "bin",
    "proc",
    "sys",
    "dev",
    "run",
    "tmp",
    "root",
    "usr/lib64",
    "var/tmp",
    "var/log/nginx",
    "var/lib/nginx",
    "var/www",
    "etc/netns",
    "mods",
    "job",
];

/// The cached part of the initrd that does not depend on the job.
pub(super) fn base(cache: &Path, version: &str, kernel: &Kernel) -> Result<PathBuf> {
    let mut programs = Vec::new();
    for name in PROGRAMS {
        match program(name) {
            Some(path) => programs.push((name, path)),
            None => eprintln!("vm: no {name} on this machine, the guest goes without"),
        }
    }
    let busybox = program("busybox").context("busybox is missing (Debian: busybox-static)")?;
    let key = key(kernel, &busybox, &programs)?;
    let folder = cache.join("initrd");
    let path = folder.join(format!("{version}-{key:016x}.cpio"));
    if path.is_file() {
        return Ok(path);
    }
    eprintln!("vm: building the initrd for {}", kernel.name);
    fs::create_dir_all(&folder)?;
    for entry in fs::read_dir(&folder)? {
        let old = entry?;
        if old.file_name().to_string_lossy().starts_with(&format!("{version}-")) {
            fs::remove_file(old.path())?;
        }
    }
    let mut archive = Archive::new();
    userland(&mut archive, &busybox, &programs)?;
    modules(&mut archive, &kernel.modules)?;
    archive.file("init", 0o755, INIT.as_bytes());
    let half = path.with_extension(format!("new-{}", std::process::id()));
    fs::write(&half, archive.finish())?;
    fs::rename(&half, &path)?;
    Ok(path)
}

/// The archive with the job's own files, to be put behind the base.
pub(super) fn job(
    files: &[(PathBuf, String)],
    command: &str,
    environment: &str,
) -> Result<Vec<u8>> {
    let mut archive = Archive::new();
    for (path, name) in files {
        libraries(&mut archive, path)?;
        archive.file(&format!("bin/{name}"), 0o755, &stripped(path)?);
    }
    archive.file("job/command", 0o755, command.as_bytes());
    archive.file("job/env", 0o644, environment.as_bytes());
    Ok(archive.finish())
}

/// A hash of everything that the base is made of.
fn key(kernel: &Kernel, busybox: &Path, programs: &[(&str, PathBuf)]) -> Result<u64> {
    let mut hasher = DefaultHasher::new();
    (env!("CARGO_PKG_VERSION"), INIT, MODULES, ETC, EMPTY, &kernel.name).hash(&mut hasher);
    // This program's own build stands for the code that lays the archive out.
    let own = std::env::current_exe().context("find this program")?;
    let files = programs.iter().map(|(_, path)| path.as_path()).chain([busybox, &own]);
    for path in files {
        let meta = fs::metadata(path).with_context(|| format!("look at {}", path.display()))?;
        let modified = meta.modified()?.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        (path, meta.len(), modified).hash(&mut hasher);
    }
    Ok(hasher.finish())
}

fn userland(archive: &mut Archive, busybox: &Path, programs: &[(&str, PathBuf)]) -> Result<()> {
    for dir in EMPTY {
        archive.dir(dir);
    }
    for (link, target) in [
        ("sbin", "bin"),
        ("lib", "usr/lib"),
        ("lib64", "usr/lib64"),
        ("usr/bin", "../bin"),
        ("usr/sbin", "../bin"),
    ] {
        archive.link(link, target);
    }
    for (path, content) in ETC {
        archive.file(path, 0o644, content.as_bytes());
    }
    for (name, path) in programs {
        archive.copy(path, &format!("bin/{name}"), 0o755)?;
        libraries(archive, path)?;
    }
    archive.copy(busybox, "bin/busybox", 0o755)?;
    libraries(archive, busybox)?;
    let list = Command::new(busybox).arg("--list").output().context("start busybox")?;
    for applet in String::from_utf8_lossy(&list.stdout).lines() {
        let path = format!("bin/{applet}");
        // A symbolic link per applet here costs less than `--install` in the guest.
        if !archive.contains(&path) {
            archive.link(&path, "busybox");
        }
    }
    let xtables = "/usr/lib/x86_64-linux-gnu/xtables";
    for tree in ["/usr/lib/tc", "/etc/iproute2", "/usr/share/iproute2", xtables] {
        if Path::new(tree).is_dir() {
            archive.tree(Path::new(tree))?;
        }
    }
    for file in ["/etc/services", "/etc/protocols", "/etc/nginx/mime.types"] {
        if Path::new(file).is_file() {
            archive.copy(Path::new(file), file, 0o644)?;
        }
    }
    // The C library opens these by name when it looks up users and hosts.
    for folder in ["/lib/x86_64-linux-gnu", "/lib64"] {
        for library in ["libnss_files.so.2", "libnss_dns.so.2", "libresolv.so.2", "libgcc_s.so.1"] {
            let path = Path::new(folder).join(library);
            if path.is_file() {
                archive.copy(&path, &path.to_string_lossy(), 0o755)?;
            }
        }
    }
    Ok(())
}

/// Adds the shared libraries of a program. A static one or a script has none.
fn libraries(archive: &mut Archive, program: &Path) -> Result<()> {
    let listed = Command::new("ldd").arg(program).output().context("start ldd")?;
    let listed = String::from_utf8_lossy(&listed.stdout);
    for library in
        listed.split_whitespace().filter(|word| word.starts_with('/') && !word.ends_with(':'))
    {
        archive.copy(Path::new(library), library, 0o755)?;
    }
    Ok(())
}

/// A program without its debug information, which would only cost the guest memory.
fn stripped(path: &Path) -> Result<Vec<u8>> {
    let content = fs::read(path).with_context(|| format!("read {}", path.display()))?;
    if !content.starts_with(b"\x7fELF") {
        return Ok(content);
    }
    // strip writes files only by name, and /dev/stdout is not always one it can replace.
    let folder = std::env::temp_dir();
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let thread = format!("{:?}", std::thread::current().id()).replace(['(', ')'], "");
    let small = folder.join(format!("kfault-strip-{}-{thread}-{name}", std::process::id()));
    let status =
        Command::new("strip").arg("--strip-debug").arg("-o").arg(&small).arg(path).output();
    let result = match status {
        Ok(output) if output.status.success() => {
            fs::read(&small).context("read the stripped program")
        }
        // Without binutils the whole file will do.
        _ => Ok(content),
    };
    let _ = fs::remove_file(&small);
    result
}

fn modules(archive: &mut Archive, folder: &Path) -> Result<()> {
    let mut files = BTreeMap::new();
    index(folder, &mut files)?;
    let mut order = Vec::new();
    let mut seen = BTreeSet::new();
    for name in MODULES {
        load(archive, &files, name, &mut seen, &mut order)?;
    }
    let mut list = order.join("\n");
    list.push('\n');
    archive.file("mods/order", 0o644, list.as_bytes());
    Ok(())
}

/// Adds a module after those it depends on.
///
/// The packages carry no `modules.dep` (it is made on installation), so the dependencies come
/// from the module itself.
fn load(
    archive: &mut Archive,
    files: &BTreeMap<String, PathBuf>,
    name: &str,
    seen: &mut BTreeSet<String>,
    order: &mut Vec<String>,
) -> Result<()> {
    let Some(path) = files.get(name) else {
        return Ok(());
    };
    if !seen.insert(name.to_owned()) {
        return Ok(());
    }
    let content = decompressed(path)?;
    for dependency in depends(&content) {
        load(archive, files, &dependency, seen, order)?;
    }
    archive.file(&format!("mods/{name}.ko"), 0o644, &content);
    order.push(name.to_owned());
    Ok(())
}

/// Finds all modules below a folder by their names with underscores.
fn index(folder: &Path, files: &mut BTreeMap<String, PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("list {}", folder.display()))? {
        let entry = entry?;
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            index(&path, files)?;
        } else if let Some((name, _)) = entry.file_name().to_string_lossy().split_once(".ko") {
            files.insert(name.replace('-', "_"), path);
        }
    }
    Ok(())
}

/// The names in the `depends=` line of a module's `.modinfo`.
fn depends(module: &[u8]) -> Vec<String> {
    const KEY: &[u8] = b"depends=";
    let at = module
        .windows(KEY.len())
        .enumerate()
        .find(|(at, window)| *window == KEY && (*at == 0 || module.get(at - 1) == Some(&0)));
    let Some((at, _)) = at else { return Vec::new() };
    let value = &module[at + KEY.len()..];
    let end = value.iter().position(|byte| *byte == 0).unwrap_or(0);
    let value = String::from_utf8_lossy(&value[..end]);
    value.split(',').filter(|name| !name.is_empty()).map(|name| name.replace('-', "_")).collect()
}

fn decompressed(path: &Path) -> Result<Vec<u8>> {
    let program = match path.extension().and_then(|e| e.to_str()) {
        Some("xz") => "xz",
        Some("zst") => "zstd",
        Some("gz") => "gzip",
        _ => return fs::read(path).with_context(|| format!("read {}", path.display())),
    };
    let output = Command::new(program).arg("-dc").arg(path).output();
    let output = output.with_context(|| format!("start {program}"))?;
    if !output.status.success() {
        bail!("{program} -dc {}: {}", path.display(), output.status);
    }
    Ok(output.stdout)
}

/// Finds a program of the host.
pub(super) fn program(name: &str) -> Option<PathBuf> {
    FOLDERS.iter().map(|folder| Path::new(folder).join(name)).find(|path| path.is_file())
}

#[cfg(test)]
mod tests {
    use super::depends;

    #[test]
    fn dependencies_of_a_module() {
        let info = b"x\0__UNIQUE_ID_depends156\0license=GPL\0depends=stp,llc-x\0retpoline=Y\0";
        assert_eq!(depends(info), ["stp", "llc_x"]);
        assert!(depends(b"\0depends=\0").is_empty());
        assert!(depends(b"none").is_empty());
    }
}
