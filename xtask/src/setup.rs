//! `setup`: what the other commands need, installed where that is ours to do (Debian, as root)
//! and named exactly where it is not. Never touches the machine's package sources.

mod apt;
mod bpf;
mod go;

pub use go::find as go;

use anyhow::{Result, bail};

use crate::exec;

/// What a command needs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Group {
    /// Compiling the programs, the BPF object included.
    Build,
    /// Formatting and clippy.
    Lint,
    /// The kernel tests on this machine.
    Test,
    /// Booting kernels.
    Vm,
    /// The demonstration.
    Demo,
    /// Writing container images.
    Image,
    /// The test cluster.
    Cluster,
    /// Its node in a virtual machine, beside what [`Group::Vm`] has.
    VmNode,
    /// What figures are compared with, beside what [`Group::Test`] has.
    Bench,
}

impl Group {
    /// Those that every machine is to have.
    const USUAL: [Self; 6] =
        [Self::Build, Self::Lint, Self::Test, Self::Vm, Self::Demo, Self::Image];

    fn purpose(self) -> &'static str {
        match self {
            Self::Build => "to build",
            Self::Lint => "to lint",
            Self::Test => "to test",
            Self::Vm => "to boot kernels",
            Self::Demo => "for the demo",
            Self::Image => "to write images",
            Self::Cluster => "for the test cluster",
            Self::VmNode => "for a node in a virtual machine",
            Self::Bench => "to compare with",
        }
    }
}

/// One thing that must be there.
struct Need {
    group: Group,
    /// What it is, for people.
    what: &'static str,
    check: Check,
    debian: &'static [&'static str],
    ubuntu: &'static str,
    fedora: &'static str,
}

enum Check {
    /// A program by this name.
    Program(&'static str),
    /// Something that takes more than looking for a program.
    Other(fn() -> bool),
}

impl Need {
    fn is_met(&self) -> bool {
        match self.check {
            Check::Program(name) => exec::find(name).is_some(),
            Check::Other(check) => check(),
        }
    }
}

const fn program(
    group: Group,
    name: &'static str,
    debian: &'static [&'static str],
    fedora: &'static str,
) -> Need {
    // Ubuntu takes these from Debian under the same names.
    Need { group, what: name, check: Check::Program(name), debian, ubuntu: debian[0], fedora }
}

