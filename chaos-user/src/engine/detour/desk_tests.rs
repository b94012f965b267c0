use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::desk::{Arrival, Begins, Desk, Exits, Fate, Limits, Sent};
use crate::engine::message::{Armed, Asked, Bounds, Odd, Verb};
use crate::plan::exchange::{Matcher, Message};

const MS: u64 = 1_000_000;
const SECOND: u64 = 1000 * MS;

/// Exits that write down what goes through them.
#[derive(Default)]
struct Paper {
    sent: BTreeMap<u64, String>,
    reset: BTreeSet<u64>,
    drained: Vec<(u64, u64, bool)>,
    /// So much may be sent on each connection; others have no end.
    room: BTreeMap<u64, usize>,
    gone: BTreeSet<u64>,
    /// Their clients say nothing more.
    ends: BTreeSet<u64>,
    finished: BTreeSet<u64>,
    /// So many bytes of requests have been let in; where nothing is said, all that have come.
    let_in: BTreeMap<u64, u64>,
}

impl Exits for Paper {
    fn send(&mut self, connection: u64, bytes: &[u8]) -> Sent {
        if self.gone.contains(&connection) {
            return Sent::Gone;
        }
        let room = self.room.entry(connection).or_insert(usize::MAX);
        let most = bytes.len().min(*room);
        if most == 0 {
            return Sent::Full;
        }
        *room -= most;
        let text = String::from_utf8_lossy(&bytes[..most]);
        self.sent.entry(connection).or_default().push_str(&text);
        Sent::Some(most)
    }

    fn leave(&mut self, connection: u64, taken: u64) -> bool {
        let let_in = self.let_in.get(&connection).copied().unwrap_or(taken);
        if let_in == taken {
            self.drained.push((connection, taken, false));
        }
        let_in == taken
    }

    fn fate(&mut self, connection: u64) -> Fate {
        match connection {
            one if self.gone.contains(&one) => Fate::Gone,
            one if self.ends.contains(&one) => Fate::Ends,
            _ => Fate::Lives,
        }
    }

    fn open(&mut self, connection: u64, _pid: u32) -> bool {
        !self.gone.contains(&connection)
    }

    fn finish(&mut self, connection: u64) {
        self.finished.insert(connection);
    }

    fn reset(&mut self, connection: u64) {
        self.reset.insert(connection);
    }

    fn drained(&mut self, connection: u64, taken: u64, is_over: bool) {
        self.drained.push((connection, taken, is_over));
    }
}

impl Paper {
    fn text(&self, connection: u64) -> &str {
        self.sent.get(&connection).map_or("", String::as_str)
    }
}

fn armed(edit: Value) -> Armed {
    let edit = serde_json::from_value(edit).unwrap();
    Armed { message: Message::Response, matcher: Matcher::default(), edit: Some(Arc::new(edit)) }
}

const SMALL: Limits =
    Limits { connection: 1000, all: 2000, message: Bounds { head: 500, body: 500, requests: 4 } };

fn desk(edits: &[Value]) -> Desk {
    Desk::new(edits.iter().cloned().map(armed).collect(), SMALL)
}

/// A response to a request that these exchanges mean.
fn answer(meant: &[usize], text: &str) -> Arrival {
    let asked = Asked { verb: Verb::Other, meant: meant.to_vec() };
    let begins = vec![Begins::Response(asked)];
    Arrival { begins, pid: 1, bytes: text.as_bytes().to_vec() }
}

fn more(text: &str) -> Arrival {
    Arrival { begins: Vec::new(), pid: 1, bytes: text.as_bytes().to_vec() }
}

const A: &str = "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nA";
const B: &str = "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nB";

#[test]
fn a_response_goes_when_its_time_has_come_and_not_before() {
    let (mut desk, mut paper) = (desk(&[json!({ "delay": "100ms" })]), Paper::default());
    desk.take(1, answer(&[0], &A[..10]), 5 * MS, &mut paper);
    // The time counts from the whole head.
    desk.take(1, more(&A[10..]), 7 * MS, &mut paper);
    assert_eq!(desk.next_due(), Some(107 * MS));
    desk.release(107 * MS - 1, &mut paper);
    assert_eq!((paper.text(1), desk.held()), ("", A.len()));
    desk.release(107 * MS, &mut paper);
    assert_eq!((paper.text(1), desk.held(), desk.next_due()), (A, 0, None));
    assert_eq!(paper.drained, [(1, A.len() as u64, false)]);
    assert_eq!((desk.connections(), desk.tally().edited), (0, 1));
}

