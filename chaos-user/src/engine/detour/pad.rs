//! Heads that become no shorter than they were.

use crate::engine::message::Step;

/// Lengthens the head of the first request of a connection to as many bytes as have come of it, by
/// blanks behind its last header, which mean nothing (RFC 9112, 5.1). A server that asks for bytes
/// before they are here makes the kernel forget that they were read (`tcp_bpf_recvmsg_parser`); with
/// less than that put in their place the socket would seem to have something to read for ever.
pub fn pad(out: &mut [Step], come: usize) {
    let sent: usize =
        out.iter().map(|step| if let Step::Bytes(b) = step { b.len() } else { 0 }).sum();
    let Some(Step::Bytes(first)) = out.iter_mut().find(|step| matches!(step, Step::Bytes(_)))
    else {
        return;
    };
    let end = first.windows(4).position(|four| four == b"\r\n\r\n");
    let has_header = |end: usize| first[..end].windows(2).any(|two| two == b"\r\n");
    if let Some(end) = end.filter(|end| has_header(*end)) {
        let blanks = vec![b' '; come.saturating_sub(sent).min(MOST_BLANKS)];
        first.splice(end..end, blanks);
    }
}

/// Servers bound their heads.
const MOST_BLANKS: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    fn padded(text: &str, come: usize) -> String {
        let mut out = vec![Step::Bytes(text.as_bytes().to_vec())];
        pad(&mut out, come);
        let Some(Step::Bytes(bytes)) = out.pop() else { panic!("no bytes") };
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn a_head_is_lengthened_behind_its_last_header_to_what_had_come() {
        let head = "GET / HTTP/1.1\r\nA: b\r\n\r\nbody";
        let len = head.len();
        assert_eq!(padded(head, len + 3), "GET / HTTP/1.1\r\nA: b   \r\n\r\nbody");
        assert_eq!(padded(head, len), head);
        assert_eq!(padded(head, 1), head);
        assert_eq!(padded(head, usize::MAX).len(), len + MOST_BLANKS);
    }

    #[test]
    fn what_has_no_header_stays() {
        for text in ["GET / HTTP/1.0\r\n\r\n", "GET / HTTP/1.1\r\nA: b\r\n", ""] {
            assert_eq!(padded(text, 1000), text);
        }
    }
}
