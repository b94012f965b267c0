use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::framing::{Verb, of_request, of_response};
use super::{Armed, Bounds, Conversation, Head, Lane, Note, Odd, Rest, Step, Unpatched, Verdict};
use crate::plan::exchange::{Edit, Matcher, Message};

fn edit(value: Value) -> Edit {
    serde_json::from_value(value).unwrap()
}

fn armed(message: Message, matcher: Value, what: Value) -> Armed {
    let matcher: Matcher = serde_json::from_value(matcher).unwrap();
    Armed { message, matcher, edit: Some(Arc::new(edit(what))) }
}

const SMALL: Bounds = Bounds { head: 4096, body: 64, requests: 4 };

fn conversation(armed: Vec<Armed>) -> Conversation {
    Conversation::new(armed.into(), SMALL)
}

/// Bytes, waits as `<100ms>`, cuts as `<cut>`; and what was noted.
fn shown(steps: &[Step]) -> (String, Vec<Note>) {
    let (mut text, mut notes) = (String::new(), Vec::new());
    for step in steps {
        match step {
            Step::Bytes(bytes) => text.push_str(&String::from_utf8_lossy(bytes)),
            Step::Wait(time) => text.push_str(&format!("<{time:?}>")),
            Step::Abort => text.push_str("<cut>"),
            Step::Note(Note::Meant(_)) => {}
            Step::Note(note) => notes.push(*note),
        }
    }
    (text, notes)
}

fn feed(conversation: &mut Conversation, message: Message, text: &str) -> (String, Vec<Note>) {
    let mut whole = Vec::new();
    for byte in text.as_bytes() {
        conversation.feed(message, &[*byte], &mut whole);
    }
    shown(&whole)
}

/// What becomes of a response to a GET, whole.
fn respond(what: Value, response: &str) -> (String, Vec<Note>) {
    respond_to("GET / HTTP/1.1\r\n\r\n", what, response)
}

fn respond_to(request: &str, what: Value, response: &str) -> (String, Vec<Note>) {
    let mut all = conversation(vec![armed(Message::Response, json!({}), what)]);
    assert_eq!(feed(&mut all, Message::Request, request).0, request);
    let (mut text, mut notes) = feed(&mut all, Message::Response, response);
    let mut out = Vec::new();
    all.close(Message::Response, &mut out);
    let (more, last) = shown(&out);
    text.push_str(&more);
    notes.extend(last);
    (text, notes)
}

fn request(what: Value, text: &str) -> (String, Vec<Note>) {
    let mut all = conversation(vec![armed(Message::Request, json!({}), what)]);
    feed(&mut all, Message::Request, text)
}

const EDITED: [Note; 1] = [Note::Edited];

#[test]
fn a_replaced_body_has_its_own_length_and_no_coding() {
    let hello = json!({ "replace": { "body": "aGVsbG8=" } });
    for (before, after) in [
        (
            "HTTP/1.1 200 OK\r\nA: b\r\ncontent-length:3\r\nContent-Encoding: br\r\n\r\nabc",
            "HTTP/1.1 200 OK\r\nA: b\r\ncontent-length: 5\r\n\r\nhello",
        ),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        ),
        (
            "HTTP/1.0 200 OK\r\n\r\nuntil the end",
            "HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: T\r\n\r\n2\r\nab\r\n0\r\nT: v\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: T\r\n\r\n5\r\nhello\r\n0\r\nT: v\r\n\r\n",
        ),
    ] {
        assert_eq!(respond(hello.clone(), before), (after.to_owned(), EDITED.to_vec()));
    }
}

#[test]
fn what_has_no_body_gets_none() {
    let hello = json!({ "replace": { "body": "aGVsbG8=" } });
    let head = "HEAD / HTTP/1.1\r\n\r\n";
    assert_eq!(
        respond_to(head, hello.clone(), "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n").0,
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"
    );
    let same = "HTTP/1.1 304 Not Modified\r\nETag: x\r\n\r\n";
    assert_eq!(respond(hello.clone(), same).0, same);
    // And a status that has none takes the body away.
    let gone = json!({ "replace": { "code": 204 } });
    for before in [
        "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n",
    ] {
        assert_eq!(respond(gone.clone(), before).0, "HTTP/1.1 204 No Content\r\n\r\n");
    }
    // One that has a body instead of one that has none says where it ends.
    let found = json!({ "replace": { "code": 200 } });
    assert_eq!(
        respond(found, "HTTP/1.1 204 No Content\r\n\r\n").0,
        "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
    );
    let both = json!({ "replace": { "code": 200, "body": "aGVsbG8=" } });
    assert_eq!(
        respond(both, "HTTP/1.1 204 No Content\r\n\r\n").0,
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
    );
}

