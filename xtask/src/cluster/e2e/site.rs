//! The clusters that scenarios can run on: the one of namespaces, one of kind's, and whatever
//! `KUBECONFIG` points at.

use std::fmt;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use super::super::binaries::Binaries;
use super::super::node::Node;
use super::super::{Cluster, down, load, up};
use super::Args;
use crate::progress::step;
use crate::{exec, image};

/// How kind calls the cluster that it makes for us.
const KIND: &str = "kfault-e2e";

/// Two nodes beside the control plane, as the scenarios want them.
const KIND_NODES: &str = "kind: Cluster\napiVersion: kind.x-k8s.io/v1alpha4\n\
    nodes: [{role: control-plane}, {role: worker}, {role: worker}]\n";

/// Why a scenario does not run on a cluster: something that it needs and that nobody can give it.
#[derive(Debug)]
pub struct Cannot(String);

impl Cannot {
    /// For this reason, which is printed.
    pub fn because(why: &str) -> Self {
        Self(why.to_owned())
    }
}

impl fmt::Display for Cannot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Cannot {}

/// A cluster.
pub struct Site<'a> {
    cluster: &'a Cluster,
    origin: Origin,
    /// What the pods of kfault are made of.
    pub image: String,
    /// What the pods of the application are made of.
    pub app_image: String,
}

/// Whose it is, and how it is reached.
enum Origin {
    /// Ours, of namespaces; whether it was up before us.
    Own { was_up: bool, vm_node: bool },
    /// kind's, with the container engine that it runs on.
    Kind { kubectl: PathBuf, engine: &'static str },
    /// Somebody's.
    Given { kubectl: PathBuf },
}

impl<'a> Site<'a> {
    /// The one that the machine and its environment ask for.
    pub fn choose(cluster: &'a Cluster, args: &Args) -> Result<Self> {
        let was_up = !cluster.nodes().is_empty();
        let origin = if args.is_native() {
            Origin::Own { was_up, vm_node: args.vm_node }
        } else if is_given() {
            Origin::Given { kubectl: kubectl()? }
        } else if let Some(engine) = engine().filter(|_| !was_up) {
            Origin::Kind { kubectl: kubectl()?, engine }
        } else {
            Origin::Own { was_up, vm_node: args.vm_node }
        };
        ensure!(
            matches!(origin, Origin::Given { .. })
                || (args.image.is_none() && args.app_image.is_none()),
            "--image and --app-image are for a cluster that KUBECONFIG points at: \
             this one takes the images that are built here"
        );
        let own = |given: &Option<String>, own: &str| given.clone().unwrap_or_else(|| own.into());
        let image = own(&args.image, image::KFAULT);
        let app_image = own(&args.app_image, image::APP);
        Ok(Self { cluster, origin, image, app_image })
    }

    /// Has it up; the emulated node, if it has one.
    pub fn start(&self) -> Result<Option<Node>> {
        let folder = folder();
        // What kubectl is told stands there, tokens too.
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
        match &self.origin {
            Origin::Own { vm_node, .. } => {
                let native = if *vm_node { 1 } else { 2 };
                up::up(self.cluster, &Node::several(native, *vm_node))?;
                return Ok(self.cluster.nodes().into_iter().find(Node::is_vm));
            }
            Origin::Kind { engine, .. } => {
                let nodes = folder.join("kind.yaml");
                fs::write(&nodes, KIND_NODES)?;
                step("start a cluster of kind's", |step| {
                    let mut kind = kind(engine)?;
                    kind.args(["create", "cluster", "--wait=180s", "--config"]).arg(nodes);
                    exec::quiet(step, kind.arg("--kubeconfig").arg(self.kubeconfig())).map(drop)
                })?;
            }
            Origin::Given { kubectl } => {
                let mut view = Command::new(kubectl);
                view.args(["config", "view", "--minify", "--flatten", "--raw", "--output=json"]);
                let mut config: Value = serde_json::from_str(&exec::read(&mut view)?)
                    .context("what kubectl said of KUBECONFIG")?;
                let server = config["clusters"][0]["cluster"]["server"].clone();
                println!("the cluster of KUBECONFIG: {}", server.as_str().unwrap_or("no server"));
                // The scenarios are written for this one, whatever its owner works in.
                config["contexts"][0]["context"]["namespace"] = json!("default");
                secret(&self.kubeconfig(), &config.to_string())?;
                self.refuse_what_is_not_ours()?;
            }
        }
        Ok(None)
    }

    /// Makes the images known to it, where that is ours to do.
    pub fn load(&self) -> Result<()> {
        match &self.origin {
            Origin::Own { .. } => load(self.cluster, &[image::kfault()?, image::app()?]),
            Origin::Kind { engine, .. } => {
                let images = [image::kfault()?, image::app()?];
                step("load the images", |step| {
                    for image in images {
                        let mut kind = kind(engine)?;
                        exec::quiet(step, kind.args(["load", "image-archive"]).arg(image))?;
                    }
                    Ok(())
                })
            }
            Origin::Given { .. } => Ok(()),
        }
    }