const NEEDS: &[Need] = &[
    Need {
        group: Group::Build,
        what: "a C compiler with the static C library",
        check: Check::Other(bpf::has_static_libc),
        debian: &["gcc", "libc6-dev"],
        ubuntu: "gcc libc6-dev",
        fedora: "gcc glibc-static",
    },
    Need {
        group: Group::Build,
        what: "a Rust compiler with its library sources, for the BPF target",
        check: Check::Other(bpf::has_compiler),
        debian: &["rustc-web", "cargo-web", "rust-web-src"],
        ubuntu: "rustup, then: rustup toolchain install nightly --component rust-src",
        fedora: "rustup, then: rustup toolchain install nightly --component rust-src",
    },
    Need {
        group: Group::Build,
        what: "bpf-linker, or the LLVM libraries to build it",
        check: Check::Other(bpf::can_have_linker),
        debian: &["llvm-22-dev", "zlib1g-dev", "libzstd-dev", "g++", "pkg-config"],
        ubuntu: "llvm-22-dev zlib1g-dev libzstd-dev g++ pkg-config",
        fedora: "llvm-devel (version 22) zlib-devel libzstd-devel gcc-c++ pkgconf",
    },
    program(Group::Build, "strip", &["binutils"], "binutils"),
    Need {
        group: Group::Lint,
        what: "rustfmt and clippy",
        check: Check::Other(bpf::has_lints),
        debian: &["rustfmt-web", "rust-web-clippy"],
        ubuntu: "rustup component add rustfmt clippy",
        fedora: "rustup component add rustfmt clippy, or: rustfmt clippy",
    },
    program(Group::Test, "ip", &["iproute2"], "iproute"),
    program(Group::Test, "tc", &["iproute2"], "iproute-tc"),
    program(Group::Test, "ping", &["iputils-ping"], "iputils"),
    program(Group::Test, "iperf3", &["iperf3"], "iperf3"),
    program(Group::Test, "ethtool", &["ethtool"], "ethtool"),
    program(Group::Test, "iptables", &["iptables"], "iptables-nft"),
    program(Group::Test, "curl", &["curl"], "curl"),
    program(Group::Test, "apache2", &["apache2-bin"], "httpd"),
    program(Group::Test, "dig", &["bind9-dnsutils"], "bind-utils"),
    program(Group::Test, "musl-gcc", &["musl-tools"], "musl-gcc"),
    Need {
        group: Group::Test,
        what: "c-ares, to link with",
        check: Check::Other(bpf::has_c_ares),
        debian: &["libc-ares-dev"],
        ubuntu: "libc-ares-dev",
        fedora: "c-ares-devel",
    },
    Need {
        group: Group::Test,
        what: "bpftool",
        check: Check::Program("bpftool"),
        debian: &["bpftool"],
        ubuntu: "linux-tools-generic",
        fedora: "bpftool",
    },
    Need {
        group: Group::Vm,
        what: "qemu-system-x86_64",
        check: Check::Program("qemu-system-x86_64"),
        debian: &["qemu-system-x86"],
        ubuntu: "qemu-system-x86",
        fedora: "qemu-system-x86-core",
    },
    Need {
        group: Group::Vm,
        what: "a static busybox",
        check: Check::Other(bpf::has_static_busybox),
        debian: &["busybox-static"],
        ubuntu: "busybox-static",
        fedora: "busybox",
    },
    program(Group::Vm, "xz", &["xz-utils"], "xz"),
    program(Group::Vm, "cpio", &["cpio"], "cpio"),
    program(Group::Vm, "modprobe", &["kmod"], "kmod"),
    program(Group::Vm, "apt-get", &["apt"], "apt"),
    program(Group::Vm, "dpkg-deb", &["dpkg"], "dpkg"),
    program(Group::Demo, "ip", &["iproute2"], "iproute"),
    program(Group::Demo, "nginx", &["nginx-light"], "nginx"),
    program(Group::Demo, "curl", &["curl"], "curl"),
    program(Group::Image, "nginx", &["nginx-light"], "nginx"),
    program(Group::Image, "curl", &["curl"], "curl"),
    Need {
        group: Group::Image,
        what: "a static busybox",
        check: Check::Other(bpf::has_static_busybox),
        debian: &["busybox-static"],
        ubuntu: "busybox-static",
        fedora: "busybox",
    },
    Need {
        group: Group::Cluster,
        what: "Go 1.24 or newer (before Debian 13: Go's own release, unpacked to /usr/local/go)",
        check: Check::Other(|| go::find().is_some()),
        debian: &[go::PACKAGE],
        ubuntu: "golang-1.24-go or newer",
        fedora: "golang",
    },
    program(Group::Cluster, "containerd", &["containerd"], "containerd"),
    program(Group::Cluster, "ctr", &["containerd"], "containerd"),
    program(Group::Cluster, "runc", &["runc"], "runc"),
    Need {
        group: Group::Cluster,
        what: "the CNI plugins",
        check: Check::Other(|| crate::cluster::plugins().is_some()),
        debian: &["containernetworking-plugins"],
        ubuntu: "containernetworking-plugins",
        fedora: "containernetworking-plugins",
    },
    program(Group::Cluster, "nft", &["nftables"], "nftables"),
    program(Group::Cluster, "ip", &["iproute2"], "iproute"),
    program(Group::Cluster, "nsenter", &["util-linux"], "util-linux-core"),
    program(Group::Cluster, "openssl", &["openssl"], "openssl"),
    program(Group::Cluster, "curl", &["curl"], "curl"),
    program(Group::VmNode, "mke2fs", &["e2fsprogs"], "e2fsprogs"),
    program(Group::VmNode, "ssh", &["openssh-client"], "openssh-clients"),
    program(Group::VmNode, "ssh-keygen", &["openssh-client"], "openssh-clients"),
    program(Group::Bench, "dnsmasq", &["dnsmasq-base"], "dnsmasq"),
    program(Group::Bench, "nginx", &["nginx-light"], "nginx"),
    program(Group::Bench, "wrk", &["wrk"], "wrk"),
];

