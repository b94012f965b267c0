//! `kfault agent` and `kfault controller`: the parts that run in a cluster.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};

use super::args::{Agent, Controller};
use super::complain;
use super::exit::Exit;
use super::session::Signals;
use crate::api::nodefault::Tasks;
use crate::engine::chain;
use crate::kube::choice::Reach;
use crate::kube::leader::Candidate;
use crate::kube::metrics::Metrics;
use crate::kube::names::{self, Names};
use crate::kube::{Client, KubeError, agent as link, client, controller, http, rival};
use crate::node::agent::{self, AgentError};
use crate::telemetry::Format;

/// A question that had no answer is asked again after this time.
const ASK_AGAIN: Duration = Duration::from_secs(2);

/// Runs the command.
pub fn agent(args: &Agent) -> Exit {
    let Agent { node, namespace, cut_off, target_namespace, log_format } = args;
    let options = link::Options {
        node: node.clone(),
        namespace: namespace.clone(),
        cut_off: *cut_off,
        only: target_namespace.clone(),
    };
    let log = (*log_format).into();
    run_logged("agent", log, async move {
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
    let Controller { namespace, target_namespace, filter_namespaces, image, identity, .. } = args;
    let metrics = Arc::new(Metrics::default());
    let options = controller::Options {
        namespace: namespace.clone(),
        reach: Reach {
            only: target_namespace.clone(),
            own: namespace.clone(),
            image: image.clone(),
            filter: *filter_namespaces,
        },
        names: Names::new(Arc::new(|all| Box::pin(look_up(all)))),
        metrics: metrics.clone(),
    };
    run_logged("controller", args.log_format.into(), async move {
        let client = client().await.map_err(unable)?;
        // Every controller answers; one of them works.
        tokio::select! {
            done = serve(client.clone(), args, metrics) => done,
            done = lead(client, options, identity) => done,
        }
    })
}

async fn serve(
    client: Client,
    args: &Controller,
    metrics: Arc<Metrics>,
) -> Result<(), (Exit, String)> {
    let Controller { namespace, target_namespace, listen, webhook_listen, .. } = args;
    let cannot = |what: &'static str, address: SocketAddr| {
        move |error| (Exit::Failed, format!("cannot serve {what} on {address}: {error}"))
    };
    let webhooks = http::Webhooks {
        listen: *webhook_listen,
        namespace: namespace.clone(),
        service: args.webhook_service.clone(),
        only: target_namespace.clone(),
    };
    let health = http::health(*listen, metrics.clone());
    if args.no_webhooks {
        metrics.ready();
        return health.await.map_err(cannot("health and metrics", *listen));
    }
    tokio::select! {
        done = health => done.map_err(cannot("health and metrics", *listen)),
        done = http::webhooks(client, webhooks, metrics) =>
            done.map_err(cannot("webhooks", *webhook_listen)),
    }
}

async fn lead(
    client: Client,
    options: controller::Options,
    identity: &str,
) -> Result<(), (Exit, String)> {
    let mut signals = Signals::catch().map_err(failed)?;
    let mut candidate = Candidate::new(&client, &options.namespace, identity);
    let is_alone = async || alone(&client, &options).await;
    tokio::select! {
        done = async {
            is_alone().await?;
            candidate.lead().await;
            // It may have been installed while we waited.
            is_alone().await
        } => if let Err(stop) = done {
            candidate.resign().await;
            return Err(stop);
        },
        () = signals.next() => return Ok(()),
    }
    options.metrics.leads(true);
    tracing::info!(identity, "the controller is at work");
    let done = tokio::select! {
        done = controller::serve(client, options, signals.next()) => done,
        // Whoever leads now must not meet us: start over as a candidate.
        () = candidate.hold() => {
            return Err((Exit::Failed, "another controller leads now".to_owned()));
        }
    };
    candidate.resign().await;
    done.map_err(|error| (Exit::Failed, chain(&error)))
}

/// Waits for the API server to say that no other Chaos Mesh serves the cluster.
async fn alone(client: &Client, options: &controller::Options) -> Result<(), (Exit, String)> {
    loop {
        match rival::look(client, &options.namespace, options.reach.only.as_deref()).await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(rival)) => return Err((Exit::Unable, rival.to_string())),
            // Nothing is done before there is an answer.
            Err(error) => tracing::warn!(%error, "will try again"),
        }
        tokio::time::sleep(ASK_AGAIN).await;
    }
}

async fn look_up(all: Vec<String>) -> names::Answers {
    let super::names::Answers { resolved, failed } = super::names::look_up(all).await;
    (resolved, failed)
}

/// Runs the command: the first process of a container that is to fail. Without a handler the
/// kernel would not even let such a process be ended.
pub fn pause() -> Exit {
    run("pause", async {
        Signals::catch().map_err(failed)?.next().await;
        Ok(())
    })
}

/// Runs something that needs a cluster, and says why it ended.
pub fn run(what: &str, work: impl Future<Output = Result<(), (Exit, String)>>) -> Exit {
    run_logged(what, Format::Text, work)
}

/// The same, where the last words are to be part of a log.
fn run_logged(
    what: &str,
    format: Format,
    work: impl Future<Output = Result<(), (Exit, String)>>,
) -> Exit {
    let say = |message: String| match format {
        Format::Text => complain(&format!("{what}: {message}")),
        Format::Json => tracing::error!("{message}"),
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            say(format!("cannot start: {error}"));
            return Exit::Failed;
        }
    };
    let done = runtime.block_on(work);
    runtime.shutdown_background();
    match done {
        Ok(()) => Exit::Done,
        Err((exit, message)) => {
            say(message);
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
