//! The terminal: everything that is printed or asked goes through here.
//!
//! Data goes to stdout, everything else to stderr. patronictl mixes the two (its prompts and results are on stdout),
//! so what is neither data nor error goes through [`Ui::say`], which knows where it belongs.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Zoned;

use crate::io::clock::{Clock, SystemClock};

use super::Personality;
use super::colour::{self, ColorChoice};
use super::error::CtlError;
use super::underway::Underway;

type Sink = Arc<Mutex<Box<dyn Write + Send>>>;
type Source = Arc<Mutex<Box<dyn BufRead + Send>>>;

/// What a piece of text means. Colour only repeats what the words say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    /// As it should be.
    Good,
    /// Worth a look.
    Warn,
    /// Wrong.
    Bad,
    /// Of secondary interest.
    Quiet,
    /// What to do next.
    Hint,
    /// A heading.
    Strong,
}

impl Tone {
    fn style(self) -> console::Style {
        let style = console::Style::new();
        match self {
            Self::Good => style.green(),
            Self::Warn => style.yellow(),
            Self::Bad => style.red().bold(),
            Self::Quiet => style.dim(),
            Self::Hint => style.cyan(),
            Self::Strong => style.bold(),
        }
    }
}

/// Which of the three streams are terminals.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Terminals {
    /// stdin.
    pub input: bool,
    /// stdout.
    pub output: bool,
    /// stderr.
    pub errors: bool,
}

/// The operator's side of the program.
pub struct Ui {
    personality: Personality,
    out: Sink,
    err: Sink,
    input: Source,
    terminals: Terminals,
    /// Whether colours are used on stdout, and on stderr.
    colours: [AtomicBool; 2],
    /// The terminal cannot move its cursor.
    is_dumb: AtomicBool,
    clock: Arc<dyn Clock>,
    zone: jiff::tz::TimeZone,
    asking: AtomicBool,
    underway: Mutex<Underway>,
    /// Whether Ctrl-C is for this process.
    is_real: bool,
    /// The spinner, while there is one.
    watched: Mutex<Option<indicatif::WeakProgressBar>>,
}

impl Ui {
    /// The real terminal.
    pub fn terminal(personality: Personality) -> Self {
        let (input, out, err) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
        let terminals = Terminals { input: input.is_terminal(), output: out.is_terminal(), errors: err.is_terminal() };
        Self {
            personality,
            out: Arc::new(Mutex::new(Box::new(out))),
            err: Arc::new(Mutex::new(Box::new(err))),
            input: Arc::new(Mutex::new(Box::new(BufReader::new(input)))),
            terminals,
            colours: [false, false].map(AtomicBool::new),
            is_dumb: AtomicBool::new(false),
            clock: Arc::new(SystemClock),
            zone: jiff::tz::TimeZone::system(),
            asking: AtomicBool::new(false),
            underway: Mutex::default(),
            is_real: true,
            watched: Mutex::new(None),
        }
    }

    /// A terminal that is none: `input` is what will be typed (nobody is there to type when it is empty), and what is printed can be looked at.
    pub fn captured(personality: Personality, input: &str) -> (Self, Captured) {
        let captured = Captured::default();
        let typed = std::io::Cursor::new(input.to_owned().into_bytes());
        let ui = Self {
            personality,
            out: Arc::new(Mutex::new(Box::new(captured.out.clone()))),
            err: Arc::new(Mutex::new(Box::new(captured.err.clone()))),
            input: Arc::new(Mutex::new(Box::new(typed))),
            terminals: Terminals { input: !input.is_empty(), ..Terminals::default() },
            colours: [false, false].map(AtomicBool::new),
            is_dumb: AtomicBool::new(false),
            clock: Arc::new(SystemClock),
            zone: jiff::tz::TimeZone::system(),
            asking: AtomicBool::new(false),
            underway: Mutex::default(),
            is_real: false,
            watched: Mutex::new(None),
        };
        (ui, captured)
    }

    /// The same with another clock, for tests.
    pub fn with_clock(self, clock: Arc<dyn Clock>) -> Self {
        Self { clock, ..self }
    }

    /// The same in another time zone, for tests.
    pub fn with_zone(self, zone: jiff::tz::TimeZone) -> Self {
        Self { zone, ..self }
    }

    /// The same with another idea of which streams are terminals, for tests.
    pub fn with_terminals(self, terminals: Terminals) -> Self {
        Self { terminals, ..self }
    }

    /// Decides where colour is used, for each stream by itself.
    pub fn choose_color(&self, choice: ColorChoice, environment: &BTreeMap<String, String>) {
        let streams = [self.terminals.output, self.terminals.errors];
        for (colour, is_terminal) in self.colours.iter().zip(streams) {
            colour.store(choice.is_used(is_terminal, environment), Ordering::Relaxed);
        }
        self.is_dumb.store(colour::is_dumb(environment), Ordering::Relaxed);
    }

