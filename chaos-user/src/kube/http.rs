//! What the controller serves: webhooks over TLS, health and metrics in the clear.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{DefaultBodyLimit, State};
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::{get, post};
use axum::serve::Listener;
use axum::{Json, Router};
use jiff::Timestamp;
use kube::Client;
use kube::core::DynamicObject;
use kube::core::admission::{AdmissionRequest, AdmissionResponse, AdmissionReview};
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::admission::{self, Question};
use super::certificate;
use super::metrics::Metrics;
use crate::api::kind::Kind;

/// How webhooks are served.
#[derive(Clone, Debug)]
pub struct Webhooks {
    /// Where we listen.
    pub listen: SocketAddr,
    /// The namespace that we run in.
    pub namespace: String,
    /// The Service through which the API server comes.
    pub service: String,
    /// The one namespace that this installation serves.
    pub only: Option<String>,
}

/// Objects end at 1.5 MiB in the API server's store, and a request has two.
const LARGEST: usize = 8 << 20;
/// Who has not shaken hands by then is not waited for.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How often the certificate is looked at, and after a failure.
const CHECK: Duration = Duration::from_secs(60);
const RETRY: Duration = Duration::from_secs(2);

/// Serves `/healthz`, `/readyz` and `/metrics`.
///
/// # Errors
/// The system's, when the address cannot be listened on.
pub async fn health(listen: SocketAddr, metrics: Arc<Metrics>) -> std::io::Result<()> {
    async fn ready(State(metrics): State<Arc<Metrics>>) -> impl IntoResponse {
        if metrics.is_ready() {
            (StatusCode::OK, "ok")
        } else {
            (StatusCode::SERVICE_UNAVAILABLE, "the webhooks have no certificate yet")
        }
    }
    async fn text(State(metrics): State<Arc<Metrics>>) -> impl IntoResponse {
        const TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
        ([(header::CONTENT_TYPE, TYPE)], metrics.text())
    }
    let router = Router::new()
        // One thread does everything: that it answers is its health.
        .route("/healthz", get(|| async { "ok" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(text))
        .with_state(metrics);
    let listener = TcpListener::bind(listen).await?;
    axum::serve(listener, router).await
}

/// Serves the webhooks, and keeps their certificate.
///
/// # Errors
/// The system's, when the address cannot be listened on.
pub async fn webhooks(
    client: Client,
    options: Webhooks,
    metrics: Arc<Metrics>,
) -> std::io::Result<()> {
    let (tell, config) = watch::channel(None);
    let listener = Tls::bind(options.listen, config).await?;
    let router = router(options.only.clone(), &metrics);
    tokio::select! {
        done = axum::serve(listener, router) => done,
        () = keep_certificate(&client, &options, &tell, &metrics) => Ok(()),
    }
}

async fn keep_certificate(
    client: &Client,
    options: &Webhooks,
    tell: &watch::Sender<Option<Arc<ServerConfig>>>,
    metrics: &Metrics,
) {
    let Webhooks { namespace, service, .. } = options;
    let names = ["", ".cluster.local"].map(|end| format!("{service}.{namespace}.svc{end}"));
    let mut version = None;
    loop {
        let kept = async {
            let certificate =
                certificate::ensure(client, namespace, &names, Timestamp::now()).await?;
            // First what it is served with, then who shall trust it.
            if version.as_ref() != Some(&certificate.version) {
                tell.send_replace(Some(certificate.config.clone()));
                version = Some(certificate.version.clone());
            }
            certificate::announce(client, &certificate.authorities).await
        };
        let wait = match kept.await {
            Ok(is_registered) => {
                if !metrics.is_ready() && !is_registered {
                    tracing::info!(
                        "the cluster has no webhooks of ours: objects are checked later"
                    );
                }
                metrics.ready();
                CHECK
            }
            Err(error) => {
                tracing::warn!(%error, "the webhooks' certificate is not kept");
                RETRY
            }
        };
        sleep(wait).await;
    }
}

#[derive(Clone)]
struct Service {
    only: Option<String>,
    metrics: Arc<Metrics>,
}

fn router(only: Option<String>, metrics: &Arc<Metrics>) -> Router {
    let service = Service { only, metrics: metrics.clone() };
    let mut router = Router::new();
    for kind in admission::kinds() {
        for question in Question::ALL {
            let answer = move |state, review| answer(question, kind, state, review);
            router = router.route(&admission::path(question, kind), post(answer));
        }
    }
    router.layer(DefaultBodyLimit::max(LARGEST)).with_state(service)
}

async fn answer(
    question: Question,
    kind: Kind,
    State(service): State<Service>,
    Json(review): Json<AdmissionReview<DynamicObject>>,
) -> Json<AdmissionReview<DynamicObject>> {
    let request: AdmissionRequest<DynamicObject> = match review.try_into() {
        Ok(request) => request,
        Err(error) => {
            let reason = format!("not an admission request: {error}");
            return Json(AdmissionResponse::invalid(reason).into_review());
        }
    };
    let response = if request.kind.kind == kind.name() {
        admission::answer(question, &request, service.only.as_deref())
    } else {
        let (asked, own) = (&request.kind.kind, kind.name());
        AdmissionResponse::invalid(format!("this is the webhook of {own}, not of {asked}"))
    };
    service.metrics.asked(kind, question.word(), response.allowed);
    Json(response.into_review())
}

/// Connections that have shaken hands.
struct Tls {
    ready: mpsc::Receiver<(TlsStream<TcpStream>, SocketAddr)>,
    local: SocketAddr,
}

impl Tls {
    /// Listens; connections wait for nobody but their own peer.
    async fn bind(
        address: SocketAddr,
        config: watch::Receiver<Option<Arc<ServerConfig>>>,
    ) -> std::io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let local = listener.local_addr()?;
        let (send, ready) = mpsc::channel(64);
        tokio::spawn(async move {
            loop {
                let (stream, peer) = match listener.accept().await {
                    Ok(accepted) => accepted,
                    Err(error) => {
                        // Too many open files, for one: it passes.
                        tracing::warn!(%error, "a connection was not accepted");
                        sleep(Duration::from_millis(100)).await;
                        continue;
                    }
                };
                let Some(config) = config.borrow().clone() else { continue };
                let send = send.clone();
                tokio::spawn(async move {
                    let shake = TlsAcceptor::from(config).accept(stream);
                    match timeout(HANDSHAKE, shake).await {
                        // It fails when nobody serves any more.
                        Ok(Ok(stream)) => drop(send.send((stream, peer)).await),
                        Ok(Err(error)) => tracing::debug!(%error, %peer, "no TLS"),
                        Err(_) => tracing::debug!(%peer, "no TLS in time"),
                    }
                });
            }
        });
        Ok(Self { ready, local })
    }
}

impl Listener for Tls {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        match self.ready.recv().await {
            Some(accepted) => accepted,
            // The task above never ends.
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        Ok(self.local)
    }
}
