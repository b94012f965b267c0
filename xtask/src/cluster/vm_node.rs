//! The node that is a virtual machine: Debian's stock kernel, nothing but cgroup v2, cgroups that
//! systemd makes. It is emulated, and slow.
//!
//! What does not change from boot to boot is on a disk that is kept (see [`disk`]) and opened so
//! that it forgets what is written to it. Settings travel as an archive on a second disk. Its leg
//! in the bridge is a tap device, and commands come by ssh.

mod disk;

use std::fs::{self, File};
use std::io::IsTerminal;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

pub use disk::Disk;

use super::api::Api;
use super::node::Node;
use super::settings::{Runtime, Settings};
use super::{CONTROL, CONTROL_ADDRESS, CONTROL_ADDRESS6, Cluster, SSH_ADDRESS, cgroups, network};
use crate::exec;
use crate::progress::{Step, duration};
use crate::vm::console;

/// What Kubernetes calls it.
pub const NAME: &str = "vm-a";

/// Where it finds its settings.
const PLACE: &str = "/run/node";
/// What it says on its console when it gives up.
const FAILED: &str = "##kfault-failed";

/// From the start to a node that takes pods: half a minute where nothing else runs.
const LIMIT: Duration = Duration::from_secs(420);

/// Runs what stands before `--` with one more argument: what stands after it, as a line of shell.
/// That is what ssh hands over.
const QUOTE: &str = r#"
    before=1 line=
    for word; do
        shift
        case $before:$word in
        1:--) before= ;;
        1:*) set -- "$@" "$word" ;;
        *) line="$line '$(printf %s "$word" | sed "s/'/'\\\\''/g")'" ;;
        esac
    done
    exec "$@" "$line""#;

/// A machine that boots.
pub struct Machine<'a> {
    cluster: &'a Cluster,
    node: &'a Node,
    disk: &'a Disk,
    qemu: Child,
    start: Instant,
}

impl<'a> Machine<'a> {
    /// Starts it, with these images.
    pub fn start(
        cluster: &'a Cluster,
        node: &'a Node,
        disk: &'a Disk,
        others: &[Node],
        images: &[PathBuf],
    ) -> Result<Self> {
        settings(cluster, node, others, images)?;
        let (qemu, start) = (boot(cluster, node, disk)?, Instant::now());
        Ok(Self { cluster, node, disk, qemu, start })
    }

    /// Waits until it takes pods. A boot that comes to nothing, as under emulation they do now
    /// and then, is tried once more.
    pub fn join(mut self, step: &Step, api: &Api<'_>) -> Result<()> {
        let Some(why) = self.wait(step, api)? else { return Ok(()) };
        step.line(&format!("  {}: {why}; one more try", self.node.name()));
        self.qemu.kill().and_then(|()| self.qemu.wait()).context("end QEMU")?;
        self.qemu = boot(self.cluster, self.node, self.disk)?;
        self.start = Instant::now();
        match self.wait(step, api)? {
            None => Ok(()),
            Some(why) => bail!("{}: {why}, twice", self.node.name()),
        }
    }

    /// Returns why there is nothing to wait for any more, if so.
    fn wait(&mut self, step: &Step, api: &Api<'_>) -> Result<Option<String>> {
        let name = self.node.name();
        step.note(&format!("waiting for {name}"));
        let mut is_assigned = false;
        loop {
            if let Some(why) = self.is_lost()? {
                return Ok(Some(why));
            }
            if !is_assigned && api.has(&format!("api/v1/nodes/{name}")) {
                api.assign(self.node)?;
                is_assigned = true;
            }
            // After a second boot the node is there, and was ready once.
            if is_assigned && api.is_node_ready(&name) && self.answers() {
                let took = duration(self.start.elapsed());
                step.line(&format!("  {name}: {took} from its boot"));
                return Ok(None);
            }
            thread::sleep(Duration::from_millis(200));
        }
    }

    fn is_lost(&mut self) -> Result<Option<String>> {
        let console = fs::read(self.cluster.log(NAME)).unwrap_or_default();
        let console = String::from_utf8_lossy(&console);
        let ended = self.qemu.try_wait().context("look after QEMU")?;
        let why = match ended {
            Some(status) => format!("QEMU ended ({status})"),
            None => match lost(&console, self.start.elapsed()) {
                Some(why) => why,
                None => return Ok(None),
            },
        };
        let lines: Vec<&str> = console.lines().collect();
        let end = lines[lines.len().saturating_sub(25)..].join("\n");
        Ok(Some(format!("{why}; the end of its console:\n{end}\n{NAME}")))
    }

    fn answers(&self) -> bool {
        inside(self.node, "true").and_then(|mut command| exec::read(&mut command)).is_ok()
    }
}

/// What says that a machine will not become a node any more.
fn lost(console: &str, time: Duration) -> Option<String> {
    if let Some(line) = console.lines().find(|line| line.contains(FAILED)) {
        return Some(line.trim().to_owned());
    }
    if time > console::INIT_LIMIT && !console.contains(console::INIT) {
        return Some(format!("hung before its first process for {}", duration(time)));
    }
    (time > LIMIT).then(|| format!("not ready after {}", duration(time)))
}