    /// Whether messages may be coloured.
    pub fn colours_messages(&self) -> bool {
        self.colours[1].load(Ordering::Relaxed)
    }

    /// How the program presents itself.
    pub fn personality(&self) -> Personality {
        self.personality
    }

    /// Which streams are terminals.
    pub fn terminals(&self) -> Terminals {
        self.terminals
    }

    /// Local time.
    pub fn now(&self) -> Zoned {
        let since = self.clock.since_epoch();
        let stamp = jiff::Timestamp::UNIX_EPOCH.checked_add(since).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
        stamp.to_zoned(self.zone.clone())
    }

    /// Local time as `2026-01-31 12:00:00`.
    pub fn now_text(&self) -> String {
        self.now().strftime("%Y-%m-%d %H:%M:%S").to_string()
    }

    /// Columns of the terminal on stdout, if it is one.
    pub fn width(&self) -> Option<u16> {
        self.terminals.output.then(|| console::Term::stdout().size_checked()).flatten().map(|(_, columns)| columns)
    }

    /// Rows and columns of the terminal on stdout, if it is one.
    pub fn screen(&self) -> Option<(u16, u16)> {
        self.terminals.output.then(|| console::Term::stdout().size_checked()).flatten()
    }

    /// From now on a cluster is being changed.
    pub fn changes(&self, cluster: &str) {
        self.underway(|underway| *underway = Underway::change(cluster));
    }

