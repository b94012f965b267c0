//! Both directions of a connection that is seen from its beginning: which response belongs to
//! which request.

use std::collections::VecDeque;
use std::sync::Arc;

use super::edit::{Frame, rewrite};
use super::framing::{self, Asked, Framing, Verb};
use super::head::Head;
use super::lane::{Lane, Verdict};
use super::matching::{matches_request, matches_response};
use super::{Bounds, Note, Odd, Step, note};
use crate::plan::exchange::{Edit, Exchange, Matcher, Message};

/// What an exchange of the plan means and does, as far as a connection is concerned.
#[derive(Clone, Debug)]
pub struct Armed {
    /// Which message is acted on.
    pub message: Message,
    /// Which exchanges are meant.
    pub matcher: Matcher,
    /// What happens to them; `None`: they are counted.
    pub edit: Option<Arc<Edit>>,
}

impl Armed {
    /// That of an exchange.
    #[must_use]
    pub fn of(exchange: &Exchange) -> Self {
        Self {
            message: exchange.message,
            matcher: exchange.matcher.clone(),
            edit: (!exchange.dry_run).then(|| Arc::new(exchange.edit.clone())),
        }
    }
}

/// A connection.
#[derive(Debug)]
pub struct Conversation {
    armed: Arc<[Armed]>,
    bounds: Bounds,
    requests: Lane,
    responses: Lane,
    asked: VecDeque<Asked>,
    /// Both ends have agreed on another protocol.
    is_upgraded: bool,
}

impl Conversation {
    /// One that begins, and those who mean something by it, in the order in which they act.
    #[must_use]
    pub fn new(armed: Arc<[Armed]>, bounds: Bounds) -> Self {
        Self {
            armed,
            bounds,
            requests: Lane::new(Message::Request, bounds),
            responses: Lane::new(Message::Response, bounds),
            asked: VecDeque::new(),
            is_upgraded: false,
        }
    }

    /// Bytes of one direction.
    pub fn feed(&mut self, message: Message, input: &[u8], out: &mut Vec<Step>) {
        match message {
            Message::Request => self.ask(input, out),
            Message::Response => self.answer(input, out),
        }
    }

    /// One direction has ended.
    pub fn close(&mut self, message: Message, out: &mut Vec<Step>) {
        match message {
            Message::Request => self.requests.close(out),
            Message::Response => self.responses.close(out),
        }
    }

    /// True when neither direction is inside of a message, and no response is due.
    #[must_use]
    pub fn is_between(&self) -> bool {
        self.requests.is_between() && self.responses.is_between() && self.asked.is_empty()
    }

    /// How much is kept, bytes.
    #[must_use]
    pub fn kept(&self) -> usize {
        self.requests.kept() + self.responses.kept()
    }

    fn ask(&mut self, input: &[u8], out: &mut Vec<Step>) {
        let Self { armed, bounds, requests, responses: _, asked, is_upgraded } = self;
        if *is_upgraded {
            requests.pass(Odd::Upgraded, out);
        }
        let mut judge = |head: &Head, out: &mut Vec<Step>| {
            if asked.len() >= bounds.requests {
                return Verdict::odd(Odd::LostTrack);
            }
            let all: Vec<usize> = (0..armed.len()).collect();
            let verdict = request_verdict(armed, &all, head, out);
            if verdict.framing.is_ok() {
                let edits: Vec<&Edit> = verdict.edits.iter().map(|edit| &**edit).collect();
                let sent = rewrite(head, &edits, Frame::Same);
                asked.push_back(Asked {
                    verb: Verb::of(sent.method().unwrap_or_default()),
                    meant: meant(armed, Message::Response, &sent),
                });
            }
            verdict
        };
        requests.feed(input, &mut judge, out);
    }

    fn answer(&mut self, input: &[u8], out: &mut Vec<Step>) {
        let Self { armed, bounds: _, requests, responses, asked, is_upgraded } = self;
        let is_lost = requests.is_opaque();
        let mut judge = |head: &Head, out: &mut Vec<Step>| {
            if is_interim(head) {
                return Verdict::interim();
            }
            let asked = asked.pop_front();
            if asked.is_none() && is_lost {
                return Verdict::odd(Odd::LostTrack);
            }
            let verdict = response_verdict(armed, head, &asked.unwrap_or_default(), out);
            *is_upgraded |= verdict.framing == Ok(Framing::Tunnel(Odd::Upgraded));
            verdict
        };
        responses.feed(input, &mut judge, out);
    }
}

/// A response that another one follows.
#[must_use]
pub fn is_interim(head: &Head) -> bool {
    head.code().is_some_and(|code| (100..200).contains(&code) && code != 101)
}

/// What becomes of a request, which those of `may` alone may mean.
pub fn request_verdict(
    armed: &[Armed],
    may: &[usize],
    head: &Head,
    out: &mut Vec<Step>,
) -> Verdict {
    let framing = framing::of_request(head);
    let mut meant = if framing.is_ok() { meant(armed, Message::Request, head) } else { Vec::new() };
    meant.retain(|i| may.contains(i));
    Verdict { framing, verb: Verb::Other, edits: edits(armed, &meant, out) }
}

/// What becomes of the response to such a request.
pub fn response_verdict(
    armed: &[Armed],
    head: &Head,
    asked: &Asked,
    out: &mut Vec<Step>,
) -> Verdict {
    let framing = framing::of_response(head, asked.verb);
    let mut meant = asked.meant.clone();
    meant.retain(|i| {
        framing.is_ok() && armed.get(*i).is_some_and(|armed| matches_response(&armed.matcher, head))
    });
    // Who changes protocols has said all that there is to say in HTTP.
    if framing == Ok(Framing::Tunnel(Odd::Upgraded)) {
        meant.clear();
    }
    Verdict { framing, verb: asked.verb, edits: edits(armed, &meant, out) }
}

fn meant(armed: &[Armed], message: Message, request: &Head) -> Vec<usize> {
    let all = armed
        .iter()
        .enumerate()
        .filter(|(_, armed)| armed.message == message && matches_request(&armed.matcher, request));
    all.map(|(i, _)| i).collect()
}

fn edits(armed: &[Armed], meant: &[usize], out: &mut Vec<Step>) -> Vec<Arc<Edit>> {
    for i in meant {
        note(out, Note::Meant(*i));
    }
    meant.iter().filter_map(|i| armed.get(*i)?.edit.clone()).collect()
}
