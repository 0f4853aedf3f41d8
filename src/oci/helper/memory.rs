//! Gives back what a monitor does not need while it waits: it may wait for months.
#![allow(unsafe_code)]

use std::fs;

/// Returns free memory of the heap, and the pages of the program's own file that nothing wrote to:
/// those that are needed again come back from the page cache by themselves. Best effort.
pub(super) fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it only gives free memory back; this process has one thread.
    unsafe {
        libc::malloc_trim(0);
    }
    let Ok(smaps) = fs::read_to_string("/proc/self/smaps") else { return };
    for (start, length) in unwritten(&smaps) {
        // SAFETY: a private mapping of a file that cannot be written and has no page of its own:
        // dropped pages are read from the file again with the same content (madvise(2),
        // MADV_DONTNEED).
        unsafe {
            libc::madvise(start as *mut libc::c_void, length, libc::MADV_DONTNEED);
        }
    }
}

/// Start and length of each mapping that is of a file, cannot be written, and has no page whose
/// content is not the file's (`proc_pid_smaps(5)`): what was relocated before it was made
/// read-only has such pages.
fn unwritten(smaps: &str) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    let mut last = None;
    for line in smaps.lines() {
        if let Some(range) = mapping(line) {
            last = range;
        } else if line.strip_prefix("Anonymous:").is_some_and(|kept| kept.trim() == "0 kB") {
            found.extend(last.take());
        }
    }
    found
}

/// The range of a mapping's first line, if it is of a file and cannot be written; `None` for any
/// other line.
fn mapping(line: &str) -> Option<Option<(usize, usize)>> {
    let mut fields = line.split_ascii_whitespace();
    let (start, end) = fields.next()?.split_once('-')?;
    let start = usize::from_str_radix(start, 16).ok()?;
    let length = usize::from_str_radix(end, 16).ok()?.checked_sub(start)?;
    let (permissions, inode) = (fields.next()?, fields.nth(2)?);
    let of_file = matches!(permissions, "r-xp" | "r--p") && inode != "0";
    Some(of_file.then_some((start, length)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_as_in_the_file_is_given_back() {
        let one = |line: &str, anonymous: &str| {
            unwritten(&format!("{line}\nRss:  8 kB\nAnonymous:      {anonymous} kB\nVmFlags: rd\n"))
        };
        let code = "55d0c000-55d0f000 r-xp 00003000 08:01 1234   /usr/bin/carboy";
        assert_eq!(one(code, "0"), [(0x55d0_c000, 0x3000)]);
        let constant = "55d0f000-55d10000 r--p 00006000 08:01 1234   /usr/bin/carboy";
        assert_eq!(one(constant, "0"), [(0x55d0_f000, 0x1000)]);
        // Relocated.
        assert_eq!(one(constant, "4"), []);
        for other in [
            "55d10000-55d11000 rw-p 00007000 08:01 1234   /usr/bin/carboy",
            "7ffd1000-7ffd3000 r-xp 00000000 00:00 0      [vdso]",
            "",
        ] {
            assert_eq!(one(other, "0"), [], "{other}");
        }
        give_back();
    }
}
