//! Taking memory: as much as was asked for, written to, and resident as long as the worker lives.

use std::convert::Infallible;
use std::io;
use std::time::Duration;

use super::super::trouble::{Trouble, errno};
use super::anonymous_bytes;
use crate::engine::line::monotonic_ns;
use crate::engine::strain::page_size;

/// How often it grows while it is still growing.
const STEP: Duration = Duration::from_millis(20);
/// How often it touches its memory where that cannot be locked.
const TOUCH: Duration = Duration::from_secs(1);

/// Takes memory until the cgroup has grown by `bytes`, over `ramp_ns`, and keeps it. `before` is
/// what the process had before it was in the cgroup.
pub fn keep(
    bytes: u64,
    ramp_ns: u64,
    before: u64,
    ready: impl FnOnce(),
) -> Result<Infallible, Trouble> {
    let own = anonymous_bytes().saturating_sub(before);
    let mut area = Area::map(mapped(bytes, own, page_size()))?;
    ready();
    let start = monotonic_ns();
    loop {
        let goal = grown(area.pages, monotonic_ns().saturating_sub(start), ramp_ns);
        area.fill(goal);
        if area.filled == area.pages {
            break;
        }
        std::thread::sleep(STEP);
    }
    loop {
        std::thread::sleep(TOUCH);
        if !area.is_locked {
            area.touch();
        }
    }
}

/// How many pages to map, so that together with what the process itself has taken in the cgroup,
/// and with the page tables, it comes to `bytes`.
fn mapped(bytes: u64, own: u64, page: u64) -> usize {
    // A table has 8 bytes for each page, and the kernel charges it like the page.
    let left = u128::from(bytes.saturating_sub(own)) * u128::from(page) / u128::from(page + 8);
    usize::try_from((left / u128::from(page)).max(1)).unwrap_or(usize::MAX)
}

/// How many of so many pages are due after some time of a ramp.
fn grown(pages: usize, passed_ns: u64, ramp_ns: u64) -> usize {
    if passed_ns >= ramp_ns {
        return pages;
    }
    let due = pages as u128 * u128::from(passed_ns) / u128::from(ramp_ns);
    usize::try_from(due).unwrap_or(pages)
}

/// Memory of the process.
struct Area {
    start: *mut u64,
    pages: usize,
    /// Words of a page.
    words: usize,
    filled: usize,
    is_locked: bool,
}

impl Area {
    /// Maps it; nothing is taken yet.
    fn map(pages: usize) -> Result<Self, Trouble> {
        let page = usize::try_from(page_size()).unwrap_or(4096);
        let length = pages.saturating_mul(page);
        let failed = |error: io::Error| Trouble::Map { bytes: length as u64, errno: errno(&error) };
        let (protection, flags) = (
            libc::PROT_READ | libc::PROT_WRITE,
            // Whether there is as much is for the OOM killer to say, as with a real leak.
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
        );
        // SAFETY: a new mapping, at no address in particular.
        let start = unsafe { libc::mmap(std::ptr::null_mut(), length, protection, flags, -1, 0) };
        if start == libc::MAP_FAILED {
            return Err(failed(io::Error::last_os_error()));
        }
        // Refused where the kernel merges no pages at all.
        // SAFETY: the mapping made above.
        unsafe { libc::madvise(start, length, libc::MADV_UNMERGEABLE) };
        let is_locked = lock(start, length);
        Ok(Self { start: start.cast(), pages, words: page / 8, filled: 0, is_locked })
    }

    /// Writes to the pages up to this one. No two pages are alike, none is zero, and none can be
    /// compressed.
    fn fill(&mut self, goal: usize) {
        for page in self.filled..goal.min(self.pages) {
            // Never zero, which would stay so.
            let mut seed = (page as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
            for word in 0..self.words {
                seed ^= seed << 13;
                seed ^= seed >> 7;
                seed ^= seed << 17;
                // SAFETY: within the mapping, which has that many pages of that many words.
                unsafe { self.start.add(page * self.words + word).write_volatile(seed) };
            }
            self.filled = page + 1;
        }
    }

    /// Writes a word of every page again, so that it is in use.
    fn touch(&mut self) {
        for page in 0..self.filled {
            // SAFETY: as above.
            unsafe {
                let word = self.start.add(page * self.words);
                word.write_volatile(word.read_volatile());
            }
        }
    }
}

/// Lets pages stay in memory from the moment on at which they are written to. False where that is
/// not allowed (without CAP_IPC_LOCK there is a limit, and raising it needs CAP_SYS_RESOURCE).
fn lock(start: *mut libc::c_void, length: usize) -> bool {
    let unlimited = libc::rlimit { rlim_cur: libc::RLIM_INFINITY, rlim_max: libc::RLIM_INFINITY };
    // SAFETY: a valid pointer, and the mapping of the caller's.
    unsafe {
        libc::setrlimit(libc::RLIMIT_MEMLOCK, &raw const unlimited);
        libc::mlock2(start, length, libc::MLOCK_ONFAULT) == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ramp_is_even_and_ends_with_everything() {
        assert_eq!(grown(1000, 0, 0), 1000, "without a ramp at once");
        assert_eq!(grown(1000, 0, 100), 0);
        assert_eq!(grown(1000, 50, 100), 500);
        assert_eq!(grown(1000, 100, 100), 1000);
        assert_eq!(grown(usize::MAX, u64::MAX - 1, u64::MAX), usize::MAX - 1);
    }

    #[test]
    fn the_process_itself_and_its_page_tables_are_part_of_the_size() {
        let page = 4096;
        for bytes in [1 << 20, 64 << 20, 3 << 30] {
            let own = 200 << 10;
            let data = mapped(bytes, own, page) as u64 * page;
            let total = data + data / 512 + own;
            assert!(total <= bytes && bytes - total <= 2 * page, "{bytes}: {total}");
        }
        assert_eq!(mapped(1, 1 << 20, page), 1, "at least a page");
    }

    #[test]
    fn pages_are_taken_as_they_are_filled_and_no_two_are_alike() {
        let mut area = Area::map(4096).unwrap();
        let resident = |area: &Area| {
            let mut pages = vec![0_u8; area.pages];
            let length = area.pages * area.words * 8;
            // SAFETY: the mapping, and a byte for each of its pages.
            let asked = unsafe { libc::mincore(area.start.cast(), length, pages.as_mut_ptr()) };
            assert_eq!(asked, 0);
            pages.iter().filter(|page| **page & 1 != 0).count()
        };
        area.fill(1000);
        // Huge pages come 512 at a time.
        assert!((1000..1512).contains(&resident(&area)), "{}", resident(&area));
        area.fill(4096);
        area.touch();
        assert_eq!(resident(&area), 4096);
        // SAFETY: all of it has been written.
        let words = unsafe { std::slice::from_raw_parts(area.start, area.pages * area.words) };
        let firsts: std::collections::BTreeSet<u64> =
            words.iter().copied().step_by(area.words).collect();
        assert_eq!(firsts.len(), 4096, "pages that are alike");
        assert!(words.iter().all(|word| *word != 0));
    }
}
