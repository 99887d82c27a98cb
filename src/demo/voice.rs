//! What the demo says. A reader who went away must not keep it from stopping what it started, so errors are dropped.

use std::io::{IsTerminal as _, Write as _};

/// A line of the demo's own output.
pub(super) fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{text}");
    let _ = out.flush();
}

/// A remark about what is going on, beside the output.
pub(super) fn note(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "demo: {text}");
}

/// The same on a line of its own: after Ctrl-C the cursor of a terminal stands behind what it echoed.
pub(super) fn note_below(text: &str) {
    if std::io::stderr().is_terminal() {
        let _ = writeln!(std::io::stderr().lock());
    }
    note(text);
}
