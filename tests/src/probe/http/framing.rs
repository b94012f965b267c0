//! Where messages end.

use super::header;

/// Where the first request of these bytes ends, its body included.
pub fn end_of_request(bytes: &[u8]) -> Option<usize> {
    let end = end_of_head(bytes)?;
    if header(&bytes[..end], "transfer-encoding").is_some_and(|coding| coding == "chunked") {
        return Some(end + end_of_chunks(&bytes[end..])?);
    }
    let all = end + content_length(&bytes[..end]).unwrap_or(0);
    (all <= bytes.len()).then_some(all)
}

/// Where the first head of these bytes ends.
pub fn end_of_head(bytes: &[u8]) -> Option<usize> {
    Some(bytes.windows(4).position(|four| four == b"\r\n\r\n")? + 4)
}

/// The length that a head tells.
pub fn content_length(head: &[u8]) -> Option<usize> {
    header(head, "content-length")?.parse().ok()
}

fn end_of_chunks(bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        let line = bytes.get(at..)?.windows(2).position(|two| two == b"\r\n")?;
        let text = String::from_utf8_lossy(&bytes[at..at + line]).into_owned();
        let size = usize::from_str_radix(text.split(';').next()?.trim(), 16).ok()?;
        if size == 0 {
            // The end of the last line of the trailer, or of the one with the size.
            return Some(at + line + end_of_head(&bytes[at + line..])?);
        }
        at += line + 2 + size + 2;
    }
}