#[test]
fn json_is_merged_and_framed_anew() {
    let nine = json!({ "patch": { "body": { "n": 9, "gone": null } } });
    for (before, after) in [
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 18\r\n\r\n{\"gone\":1,\"n\":\"1\"}",
            "HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n{\"n\":9}",
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{\r\n1;x\r\n}\r\n0\r\nT: v\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n7\r\n{\"n\":9}\r\n0\r\nT: v\r\n\r\n",
        ),
        ("HTTP/1.0 200 OK\r\n\r\n{}", "HTTP/1.0 200 OK\r\nContent-Length: 7\r\n\r\n{\"n\":9}"),
    ] {
        assert_eq!(respond(nine.clone(), before), (after.to_owned(), EDITED.to_vec()));
    }
}

#[test]
fn a_body_that_cannot_be_merged_stays_and_the_rest_is_edited() {
    let what = json!({ "replace": { "code": 500 }, "patch": { "body": {} } });
    let long = format!("\"{}\"", "a".repeat(SMALL.body));
    let counted =
        |body: &str| format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    for (before, why) in [
        (counted("no json"), Unpatched::NoJson),
        (counted(" "), Unpatched::Empty),
        (counted(""), Unpatched::Empty),
        (counted(&long), Unpatched::TooLong),
        (format!("HTTP/1.1 200 OK\r\n\r\n{long}"), Unpatched::TooLong),
        (
            "HTTP/1.1 200 OK\r\nContent-Encoding: br\r\nContent-Length: 2\r\n\r\n{}".into(),
            Unpatched::Encoding,
        ),
        (
            "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}".into(),
            Unpatched::Encoding,
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"
                .into(),
            Unpatched::Encoding,
        ),
        ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n{}".into(), Unpatched::Cut),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}".into(), Unpatched::Cut),
    ] {
        let after = before.replace("200 OK", "500 Internal Server Error");
        let (text, notes) = respond(what.clone(), &before);
        assert_eq!(text, after);
        assert_eq!(notes, [Note::Unpatched(why)], "{before}");
    }
}

#[test]
fn a_client_that_waits_for_the_servers_word_gets_it() {
    let head = "POST / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n";
    let chunked = "POST / HTTP/1.1\r\nExpect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n";
    let what = json!({ "patch": { "body": { "n": 9 } } });
    let mut all = conversation(vec![armed(Message::Request, json!({}), what)]);
    assert_eq!(feed(&mut all, Message::Request, head).0, chunked);
    let go_on = "HTTP/1.1 100 Continue\r\n\r\n";
    assert_eq!(feed(&mut all, Message::Response, go_on).0, go_on);
    assert_eq!(feed(&mut all, Message::Request, "{}").0, "7\r\n{\"n\":9}\r\n0\r\n\r\n");
    // What is no JSON goes on in chunks as well.
    assert_eq!(feed(&mut all, Message::Request, head).0, chunked);
    assert_eq!(feed(&mut all, Message::Request, "no").0, "2\r\nno\r\n0\r\n\r\n");
    // One that is too long goes on in chunks as it comes.
    let long = head.replace(": 2", ": 70");
    assert_eq!(feed(&mut all, Message::Request, &long).0, long, "it is known to be too long");

    let hello = json!({ "replace": { "body": "aGVsbG8=" } });
    let mut all = conversation(vec![armed(Message::Request, json!({}), hello)]);
    assert_eq!(feed(&mut all, Message::Request, head).0, head.replace(": 2", ": 5"));
    assert_eq!(feed(&mut all, Message::Request, "a").0, "hello");
    assert_eq!(feed(&mut all, Message::Request, "b").0, "");
    assert!(!all.is_between(), "a response is due");
}

#[test]
fn a_request_becomes_what_is_asked_for() {
    let what = json!({
        "replace": {
            "path": "/new", "method": "PUT", "queries": { "a": "2" },
            "headers": { "X-A": "b", "Host": "other" }, "body": "aGVsbG8=",
        },
        "patch": { "queries": [["c", "3"]], "headers": [["X-A", "c"]] },
    });
    let before = "GET /old?a=1&b HTTP/1.1\r\nHost:one\r\nx-a: 1\r\nX-A: 2\r\nAccept: */*\r\n\r\n";
    let after = "PUT /new?a=2&b&c=3 HTTP/1.1\r\nHost: other\r\nx-a: b\r\nAccept: */*\r\n\
                 Content-Length: 5\r\nX-A: c\r\n\r\nhello";
    assert_eq!(request(what, before), (after.to_owned(), EDITED.to_vec()));
}

