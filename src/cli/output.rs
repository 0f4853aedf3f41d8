//! The only printer: data on standard output, everything else on standard error.

use std::io::{self, Write};

use serde::Serialize;

/// Prints for people or for programs.
#[derive(Debug)]
pub(super) struct Output {
    json: bool,
}

impl Output {
    /// A printer; `json` for programs.
    pub(super) fn new(json: bool) -> Self {
        Self { json }
    }

    /// Whether JSON was asked for.
    pub(super) fn is_json(&self) -> bool {
        self.json
    }

    /// Prints a value as JSON, or else text.
    pub(super) fn data(&self, value: &impl Serialize, text: impl FnOnce() -> String) {
        if self.json { self.json(value) } else { self.text(&text()) }
    }

    /// Prints a value as JSON, whatever was asked for.
    pub(super) fn json(&self, value: &impl Serialize) {
        let text = if self.json {
            serde_json::to_string(value)
        } else {
            serde_json::to_string_pretty(value)
        };
        self.text(&text.expect("values made of text and numbers encode"));
    }

    /// Prints text to standard output, with a line's end.
    pub(super) fn text(&self, text: &str) {
        if text.is_empty() {
            return;
        }
        let end = if text.ends_with('\n') { "" } else { "\n" };
        self.bytes(format!("{text}{end}").as_bytes());
    }

    /// Writes bytes to standard output; false if nobody reads it any more.
    pub(super) fn bytes(&self, bytes: &[u8]) -> bool {
        let mut out = io::stdout().lock();
        out.write_all(bytes).and_then(|()| out.flush()).is_ok()
    }

    /// Writes bytes to standard error; false if nobody reads it any more.
    pub(super) fn error_bytes(&self, bytes: &[u8]) -> bool {
        io::stderr().lock().write_all(bytes).is_ok()
    }

    /// Tells the user something that is no data.
    pub(super) fn note(&self, text: &str) {
        self.error_bytes(format!("{text}\n").as_bytes());
    }

    /// Tells the user what a verb has to say besides its result.
    pub(super) fn notes(&self, notes: &[String]) {
        notes.iter().for_each(|note| self.note(&format!("note: {note}")));
    }

    /// Tells of a failure in the contract's form.
    pub(super) fn error_json(&self, value: &impl Serialize) {
        let text = serde_json::to_string(value).expect("values made of text encode");
        self.note(&text);
    }
}

/// Columns side by side, as wide as they must be; the first row holds their names.
pub(super) fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or_default();
    let width = |c: usize| rows.iter().filter_map(|r| r.get(c)).map(|t| t.chars().count()).max();
    let widths: Vec<usize> = (0..columns).map(|c| width(c).unwrap_or_default()).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            line.push_str(cell);
            line.extend(std::iter::repeat_n(' ', width - cell.chars().count() + 2));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_lines_have_no_tail() {
        let rows = [vec!["A".into(), "BB".into()], vec!["long".into(), String::new()]];
        assert_eq!(table(&rows), "A     BB\nlong\n");
    }
}