#[test]
fn the_order_is_kept_and_nobody_else_waits() {
    let (mut desk, mut paper) = (desk(&[json!({ "delay": "100ms" })]), Paper::default());
    desk.take(1, answer(&[0], A), 0, &mut paper);
    desk.take(1, answer(&[], B), 10 * MS, &mut paper);
    desk.take(1, answer(&[0], A), 50 * MS, &mut paper);
    desk.take(2, answer(&[], B), 60 * MS, &mut paper);
    assert_eq!(paper.text(2), B);
    desk.release(100 * MS, &mut paper);
    assert_eq!(paper.text(1), format!("{A}{B}"));
    assert_eq!(desk.next_due(), Some(150 * MS));
    desk.release(150 * MS, &mut paper);
    assert_eq!(paper.text(1), format!("{A}{B}{A}"));
    assert_eq!(desk.tally().meant, BTreeMap::from([(0, 2)]));
}

#[test]
fn a_cut_resets_the_connection_and_only_it() {
    let (mut desk, mut paper) = (desk(&[json!({ "abort": true })]), Paper::default());
    desk.take(1, answer(&[0], A), 0, &mut paper);
    desk.take(2, answer(&[], A), 0, &mut paper);
    assert_eq!((paper.text(1), paper.text(2)), ("", A));
    assert_eq!(paper.reset, BTreeSet::from([1]));
    assert_eq!((desk.held(), desk.connections()), (0, 0));
}

#[test]
fn a_client_that_is_slow_gets_everything_in_the_end() {
    let (mut desk, mut paper) = (desk(&[json!({})]), Paper::default());
    paper.room.insert(1, 5);
    desk.take(1, answer(&[0], A), 0, &mut paper);
    desk.take(1, answer(&[0], B), 0, &mut paper);
    assert_eq!(desk.full().collect::<Vec<_>>(), [1]);
    assert_eq!(desk.next_due(), None, "there is nothing to do before it can be written to");
    for _ in 0..200 {
        paper.room.insert(1, 3);
        desk.writable(1, 0, &mut paper);
    }
    assert_eq!((paper.text(1), desk.held()), (format!("{A}{B}").as_str(), 0));
    assert_eq!(paper.drained.last(), Some(&(1, 2 * A.len() as u64, false)));
}

#[test]
fn who_has_gone_is_forgotten() {
    let (mut desk, mut paper) = (desk(&[json!({ "delay": "1s" })]), Paper::default());
    desk.take(1, answer(&[0], A), 0, &mut paper);
    paper.gone.insert(1);
    desk.release(1000 * MS, &mut paper);
    assert_eq!((desk.held(), desk.connections(), desk.next_due()), (0, 0, None));
}

#[test]
fn too_much_of_one_connection_is_let_go_as_it_is() {
    let mut desk = desk(&[json!({ "delay": "1h" })]);
    let mut paper = Paper::default();
    let head = "HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n";
    desk.take(1, answer(&[0], head), 0, &mut paper);
    desk.take(2, answer(&[0], head), 0, &mut paper);
    for _ in 0..50 {
        desk.take(1, more(&"x".repeat(100)), 0, &mut paper);
        assert!(desk.held() <= SMALL.all);
    }
    assert_eq!(paper.text(1), format!("{head}{}", "x".repeat(5000)));
    assert_eq!(paper.text(2), "");
    assert_eq!((desk.tally().overrun, desk.tally().cut), (1, 0));
    assert_eq!(desk.tally().odd, BTreeMap::from([(Odd::LetGo, 1)]));
    assert!(paper.drained[0].2, "it is of no interest any more");
}