#[test]
fn a_method_whose_response_ends_elsewhere_stays() {
    let what = json!({ "replace": { "method": "POST", "path": "/b" } });
    let (text, notes) = request(what, "HEAD /a HTTP/1.1\r\n\r\n");
    assert_eq!(text, "HEAD /b HTTP/1.1\r\n\r\n");
    assert_eq!(notes, [Note::MethodStays, Note::Edited]);
}

#[test]
fn each_message_waits_for_itself_and_a_cut_ends_everything() {
    let what = json!({ "delay": "100ms" });
    let two = "GET /a HTTP/1.1\r\n\r\nGET /b HTTP/1.1\r\n\r\n";
    let want = "<100ms>GET /a HTTP/1.1\r\n\r\n<100ms>GET /b HTTP/1.1\r\n\r\n";
    assert_eq!(request(what, two).0, want);
    let cut = request(json!({ "abort": true }), two);
    assert_eq!(cut, ("<cut>".to_owned(), EDITED.to_vec()));
}

#[test]
fn several_experiments_act_one_after_the_other() {
    let all = vec![
        armed(
            Message::Response,
            json!({}),
            json!({ "delay": "1s", "replace": { "body": "e30=" } }),
        ),
        armed(Message::Response, json!({ "code": 404 }), json!({ "abort": true })),
        armed(
            Message::Response,
            json!({ "path": "/a*" }),
            json!({
                "delay": "2s", "patch": { "body": { "n": 9 } },
            }),
        ),
        Armed { edit: None, ..armed(Message::Response, json!({}), json!({})) },
    ];
    let mut all = conversation(all);
    feed(&mut all, Message::Request, "GET /abc?d HTTP/1.1\r\n\r\n");
    let mut out = Vec::new();
    let response = b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx";
    all.feed(Message::Response, response, &mut out);
    let want = "<3s>HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n{\"n\":9}";
    assert_eq!(shown(&out).0, want);
    let meant: Vec<_> =
        out.iter().filter(|step| matches!(step, Step::Note(Note::Meant(_)))).collect();
    let want = [0, 2, 3].map(|i| Step::Note(Note::Meant(i)));
    assert_eq!(meant, want.iter().collect::<Vec<_>>());
    assert_eq!(out[3], Step::Wait(Duration::from_secs(3)));
}

#[test]
fn a_response_is_matched_with_its_own_request() {
    let what = json!({ "replace": { "code": 500 } });
    let matcher = json!({ "path": "/b", "request_headers": { "x-user": "me" } });
    let mut all = conversation(vec![armed(Message::Response, matcher, what)]);
    let requests = "GET /a HTTP/1.1\r\n\r\nGET /b HTTP/1.1\r\nX-User: me\r\n\r\n\
                    GET /b HTTP/1.1\r\nX-User: you\r\n\r\n";
    feed(&mut all, Message::Request, requests);
    let one = "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx";
    let interim = "HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n";
    let (text, _) = feed(&mut all, Message::Response, &format!("{one}{interim}{one}{one}"));
    let two = one.replace("200 OK", "500 Internal Server Error");
    assert_eq!(text, format!("{one}{interim}{two}{one}"));
    assert!(all.is_between());
}

#[test]
fn behind_an_upgrade_and_a_tunnel_everything_passes() {
    let what = json!({ "replace": { "code": 500 } });
    for (ask, answer, odd) in [
        (
            "GET / HTTP/1.1\r\nUpgrade: websocket\r\n\r\n",
            "HTTP/1.1 101 Switching Protocols\r\n\r\n",
            Odd::Upgraded,
        ),
        ("CONNECT a:1 HTTP/1.1\r\n\r\n", "HTTP/1.1 200 OK\r\n\r\n", Odd::Tunnel),
    ] {
        let matcher = json!({ "method": "PUT" });
        let mut all = conversation(vec![armed(Message::Response, matcher, what.clone())]);
        assert_eq!(feed(&mut all, Message::Request, ask).0, ask);
        assert_eq!(
            feed(&mut all, Message::Response, answer),
            (answer.to_owned(), vec![Note::Odd(odd)])
        );
        let put = "PUT / HTTP/1.1\r\n\r\n";
        assert_eq!(feed(&mut all, Message::Request, put).0, put);
        assert_eq!(feed(&mut all, Message::Response, answer).0, answer);
    }
}

