//! Lines of a bundle's log as they are printed, for people and for programs.

use carboy::oci::log::{LogLine, LogReader, Stream};
use serde_json::json;

use super::output::Output;

/// Prints a log's output to standard output, its errors to standard error.
#[derive(Debug)]
pub(super) struct LogPrinter<'a> {
    output: &'a Output,
    timestamps: bool,
    /// Whether the last piece of each stream was no line's end.
    unfinished: [bool; 2],
}

impl<'a> LogPrinter<'a> {
    /// A printer that has printed nothing yet; `timestamps` before each line.
    pub(super) fn new(output: &'a Output, timestamps: bool) -> Self {
        Self { output, timestamps, unfinished: [false; 2] }
    }

    /// False if nobody reads any more.
    pub(super) fn print(&mut self, line: &LogLine) -> bool {
        let stdout = line.stream == Stream::Stdout;
        if self.output.is_json() {
            let stream = if stdout { "stdout" } else { "stderr" };
            let text = String::from_utf8_lossy(&line.text);
            let value = json!({
                "time": line.time, "stream": stream, "text": text, "partial": !line.complete,
            });
            return self.output.bytes(format!("{value}\n").as_bytes());
        }
        let mut bytes = Vec::new();
        let within = std::mem::replace(&mut self.unfinished[usize::from(stdout)], !line.complete);
        if self.timestamps && !within {
            bytes.extend_from_slice(line.time.as_bytes());
            bytes.push(b' ');
        }
        bytes.extend_from_slice(&line.text);
        if line.complete {
            bytes.push(b'\n');
        }
        if stdout { self.output.bytes(&bytes) } else { self.output.error_bytes(&bytes) }
    }

    /// Tells of lines that went before they were read.
    pub(super) fn tell_lost(&self, reader: &mut LogReader) {
        if reader.was_overtaken() {
            self.output.note("note: lines were removed before they could be printed");
        }
    }
}