#[test]
fn too_much_of_all_together_lets_those_go_that_come() {
    let (mut desk, mut paper) = (desk(&[json!({ "delay": "1h" })]), Paper::default());
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: 400\r\n\r\n{}", "x".repeat(400));
    for id in 0..100 {
        desk.take(id, answer(&[0], &head), 0, &mut paper);
        assert!(desk.held() <= SMALL.all, "{}", desk.held());
    }
    let held = (0..100).filter(|id| paper.text(*id).is_empty()).count();
    assert_eq!(held, SMALL.all / head.len());
    assert!((0..100).all(|id| paper.text(id).is_empty() || paper.text(id) == head));
    assert!(paper.reset.is_empty());
}

/// Bytes of requests, which the first exchange may mean.
fn requests(text: &str, skip: usize) -> Arrival {
    let begins = vec![Begins::Requests { may: vec![0], skip, is_first: false }];
    Arrival { begins, pid: 0, bytes: text.as_bytes().to_vec() }
}

#[test]
fn requests_are_given_back_when_all_that_was_let_in_has_come() {
    let what = armed(json!({ "replace": { "path": "/new" } }));
    let mut desk = Desk::new(Arc::new([Armed { message: Message::Request, ..what }]), SMALL);
    let mut paper = Paper::default();
    let (one, new) = ("GET /a HTTP/1.1\r\n\r\n", "GET /new HTTP/1.1\r\n\r\n");
    // The rest of one that came before passes, and is not counted.
    desk.take(1, requests(&format!("rest{one}"), 4), 0, &mut paper);
    assert_eq!(paper.text(1), format!("rest{new}"));
    assert_eq!((&paper.drained[..], desk.connections()), (&[(1, one.len() as u64, false)][..], 0));
    // More is on its way.
    paper.let_in.insert(2, 2 * one.len() as u64);
    desk.take(2, requests(one, 0), 0, &mut paper);
    assert_eq!((paper.text(2), desk.connections()), (new, 1));
    desk.take(2, requests(one, 0), MS, &mut paper);
    assert_eq!((paper.text(2), desk.connections()), ([new, new].concat().as_str(), 0));
    let look = desk.next_due().unwrap();
    desk.release(look, &mut paper);
    assert_eq!(desk.next_due(), None);
    // It never comes: the connection is cut.
    paper.let_in.insert(3, 1 << 20);
    desk.take(3, requests(one, 0), MS, &mut paper);
    desk.release(4 * SECOND, &mut paper);
    assert!(paper.reset.is_empty());
    desk.release(6 * SECOND, &mut paper);
    assert_eq!((paper.reset.len(), desk.connections(), desk.held()), (1, 0, 0));
    // So it is when its client has gone in the middle of one.
    desk.take(4, requests(&one[..9], 0), 6 * SECOND, &mut paper);
    desk.release(8 * SECOND, &mut paper);
    assert_eq!(desk.connections(), 1);
    paper.gone.insert(4);
    desk.release(10 * SECOND, &mut paper);
    assert_eq!((desk.connections(), desk.held()), (0, 0));
    // Half of a request is all that there will be; a whole one waits for its time.
    let late = armed(json!({ "delay": "1m", "replace": { "path": "/new" } }));
    desk.arm(Arc::new([Armed { message: Message::Request, ..late }]));
    desk.take(5, requests(one, 0), 10 * SECOND, &mut paper);
    desk.take(6, requests(&one[..9], 0), 10 * SECOND, &mut paper);
    paper.ends.extend([5, 6]);
    desk.release(13 * SECOND, &mut paper);
    assert_eq!((paper.reset.contains(&6), desk.connections()), (true, 1));
    desk.release(71 * SECOND, &mut paper);
    assert_eq!((paper.text(5), desk.connections()), (new, 0));
}

#[test]
fn who_may_not_mean_a_request_does_not() {
    let what = armed(json!({ "replace": { "path": "/new" } }));
    let one = Armed { message: Message::Request, ..what };
    let mut desk = Desk::new(Arc::new([one.clone(), one]), SMALL);
    let mut paper = Paper::default();
    let text = "GET /a HTTP/1.1\r\n\r\n";
    for (id, may) in [(1, vec![]), (2, vec![1])] {
        let begins = vec![Begins::Requests { may, skip: 0, is_first: false }];
        desk.take(id, Arrival { begins, pid: 0, bytes: text.into() }, 0, &mut paper);
    }
    assert_eq!((paper.text(1), paper.text(2)), (text, "GET /new HTTP/1.1\r\n\r\n"));
    assert_eq!(desk.tally().acted, BTreeMap::from([(1, 1)]));
}

