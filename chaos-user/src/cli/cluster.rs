//! `kfault agent` and `kfault controller`: the parts that run in a cluster.

use std::future::Future;

use tokio::sync::{mpsc, watch};

use super::args::{Agent, Controller};
use super::complain;
use super::exit::Exit;
use super::session::Signals;
use crate::api::nodefault::Tasks;
use crate::engine::chain;
use crate::kube::{KubeError, agent as link, client, controller, reconcile::Reach};
use crate::node::agent::{self, AgentError};

/// Runs the command.
pub fn agent(args: &Agent) -> Exit {
    let Agent { node, namespace, cut_off } = args;
    let options =
        link::Options { node: node.clone(), namespace: namespace.clone(), cut_off: *cut_off };
    run("agent", async move {
        let client = client().await.map_err(unable)?;
        let mut signals = Signals::catch().map_err(failed)?;
        let (tell_tasks, tasks) = watch::channel(Tasks::new());
        let (tell_answers, answers) = mpsc::unbounded_channel();
        let linked = tokio::spawn(link::serve(client, options, tell_tasks, answers));
        tracing::info!(node, "the agent is at work");
        let done = agent::serve(tasks, tell_answers, signals.next()).await;
        linked.abort();
        done.map_err(|error| {
            let exit = match &error {
                AgentError::Closed(error) => super::engine_exit(error),
                AgentError::Died | AgentError::Thread(_) => Exit::Failed,
            };
            (exit, chain(&error))
        })
    })
}

/// Runs the command.
pub fn controller(args: &Controller) -> Exit {
    let Controller { namespace, target_namespace, filter_namespaces } = args;
    let options = controller::Options {
        namespace: namespace.clone(),
        reach: Reach { only: target_namespace.clone(), filter: *filter_namespaces },
    };
    run("controller", async move {
        let client = client().await.map_err(unable)?;
        let mut signals = Signals::catch().map_err(failed)?;
        tracing::info!("the controller is at work");
        let done = controller::serve(client, options, signals.next()).await;
        done.map_err(|error| (Exit::Failed, chain(&error)))
    })
}

fn run(what: &str, work: impl Future<Output = Result<(), (Exit, String)>>) -> Exit {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            complain(&format!("{what}: cannot start: {error}"));
            return Exit::Failed;
        }
    };
    let done = runtime.block_on(work);
    runtime.shutdown_background();
    match done {
        Ok(()) => Exit::Done,
        Err((exit, message)) => {
            complain(&format!("{what}: {message}"));
            exit
        }
    }
}

fn unable(error: KubeError) -> (Exit, String) {
    (Exit::Unable, chain(&error))
}

fn failed(error: std::io::Error) -> (Exit, String) {
    (Exit::Failed, format!("cannot start: {error}"))
}
