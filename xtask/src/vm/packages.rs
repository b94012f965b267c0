//! Fetches Debian's packages without touching the machine's own apt state.
//!
//! Each suite has an apt configuration of its own below the cache, with an empty `status` file,
//! so that a package of another release is neither installed nor seen by the host's apt.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail};

/// How long the package lists and a kernel chosen from them are good for.
const FRESH: Duration = Duration::from_secs(24 * 3600);

const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// An unpacked kernel.
pub struct Kernel {
    /// The package with its version, for cache keys and messages.
    pub name: String,
    pub image: PathBuf,
    pub modules: PathBuf,
}

/// The kernel of this version, from the cache when it is fresh.
pub fn kernel(cache: &Path, version: &str) -> Result<Kernel> {
    let (suite, pattern) = match version {
        "5.10" => ("bullseye", r"^linux-image-5\.10.*-cloud-amd64$"),
        "6.1" => ("bookworm", r"^linux-image-6\.1\..*-cloud-amd64$"),
        "6.12" => ("trixie", r"^linux-image-6\.12.*-cloud-amd64$"),
        // From 7 on the image is in linux-binary; linux-image only depends on it.
        "7.x" => ("trixie-backports", r"^linux-binary-7\..*cloud-amd64$"),
        other => bail!("no kernel {other}; there are {}", super::KERNELS.join(", ")),
    };
    let store = cache.join("kernels").join(version);
    let stamp = store.join("checked");
    let present = unpacked(&store);
    if let Ok(kernel) = present
        && is_fresh(&stamp)
    {
        return Ok(kernel);
    }
    match fetch(cache, &store, suite, pattern) {
        Ok(()) => fs::write(&stamp, "")?,
        // An old kernel is better than none on a machine without a network.
        Err(error) if unpacked(&store).is_ok() => {
            eprintln!("kernel {version}: not refreshed ({error:#}), the cached one is used");
        }
        Err(error) => return Err(error.context(format!("fetch kernel {version}"))),
    }
    unpacked(&store)
}

/// Packages of a suite with everything that they depend on, downloaded; sorted.
pub fn closure(cache: &Path, suite: &str, names: &[&str]) -> Result<Vec<PathBuf>> {
    let apt = apt(cache, suite)?;
    // Nothing is installed as far as apt knows: it names the C library, too.
    let install = |options: &[&str]| {
        output(apt("apt-get").args(["-qq", "--yes", "install"]).args(options).args(names))
    };
    // It does not list what lies in its archives, so it is shown other ones.
    let elsewhere = format!("Dir::Cache::archives={}/none", base(cache, suite).display());
    let listed = install(&["--print-uris", "-o", &elsewhere])?;
    let mut files: Vec<&str> =
        listed.lines().filter_map(|line| line.split_whitespace().nth(1)).collect();
    files.sort_unstable();
    install(&["--download-only"])?;
    let folder = base(cache, suite).join("cache/archives");
    let files: Vec<PathBuf> = files.into_iter().map(|file| folder.join(file)).collect();
    match files.iter().find(|file| !file.is_file()) {
        Some(missing) => bail!("apt-get did not download {}", missing.display()),
        None => Ok(files),
    }
}

/// apt's programs with the configuration of a suite, whose lists are fresh.
fn apt(cache: &Path, suite: &str) -> Result<impl Fn(&str) -> Command> {
    let config = apt_config(cache, suite)?;
    let lists = config.join("fresh");
    let apt = move |program: &str| {
        let mut command = Command::new(program);
        command.env("APT_CONFIG", config.join("apt.conf"));
        command
    };
    if !is_fresh(&lists) {
        eprintln!("reading the package lists of {suite}");
        output(apt("apt-get").args(["-q", "update", "--error-on=any"]))?;
        fs::write(&lists, "")?;
    }
    Ok(apt)
}

/// Whether the last look at the mirror is good enough for now.
pub fn is_fresh(stamp: &Path) -> bool {
    let written = fs::metadata(stamp).and_then(|m| m.modified());
    written.is_ok_and(|t| SystemTime::now().duration_since(t).is_ok_and(|age| age < FRESH))
}

/// Downloads the newest package that matches and unpacks it to `store/NAME`.
fn fetch(cache: &Path, store: &Path, suite: &str, pattern: &str) -> Result<()> {
    let apt = apt(cache, suite)?;
    let found = output(apt("apt-cache").args(["search", "--names-only", pattern]))?;
    let package = found
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .max_by_key(|name| numbers(name))
        .with_context(|| format!("no package matches {pattern} in {suite}"))?;
    let mut packages = vec![package.to_owned()];
    let modules = package.replace("linux-binary-", "linux-modules-");
    if modules != package {
        packages.push(modules);
    }
    let version = output(apt("apt-cache").args(["show", "--no-all-versions", package]))?;
    let version = version.lines().find_map(|l| l.strip_prefix("Version: ")).unwrap_or("0");
    let target = store.join(format!("{package}_{}", version.replace([':', '/'], "_")));
    if target.is_dir() {
        return Ok(());
    }
    eprintln!("downloading {}", packages.join(" and "));
    let work = store.join(format!("new-{}", std::process::id()));
    let tree = work.join("tree");
    fs::create_dir_all(&tree)?;
    let result = (|| {
        output(apt("apt-get").current_dir(&work).args(["-qq", "download"]).args(&packages))?;
        for entry in fs::read_dir(&work)? {
            let path = entry?.path();
            if path.extension().is_some_and(|e| e == "deb") {
                output(Command::new("dpkg-deb").arg("-x").arg(&path).arg(&tree))?;
            }
        }
        // The older kernels go only once the new one is whole.
        for entry in fs::read_dir(store)? {
            let path = entry?.path();
            if path.is_dir() && path != work {
                fs::remove_dir_all(&path)?;
            }
        }
        fs::rename(&tree, &target).context("move the unpacked kernel to its place")
    })();
    let _ = fs::remove_dir_all(&work);
    result
}

