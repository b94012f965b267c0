//! Patterns of paths: `*` is any run of bytes, `?` any one byte.

use core::ffi::c_void;

use aya_ebpf::helpers::generated::bpf_loop;
use chaos_abi::http::HttpRule;
use chaos_abi::limit::HTTP_PATTERN;

use crate::maps::{Asked, HEAD, below};

/// A path that needs more steps is not understood.
const STEPS: u32 = 8192;

#[repr(C)]
struct Wild {
    rule: *const HttpRule,
    asked: *const Asked,
    /// Where the path begins.
    from: u32,
    len: u32,
    pattern_len: u32,
    /// Where both are.
    text: u32,
    pattern: u32,
    /// Behind the last star, and where the text was; all ones: there was none.
    star: u32,
    mark: u32,
    /// 1: alike, 2: not.
    result: u32,
}

/// `Some(true)` where the path at `from` is like the rule's pattern; `None`: too much work.
#[inline(always)]
pub fn is_like(rule: &HttpRule, asked: *const Asked, from: u32, len: u32) -> Option<bool> {
    let mut wild = Wild {
        rule,
        asked,
        from,
        len,
        pattern_len: rule.pattern_len,
        text: 0,
        pattern: 0,
        star: u32::MAX,
        mark: 0,
        result: 0,
    };
    // SAFETY: the callback has the signature that the helper calls.
    unsafe { bpf_loop(STEPS, one_step as *mut c_void, (&raw mut wild).cast(), 0) };
    match wild.result {
        0 => None,
        result => Some(result == 1),
    }
}

unsafe extern "C" fn one_step(_: u64, wild: *mut Wild) -> i64 {
    // SAFETY: the context that `is_like` gave; the pointers are map values, the indexes masked.
    unsafe {
        let w = &mut *wild;
        let at = w.pattern;
        let expected = *(&raw const (*w.rule).pattern)
            .cast::<u8>()
            .add(below::<{ HTTP_PATTERN as u64 - 1 }>(at));
        let is_pattern = at < w.pattern_len;
        if w.text >= w.len {
            if is_pattern && expected == b'*' {
                w.pattern += 1;
                return 0;
            }
            w.result = if is_pattern { 2 } else { 1 };
            return 1;
        }
        let byte = *(&raw const (*w.asked).bytes)
            .cast::<u8>()
            .add(below::<{ 2 * HEAD as u64 - 1 }>(w.from + w.text));
        if is_pattern && expected == b'*' {
            w.pattern += 1;
            w.star = w.pattern;
            w.mark = w.text;
        } else if is_pattern && (expected == b'?' || expected == byte) {
            w.pattern += 1;
            w.text += 1;
        } else if w.star != u32::MAX {
            w.pattern = w.star;
            w.mark += 1;
            w.text = w.mark;
        } else {
            w.result = 2;
            return 1;
        }
        0
    }
}
