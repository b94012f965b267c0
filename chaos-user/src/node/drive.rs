//! The engine in a thread of its own.
//!
//! The heartbeat must not depend on anything that can stand still: a paused terminal, a slow
//! name server. So one thread owns the engine from opening to recovery, and the command or the
//! agent talks to it by messages.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::engine::{Engine, EngineError, Options, Report};
use crate::plan::Plan;

/// How often the heartbeat is renewed and the counters are read.
pub const BEAT: Duration = Duration::from_secs(1);

/// Addresses of each DNS name of a plan.
pub type Resolved = BTreeMap<String, Vec<IpAddr>>;

/// What the thread is told.
enum Order {
    Apply(Plan, Resolved),
    Finish,
}

/// What the thread tells.
pub enum News {
    /// The engine could not be opened; nothing was touched, the thread has ended.
    Closed(EngineError),
    /// An `apply` has ended.
    Applied(Result<(), EngineError>),
    /// Once a second: the counters and figures.
    Report(Report),
    /// Once a second instead: the heartbeat was not renewed, or the counters were not read.
    Trouble(EngineError),
    /// The end: the last counters and figures, and whether everything was recovered.
    Finished(Report, Result<(), EngineError>),
}

/// The other end of the line.
pub struct Driver {
    orders: mpsc::Sender<Order>,
    /// What the thread tells; closed when it has ended.
    pub news: UnboundedReceiver<News>,
    give_up: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Driver {
    /// Starts the thread, which opens the engine.
    pub fn start(options: Options) -> io::Result<Self> {
        let (orders, received) = mpsc::channel();
        let (tell, news) = unbounded_channel();
        let give_up = Arc::new(AtomicBool::new(false));
        let theirs = Arc::clone(&give_up);
        let thread = std::thread::Builder::new()
            .name("engine".into())
            .spawn(move || drive(&options, &received, &tell, &theirs))?;
        Ok(Self { orders, news, give_up, thread: Some(thread) })
    }

    /// Makes this plan true; answered by [`News::Applied`].
    pub fn apply(&self, plan: Plan, resolved: Resolved) {
        // A thread that has ended says so on `news`.
        let _ = self.orders.send(Order::Apply(plan, resolved));
    }

    /// Ends everything; answered by [`News::Finished`].
    pub fn finish(&self) {
        let _ = self.orders.send(Order::Finish);
    }

    /// Stops waiting for packets that are still held back.
    pub fn give_up(&self) {
        self.give_up.store(true, Ordering::Relaxed);
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.finish();
        if let Some(thread) = self.thread.take() {
            // A panic there was reported by the panic hook.
            let _ = thread.join();
        }
    }
}

fn drive(
    options: &Options,
    orders: &mpsc::Receiver<Order>,
    tell: &UnboundedSender<News>,
    give_up: &AtomicBool,
) {
    // A send fails only when nobody listens any more; recovery goes on all the same.
    let say = |news| drop(tell.send(news));
    let mut engine = match Engine::open(options) {
        Ok(engine) => engine,
        Err(error) => return say(News::Closed(error)),
    };
    let mut next = Instant::now();
    loop {
        match orders.recv_timeout(next.saturating_duration_since(Instant::now())) {
            Ok(Order::Apply(plan, resolved)) => {
                say(News::Applied(engine.apply(&plan, &resolved)));
            }
            Err(RecvTimeoutError::Timeout) => {
                // Not `next += BEAT`: after a stall one beat is enough.
                next = Instant::now() + BEAT;
                say(match engine.beat().and_then(|()| engine.report()) {
                    Ok(report) => News::Report(report),
                    Err(error) => News::Trouble(error),
                });
            }
            Ok(Order::Finish) | Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    let disarmed = engine.disarm();
    let report = engine.report().unwrap_or_default();
    let recovered = engine.recover(&|| give_up.load(Ordering::Relaxed));
    say(News::Finished(report, disarmed.and(recovered)));
}
