//! Lines for people. A stream that is gone is no reason to stop: there is nobody left to tell.

use std::fmt::Arguments;
use std::io::{self, Write as _};

/// One line on stdout.
pub(crate) fn info(text: Arguments<'_>) {
    // Nobody reads stdout any more if this fails.
    let _ = writeln!(io::stdout(), "{text}");
}

/// One line on stderr.
pub(crate) fn error(text: Arguments<'_>) {
    // Nobody reads stderr any more if this fails.
    let _ = writeln!(io::stderr(), "{text}");
}
