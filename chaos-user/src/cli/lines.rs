//! Output that cannot hold up a recovery.
//!
//! A terminal can be paused and a pipe can be full. What is to be written goes through a queue
//! to a thread of its own; what would be out of date by the time it is written is replaced by
//! its successor. A closed pipe makes the queue swallow everything.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How often a waiting `finish` asks whether to give up.
const POLL: Duration = Duration::from_millis(50);

/// Something to be written.
enum Entry {
    /// A line, always written.
    Line(String),
    /// A line that a newer one with the same key replaces.
    Latest(String, String),
    /// Lines that are redrawn in place; a newer frame replaces them.
    Frame(Vec<String>),
}

#[derive(Default)]
struct Queue {
    entries: VecDeque<Entry>,
    /// The writer is between taking an entry and having written it.
    writing: bool,
    closed: bool,
}

/// A stream that is written to by a thread of its own.
pub struct Lines {
    shared: Arc<(Mutex<Queue>, Condvar)>,
}

impl Lines {
    /// Starts the thread.
    pub fn to(stream: impl Write + Send + 'static) -> io::Result<Self> {
        let shared = Arc::new((Mutex::new(Queue::default()), Condvar::new()));
        let theirs = Arc::clone(&shared);
        std::thread::Builder::new()
            .name("lines".into())
            .stack_size(128 * 1024)
            .spawn(move || write_all(&theirs, stream))?;
        Ok(Self { shared })
    }

    /// A line that must be written.
    pub fn line(&self, text: impl Into<String>) {
        self.push(Entry::Line(text.into()));
    }

    /// A line that is worth writing only until the next one with this key.
    pub fn latest(&self, key: &str, text: String) {
        self.push(Entry::Latest(key.into(), text));
    }

    /// The lines to be shown in place from now on, until the next frame or `line`.
    pub fn frame(&self, lines: Vec<String>) {
        self.push(Entry::Frame(lines));
    }

    /// Waits until everything is written, or until `give_up`.
    pub fn finish(&self, give_up: &dyn Fn(Duration) -> bool) {
        let start = Instant::now();
        let (lock, changed) = &*self.shared;
        let mut queue = guard(lock);
        queue.closed = true;
        changed.notify_all();
        while (!queue.entries.is_empty() || queue.writing) && !give_up(start.elapsed()) {
            let (next, _) =
                changed.wait_timeout(queue, POLL).unwrap_or_else(PoisonError::into_inner);
            queue = next;
        }
    }

    fn push(&self, entry: Entry) {
        let (lock, changed) = &*self.shared;
        let mut queue = guard(lock);
        if queue.closed {
            return;
        }
        queue.entries.retain(|old| match (old, &entry) {
            (Entry::Latest(a, _), Entry::Latest(b, _)) => a != b,
            (Entry::Frame(_), Entry::Frame(_)) => false,
            _ => true,
        });
        queue.entries.push_back(entry);
        changed.notify_all();
    }
}

fn guard<'a>(lock: &'a Mutex<Queue>) -> MutexGuard<'a, Queue> {
    lock.lock().unwrap_or_else(PoisonError::into_inner)
}

fn write_all(shared: &(Mutex<Queue>, Condvar), mut stream: impl Write) {
    let (lock, changed) = shared;
    let (mut drawn, mut is_broken) = (0usize, false);
    loop {
        let mut queue = guard(lock);
        let entry = loop {
            if let Some(entry) = queue.entries.pop_front() {
                break entry;
            }
            if queue.closed {
                return;
            }
            queue = changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
        };
        queue.writing = true;
        drop(queue);
        if !is_broken {
            is_broken = write_one(&mut stream, &entry, &mut drawn).is_err();
        }
        guard(lock).writing = false;
        changed.notify_all();
    }
}

/// Writes one entry with one call, so that a line is never torn by another program's output.
fn write_one(stream: &mut impl Write, entry: &Entry, drawn: &mut usize) -> io::Result<()> {
    let mut text = String::new();
    if *drawn > 0 {
        // Back to the first line of the frame, and erase everything below.
        text.push_str(&format!("\x1b[{drawn}F\x1b[J"));
        *drawn = 0;
    }
    match entry {
        Entry::Line(line) | Entry::Latest(_, line) => {
            text.push_str(line);
            text.push('\n');
        }
        Entry::Frame(lines) => {
            *drawn = lines.len();
            for line in lines {
                text.push_str(line);
                text.push('\n');
            }
        }
    }
    stream.write_all(text.as_bytes())?;
    stream.flush()
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// A stream that blocks until it is let go on.
    struct Gate {
        open: mpsc::Receiver<()>,
        written: Arc<Mutex<String>>,
    }

    impl Write for Gate {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.open.recv().map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
            self.written.lock().unwrap().push_str(std::str::from_utf8(bytes).unwrap());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn gate() -> (Lines, mpsc::Sender<()>, Arc<Mutex<String>>) {
        let (opener, open) = mpsc::channel();
        let written = Arc::new(Mutex::new(String::new()));
        let lines = Lines::to(Gate { open, written: Arc::clone(&written) }).unwrap();
        (lines, opener, written)
    }

    #[test]
    fn a_blocked_stream_holds_nobody_up_and_loses_only_what_is_out_of_date() {
        let (lines, opener, written) = gate();
        lines.line("applied");
        for n in 0..1000 {
            lines.latest("counters", format!("counters {n}"));
        }
        lines.line("summary");
        for _ in 0..4 {
            opener.send(()).unwrap();
        }
        lines.finish(&|waited| waited > Duration::from_secs(10));
        assert_eq!(*written.lock().unwrap(), "applied\ncounters 999\nsummary\n");
    }

    #[test]
    fn a_closed_pipe_is_swallowed() {
        let (lines, opener, _) = gate();
        drop(opener);
        lines.line("applied");
        lines.line("summary");
        let start = Instant::now();
        lines.finish(&|waited| waited > Duration::from_secs(10));
        assert!(start.elapsed() < Duration::from_secs(5));
    }

    #[test]
    fn waiting_for_a_blocked_stream_can_be_given_up() {
        let (lines, _opener, _) = gate();
        lines.line("summary");
        lines.finish(&|waited| waited > Duration::from_millis(100));
    }

    #[test]
    fn a_frame_is_redrawn_in_place() {
        let (mut text, mut drawn) = (Vec::new(), 0);
        write_one(&mut text, &Entry::Frame(vec!["a".into(), "b".into()]), &mut drawn).unwrap();
        write_one(&mut text, &Entry::Line("note".into()), &mut drawn).unwrap();
        write_one(&mut text, &Entry::Frame(vec!["c".into()]), &mut drawn).unwrap();
        assert_eq!(String::from_utf8(text).unwrap(), "a\nb\n\x1b[2F\x1b[Jnote\nc\n");
    }
}
