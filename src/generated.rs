//! Files made from the two command lines: shell completions and man pages. They are kept in the repository, and a
//! test holds them to this.

use clap::{Command, CommandFactory};
use clap_complete::Shell;

use crate::ctl::Personality;

/// Every generated file: path in the repository, content.
pub fn generated_files() -> Vec<(String, Vec<u8>)> {
    let agent = crate::agent::cli::Cli::command();
    let ctl = crate::ctl::Cli::clap(Personality::Pgherdctl);
    let mut files = Vec::new();
    for (name, command) in [("pgherd", agent), ("pgherdctl", ctl)] {
        files.extend(completions(name, &command));
        files.extend(man_pages(command));
    }
    files
}

fn completions(name: &str, command: &Command) -> Vec<(String, Vec<u8>)> {
    let shells = [
        (Shell::Bash, format!("{name}.bash")),
        (Shell::Zsh, format!("_{name}")),
        (Shell::Fish, format!("{name}.fish")),
    ];
    let script = |(shell, file): (Shell, String)| {
        let mut text = Vec::new();
        clap_complete::generate(shell, &mut command.clone(), name, &mut text);
        (format!("completions/{file}"), text)
    };
    shells.into_iter().map(script).collect()
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
