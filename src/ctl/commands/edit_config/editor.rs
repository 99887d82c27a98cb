//! The editor's part: a temporary file, a program, and what is left in the file.

use std::io::Write;
use std::path::PathBuf;

use crate::ctl::{Context, CtlError};

/// What the editor left.
pub(super) struct Edited {
    text: String,
}

impl Edited {
    /// The text.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// Keeps the file, so that no work is lost, and says where it is. patronictl loses it.
    pub(super) fn keep(&self, context: &Context<'_>, error: CtlError) -> CtlError {
        if context.personality().is_patronictl() {
            return error;
        }
        let mut kept = tempfile::Builder::new();
        match kept
            .prefix("pgherdctl-edited-")
            .suffix(".yaml")
            .disable_cleanup(true)
            .tempfile()
            .and_then(|mut file| file.write_all(self.text.as_bytes()).map(|()| file))
        {
            Ok(file) => {
                let path = file.path().display().to_string();
                error.next(format!("your text is kept in {path}; correct it and use --replace {path}"))
            }
            Err(_) => error,
        }
    }
}

/// Lets the operator edit a text.
pub(super) async fn edit(context: &Context<'_>, cluster: &str, text: &str) -> Result<Edited, CtlError> {
    let (program, arguments) = editor(context)?;
    let failed = |what: &str, error: std::io::Error| CtlError::new(what.to_owned()).because(error);
    let mut builder = tempfile::Builder::new();
    let prefix = format!("{}-config-", cluster.replace('/', "_"));
    let mut file = builder
        .prefix(&prefix)
        .suffix(".yaml")
        .tempfile()
        .map_err(|error| failed("cannot create a temporary file", error))?;
    file.write_all(text.as_bytes()).map_err(|error| failed("cannot write the temporary file", error))?;
    let status = tokio::process::Command::new(&program)
        .args(&arguments)
        .arg(file.path())
        .status()
        .await
        .map_err(|error| failed(&format!("cannot run the editor {}", program.display()), error))?;
    if !status.success() {
        let code = status.code().map_or_else(|| status.to_string(), |code| code.to_string());
        return Err(CtlError::new(format!("Editor exited with return code {code}"))
            .in_better_words(format!("the editor {} ended with code {code}", program.display()))
            .next("nothing was changed"));
    }
    let text = std::fs::read_to_string(file.path()).map_err(|error| failed("cannot read the edited file", error))?;
    Ok(Edited { text })
}

/// `$EDITOR`, `editor` or `vi`. For patronictl `$EDITOR` is one path; for us it may have arguments.
fn editor(context: &Context<'_>) -> Result<(PathBuf, Vec<String>), CtlError> {
    let environment = |name: &str| context.environment.get(name).filter(|text| !text.trim().is_empty());
    if let Some(editor) = environment("EDITOR") {
        if context.personality().is_patronictl() {
            return Ok((PathBuf::from(editor), Vec::new()));
        }
        let mut words = editor.split_whitespace().map(str::to_owned);
        return Ok((PathBuf::from(words.next().unwrap_or_default()), words.collect()));
    }
    let found = ["editor", "vi"].into_iter().find_map(|name| context.program(name));
    found.map(|program| (program, Vec::new())).ok_or_else(|| {
        CtlError::new("EDITOR environment variable is not set. editor or vi are not available")
            .in_better_words("no editor was found")
            .next("set EDITOR, or change single values with -s and -p")
    })
}
