//! Requests whose moment is known, and what watches tell, by curl.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::super::Cluster;
use super::super::api::Api;
use crate::exec;

/// Seconds since 1970: the clock that ping prints as well.
pub fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

/// The API server.
pub struct Server<'a> {
    cluster: &'a Cluster,
}

/// A process that ends with its owner.
pub struct Running(pub Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A watch of one resource.
pub struct Watch {
    _curl: Running,
    lines: Receiver<(f64, Value)>,
}

impl Watch {
    /// When the next object that `is` is told of was told.
    pub fn until(&self, what: &str, is: impl Fn(&Value) -> bool) -> Result<f64> {
        loop {
            let (at, event) = self
                .lines
                .recv_timeout(Duration::from_secs(30))
                .with_context(|| format!("nothing was heard of {what} for 30 s"))?;
            if is(&event) {
                return Ok(at);
            }
        }
    }
}

impl<'a> Server<'a> {
    pub fn of(cluster: &'a Cluster) -> Self {
        Self { cluster }
    }

    fn curl(&self, path: &str) -> Result<Command> {
        Api { cluster: self.cluster }.curl(path)
    }

    /// What is there, as it is.
    pub fn text(&self, path: &str) -> Result<String> {
        exec::read(&mut self.curl(path)?)
    }

    /// An object or a list.
    pub fn get(&self, path: &str) -> Result<Value> {
        serde_json::from_str(&self.text(path)?).with_context(|| format!("what GET {path} returned"))
    }

    /// Creates an object; returns when the request was sent.
    pub fn post(&self, path: &str, object: &Value) -> Result<f64> {
        self.send("POST", "application/json", path, Some(object))
    }

    /// Changes an object; returns when the request was sent.
    pub fn patch(&self, path: &str, patch: &Value) -> Result<f64> {
        self.send("PATCH", "application/merge-patch+json", path, Some(patch))
    }

    /// Deletes an object; returns when the request was sent.
    pub fn delete(&self, path: &str) -> Result<f64> {
        self.send("DELETE", "application/json", path, None)
    }

    fn send(&self, verb: &str, media: &str, path: &str, body: Option<&Value>) -> Result<f64> {
        let mut command = self.curl(path)?;
        let header = format!("Content-Type: {media}");
        command.args(["--request", verb, "--header", &header, "--output", "/dev/null"]);
        command.args(["--write-out", "%{time_pretransfer} %{time_total}"]);
        if let Some(body) = body {
            command.args(["--data", &body.to_string()]);
        }
        let said = exec::read(&mut command)?;
        let ended = now();
        let times: Vec<f64> = said.split(' ').filter_map(|text| text.parse().ok()).collect();
        let [before, total] = times[..] else { bail!("curl said {said:?}") };
        // Counted back from its end: how long it took to start is not known.
        Ok(ended - (total - before))
    }

    /// Watches a resource from now on.
    pub fn watch(&self, path: &str) -> Result<Watch> {
        let mut command = self.curl(&format!("{path}?watch=true"))?;
        command.args(["--no-buffer", "--max-time", "600"]);
        let mut curl = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
        let out = curl.stdout.take().context("curl has no output")?;
        let (tell, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                let at = now();
                let Ok(event) = serde_json::from_str(&line) else { continue };
                if tell.send((at, event)).is_err() {
                    return;
                }
            }
        });
        Ok(Watch { _curl: Running(curl), lines })
    }
}
