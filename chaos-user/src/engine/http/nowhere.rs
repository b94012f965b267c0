//! A socket that takes nothing of what programs send to it.
//!
//! The kernel sends what is redirected to a socket from a queue of its own. Where that fails for good
//! it sends there no more, and what is redirected later is dropped at once, without that anybody who
//! waits at the other socket is woken (`sk_psock_backlog`, `sk_psock_skb_redirect`).

use std::io::{self, Write as _};
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use super::agency::pair;
use super::object::Object;
use super::turns::Turns;
use crate::engine::detour::hold;
use crate::engine::error::EngineError;

/// How long the kernel may take to find out.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long it is waited before another byte is sent: seen once, on a busy machine, that nothing came of
/// the first one.
const AGAIN: Duration = Duration::from_millis(100);

/// The socket, and its other end.
#[derive(Debug)]
pub struct Nowhere {
    _ends: (TcpStream, TcpStream),
}

impl Nowhere {
    /// Makes it, and lets the kernel find out that it takes nothing, by bytes of our own.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn make(object: &mut Object, turns: &mut Turns) -> Result<Self, EngineError> {
        let failed = |e| EngineError::os("make a socket that takes nothing", e);
        let ends = pair().map_err(failed)?;
        object.set_nowhere(&ends.0)?;
        ends.0.shutdown(Shutdown::Write).map_err(failed)?;
        let (inside, mut outside) = pair().map_err(failed)?;
        let number = hold::cookie_of(inside.as_raw_fd())
            .ok_or_else(|| failed(io::Error::last_os_error()))?;
        object.divert(number, &inside)?;
        let end = Instant::now() + PATIENCE;
        let mut again = Instant::now();
        while ends.0.take_error().map_err(failed)?.is_none() {
            if Instant::now() > end {
                // The first request will let it know: one reader who waits may be told EAGAIN.
                tracing::warn!("the kernel has not said of a socket that it takes nothing");
                break;
            }
            if Instant::now() >= again {
                outside.write_all(b".").map_err(failed)?;
                again = Instant::now() + AGAIN;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        object.forget(number)?;
        // The bytes, which are nobody's request.
        while turns.next().is_some() {}
        Ok(Self { _ends: ends })
    }
}