#[test]
fn a_request_is_matched_by_what_it_says_itself() {
    let matcher = Matcher { path: Some("/a*".into()), ..Matcher::default() };
    let what = armed(json!({ "delay": "10ms", "replace": { "path": "/new" } }));
    let armed = Armed { message: Message::Request, matcher, ..what };
    let mut desk = Desk::new(Arc::new([armed]), SMALL);
    let mut paper = Paper::default();
    let two = "GET /b HTTP/1.1\r\n\r\nGET /a HTTP/1.1\r\n\r\n";
    desk.take(1, requests(two, 0), 0, &mut paper);
    assert_eq!(paper.text(1), "GET /b HTTP/1.1\r\n\r\n");
    desk.release(10 * MS, &mut paper);
    assert_eq!(paper.text(1), "GET /b HTTP/1.1\r\n\r\nGET /new HTTP/1.1\r\n\r\n");
    assert_eq!(desk.connections(), 0);
}

#[test]
fn a_body_that_ends_with_the_connection_does_not_keep_it_open() {
    let head = "HTTP/1.0 200 OK\r\n\r\n";
    // It passes: what follows goes directly.
    let mut slow = desk(&[json!({ "delay": "10ms" })]);
    let mut paper = Paper::default();
    slow.take(1, answer(&[0], &format!("{head}abc")), 0, &mut paper);
    slow.release(10 * MS, &mut paper);
    assert_eq!(paper.text(1), format!("{head}abc"));
    assert_eq!(paper.drained, [(1, head.len() as u64 + 3, true)]);
    // Another one takes its place: the connection ends behind it.
    let mut swap = desk(&[json!({ "replace": { "body": "aGVsbG8=" } })]);
    let mut paper = Paper::default();
    swap.take(1, answer(&[0], &format!("{head}abc")), 0, &mut paper);
    assert_eq!(paper.text(1), "HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello");
    assert_eq!((paper.finished, swap.connections()), (BTreeSet::from([1]), 0));
    // It would have to be known as a whole: it passes.
    let mut patch = desk(&[json!({ "patch": { "body": {} } })]);
    let mut paper = Paper::default();
    patch.take(1, answer(&[0], &format!("{head}{{}}")), 0, &mut paper);
    assert_eq!(paper.text(1), format!("{head}{{}}"));
    assert_eq!((patch.tally().unpatched, patch.connections()), (1, 0));
}

#[test]
fn who_takes_nothing_while_memory_is_short_is_cut() {
    let (mut desk, mut paper) = (desk(&[json!({})]), Paper::default());
    paper.room.insert(1, 0);
    let head = "HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n";
    desk.take(1, answer(&[0], head), 0, &mut paper);
    for _ in 0..20 {
        desk.take(1, more(&"x".repeat(100)), 0, &mut paper);
        assert!(desk.held() <= SMALL.connection + 100);
        if paper.reset.contains(&1) {
            break;
        }
    }
    assert_eq!((paper.reset, desk.tally().cut), (BTreeSet::from([1]), 1));
}

#[test]
fn when_it_is_over_everything_goes_as_it_is() {
    let what = json!({ "delay": "1h", "patch": { "body": { "n": 9 } } });
    let (mut desk, mut paper) = (desk(&[what]), Paper::default());
    let json = "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{\"n\":";
    desk.take(1, answer(&[0], A), 0, &mut paper);
    desk.take(2, answer(&[0], json), 0, &mut paper);
    assert_eq!((paper.text(1), paper.text(2)), ("", ""));
    desk.let_go(MS, &mut paper);
    assert_eq!((paper.text(1), paper.text(2)), (A, json));
    desk.take(2, more("1   }"), 2 * MS, &mut paper);
    assert_eq!(paper.text(2), format!("{json}1   }}"));
    assert_eq!(desk.held(), 0);
}