    /// Notes how far the command has got.
    pub fn underway(&self, note: impl FnOnce(&mut Underway)) {
        note(&mut self.underway.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// The end of the command at this moment, by Ctrl-C.
    pub fn interrupted(&self) -> CtlError {
        self.underway.lock().unwrap_or_else(PoisonError::into_inner).interrupted()
    }

    /// Waits for Ctrl-C.
    pub async fn interruption(&self) {
        if !self.is_real || tokio::signal::ctrl_c().await.is_err() {
            std::future::pending().await
        }
    }

    /// What tables on stdout may look like.
    pub fn look(&self) -> super::render::Look {
        super::render::Look { width: self.width(), styled: self.colours[0].load(Ordering::Relaxed) }
    }

    /// What tables beside the data may look like: on stderr.
    pub fn look_beside(&self) -> super::render::Look {
        let width = self.terminals.errors.then(|| console::Term::stderr().size_checked()).flatten();
        super::render::Look { width: width.map(|(_, columns)| columns), styled: self.colours_messages() }
    }

    /// Data and a newline, to stdout.
    pub fn data(&self, text: &str) -> Result<(), CtlError> {
        self.put(&self.out, &[text, "\n"])
    }

    /// Data as it is, to stdout.
    pub fn data_raw(&self, text: &str) -> Result<(), CtlError> {
        self.put(&self.out, &[text])
    }

    /// What happened, one line: for patronictl part of the output, for us a message on stderr.
    pub fn say(&self, text: &str) -> Result<(), CtlError> {
        self.put(self.messages(), &[text, "\n"])
    }

    /// The same without a newline.
    pub fn say_raw(&self, text: &str) -> Result<(), CtlError> {
        self.put(self.messages(), &[text])
    }

    /// Something the operator should know although the command goes on.
    pub fn warn(&self, text: &str) -> Result<(), CtlError> {
        if self.personality.is_patronictl() {
            return self.log("WARNING", text);
        }
        self.complain(&format!("{} {text}", self.paint(Tone::Warn, "warning:")))
    }

    /// What to do next, to stderr.
    pub fn hint(&self, text: &str) -> Result<(), CtlError> {
        self.complain(&format!("{} {text}", self.paint(Tone::Hint, "next:")))
    }

    /// A log line as patronictl writes it, to stderr.
    pub fn log(&self, level: &str, text: &str) -> Result<(), CtlError> {
        let time = self.now().strftime("%Y-%m-%d %H:%M:%S,%3f").to_string();
        self.complain(&format!("{time} - {level} - {text}"))
    }

    /// A line to stderr, as it is.
    pub fn complain(&self, text: &str) -> Result<(), CtlError> {
        self.put(&self.err, &[text, "\n"])
    }

    /// Clears the screen, if stdout is one.
    pub fn clear_screen(&self) -> Result<(), CtlError> {
        if self.terminals.output { self.data_raw("\x1b[2J\x1b[1;1H") } else { Ok(()) }
    }

    /// Text in a tone, if messages may be coloured.
    pub fn paint(&self, tone: Tone, text: &str) -> String {
        let is_used = self.colours_messages() && !self.personality.is_patronictl();
        if is_used { tone.style().force_styling(true).apply_to(text).to_string() } else { text.to_owned() }
    }

    /// A spinner with this message until it is dropped; nothing where nobody watches.
    pub fn progress(&self, message: &str) -> Progress {
        if !self.terminals.errors || self.is_dumb.load(Ordering::Relaxed) || self.personality.is_patronictl() {
            return Progress(None);
        }
        let bar = indicatif::ProgressBar::new_spinner();
        bar.set_message(message.to_owned());
        bar.enable_steady_tick(std::time::Duration::from_millis(120));
        *self.watched.lock().unwrap_or_else(PoisonError::into_inner) = Some(bar.downgrade());
        Progress(Some(bar))
    }

    /// Writes; a spinner makes room for it.
    fn put(&self, sink: &Sink, parts: &[&str]) -> Result<(), CtlError> {
        let watched =
            self.watched.lock().unwrap_or_else(PoisonError::into_inner).as_ref().and_then(|bar| bar.upgrade());
        match watched {
            Some(bar) => bar.suspend(|| write(sink, parts)),
            None => write(sink, parts),
        }
    }

    fn messages(&self) -> &Sink {
        if self.personality.is_patronictl() { &self.out } else { &self.err }
    }

    /// Whether a question waits for its answer.
    pub fn is_asking(&self) -> bool {
        self.asking.load(Ordering::Relaxed)
    }

    /// Asks for a line of text. An empty answer takes the default; without one the question comes again.
    pub async fn prompt(&self, text: &str, default: Option<&str>) -> Result<String, CtlError> {
        let question = match default {
            // Words that end in a blank are patronictl's, byte for byte; an empty default is none to anybody else.
            Some(default) if self.personality.is_patronictl() => format!("{text} [{default}]: "),
            Some("") => format!("{}: ", text.trim_end()),
            Some(default) => format!("{} [{default}]: ", text.trim_end()),
            None => format!("{text}: "),
        };
        loop {
            let answer = self.ask(&question, flag_for(text)).await?;
            match (answer.is_empty(), default) {
                (false, _) => return Ok(answer),
                (true, Some(default)) => return Ok(default.to_owned()),
                (true, None) => {}
            }
        }
    }

    /// Asks for a secret, which is not shown while it is typed. An empty one is asked for again.
    pub async fn prompt_hidden(&self, text: &str) -> Result<String, CtlError> {
        loop {
            let hidden = if self.terminals.input { Hidden::new() } else { None };
            if !self.terminals.input && !self.personality.is_patronictl() {
                return Err(CtlError::nobody_to_ask(text, flag_for(text)));
            }
            // Never to stdout: a secret is asked for beside the data in both personalities.
            self.put(&self.err, &[text, ": "])?;
            let answer = self.answer().await;
            if hidden.is_some() {
                drop(hidden);
                // The end of the line was not shown either.
                self.complain("")?;
            }
            if answer.is_err() && self.personality.is_patronictl() && !self.terminals.input {
                self.say("")?;
            }
            let answer = answer?;
            if !answer.is_empty() {
                return Ok(answer);
            }
        }
    }

    /// Asks for an integer until there is one.
    pub async fn prompt_integer(&self, text: &str) -> Result<i64, CtlError> {
        loop {
            let answer = self.prompt(text, None).await?;
            match answer.trim().parse() {
                Ok(number) => return Ok(number),
                Err(_) => self.say(&format!("Error: '{answer}' is not a valid integer."))?,
            }
        }
    }

    /// Asks yes or no; no is the default.
    pub async fn confirm(&self, text: &str) -> Result<bool, CtlError> {
        let question = format!("{text} [y/N]: ");
        loop {
            match self.ask(&question, "--yes").await?.trim().to_lowercase().as_str() {
                "y" | "yes" => return Ok(true),
                "n" | "no" | "" => return Ok(false),
                _ => self.say("Error: invalid input")?,
            }
        }
    }

    /// `flag` is what would have answered the question.
    async fn ask(&self, question: &str, flag: &str) -> Result<String, CtlError> {
        if !self.terminals.input && !self.personality.is_patronictl() {
            return Err(CtlError::nobody_to_ask(question, flag));
        }
        self.say_raw(question)?;
        self.answer().await
    }

    async fn answer(&self) -> Result<String, CtlError> {
        self.asking.store(true, Ordering::Relaxed);
        let answer = self.read(|input| {
            let mut line = String::new();
            input.read_line(&mut line).map(|_| line)
        });
        let line = answer.await?;
        self.asking.store(false, Ordering::Relaxed);
        if line.is_empty() {
            return Err(CtlError::aborted());
        }
        Ok(line.strip_suffix('\n').map(|l| l.strip_suffix('\r').unwrap_or(l)).unwrap_or(&line).to_owned())
    }

    /// All that stdin still holds.
    pub async fn read_all(&self) -> Result<String, CtlError> {
        self.read(|input| {
            let mut text = String::new();
            input.read_to_string(&mut text).map(|_| text)
        })
        .await
    }

    /// Reads in a thread, so that Ctrl-C is heard meanwhile.
    async fn read<F>(&self, reader: F) -> Result<String, CtlError>
    where
        F: FnOnce(&mut dyn BufRead) -> std::io::Result<String> + Send + 'static,
    {
        let input = Arc::clone(&self.input);
        let read = move || reader(&mut **input.lock().unwrap_or_else(PoisonError::into_inner));
        let failed = |error: std::io::Error| CtlError::new("could not read the standard input").because(error);
        match tokio::task::spawn_blocking(read).await {
            Ok(result) => result.map_err(failed),
            Err(error) => Err(failed(std::io::Error::other(error))),
        }
    }
}

/// The option that answers a question for a text.
fn flag_for(question: &str) -> &'static str {
    match question {
        "Citus group" => "--group",
        "Password" => "PGPASSWORD or a password file",
        "Primary" | "Standby Leader" => "--leader, or with --yes for the present one",
        _ if question.starts_with("Candidate") => "--candidate, or with --yes where the cluster may choose",
        _ if question.starts_with("When should") => "--scheduled, or with --yes for now",
        _ if question.starts_with("Restart if") => "--pg-version, or with --yes for any",
        _ if question.starts_with("Which member") => "the members' names after the cluster, and --yes",
        "Please confirm the cluster name to remove" => "--confirm",
        _ => "--yes, which takes the usual answer, or with the option for it",
    }
}

fn write(sink: &Sink, parts: &[&str]) -> Result<(), CtlError> {
    let mut sink = sink.lock().unwrap_or_else(PoisonError::into_inner);
    let all = parts.iter().try_for_each(|part| sink.write_all(part.as_bytes()));
    all.and_then(|()| sink.flush()).map_err(CtlError::output)
}

/// While it lives, what is typed is not shown.
struct Hidden(nix::sys::termios::Termios);

impl Hidden {
    fn new() -> Option<Self> {
        use nix::sys::termios::{LocalFlags, SetArg, tcgetattr, tcsetattr};
        let before = tcgetattr(std::io::stdin()).ok()?;
        let mut silent = before.clone();
        silent.local_flags.remove(LocalFlags::ECHO);
        tcsetattr(std::io::stdin(), SetArg::TCSANOW, &silent).ok()?;
        Some(Self(before))
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        use nix::sys::termios::{SetArg, tcsetattr};
        let _ = tcsetattr(std::io::stdin(), SetArg::TCSANOW, &self.0);
    }
}

/// A spinner; gone when dropped.
pub struct Progress(Option<indicatif::ProgressBar>);

impl Progress {
    /// Changes the words.
    pub fn set(&self, message: &str) {
        if let Some(bar) = &self.0 {
            bar.set_message(message.to_owned());
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}

/// What a captured terminal was told.
#[derive(Clone, Debug, Default)]
pub struct Captured {
    out: Buffer,
    err: Buffer,
}

impl Captured {
    /// Everything on stdout so far.
    pub fn stdout(&self) -> String {
        self.out.text()
    }

    /// Everything on stderr so far.
    pub fn stderr(&self) -> String {
        self.err.text()
    }
}

#[derive(Clone, Debug, Default)]
struct Buffer(Arc<Mutex<Vec<u8>>>);

impl Buffer {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }
}

impl Write for Buffer {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn questions_repeat_until_they_are_answered() {
        let (ui, seen) = Ui::captured(Personality::Patronictl, "maybe\nYES\n\nx\n7\n\n");
        assert!(ui.confirm("Apply?").await.unwrap());
        assert_eq!(seen.stdout(), "Apply? [y/N]: Error: invalid input\nApply? [y/N]: ");
        assert_eq!(ui.prompt_integer("Citus group").await.unwrap(), 7);
        assert_eq!(ui.prompt("Candidate", Some("")).await.unwrap(), "");
        assert!(seen.stdout().ends_with("Error: 'x' is not a valid integer.\nCitus group: Candidate []: "));
        let end = ui.confirm("Again?").await.unwrap_err();
        assert_eq!(end.kind, super::super::ErrorKind::Aborted);
    }

    #[tokio::test]
    async fn ours_asks_on_stderr() {
        let (ui, seen) = Ui::captured(Personality::Pgherdctl, "n\n");
        assert!(!ui.confirm("Apply?").await.unwrap());
        assert_eq!((seen.stdout().as_str(), seen.stderr().as_str()), ("", "Apply? [y/N]: "));
    }
}