#[test]
fn who_has_lost_track_passes_everything() {
    let what = json!({ "replace": { "code": 500 } });
    let mut all = conversation(vec![armed(Message::Response, json!({}), what)]);
    let one = "GET / HTTP/1.1\r\n\r\n";
    let many = one.repeat(SMALL.requests + 1);
    let (text, notes) = feed(&mut all, Message::Request, &many);
    assert_eq!((text, notes), (many, vec![Note::Odd(Odd::LostTrack)]));
    // What was asked before is still known.
    let answer = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
    let (text, notes) = feed(&mut all, Message::Response, &answer.repeat(5));
    assert_eq!(text.matches("500").count(), SMALL.requests);
    assert!(text.ends_with(answer));
    assert_eq!(notes.last(), Some(&Note::Odd(Odd::LostTrack)));
}

/// A lane whose every message becomes this.
fn lane(message: Message, what: Value) -> (Lane, impl FnMut(&Head, &mut Vec<Step>) -> Verdict) {
    let edits = vec![Arc::new(edit(what))];
    let judge = move |head: &Head, _: &mut Vec<Step>| Verdict {
        framing: match message {
            Message::Request => of_request(head),
            Message::Response => of_response(head, Verb::Other),
        },
        verb: Verb::Other,
        edits: edits.clone(),
    };
    (Lane::new(message, SMALL), judge)
}

#[test]
fn what_is_let_go_in_the_middle_is_a_whole_message_still() {
    let chunks = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    let three = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n";
    let post = "POST / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n";
    let patch = json!({ "patch": { "body": { "n": 9 } } });
    let hello = json!({ "replace": { "body": "aGVsbG8=" } });
    let response = Message::Response;
    for (message, what, before, after, want) in [
        // Nothing is out: it goes as it came.
        (response, &patch, format!("{three}{{}}"), " ".to_owned(), format!("{three}{{}} ")),
        (
            response,
            &patch,
            format!("{chunks}2\r\n{{"),
            "}\r\n".into(),
            format!("{chunks}2\r\n{{}}\r\n"),
        ),
        (response, &hello, three[..20].into(), three[20..].into(), three.into()),
        // Another body is out: the old one goes to its end.
        (
            response,
            &hello,
            format!("{three}a"),
            "bc".into(),
            format!("{}hello", three.replace('3', "5")),
        ),
        (
            response,
            &hello,
            format!("{chunks}2\r\n{{"),
            "}\r\n0\r\n\r\n".into(),
            format!("{chunks}5\r\nhello\r\n0\r\n\r\n"),
        ),
        // The head has said that chunks come.
        (
            Message::Request,
            &patch,
            format!("{post}ab"),
            "cd".into(),
            format!(
                "{}2\r\nab\r\n2\r\ncd\r\n0\r\n\r\n",
                post.replace("Content-Length: 4", "Transfer-Encoding: chunked")
            ),
        ),
    ] {
        let (mut lane, mut judge) = lane(message, what.clone());
        let mut out = Vec::new();
        lane.feed(before.as_bytes(), &mut judge, &mut out);
        lane.pass(Odd::LetGo, &mut out);
        lane.feed(after.as_bytes(), &mut judge, &mut out);
        lane.feed(three.as_bytes(), &mut judge, &mut out);
        assert_eq!(shown(&out).0, format!("{want}{three}"), "{before}");
        assert_eq!(lane.rest(), Rest::Passes);
    }
}

#[test]
fn memory_is_bounded_whatever_comes() {
    let what = json!({ "patch": { "body": {} } });
    let mut all = conversation(vec![armed(Message::Response, json!({}), what)]);
    let mut out = Vec::new();
    all.feed(Message::Request, b"GET / HTTP/1.1\r\n\r\n", &mut out);
    all.feed(Message::Response, b"HTTP/1.1 200 OK\r\n\r\n", &mut out);
    for _ in 0..1000 {
        out.clear();
        all.feed(Message::Response, &[b' '; 50], &mut out);
        all.feed(Message::Request, &[b'A'; 50], &mut out);
        assert!(all.kept() <= SMALL.body + 50 + SMALL.head, "{}", all.kept());
    }
}
