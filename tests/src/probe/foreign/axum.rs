//! hyper, with axum in front of it.

use std::net::TcpListener;
use std::thread::JoinHandle;

use anyhow::{Context, Result};
use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use tokio::sync::oneshot;

use super::{CHUNKS, LARGE, PAGE};
use crate::ns::Ns;

/// A running server. Ends when dropped.
pub struct Axum {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<std::io::Result<()>>>,
}

impl Axum {
    /// Starts it on every IPv4 address of a namespace.
    pub fn start(ns: &Ns, port: u16) -> Result<Self> {
        let listener = ns.run(|| TcpListener::bind(("0.0.0.0", port)).context("listen"))?;
        listener.set_nonblocking(true).context("listen")?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("a runtime")?;
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = std::thread::spawn(move || {
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener)?;
                let server = axum::serve(listener, Router::new().fallback(answer));
                tokio::select! {
                    ended = server => ended,
                    _ = stopped => Ok(()),
                }
            })
        });
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Axum {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn answer(uri: Uri) -> Response {
    match uri.path().rsplit('/').next().unwrap_or_default() {
        "page" => PAGE.into_response(),
        "large" => "x".repeat(LARGE).into_response(),
        "chunks" => {
            let piece = || Ok::<_, std::io::Error>(Bytes::from(vec![b'y'; CHUNKS / 10]));
            let pieces = futures_util::stream::iter((0..10).map(move |_| piece()));
            Body::from_stream(pieces).into_response()
        }
        _ => (StatusCode::NOT_FOUND, "there is nothing\n").into_response(),
    }
}
