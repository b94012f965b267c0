//! One direction of a connection: messages in, what their edits make of them out.

use std::sync::Arc;
use std::time::Duration;

use super::body::{self, Coding};
use super::edit::{Fate, Frame, fate, may_become, rewrite};
use super::framing::{Framing, Verb};
use super::head::Head;
use super::reader::{Piece, Reader};
use super::{Bounds, Note, Odd, Step, Unpatched, note, push};
use crate::plan::exchange::{Edit, Message};

/// What is to become of a message, by its head.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// How its end is told, or why nobody knows.
    pub framing: Result<Framing, Odd>,
    /// Of a response: the method of its request.
    pub verb: Verb,
    /// What happens to it, in order.
    pub edits: Vec<Arc<Edit>>,
}

impl Verdict {
    /// Nobody knows where the message ends.
    #[must_use]
    pub fn odd(odd: Odd) -> Self {
        Self { framing: Err(odd), verb: Verb::Other, edits: Vec::new() }
    }

    /// An interim response: it passes, and is no more than its head.
    #[must_use]
    pub fn interim() -> Self {
        Self { framing: Ok(Framing::None), verb: Verb::Other, edits: Vec::new() }
    }
}

/// A direction, from the beginning of a message on.
#[derive(Debug)]
pub struct Lane {
    reader: Reader,
    bounds: Bounds,
    work: Work,
    is_cut: bool,
    /// Somebody calls [`Lane::close`].
    sees_end: bool,
    /// Behind the message that is under way everything passes.
    leaving: Option<Odd>,
}

/// What is to be expected of a direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rest {
    /// It is between two messages, with nothing kept.
    Between,
    /// It is inside of one.
    Inside,
    /// Whatever comes passes as it is, to the end of the connection.
    Passes,
    /// Whatever comes is thrown away, to the end of the connection.
    Goes,
}

/// What happens to the body of the message that is under way.
#[derive(Debug)]
enum Work {
    /// It passes.
    Pass,
    /// It goes.
    Drop,
    /// Another one takes its place; `body`: it is not out yet.
    Swap { body: Option<Vec<u8>>, is_chunked: bool, is_last_out: bool },
    /// It is collected.
    Hold(Box<Hold>),
    /// It goes on in chunks, which it did not come in, because the head has said so.
    Rechunk,
}

#[derive(Debug)]
struct Hold {
    head: Head,
    verdict: Verdict,
    framing: Framing,
    /// The head has gone ahead, and says that chunks come.
    is_head_out: bool,
    raw: Vec<u8>,
}

const LAST_CHUNK: &[u8] = b"0\r\n";
const NO_TRAILER: &[u8] = b"\r\n";

impl Lane {
    /// At the beginning of a message.
    #[must_use]
    pub fn new(message: Message, bounds: Bounds) -> Self {
        let reader = Reader::new(message, bounds.head);
        Self { reader, bounds, work: Work::Pass, is_cut: false, sees_end: true, leaving: None }
    }

    /// The same, where nobody can tell the end of the connection.
    #[must_use]
    pub fn without_end(self) -> Self {
        Self { sees_end: false, ..self }
    }

    /// What is to be expected of it.
    #[must_use]
    pub fn rest(&self) -> Rest {
        match self.work {
            Work::Pass if self.reader.is_opaque() || self.reader.is_until_close() => Rest::Passes,
            Work::Pass if self.reader.is_between() => Rest::Between,
            Work::Drop | Work::Swap { body: None, .. } if self.reader.is_until_close() => {
                Rest::Goes
            }
            _ => Rest::Inside,
        }
    }

    /// True between two messages, with nothing kept.
    #[must_use]
    pub fn is_between(&self) -> bool {
        self.rest() == Rest::Between
    }

    /// True when what follows may as well pass elsewhere, as far as the end of the message: nothing is
    /// kept, and nothing of it is changed any more.
    #[must_use]
    pub fn can_be_left(&self) -> bool {
        matches!(self.work, Work::Pass) && self.reader.kept() == 0 && self.leaving.is_none()
    }

    /// True when bytes pass without a look at them.
    #[must_use]
    pub fn is_opaque(&self) -> bool {
        self.reader.is_opaque()
    }

    /// How much is kept, bytes.
    #[must_use]
    pub fn kept(&self) -> usize {
        let held = match &self.work {
            Work::Hold(hold) => hold.raw.len() + hold.head.raw.len(),
            Work::Swap { body: Some(body), .. } => body.len(),
            _ => 0,
        };
        self.reader.kept() + held
    }