#[test]
fn whoever_has_been_told_of_another_body_is_cut_in_the_end() {
    let what = json!({ "replace": { "body": "aGVsbG8=" } });
    let (mut desk, mut paper) = (desk(&[what]), Paper::default());
    let old = "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n1234";
    desk.take(1, answer(&[0], old), 0, &mut paper);
    desk.take(2, answer(&[0], old), 0, &mut paper);
    desk.take(2, more("56789"), 0, &mut paper);
    desk.take(3, answer(&[], old), 0, &mut paper);
    desk.let_go(MS, &mut paper);
    assert_eq!(paper.text(1), "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello");
    assert_eq!(desk.held(), 0);
    desk.cut(&mut paper);
    assert_eq!(paper.reset, BTreeSet::from([1]));
}

#[test]
fn a_connection_comes_and_goes_with_each_response() {
    let what = json!({ "patch": { "body": { "n": 9 } } });
    let (mut desk, mut paper) = (desk(&[what, json!({})]), Paper::default());
    desk.take(1, answer(&[0, 1], A), 0, &mut paper);
    assert_eq!(desk.connections(), 0);
    desk.take(1, answer(&[1], B), 0, &mut paper);
    assert_eq!(paper.drained, [(1, A.len() as u64, false), (1, B.len() as u64, false)]);
    assert_eq!(desk.connections(), 0);
    // The first has a body that is no JSON, which the second one does not care about.
    assert_eq!(desk.tally().left, BTreeMap::from([(0, 1)]));
    assert_eq!(desk.tally().acted, BTreeMap::from([(1, 2)]));
}

#[test]
fn what_begins_without_a_request_passes() {
    let (mut desk, mut paper) = (desk(&[json!({ "abort": true })]), Paper::default());
    desk.take(1, more(A), 0, &mut paper);
    assert_eq!(paper.text(1), A);
    assert_eq!(desk.tally().odd, BTreeMap::new());
}

#[test]
fn memory_is_accounted_for_to_the_byte() {
    let what = json!({ "delay": "10ms", "patch": { "body": { "n": 9 } } });
    let (mut desk, mut paper) = (desk(&[what]), Paper::default());
    let json = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";
    for cut in 1..json.len() {
        let id = cut as u64;
        desk.take(id, answer(&[0], &json[..cut]), 0, &mut paper);
        desk.take(id, more(&json[cut..]), 0, &mut paper);
        if cut % 3 == 0 {
            desk.forget(id);
        }
        desk.release(desk.next_due().unwrap_or(0), &mut paper);
        assert_eq!(desk.held(), 0);
    }
}

proptest! {
    /// Whatever is delayed, each connection's bytes come out whole and in order, and in the end
    /// nothing is left.
    #[test]
    fn bytes_come_out_whole_and_in_order(
        steps in prop::collection::vec((0u64..3, 0usize..4, 0u64..50, 0usize..20), 1..60),
    ) {
        let delays = [json!({}), json!({ "delay": "10ms" }), json!({ "delay": "35ms" })];
        let limits = Limits::default();
        let mut desk = Desk::new(delays.iter().cloned().map(armed).collect(), limits);
        let (mut paper, mut want, mut now) = (Paper::default(), BTreeMap::new(), 0);
        for (id, meant, wait, room) in steps {
            now += wait * MS / 2;
            desk.release(now, &mut paper);
            let text = format!("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{:02}", now % 100);
            want.entry(id).or_insert_with(String::new).push_str(&text);
            if room < 10 {
                paper.room.insert(id, room);
            }
            let meant = if meant < 3 { vec![meant] } else { vec![] };
            desk.take(id, answer(&meant, &text), now, &mut paper);
            if room >= 10 {
                paper.room.insert(id, usize::MAX);
                desk.writable(id, now, &mut paper);
            }
            for (id, sent) in &paper.sent {
                prop_assert!(want[id].starts_with(sent.as_str()));
            }
        }
        now += Duration::from_secs(1).as_nanos() as u64;
        for id in 0..3 {
            paper.room.insert(id, usize::MAX);
            desk.writable(id, now, &mut paper);
        }
        desk.release(now, &mut paper);
        prop_assert_eq!(&paper.sent, &want);
        prop_assert_eq!((desk.held(), desk.connections(), desk.next_due()), (0, 0, None));
    }
}
