//! `pgherd demo`: the embedded store and three members on this machine, in one directory.
//!
//! Nothing here is part of the cluster: the demo starts the same programs an operator would, with configuration files
//! that can be read, and looks at them from outside. What it must keep: whatever way it ends, no process of its
//! directory is left; and it removes nothing that it did not make.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use crate::agent::cli::DemoArgs;
use crate::io::tls;

mod account;
mod child;
mod error;
mod files;
mod herd;
mod leftovers;
mod live;
mod look;
mod place;
mod plan;
mod programs;
mod progress;
mod pulse;
mod scan;
mod stop;
mod tour;
mod voice;

pub use error::DemoError;

use herd::Herd;
use place::Place;
use plan::Plan;
use programs::Programs;
use stop::Stop;

/// Runs the demo. Started as root, it goes on as another user and does not come back unless that fails.
pub async fn run(args: &DemoArgs) -> Result<ExitCode, DemoError> {
    let programs = Programs::find(args.bin_dir.as_deref(), std::env::var_os("PATH").as_deref())?;
    let dir = directory(args)?;
    if nix::unistd::geteuid().is_root() {
        return Err(account::go_on_as_user(args, &dir));
    }
    if let Some(user) = &args.user {
        account::refuse_other(user)?;
    }
    let stop = Stop::listen()?;
    tls::install_provider();
    let place = Place::claim(&dir)?;
    for line in leftovers::end_all(&place, &stop).await {
        voice::note(&line);
    }
    if args.fresh {
        place.clear()?;
    }
    let plan = Plan::resume_or_make(&place, &programs)?;
    let is_resumed = plan.is_resumed;
    let mut herd = Herd::new(Arc::new(place), Arc::new(plan.plan)).await?;
    plan.notes.iter().for_each(|note| voice::note(note));

    let is_tour = args.script || !console::Term::stdout().is_term();
    let work = async {
        if is_tour { tour::run(&mut herd, &programs, is_resumed).await } else { live::run(&mut herd, is_resumed).await }
    };
    let outcome = tokio::select! {
        biased;
        () = stop.asked() => None,
        outcome = work => Some(outcome),
    };
    if outcome.is_none() {
        voice::note_below("stopping the replicas, then the leader; Ctrl-C again kills them");
    }
    let remarks = herd.stop(&stop).await;
    remarks.iter().for_each(|remark| voice::note(remark));
    ended(outcome, is_tour, &herd)
}

fn ended(outcome: Option<Result<(), DemoError>>, is_tour: bool, herd: &Herd) -> Result<ExitCode, DemoError> {
    let again =
        format!("everything is stopped; the same command resumes the cluster in {}", herd.place.dir().display());
    match outcome {
        Some(Err(error)) => Err(error),
        // Being interrupted is how the live view ends, but a tour that did not get to its end has proved nothing.
        None if is_tour => Err(DemoError::new("interrupted before the end of the tour; everything is stopped")),
        _ => {
            voice::note(&again);
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn directory(args: &DemoArgs) -> Result<PathBuf, DemoError> {
    let dir = match &args.dir {
        Some(dir) => dir.clone(),
        None if nix::unistd::geteuid().is_root() => PathBuf::from("/var/lib/pgherd-demo"),
        None => place::default_below(std::env::var_os("XDG_STATE_HOME"), std::env::var_os("HOME"))
            .ok_or_else(|| DemoError::new("neither XDG_STATE_HOME nor HOME is set; name a directory with --dir"))?,
    };
    std::path::absolute(&dir)
        .map_err(|error| DemoError::new(format!("{}: not a usable path", dir.display())).because(error))
}