    /// Takes bytes in, in whatever pieces they come. `judge` is asked about each head.
    pub fn feed(
        &mut self,
        mut input: &[u8],
        judge: &mut dyn FnMut(&Head, &mut Vec<Step>) -> Verdict,
        out: &mut Vec<Step>,
    ) {
        while !self.is_cut
            && let Some(piece) = self.reader.next(&mut input)
        {
            match piece {
                Piece::Lead(bytes) | Piece::Opaque(bytes) => push(out, bytes),
                Piece::Head(head) => {
                    let verdict = judge(&head, out);
                    self.begin(*head, verdict, out);
                }
                Piece::Frame(bytes) => self.part(bytes, Part::Frame, out),
                Piece::Data(bytes) => self.part(bytes, Part::Data, out),
                Piece::Trailer(bytes) => self.part(bytes, Part::Trailer, out),
                Piece::End => self.end(out),
                Piece::Odd(odd, kept) => {
                    self.let_go(out);
                    push(out, &kept);
                    note(out, Note::Odd(odd));
                }
            }
        }
    }

    /// From here on everything passes, and what is kept goes first. A message of which something
    /// else is out already comes to its end before.
    pub fn pass(&mut self, odd: Odd, out: &mut Vec<Step>) {
        if self.is_cut || self.reader.is_opaque() || self.leaving.is_some() {
            return;
        }
        let is_promised = match &self.work {
            Work::Hold(hold) => hold.is_head_out && hold.framing != Framing::Chunked,
            Work::Drop | Work::Swap { .. } | Work::Rechunk => true,
            Work::Pass => false,
        };
        if is_promised {
            if matches!(self.work, Work::Hold(_)) {
                self.unpatched(Unpatched::Cut, out);
                self.work = Work::Rechunk;
            }
            self.leaving = Some(odd);
            return;
        }
        let kept = self.reader.give_up();
        self.let_go(out);
        push(out, &kept);
        note(out, Note::Odd(odd));
    }

    /// Nothing more comes.
    pub fn close(&mut self, out: &mut Vec<Step>) {
        if self.is_cut {
            return;
        }
        if matches!(&self.work, Work::Hold(hold) if hold.framing == Framing::Close) {
            self.end(out);
        }
        let kept = self.reader.give_up();
        self.let_go(out);
        push(out, &kept);
    }

    fn begin(&mut self, head: Head, verdict: Verdict, out: &mut Vec<Step>) {
        let framing = match verdict.framing {
            Ok(framing) => framing,
            Err(odd) => {
                push(out, &head.raw);
                self.reader.give_up();
                note(out, Note::Odd(odd));
                return;
            }
        };
        self.reader.body(framing);
        let edits: Vec<&Edit> = verdict.edits.iter().map(|edit| &**edit).collect();
        if edits.iter().any(|edit| edit.abort) {
            note(out, Note::Edited);
            out.push(Step::Abort);
            self.is_cut = true;
            return;
        }
        let wait: Duration = edits.iter().filter_map(|edit| edit.delay).sum();
        if !wait.is_zero() {
            out.push(Step::Wait(wait));
        }
        if !edits.iter().any(|edit| edit.rewrites()) {
            push(out, &head.raw);
            if !edits.is_empty() {
                note(out, Note::Edited);
            }
        } else {
            let stays = |edit: &&Edit| {
                let new = edit.replace.method.as_ref();
                new.is_some_and(|new| {
                    head.method().is_some_and(|old| !may_become(old, new.as_bytes()))
                })
            };
            if edits.iter().any(stays) {
                note(out, Note::MethodStays);
            }
            self.work = self.work(&head, framing, &verdict, &edits, out);
        }
        if let Framing::Tunnel(odd) = framing {
            note(out, Note::Odd(odd));
        }
    }

    /// Sends the head of a message that is rewritten, as far as it is known.
    fn work(
        &self,
        head: &Head,
        framing: Framing,
        verdict: &Verdict,
        edits: &[&Edit],
        out: &mut Vec<Step>,
    ) -> Work {
        let is_chunked = framing == Framing::Chunked;
        let expects = framing.has_body()
            && head.method().is_some()
            && head.minor > 0
            && head.members("expect").iter().any(|one| one == b"100-continue");
        let mut send = |frame| push(out, &rewrite(head, edits, frame).bytes());
        let work = match fate(head, framing, verdict.verb, edits) {
            Fate::Stays => {
                send(Frame::Same);
                Work::Pass
            }
            Fate::Told(length) => {
                send(Frame::Told(length));
                Work::Pass
            }
            Fate::Goes => {
                send(Frame::None);
                Work::Drop
            }
            Fate::Becomes(body) => {
                send(if is_chunked { Frame::Chunks } else { Frame::Length(body.len()) });
                let body = if is_chunked { body::chunk(&body) } else { body.into_owned() };
                // Whoever waits for the server's word has not sent the body that goes.
                let body = if expects {
                    Some(body)
                } else {
                    push(out, &body);
                    None
                };
                Work::Swap { body, is_chunked, is_last_out: false }
            }
            Fate::Merges(_) => {
                let coding = Coding::of(head);
                let is_long = matches!(framing, Framing::Length(n) if n > self.bounds.body as u64);
                let why = if !framing.has_body() {
                    Some(Unpatched::Empty)
                } else if coding == Coding::Other || (expects && coding != Coding::Plain) {
                    Some(Unpatched::Encoding)
                } else if framing == Framing::Close && !self.sees_end {
                    Some(Unpatched::NoEnd)
                } else {
                    is_long.then_some(Unpatched::TooLong)
                };
                if let Some(why) = why {
                    send(Frame::Same);
                    note(out, Note::Unpatched(why));
                    return Work::Pass;
                }
                // The body comes only when the server has seen the head.
                if expects {
                    send(Frame::Chunks);
                }
                let (head, verdict) = (head.clone(), verdict.clone());
                let raw = Vec::new();
                return Work::Hold(Box::new(Hold {
                    head,
                    verdict,
                    framing,
                    is_head_out: expects,
                    raw,
                }));
            }
        };
        note(out, Note::Edited);
        work
    }

