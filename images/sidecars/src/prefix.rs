//! Marks each line of a daemon's output with the daemon's name. Pure.

/// The longest line that is passed on whole, in bytes. A longer one (or binary output without line
/// ends) is cut into lines of this length, so that the memory for an unfinished line is bounded.
const LONGEST: usize = 8 * 1024;

/// Cuts one output stream into lines. A line is passed on when its end has come; bytes are not
/// changed, whatever they are.
pub(crate) struct Prefixer {
    prefix: String,
    partial: Vec<u8>,
}

impl Prefixer {
    /// For the daemon `name`: each line begins with `[name] `.
    pub(crate) fn new(name: &str) -> Self {
        Self { prefix: format!("[{name}] "), partial: Vec::new() }
    }

    /// Takes the next bytes of the stream, and appends the lines that are complete to `out`.
    pub(crate) fn push(&mut self, mut input: &[u8], out: &mut Vec<u8>) {
        while let Some(&next) = input.first() {
            // A line of exactly the greatest length still takes its line end.
            if self.partial.len() == LONGEST && next != b'\n' {
                self.emit(out);
            }
            let room = input.len().min(LONGEST - self.partial.len());
            let end = input[..input.len().min(room + 1)].iter().position(|&byte| byte == b'\n');
            let (line, rest) = input.split_at(end.unwrap_or(room));
            self.partial.extend_from_slice(line);
            input = rest;
            if end.is_some() {
                input = &input[1..];
                self.emit(out);
            }
        }
    }

    /// The stream has ended: an unfinished line is passed on with a line end.
    pub(crate) fn finish(&mut self, out: &mut Vec<u8>) {
        if !self.partial.is_empty() {
            self.emit(out);
        }
    }

    fn emit(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.prefix.as_bytes());
        out.append(&mut self.partial);
        out.push(b'\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(chunks: &[&[u8]]) -> Vec<u8> {
        let mut out = Vec::new();
        let mut prefixer = Prefixer::new("d");
        for chunk in chunks {
            prefixer.push(chunk, &mut out);
        }
        prefixer.finish(&mut out);
        out
    }

    #[test]
    fn lines() {
        for (chunks, want) in [
            (&[&b""[..]][..], &b""[..]),
            (&[b"one\ntwo\n"], b"[d] one\n[d] two\n"),
            (&[b"pa", b"rt", b"ial\nre", b"st"], b"[d] partial\n[d] rest\n"),
            (&[b"\n\n"], b"[d] \n[d] \n"),
            (&[b"a\r\n"], b"[d] a\r\n"),
            (&[b"\x00\xff\x80\n"], b"[d] \x00\xff\x80\n"),
        ] {
            assert_eq!(run(chunks), want, "{chunks:?}");
        }
    }

    #[test]
    fn long_lines_are_cut() {
        let long = vec![b'x'; LONGEST + 1];
        let out = run(&[&long]);
        assert_eq!(out.len(), long.len() + 2 * "[d] \n".len());
        assert!(out.ends_with(b"\n[d] x\n"));

        let mut exact = vec![b'x'; LONGEST];
        exact.push(b'\n');
        assert_eq!(run(&[&exact]).len(), exact.len() + "[d] ".len());
    }

    #[test]
    fn nothing_is_lost_however_it_is_cut() {
        let input: Vec<u8> = (0..40_000u32).map(|n| (n * 7 % 251) as u8).collect();
        let whole = run(&[&input]);
        for size in [1, 999, LONGEST, LONGEST + 1] {
            let pieces: Vec<&[u8]> = input.chunks(size).collect();
            assert!(run(&pieces) == whole, "pieces of {size}");
        }
    }
}
