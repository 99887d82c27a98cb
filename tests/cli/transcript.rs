//! Reading recorded runs of patronictl.

use std::path::Path;

/// One recorded run.
#[derive(Clone, Debug, Default)]
pub(crate) struct Run {
    /// File it stands in, without `.txt`.
    pub(crate) file: String,
    /// Line of the command.
    pub(crate) line: usize,
    /// How many `# state:` lines stand before it, less one.
    pub(crate) section: usize,
    /// The command as typed.
    pub(crate) command: String,
    /// Variables set for it.
    pub(crate) environment: Vec<(String, String)>,
    /// What was fed to its standard input.
    pub(crate) stdin: Option<String>,
    /// Standard output.
    pub(crate) stdout: String,
    /// Standard error.
    pub(crate) stderr: String,
    /// Exit code; none for a run that was killed.
    pub(crate) exit: Option<u8>,
    /// It ran on a terminal: stdout is then all that was seen, with the echo of what was typed.
    pub(crate) on_terminal: bool,
    /// What was typed.
    pub(crate) keys: Vec<String>,
    /// A signal was sent to it.
    pub(crate) was_interrupted: bool,
}

impl Run {
    /// The words of the command, quotes taken off; nothing when it is more than one plain call of patronictl.
    pub(crate) fn words(&self) -> Option<Vec<String>> {
        let words = split(&self.command)?;
        (words.first().map(String::as_str) == Some("patronictl")).then_some(words)
    }

    /// The command word.
    pub(crate) fn word(&self) -> Option<String> {
        let words = self.words()?;
        let mut words = words.into_iter().skip(1);
        while let Some(word) = words.next() {
            match word.as_str() {
                "-c" | "-d" | "--dcs" => {
                    words.next();
                }
                option if option.starts_with('-') => {}
                _ => return Some(word),
            }
        }
        None
    }

    /// What was seen on the terminal without the echo of what was typed.
    pub(crate) fn seen(&self) -> String {
        let mut text = self.stdout.clone();
        let mut from = 0;
        for key in &self.keys {
            let Some(prompt) = text[from..].find(&format!(": {key}")) else { continue };
            from += prompt + 2;
            text.replace_range(from..from + key.len(), "");
        }
        text
    }
}

/// Words as a shell splits them; nothing when there is an operator in it.
fn split(command: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    for c in command.chars() {
        match (quote, c) {
            (Some(q), c) if c == q => quote = None,
            (Some(_), c) => word.get_or_insert_default().push(c),
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, ' ') => words.extend(word.take()),
            (None, '|' | ';' | '>' | '<' | '$' | '&') => return None,
            (None, c) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    Some(words)
}

/// All runs of a file.
pub(crate) fn read(path: &Path) -> Vec<Run> {
    let text = std::fs::read_to_string(path).unwrap();
    let file = path.file_stem().unwrap().to_string_lossy().into_owned();
    let mut runs: Vec<Run> = Vec::new();
    let mut states = 0;
    let mut environment = Vec::new();
    let mut into = "";
    for (number, line) in text.lines().enumerate() {
        if let Some(command) = line.strip_prefix("$ ") {
            let environment = std::mem::take(&mut environment);
            let section = usize::saturating_sub(states, 1);
            let command = command.trim_end().to_owned();
            runs.push(Run { file: file.clone(), line: number + 1, section, command, environment, ..Run::default() });
            into = "";
        } else if line.starts_with("# state:") {
            states += 1;
            into = "";
        } else if let Some(pair) = line.strip_prefix("# env: ") {
            let (name, value) = pair.split_once('=').unwrap();
            environment.push((name.to_owned(), value.to_owned()));
            into = "";
        } else if let Some(run) = runs.last_mut() {
            into = read_line(run, line, into);
        }
    }
    runs
}

fn read_line<'a>(run: &mut Run, line: &'a str, into: &'a str) -> &'a str {
    match line {
        "[stdout]" | "[stderr]" => return line,
        "[pty]" => {
            run.on_terminal = true;
            return "[stdout]";
        }
        "[no newline at end]" => {
            let output = if into == "[stderr]" { &mut run.stderr } else { &mut run.stdout };
            output.pop();
            return into;
        }
        _ if line.starts_with("[note] SIGINT") => run.was_interrupted = true,
        _ if line.starts_with("[keys] ") => run.keys = serde_json::from_str(&line[7..]).unwrap(),
        _ if line.starts_with("[stdin] ") => run.stdin = Some(serde_json::from_str(&line[8..]).unwrap()),
        _ if line.starts_with("[exit] ") => run.exit = line[7..].parse().ok(),
        _ if into == "[stdout]" => {
            run.stdout.push_str(&format!("{line}\n"));
            return into;
        }
        _ if into == "[stderr]" => {
            run.stderr.push_str(&format!("{line}\n"));
            return into;
        }
        _ => {}
    }
    ""
}