    fn part(&mut self, bytes: &[u8], part: Part, out: &mut Vec<Step>) {
        match &mut self.work {
            Work::Pass => push(out, bytes),
            Work::Drop => {}
            Work::Swap { body, is_chunked, is_last_out } => {
                if part != Part::Frame
                    && let Some(body) = body.take()
                {
                    push(out, &body);
                }
                if part == Part::Trailer && *is_chunked {
                    if !std::mem::replace(is_last_out, true) {
                        push(out, LAST_CHUNK);
                    }
                    push(out, bytes);
                }
            }
            Work::Hold(hold) => {
                hold.raw.extend_from_slice(bytes);
                // A length that is told was looked at before.
                if hold.raw.len() > self.bounds.body {
                    self.unpatched(Unpatched::TooLong, out);
                    self.work = Work::Pass;
                }
            }
            Work::Rechunk => push(out, &body::chunk(bytes)),
        }
    }

    /// The message that is under way is over.
    fn end(&mut self, out: &mut Vec<Step>) {
        match &self.work {
            Work::Hold(hold) => match self.patched(hold) {
                Ok(bytes) => {
                    push(out, &bytes);
                    note(out, Note::Edited);
                }
                Err(why) => {
                    let rechunks = hold.is_head_out && hold.framing != Framing::Chunked;
                    self.unpatched(why, out);
                    if rechunks {
                        push(out, &[LAST_CHUNK, NO_TRAILER].concat());
                    }
                }
            },
            Work::Rechunk => push(out, &[LAST_CHUNK, NO_TRAILER].concat()),
            Work::Pass | Work::Drop | Work::Swap { .. } => {}
        }
        self.work = Work::Pass;
        if let Some(odd) = self.leaving.take() {
            push(out, &self.reader.give_up());
            note(out, Note::Odd(odd));
        }
    }

    /// What the message becomes whose body is there now.
    fn patched(&self, hold: &Hold) -> Result<Vec<u8>, Unpatched> {
        let Hold { head, verdict, framing, is_head_out, raw } = hold;
        let edits: Vec<&Edit> = verdict.edits.iter().map(|edit| &**edit).collect();
        let Fate::Merges(patches) = fate(head, *framing, verdict.verb, &edits) else {
            return Err(Unpatched::NoJson);
        };
        let is_chunked = *framing == Framing::Chunked;
        let (data, trailer) = if is_chunked {
            body::dechunk(raw).ok_or(Unpatched::Cut)?
        } else {
            (raw.clone(), NO_TRAILER.to_vec())
        };
        let new = body::merged(&data, Coding::of(head), &patches, self.bounds.body)?;
        let is_chunked = is_chunked || *is_head_out;
        let frame = if is_chunked { Frame::Chunks } else { Frame::Length(new.len()) };
        let mut bytes =
            if *is_head_out { Vec::new() } else { rewrite(head, &edits, frame).bytes() };
        if is_chunked {
            bytes.extend([&body::chunk(&new), LAST_CHUNK, &trailer].concat());
        } else {
            bytes.extend(new);
        }
        Ok(bytes)
    }

    /// Sends what was held, with the body as it is.
    fn unpatched(&self, why: Unpatched, out: &mut Vec<Step>) {
        let Work::Hold(hold) = &self.work else { return };
        let Hold { head, verdict, framing, is_head_out, raw } = &**hold;
        if !*is_head_out {
            let edits: Vec<&Edit> = verdict.edits.iter().map(|edit| &**edit).collect();
            push(out, &rewrite(head, &edits, Frame::Same).bytes());
        }
        if *is_head_out && *framing != Framing::Chunked {
            push(out, &body::chunk(raw));
        } else {
            push(out, raw);
        }
        note(out, Note::Unpatched(why));
    }

    /// The message that is under way will not come to its end.
    fn let_go(&mut self, out: &mut Vec<Step>) {
        self.unpatched(Unpatched::Cut, out);
        self.work = Work::Pass;
    }
}

/// Where bytes of a message's body stand.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Frame,
    Data,
    Trailer,
}
