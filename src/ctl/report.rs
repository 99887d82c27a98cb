//! The one error report: what failed, the causes, what to do next; and the exit code.

use super::error::{CtlError, ErrorKind};
use super::exit::Exit;
use super::ui::{Tone, Ui};

/// Tells the operator and picks the exit code.
pub fn report(ui: &Ui, error: &CtlError) -> u8 {
    let end = match (error.kind, ui.personality().is_patronictl()) {
        (ErrorKind::ClosedPipe, _) => return Exit::Done.code(),
        (_, true) => Exit::Failed,
        (_, false) => error.end(),
    };
    let text = if ui.personality().is_patronictl() { as_patronictl(ui, error) } else { as_pgherdctl(ui, error) };
    // Nowhere is left to complain to if stderr is closed as well.
    let _ = ui.complain(&text);
    end.code()
}

fn as_patronictl(ui: &Ui, error: &CtlError) -> String {
    match error.kind {
        ErrorKind::Aborted => "Aborted!".to_owned(),
        ErrorKind::Interrupted if ui.is_asking() => "Aborted!".to_owned(),
        ErrorKind::Interrupted => "\nAborted!".to_owned(),
        _ => format!("Error: {}", error.as_patronictl()),
    }
}

fn as_pgherdctl(ui: &Ui, error: &CtlError) -> String {
    if error.kind == ErrorKind::Interrupted {
        return format!("\n{}", error.better.as_ref().unwrap_or(&error.message));
    }
    let message = error.better.as_ref().unwrap_or(&error.message);
    // The question, or the ^C, stands at the beginning of the line.
    let is_cut = error.kind == ErrorKind::Aborted || message.starts_with("interrupted");
    let start = if is_cut { "\n" } else { "" };
    let mut text = format!("{start}{} {message}", ui.paint(Tone::Bad, "error:"));
    for cause in error.causes() {
        text.push_str(&format!("\n  {} {cause}", ui.paint(Tone::Quiet, "because:")));
    }
    if let Some(hint) = &error.hint {
        text.push_str(&format!("\n{} {hint}", ui.paint(Tone::Hint, "next:")));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ctl::Personality;
    use crate::dcs::DcsError;

    fn said(personality: Personality, error: &CtlError) -> (String, u8) {
        let (ui, captured) = Ui::captured(personality, "");
        let code = report(&ui, error);
        assert_eq!(captured.stdout(), "", "errors never go to stdout");
        (captured.stderr(), code)
    }

    fn dcs_down() -> CtlError {
        CtlError::dcs("could not read cluster demo", DcsError::unavailable("127.0.0.1:2379 refused"))
    }

    #[test]
    fn ours_names_object_cause_and_next_step() {
        let (text, code) = said(Personality::Pgherdctl, &dcs_down());
        assert_eq!(code, Exit::Unreachable.code());
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "error: could not read cluster demo");
        assert_eq!(lines[1], "  because: DCS is not accessible: 127.0.0.1:2379 refused");
        assert!(lines[2].starts_with("next: check that the endpoints"), "{text}");
    }

    #[test]
    fn theirs_is_one_line() {
        let (text, code) = said(Personality::Patronictl, &dcs_down());
        assert_eq!(
            (text.as_str(), code),
            ("Error: could not read cluster demo: DCS is not accessible: 127.0.0.1:2379 refused\n", 1)
        );
        assert_eq!(said(Personality::Patronictl, &CtlError::aborted()).0, "Aborted!\n");
        assert_eq!(said(Personality::Patronictl, &CtlError::interrupted()).0, "\nAborted!\n");
    }

    #[test]
    fn a_closed_pipe_is_quiet() {
        let pipe = CtlError::output(std::io::ErrorKind::BrokenPipe.into());
        assert_eq!(said(Personality::Pgherdctl, &pipe), (String::new(), 0));
    }
}
