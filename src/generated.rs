//! Files made from the two command lines: shell completions and man pages. They are kept in the repository, and a
//! test holds them to this.

use clap::{Command, CommandFactory};
use clap_complete::Shell;

use crate::ctl::{Personality, complete};

/// Every generated file: path in the repository, content.
pub fn generated_files() -> Vec<(String, Vec<u8>)> {
    let agent = crate::agent::cli::Cli::command();
    let ctl = crate::ctl::Cli::clap(Personality::Pgherdctl);
    let mut files = completions("pgherd", &agent);
    files.extend([Personality::Pgherdctl, Personality::Patronictl].into_iter().flat_map(asking));
    files.extend(man_pages(agent));
    files.extend(man_pages(ctl));
    files
}

const SHELLS: [Shell; 3] = [Shell::Bash, Shell::Zsh, Shell::Fish];

fn path(shell: Shell, name: &str) -> String {
    match shell {
        Shell::Zsh => format!("completions/_{name}"),
        shell => format!("completions/{name}.{shell}"),
    }
}

/// The CLI's scripts ask the program itself, which has names of clusters and members too.
fn asking(personality: Personality) -> Vec<(String, Vec<u8>)> {
    let file = |shell| Some((path(shell, personality.program()), complete::script(shell, personality)?.into_bytes()));
    SHELLS.into_iter().filter_map(file).collect()
}

fn completions(name: &str, command: &Command) -> Vec<(String, Vec<u8>)> {
    let script = |shell| {
        let mut text = Vec::new();
        clap_complete::generate(shell, &mut command.clone(), name, &mut text);
        (path(shell, name), text)
    };
    SHELLS.into_iter().map(script).collect()
}

/// One page for the program and one for each of its commands.
fn man_pages(command: Command) -> Vec<(String, Vec<u8>)> {
    let mut command = command.version(crate::VERSION);
    command.build();
    let page = |command: &Command| {
        let command = command.clone().version(crate::VERSION);
        let name = command.get_display_name().unwrap_or_else(|| command.get_name()).to_owned();
        let mut text = Vec::new();
        clap_mangen::Man::new(command).render(&mut text).expect("writing to memory cannot fail");
        (format!("man/{name}.1"), text)
    };
    let visible = command.get_subcommands().filter(|sub| !sub.is_hide_set() && sub.get_name() != "help");
    std::iter::once(&command).chain(visible).map(page).collect()
}