/// The command.
pub fn main() -> Result<()> {
    need(&Group::USUAL)?;
    match need(&[Group::Cluster]) {
        Ok(()) => println!("everything is there"),
        // Only the cluster wants a compiler that older distributions do not have.
        Err(error) => println!("everything but the test cluster is there: {error:#}"),
    }
    Ok(())
}

/// Makes sure that what these groups need is there. Says nothing when it is.
pub fn need(groups: &[Group]) -> Result<()> {
    let missing: Vec<&Need> =
        NEEDS.iter().filter(|need| groups.contains(&need.group) && !need.is_met()).collect();
    if !missing.is_empty() {
        if !exec::is_root() || distribution() != "debian" {
            bail!("{}", complaint(&missing, &distribution(), exec::is_root()));
        }
        install(groups, &missing)?;
    }
    if groups.contains(&Group::Build) {
        bpf::need_linker()?;
    }
    Ok(())
}

fn install(groups: &[Group], missing: &[&Need]) -> Result<()> {
    apt::update()?;
    for group in groups {
        let mut packages: Vec<&str> = missing
            .iter()
            .filter(|need| need.group == *group)
            .flat_map(|need| need.debian)
            .copied()
            .filter(|package| *package != go::PACKAGE || go::is_offered())
            .collect();
        packages.sort_unstable();
        packages.dedup();
        if !packages.is_empty() {
            apt::install(group.purpose(), &packages)?;
        }
    }
    let still: Vec<&Need> = missing.iter().filter(|need| !need.is_met()).copied().collect();
    if !still.is_empty() {
        bail!("installed, and yet {}", complaint(&still, "debian", true));
    }
    Ok(())
}

/// What is missing, what it is for, and the packages that likely bring it.
fn complaint(missing: &[&Need], distribution: &str, is_root: bool) -> String {
    let mut text = String::from("missing on this machine:");
    for need in missing {
        let packages = match distribution {
            "fedora" => need.fedora.to_owned(),
            "debian" => need.debian.join(" "),
            _ => need.ubuntu.to_owned(),
        };
        text.push_str(&format!("\n  {} {}: {packages}", need.what, need.group.purpose()));
    }
    let way = match (distribution, is_root) {
        ("debian", false) => "run `cargo xtask setup` as root, which installs them",
        ("fedora", _) => "the names are Fedora's packages; `setup` installs on Debian only",
        ("debian", true) => "the names are Debian's packages",
        _ => "the names are Ubuntu's packages; `setup` installs on Debian only",
    };
    format!("{text}\n{way}")
}

/// `debian`, `ubuntu`, `fedora` …
fn distribution() -> String {
    let text = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    let id = text.lines().find_map(|line| line.trim().strip_prefix("ID="));
    id.unwrap_or("unknown").trim_matches('"').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_cannot_install_is_told_the_names_of_their_distribution() {
        let ping = program(Group::Test, "ping", &["iputils-ping"], "iputils");
        let text = complaint(&[&ping], "fedora", true);
        assert!(text.contains("\n  ping to test: iputils\n"), "{text}");
        let text = complaint(&[&ping], "ubuntu", true);
        assert!(text.contains("ping to test: iputils-ping\n"), "{text}");
        let text = complaint(&[&ping], "debian", false);
        assert!(text.contains("as root"), "{text}");
    }

    #[test]
    fn every_group_needs_something() {
        for group in Group::USUAL.into_iter().chain([Group::Cluster, Group::VmNode]) {
            assert!(NEEDS.iter().any(|need| need.group == group), "{group:?}");
        }
    }
}
