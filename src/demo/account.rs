//! From root to the user that PostgreSQL may run as.
//!
//! Root does as little as it can: it creates the directory and gives it away. Everything in it is made by the user
//! itself, our own programs included, so that nothing the user prepared there (a symbolic link, say) can make root
//! write elsewhere.

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, fchown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::fcntl::OFlag;
use nix::unistd::User;

use crate::agent::cli::DemoArgs;

use super::error::DemoError;
use super::place;

/// Writes what comes in to the program `$2` in the directory `$1`. A program that runs can be replaced, not rewritten.
const INSTALL: &str = r#"umask 022; mkdir -p "$1" && cat >"$1/.$2" && chmod 755 "$1/.$2" && mv -f "$1/.$2" "$1/$2""#;

/// Replaces this process by a demo of the other user, on the same terminal. Comes back only with the reason why not.
pub(super) fn go_on_as_user(args: &DemoArgs, dir: &Path) -> DemoError {
    match prepare(args, dir) {
        Ok(mut command) => {
            let error = command.exec();
            DemoError::new("cannot run setpriv, to change the user; install the package util-linux").because(error)
        }
        Err(error) => error,
    }
}

/// Someone who is not root cannot become somebody else.
pub(super) fn refuse_other(wanted: &str) -> Result<(), DemoError> {
    let own = User::from_uid(nix::unistd::geteuid()).ok().flatten().map(|user| user.name);
    if own.as_deref() == Some(wanted) {
        return Ok(());
    }
    let own = own.unwrap_or_else(|| "a user without a name".to_owned());
    Err(DemoError::new(format!("only root can run the demo as {wanted}, this is {own}; leave out --user, or use sudo")))
}

fn prepare(args: &DemoArgs, dir: &Path) -> Result<Command, DemoError> {
    let name = args.user.as_deref().unwrap_or("postgres");
    let user =
        User::from_name(name).map_err(|error| DemoError::new(format!("cannot look up {name}")).because(error))?;
    let user = user.ok_or_else(|| {
        DemoError::new(format!(
            "PostgreSQL must not run as root, and there is no user {name}; name another with --user"
        ))
    })?;
    if user.uid.is_root() {
        return Err(DemoError::new(format!("PostgreSQL refuses to run as {name}; name another user with --user")));
    }
    let dir = give(dir, &user)?;
    let own = std::env::current_exe().map_err(|error| DemoError::new("cannot find the own program").because(error))?;
    let bin = dir.join(place::PROGRAMS);
    install(&own, "pgherd", &bin, &user)?;
    let ctl = own.with_file_name("pgherdctl");
    if ctl.exists() {
        install(&ctl, "pgherdctl", &bin, &user)?;
    }
    let mut command = as_user(&user);
    command.arg(bin.join("pgherd")).arg("demo").arg("--dir").arg(&dir).current_dir(&dir);
    if let Some(bin_dir) = &args.bin_dir {
        let absolute = std::path::absolute(bin_dir).unwrap_or_else(|_| bin_dir.clone());
        command.arg("--bin-dir").arg(absolute);
    }
    command.args(args.fresh.then_some("--fresh")).args(args.script.then_some("--script"));
    // Not root's, which libpq would look into for certificates and could not read.
    command.env("HOME", &user.dir).env("USER", &user.name).env("LOGNAME", &user.name);
    Ok(command)
}

fn as_user(user: &User) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--reuid", &user.uid.to_string(), "--regid", &user.gid.to_string(), "--init-groups", "--"]);
    command
}

/// Creates the directory for the user, or checks that it is the user's. An empty one of root's is given away.
fn give(dir: &Path, user: &User) -> Result<PathBuf, DemoError> {
    let shown = dir.display();
    let failed = |what: &str, error: std::io::Error| {
        DemoError::new(format!("cannot {what} {shown}; choose another directory with --dir")).because(error)
    };
    fs::create_dir_all(dir).map_err(|error| failed("create", error))?;
    let dir = fs::canonicalize(dir).map_err(|error| failed("enter", error))?;
    let flags = (OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW).bits();
    let open = File::options().read(true).custom_flags(flags).open(&dir).map_err(|error| failed("open", error))?;
    let owner = open.metadata().map_err(|error| failed("look at", error))?.uid();
    if owner == user.uid.as_raw() {
        return Ok(dir);
    }
    place::refuse_foreign(&dir).map_err(|error| failed("read", error))??;
    if owner != 0 {
        let owner = User::from_uid(owner.into()).ok().flatten().map_or_else(|| owner.to_string(), |owner| owner.name);
        return Err(DemoError::new(format!(
            "{shown} belongs to {owner}, not to {}; run the demo with --user {owner}, or choose another --dir",
            user.name
        )));
    }
    fchown(&open, Some(user.uid.as_raw()), Some(user.gid.as_raw())).map_err(|error| failed("give away", error))?;
    Ok(dir)
}

/// Copies a program, read by root and written by the user: the checkout may be closed to the user.
fn install(program: &Path, name: &str, bin: &Path, user: &User) -> Result<(), DemoError> {
    let shown = program.display();
    let open = File::open(program).map_err(|error| DemoError::new(format!("cannot read {shown}")).because(error))?;
    let mut command = as_user(user);
    command.args(["sh", "-c", INSTALL, "sh"]).arg(bin).arg(name).current_dir("/").stdin(open).stdout(Stdio::null());
    let output = command.output();
    let output = output.map_err(|error| {
        DemoError::new("cannot run setpriv, to change the user; install the package util-linux").because(error)
    })?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(DemoError::new(format!(
        "user {} cannot write to {}: {said}; check that it may enter the directories above, or choose another --dir",
        user.name,
        bin.display()
    )))
}