/// The kernel that lies in `store`.
fn unpacked(store: &Path) -> Result<Kernel> {
    for entry in fs::read_dir(store).with_context(|| format!("list {}", store.display()))? {
        let tree = entry?.path();
        let name = tree.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if !name.starts_with("linux-") {
            continue;
        }
        for modules in ["lib/modules", "usr/lib/modules"] {
            let Ok(mut releases) = fs::read_dir(tree.join(modules)) else {
                continue;
            };
            let Some(Ok(release)) = releases.next() else {
                continue;
            };
            let modules = release.path();
            let release = release.file_name().to_string_lossy().into_owned();
            let images = [tree.join(format!("boot/vmlinuz-{release}")), modules.join("vmlinuz")];
            if let Some(image) = images.into_iter().find(|image| image.is_file()) {
                return Ok(Kernel { name, image, modules });
            }
        }
    }
    bail!("no unpacked kernel in {}", store.display())
}

fn base(cache: &Path, suite: &str) -> PathBuf {
    cache.join("apt").join(suite)
}

/// Writes the apt configuration of one suite and returns its folder.
fn apt_config(cache: &Path, suite: &str) -> Result<PathBuf> {
    let base = base(cache, suite);
    for dir in ["state/lists/partial", "cache/archives/partial", "etc"] {
        fs::create_dir_all(base.join(dir))?;
    }
    let mirror = mirror()?;
    let signed =
        if Path::new(KEYRING).exists() { format!("[signed-by={KEYRING}] ") } else { String::new() };
    fs::write(base.join("etc/sources.list"), format!("deb {signed}{mirror} {suite} main\n"))?;
    fs::write(base.join("status"), "")?;
    let root = base.display();
    fs::write(
        base.join("apt.conf"),
        format!(
            "Dir::State \"{root}/state\";\nDir::State::status \"{root}/status\";\n\
             Dir::Cache \"{root}/cache\";\nDir::Etc::sourcelist \"{root}/etc/sources.list\";\n\
             Dir::Etc::sourceparts \"/dev/null\";\nDir::Etc::preferencesparts \"/dev/null\";\n\
             APT::Architecture \"amd64\";\nAPT::Install-Recommends \"false\";\nAcquire::Languages \"none\";\nAPT::Sandbox::User \"root\";\n"
        ),
    )?;
    Ok(base)
}

/// The Debian mirror this machine is set to.
fn mirror() -> Result<String> {
    let mut files = vec![
        PathBuf::from("/etc/apt/sources.list.d/debian.sources"),
        "/etc/apt/sources.list".into(),
    ];
    if let Ok(parts) = fs::read_dir("/etc/apt/sources.list.d") {
        let mut parts: Vec<_> = parts.filter_map(|e| e.ok().map(|e| e.path())).collect();
        parts.sort();
        files.extend(parts);
    }
    let texts = files.iter().filter_map(|file| fs::read_to_string(file).ok());
    texts
        .filter_map(|text| mirror_in(&text))
        .next()
        .context("no Debian mirror in the machine's apt sources (/etc/apt)")
}

/// The first Debian archive in one file of apt sources, of either format.
fn mirror_in(text: &str) -> Option<String> {
    let urls = text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        match words.next()? {
            "URIs:" => words.next(),
            // The options in brackets may have spaces in them.
            "deb" => words.find(|word| word.contains("://")),
            _ => None,
        }
    });
    // Other vendors' sources and the security archive do not have these suites.
    urls.map(|url| url.trim_end_matches('/'))
        .find(|url| url.ends_with("/debian"))
        .map(str::to_owned)
}

/// The numbers in a package's name, which order it as its version does.
fn numbers(name: &str) -> Vec<u32> {
    name.split(|c: char| !c.is_ascii_digit()).filter_map(|part| part.parse().ok()).collect()
}

/// Runs a command and returns what it printed.
fn output(command: &mut Command) -> Result<String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let result = command.output().with_context(|| format!("start {program}"))?;
    if !result.status.success() {
        let said = String::from_utf8_lossy(&result.stderr);
        bail!("{program}: {}: {}", result.status, said.trim());
    }
    Ok(String::from_utf8_lossy(&result.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::{mirror_in, numbers};

    #[test]
    fn mirrors_of_both_formats() {
        let deb822 = "Types: deb\nURIs: http://mirror.example/debian/\nSuites: x\n";
        assert_eq!(mirror_in(deb822).as_deref(), Some("http://mirror.example/debian"));
        let line = "# deb http://no.example/debian x main\ndeb [arch=amd64 signed-by=/k] https://m.example/debian x main\n";
        assert_eq!(mirror_in(line).as_deref(), Some("https://m.example/debian"));
        assert_eq!(mirror_in("URIs: https://vendor.example/apt\n"), None);
    }

    #[test]
    fn newest_package_wins() {
        assert!(
            numbers("linux-image-6.1.0-50-cloud-amd64")
                > numbers("linux-image-6.1.0-9-cloud-amd64")
        );
    }
}