    /// Ends what [`Self::start`] started. On somebody's cluster nothing stays of kfault.
    pub fn end(&self, installed: &[PathBuf]) -> Result<()> {
        match &self.origin {
            Origin::Own { was_up: true, .. } => Ok(()),
            Origin::Own { was_up: false, .. } => {
                step("end the cluster", |_| down::down(self.cluster))
            }
            Origin::Kind { engine, .. } => step("end kind's cluster", |step| {
                exec::quiet(step, kind(engine)?.args(["delete", "cluster"])).map(drop)
            }),
            Origin::Given { .. } => step("take kfault and the application away", |step| {
                for file in installed {
                    let mut kubectl = self.kubectl()?;
                    kubectl.args(["delete", "--ignore-not-found", "--timeout=120s", "--filename"]);
                    exec::quiet(step, kubectl.arg(file))?;
                }
                Ok(fs::remove_dir_all(folder())?)
            }),
        }
    }

    /// kubectl, with the cluster's credentials.
    pub fn kubectl(&self) -> Result<Command> {
        match &self.origin {
            Origin::Own { .. } => self.own()?.client("kubectl"),
            Origin::Kind { kubectl, .. } | Origin::Given { kubectl } => {
                let mut command = Command::new(kubectl);
                command.env("KUBECONFIG", self.kubeconfig());
                Ok(command)
            }
        }
    }

    /// kubectl with a token and nothing else.
    pub fn kubectl_as(&self, token: &str) -> Result<Command> {
        let view = ["config", "view", "--minify", "--flatten", "--raw", "--output=json"];
        let mut config: Value = serde_json::from_str(&exec::read(self.kubectl()?.args(view))?)?;
        config["users"][0]["user"] = json!({ "token": token });
        let file = folder().join("token.kubeconfig");
        secret(&file, &config.to_string())?;
        let mut kubectl = self.kubectl()?;
        kubectl.arg("--kubeconfig").arg(file);
        Ok(kubectl)
    }

    /// A program on a node.
    pub fn on_node(&self, node: &str, program: &str) -> Result<Command> {
        self.need_nodes()?;
        match &self.origin {
            Origin::Own { .. } => self.own()?.node(node)?.inside(program),
            Origin::Kind { engine, .. } => {
                let mut command = exec::program(engine)?;
                command.args(["exec", node, program]);
                Ok(command)
            }
            Origin::Given { .. } => bail!("there is no way to {node}"),
        }
    }

    /// The cluster of namespaces, for what is done to its parts. Elsewhere this is [`Cannot`].
    pub fn own(&self) -> Result<&'a Cluster> {
        match &self.origin {
            Origin::Own { .. } => Ok(self.cluster),
            Origin::Kind { .. } | Origin::Given { .. } => {
                Err(Cannot::because("the parts of this cluster are not ours").into())
            }
        }
    }

    /// Fails with [`Cannot`] where no command can be run on a node.
    pub fn need_nodes(&self) -> Result<()> {
        match &self.origin {
            Origin::Own { .. } | Origin::Kind { .. } => Ok(()),
            Origin::Given { .. } => {
                Err(Cannot::because("commands on nodes of a given cluster cannot be run").into())
            }
        }
    }

    fn kubeconfig(&self) -> PathBuf {
        folder().join("kubeconfig")
    }

    /// The names that are used here may be somebody else's on a cluster that is not ours.
    fn refuse_what_is_not_ours(&self) -> Result<()> {
        let names = |args: &[&str]| -> Result<String> {
            let mut kubectl = self.kubectl()?;
            exec::read(kubectl.args(["get", "--ignore-not-found", "--output=name"]).args(args))
        };
        let mesh = names(&["pods", "--all-namespaces", "-l=app.kubernetes.io/part-of=chaos-mesh"])?;
        ensure!(mesh.is_empty(), "Chaos Mesh runs on this cluster; kfault takes its names");
        let controller = names(&[
            "deployments",
            "--all-namespaces",
            "-l=app.kubernetes.io/name=kfault,app.kubernetes.io/component=controller",
        ])?;
        ensure!(
            controller.is_empty(),
            "kfault is installed on this cluster, and its experiments would be deleted: \
             remove it first"
        );
        let app = ["deployment/web", "deployment/neighbour", "service/web", "pod/client"];
        let app = names(&app)?;
        ensure!(
            app.is_empty(),
            "the namespace default has objects of the names that the scenarios use: {}",
            app.split_whitespace().collect::<Vec<_>>().join(", ")
        );
        Ok(())
    }
}

/// Whether the environment names a cluster.
pub fn is_given() -> bool {
    std::env::var_os("KUBECONFIG").is_some_and(|value| !value.is_empty())
}

/// Where the scenarios keep what they hand to kubectl.
pub fn folder() -> PathBuf {
    crate::target_dir().join("e2e")
}

/// The machine's kubectl, or the one that the test cluster is built with.
fn kubectl() -> Result<PathBuf> {
    match exec::find("kubectl") {
        Some(file) => Ok(file),
        None => Ok(Binaries::built().context("there is no kubectl")?.folder.join("kubectl")),
    }
}

/// A container engine that answers, where kind is installed.
fn engine() -> Option<&'static str> {
    exec::find("kind")?;
    ["docker", "podman"].into_iter().find(|engine| {
        exec::program(engine).is_ok_and(|mut command| exec::read(command.arg("info")).is_ok())
    })
}

fn kind(engine: &str) -> Result<Command> {
    let mut command = exec::program("kind")?;
    command.env("KIND_EXPERIMENTAL_PROVIDER", engine).env("KIND_CLUSTER_NAME", KIND);
    Ok(command)
}

fn secret(file: &PathBuf, text: &str) -> Result<()> {
    let mut options = fs::OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(file)?;
    Ok(file.write_all(text.as_bytes())?)
}
