//! A pager for what does not fit on the screen.
//!
//! It must never be in the way: only a person at a terminal gets one, only for a text that is longer than the screen,
//! and whatever is wrong with the pager, the text is shown all the same.

use std::io::Write;
use std::process::{Command, Stdio};

use super::{Context, CtlError};

/// Ours comes before everybody's.
const VARIABLES: [&str; 2] = ["PGHERDCTL_PAGER", "PAGER"];

/// A short text needs no key, colours stay colours, and the text stays on the screen afterwards.
const LESS: &str = "FRX";

/// What shows a text.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Pager {
    /// The terminal itself.
    None,
    /// A program with its arguments.
    Program(Vec<String>),
}

/// Shows data, with a newline after it; through a pager where that helps.
pub fn data(context: &Context<'_>, text: &str) -> Result<(), CtlError> {
    let ui = context.ui;
    let is_wanted = !context.personality().is_patronictl() && !context.own.no_pager && ui.terminals().input;
    match ui.screen().filter(|screen| is_wanted && !fits(text, *screen)) {
        Some(_) => through(context, &chosen(context), &format!("{text}\n")),
        None => ui.data(text),
    }
}

/// Shows a difference as patronictl does: on a terminal always through a pager, and not at all without one.
pub fn as_patronictl(context: &Context<'_>, text: &str) -> Result<(), CtlError> {
    let on_path = |name: &&str| context.program(name).is_some();
    let asked = context.environment.get("PAGER").filter(|pager| on_path(&pager.as_str())).cloned();
    let pager = asked.or_else(|| ["less", "more"].into_iter().find(on_path).map(str::to_owned)).ok_or_else(|| {
        CtlError::new(
            "No pager could be found. Either set PAGER environment variable with your pager or install either \
             \"less\" or \"more\" in the host.",
        )
    })?;
    through(context, &Pager::Program(vec![pager]), text)
}

/// What the environment wants; `less` where it says nothing.
fn chosen(context: &Context<'_>) -> Pager {
    let asked = VARIABLES.iter().find_map(|name| context.environment.get(*name));
    match asked {
        Some(words) => parsed(words),
        None if context.program("less").is_some() => parsed("less"),
        None => Pager::None,
    }
}

/// An empty variable, or `cat`, means that no pager is wanted.
fn parsed(words: &str) -> Pager {
    let words: Vec<String> = words.split_whitespace().map(str::to_owned).collect();
    match words.as_slice() {
        [] => Pager::None,
        [only] if only == "cat" => Pager::None,
        _ => Pager::Program(words),
    }
}

/// Whether a text fits on so many rows and columns, with one row left for the prompt.
fn fits(text: &str, (rows, columns): (u16, u16)) -> bool {
    let columns = usize::from(columns).max(1);
    let height = |line: &str| console::measure_text_width(line).div_ceil(columns).max(1);
    text.lines().map(height).sum::<usize>() < usize::from(rows).max(1)
}

fn through(context: &Context<'_>, pager: &Pager, text: &str) -> Result<(), CtlError> {
    let Pager::Program(words) = pager else { return context.ui.data_raw(text) };
    // Ctrl-C belongs to the pager while it runs: from here on it does not end this process by itself.
    let _ours = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::interrupt());
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]).stdin(Stdio::piped());
    if !context.environment.contains_key("LESS") {
        command.env("LESS", LESS);
    }
    let Ok(mut child) = command.spawn() else { return context.ui.data_raw(text) };
    if let Some(mut input) = child.stdin.take() {
        // Whoever has seen enough closes the pager before the end.
        let _ = input.write_all(text.as_bytes());
    }
    let _ = child.wait();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_and_wide_texts_do_not_fit() {
        assert!(fits("", (1, 80)));
        assert!(fits("a\nb\nc", (4, 80)));
        assert!(!fits("a\nb\nc\nd", (4, 80)));
        assert!(!fits("aaaaaaaaaa\nb", (3, 5)), "a wrapped line takes two rows");
        assert!(fits("\u{1b}[31maaaaa\u{1b}[0m\nb", (3, 5)), "colours take no room");
        assert!(!fits("a", (0, 0)), "a terminal without a size shows nothing");
    }

    #[test]
    fn what_the_variables_mean() {
        assert_eq!(parsed(""), Pager::None);
        assert_eq!(parsed("cat"), Pager::None);
        assert_eq!(parsed("less -S"), Pager::Program(vec!["less".to_owned(), "-S".to_owned()]));
    }
}
