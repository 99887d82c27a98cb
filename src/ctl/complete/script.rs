//! The scripts that make a shell ask.

use clap_complete::Shell;

use crate::ctl::Personality;

use super::{BREAKS, FILES, SHELL};

const BASH: &str = include_str!("script.bash");
const ZSH: &str = include_str!("script.zsh");
const FISH: &str = include_str!("script.fish");

/// The script for a shell and a name of the program; none for other shells.
pub fn script(shell: Shell, personality: Personality) -> Option<String> {
    let template = match shell {
        Shell::Bash => BASH,
        Shell::Zsh => ZSH,
        Shell::Fish => FISH,
        _ => return None,
    };
    let text = template.replace("@BREAKS@", BREAKS).replace("@SHELL@", SHELL);
    Some(text.replace("@FILES@", &FILES.to_string()).replace("@NAME@", personality.program()))
}
