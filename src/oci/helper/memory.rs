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
    let Ok(maps) = fs::read_to_string("/proc/self/maps") else { return };
    for (start, length) in maps.lines().filter_map(unwritten) {
        // SAFETY: a private mapping of a file that cannot be written: dropped pages are read from
        // the file again with the same content (madvise(2), MADV_DONTNEED).
        unsafe {
            libc::madvise(start as *mut libc::c_void, length, libc::MADV_DONTNEED);
        }
    }
}

/// Start and length of a mapping that is of a file and was never writable
/// (`proc_pid_maps(5)`). What is made read-only after its relocation has content of its own: it is
/// told by its place, which is right before writable memory, and so only code is taken.
fn unwritten(line: &str) -> Option<(usize, usize)> {
    let mut fields = line.split_ascii_whitespace();
    let (range, permissions) = (fields.next()?, fields.next()?);
    let inode = fields.nth(2)?;
    if permissions != "r-xp" || inode == "0" {
        return None;
    }
    let (start, end) = range.split_once('-')?;
    let start = usize::from_str_radix(start, 16).ok()?;
    Some((start, usize::from_str_radix(end, 16).ok()?.checked_sub(start)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_code_of_files_is_given_back() {
        let code = "55d0c000-55d0f000 r-xp 00003000 08:01 1234   /usr/bin/carboy";
        assert_eq!(unwritten(code), Some((0x55d0_c000, 0x3000)));
        for other in [
            "55d0f000-55d10000 r--p 00006000 08:01 1234   /usr/bin/carboy",
            "55d10000-55d11000 rw-p 00007000 08:01 1234   /usr/bin/carboy",
            "7ffd1000-7ffd3000 r-xp 00000000 00:00 0      [vdso]",
            "",
        ] {
            assert_eq!(unwritten(other), None, "{other}");
        }
        give_back();
    }
}
