//! From the library's errors to exit codes and messages: the one place that folds them together.

use std::process::ExitCode;

use carboy::fsutil::PathError;
use carboy::{Classify, Error, ErrorKind};
use serde::Serialize;

use super::output::Output;

/// The exit code of `exec` and of `start` in the foreground for carboy's own fault, as Docker's.
pub(super) const OWN_FAULT: u8 = 125;

/// Why a verb failed, in the form of the contract.
#[derive(Debug, Serialize)]
pub(super) struct Failure {
    code: ErrorKind,
    message: String,
    hint: Option<String>,
    causes: Vec<String>,
    #[serde(skip)]
    exit_code: Option<u8>,
}

impl Failure {
    /// The failure that an error is.
    pub(super) fn new(error: &impl Classify) -> Self {
        let mut causes = Vec::new();
        let mut source = error.source();
        while let Some(cause) = source {
            causes.push(cause.to_string());
            source = cause.source();
        }
        let (code, message) = (error.kind(), error.to_string());
        Self { code, message, hint: error.hint(), causes, exit_code: None }
    }

    /// The failure of a verb whose exit code is that of a program in a bundle.
    pub(super) fn of_program(error: Error) -> Self {
        Self { exit_code: error.program_exit_code(), ..Self::new(&error) }
    }

    /// A word of the command line that is wrong.
    pub(super) fn usage(message: impl Into<String>) -> Self {
        Self {
            code: ErrorKind::Usage,
            message: message.into(),
            hint: None,
            causes: Vec::new(),
            exit_code: None,
        }
    }

    /// The exit code to use where the error has none of its own.
    pub(super) fn with_fallback(mut self, exit_code: Option<u8>) -> Self {
        self.exit_code = self.exit_code.or(exit_code);
        self
    }

    /// One failure of several: the first, with what the others say among its causes.
    pub(super) fn merge(failures: Vec<Self>) -> Option<Self> {
        let mut failures = failures.into_iter();
        let mut first = failures.next()?;
        first.causes.extend(failures.map(|other| other.text()));
        Some(first)
    }

    /// The message with its causes.
    fn text(&self) -> String {
        let causes = self.causes.iter().map(String::as_str);
        std::iter::once(self.message.as_str()).chain(causes).collect::<Vec<_>>().join(": ")
    }

    /// Tells the user, once.
    pub(super) fn report(self, output: &Output) -> ExitCode {
        if output.is_json() {
            output.error_json(&self);
        } else {
            output.note(&format!("carboy: {}", self.text()));
            if let Some(hint) = &self.hint {
                output.note(&format!("hint: {hint}"));
            }
        }
        ExitCode::from(self.exit_code.unwrap_or(self.code.exit_code()))
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::new(&error)
    }
}

impl From<PathError> for Failure {
    fn from(error: PathError) -> Self {
        Self::new(&error)
    }
}

/// Ends after a command line that could not be parsed, or that asked for help.
pub(super) fn usage(output: &Output, error: &clap::Error) -> ExitCode {
    if !error.use_stderr() {
        output.text(&error.to_string());
        return ExitCode::SUCCESS;
    }
    if output.is_json() {
        let text = error.to_string();
        let message = text.strip_prefix("error: ").unwrap_or(&text);
        let message = message.split("\n\n").next().unwrap_or(message);
        return Failure::usage(message.trim()).report(output);
    }
    output.note(error.to_string().trim_end());
    ExitCode::from(ErrorKind::Usage.exit_code())
}