/// Everything that it is told, in one archive.
fn settings(cluster: &Cluster, node: &Node, others: &[Node], images: &[PathBuf]) -> Result<()> {
    let own = cluster.file(NAME);
    let content = own.join("settings");
    fs::create_dir_all(content.join("images"))?;
    for image in images {
        let name = image.file_name().context("an image without a name")?;
        symlink(image, content.join("images").join(name))?;
    }
    let settings = Settings {
        node,
        place: Path::new(PLACE),
        authority: &Path::new(PLACE).join("ca.crt"),
        proxy: &Path::new(PLACE).join("kube-proxy.kubeconfig"),
        runtime: Runtime::Alone,
    };
    settings.write(&content)?;
    fs::copy(cluster.file("pki").join("ca.crt"), content.join("ca.crt"))?;
    fs::copy(cluster.kubeconfig(NAME), content.join("kubelet.kubeconfig"))?;
    fs::copy(cluster.kubeconfig("kube-proxy"), content.join("kube-proxy.kubeconfig"))?;
    for (name, text) in disk::SCRIPTS {
        fs::write(content.join(name), text)?;
    }
    let routes: Vec<String> = others
        .iter()
        .flat_map(Node::routes)
        .map(|(pods, gateway)| format!("{pods}@{gateway}"))
        .collect();
    let lines = format!(
        "NAME={NAME}\nADDRESS={}\nADDRESS6={}\nGATEWAYS='{CONTROL_ADDRESS} {CONTROL_ADDRESS6}'\n\
         ROUTES='{}'\n",
        node.address(),
        node.address6(),
        routes.join(" ")
    );
    fs::write(content.join("env"), lines)?;

    let mut keygen = exec::program("ssh-keygen")?;
    keygen.args(["-q", "-t", "ed25519", "-N", "", "-C", "kfault-cluster", "-f"]);
    exec::read(keygen.arg(key(cluster)))?;
    fs::copy(key(cluster).with_extension("pub"), content.join("authorized_keys"))?;

    let archive = File::create(own.join("settings.tar"))?;
    let mut archive = tar::Builder::new(archive);
    archive.append_dir_all(".", &content)?;
    archive.finish().context("write the settings")
}

fn key(cluster: &Cluster) -> PathBuf {
    cluster.file(NAME).join("key")
}

fn boot(cluster: &Cluster, node: &Node, disk: &Disk) -> Result<Child> {
    let log = File::create(cluster.log(NAME))?;
    let hierarchies = cgroups::hierarchies()?;
    let cgroup = cgroups::create(cgroups::unified(&hierarchies), &node.namespace())?;
    let enter = network::inside(CONTROL)?;
    let qemu = exec::find("qemu-system-x86_64").context("QEMU is not installed")?;
    let mut command = cgroups::joining(&cgroup)?;
    // Each of these becomes the next: the child's number is QEMU's.
    command.arg(enter.get_program()).args(enter.get_args()).arg("setsid").arg(qemu);
    command.args(console::EMULATION).args(["-m", "2500", "-nic", "none"]);
    command.arg("-kernel").arg(&disk.kernel).arg("-initrd").arg(&disk.initrd);
    command.args(["-append", console::KERNEL]);
    // What the machine writes goes to a file that has no name.
    command.args(["-drive", &drive(&disk.image, "snapshot=on")]);
    command.args(["-drive", &drive(&cluster.file(NAME).join("settings.tar"), "readonly=on")]);
    let tap = format!("tap,id=net,ifname={},script=no,downscript=no", network::port(node));
    let mac = format!("52:54:00:00:00:{:02x}", node.number());
    command.args(["-netdev", &tap, "-device"]);
    command.arg(format!("virtio-net-pci,netdev=net,romfile=,mac={mac}"));
    command
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .with_context(|| format!("start {NAME}"))
}

fn drive(file: &Path, more: &str) -> String {
    // A comma in a path is doubled for QEMU.
    let file = file.display().to_string().replace(',', ",,");
    format!("file={file},if=virtio,format=raw,{more}")
}

/// A command in the machine; its program is named here, and its arguments arrive as they are.
pub fn inside(node: &Node, program: &str) -> Result<Command> {
    let enter = network::inside(CONTROL)?;
    let mut command = exec::program("sh")?;
    network::direct(&mut command);
    command.args(["-c", QUOTE, "ssh"]).arg(enter.get_program()).args(enter.get_args());
    command.args(["ssh", "-q", "-F", "none", "-b", SSH_ADDRESS, "-i"]);
    command.arg(key(&Cluster::here()));
    for option in [
        // It made its key a moment ago, and nobody else is on this network.
        "StrictHostKeyChecking=no",
        "UserKnownHostsFile=/dev/null",
        "BatchMode=yes",
        "IdentitiesOnly=yes",
        "ConnectTimeout=20",
        "ServerAliveInterval=10",
        "ServerAliveCountMax=6",
    ] {
        command.args(["-o", option]);
    }
    if std::io::stdin().is_terminal() && std::io::stdout().is_terminal() {
        command.arg("-t");
    }
    command.arg(format!("root@{}", node.address())).args(["--", program]);
    Ok(command)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_arrive_as_they_are() {
        let words = ["%s|", "it's", "--", "a  b", "$HOME \"*\"", "", "-x", "1--", "10.0.0.1/32"];
        let mut command = Command::new("sh");
        command.args(["-c", QUOTE, "ssh", "sh", "-c", "--", "printf"]).args(words);
        let said = exec::read(&mut command).unwrap();
        assert_eq!(said, "it's|--|a  b|$HOME \"*\"||-x|1--|10.0.0.1/32|");
    }

    #[test]
    fn a_boot_that_comes_to_nothing_is_given_up() {
        let soon = Duration::from_secs(20);
        assert_eq!(lost("", soon), None);
        assert!(lost("Booting from ROM..", console::INIT_LIMIT + soon).unwrap().contains("hung"));
        let booted = format!("{}\nstarted", console::INIT);
        assert_eq!(lost(&booted, console::INIT_LIMIT + soon), None);
        assert!(lost(&booted, LIMIT * 2).unwrap().contains("not ready"));
        let failed = format!("{booted}\n{FAILED} containerd ended\n");
        assert_eq!(lost(&failed, soon).unwrap(), "##kfault-failed containerd ended");
    }
}
