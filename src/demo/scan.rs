//! Which processes of a directory are running, by what `/proc` shows: it knows them also after a demo was killed.

use std::fs;
use std::path::{Path, PathBuf};

use super::place::{NAMES, Place};

/// What a process is to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A member's agent.
    Agent,
    /// The process that stops a server whose agent is gone.
    Guard,
    /// The embedded store.
    Store,
    /// The main process of a server.
    Postmaster,
    /// Another process of a server.
    Backend,
    /// A program an agent started: `initdb`, `pg_basebackup`, …
    Tool,
}

/// One process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    /// Its number.
    pub pid: i32,
    /// What it is.
    pub kind: Kind,
    /// The member, or `store`.
    pub owner: String,
}

impl Seen {
    /// Worth naming: not just the company of something else, which ends with it.
    pub(super) fn is_main(&self) -> bool {
        !matches!(self.kind, Kind::Backend | Kind::Guard)
    }

    /// `herd1's agent (pid 42)`.
    pub(super) fn words(&self) -> String {
        let Self { pid, kind, owner } = self;
        match kind {
            Kind::Store => format!("the store (pid {pid})"),
            Kind::Agent => format!("{owner}'s agent (pid {pid})"),
            Kind::Guard => format!("{owner}'s guard (pid {pid})"),
            Kind::Postmaster => format!("{owner}'s PostgreSQL (pid {pid})"),
            Kind::Backend => format!("a process of {owner}'s PostgreSQL (pid {pid})"),
            Kind::Tool => format!("a program of {owner}'s agent (pid {pid})"),
        }
    }
}

/// What is running in the directory, zombies left out.
pub(super) fn scan(place: &Place) -> Vec<Seen> {
    let own = i32::try_from(std::process::id()).ok();
    let pids = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| Some(*pid) != own).filter_map(|pid| look_at(place, pid)).collect()
}

fn look_at(place: &Place, pid: i32) -> Option<Seen> {
    let proc = PathBuf::from(format!("/proc/{pid}"));
    let line = fs::read(proc.join("cmdline")).ok()?;
    let args: Vec<String> =
        line.split(|byte| *byte == 0).map(|arg| String::from_utf8_lossy(arg).into_owned()).collect();
    let comm = fs::read_to_string(proc.join("comm")).ok()?;
    let cwd = fs::read_link(proc.join("cwd")).unwrap_or_default();
    if state(pid)? == 'Z' {
        return None;
    }
    let (kind, owner) = classify(place, comm.trim_end(), &args, &cwd)?;
    Some(Seen { pid, kind, owner: owner.to_owned() })
}

/// The state letter of a process: `T` stopped, `Z` ended but not collected; `None` when there is no such process.
pub(super) fn state(pid: i32) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.trim_start().chars().next()
}

/// Only our own programs and PostgreSQL's count: an editor or `tail -f` in the directory is the reader's.
fn classify(place: &Place, comm: &str, args: &[String], cwd: &Path) -> Option<(Kind, &'static str)> {
    let is_arg = |path: &Path| args.iter().skip(1).any(|arg| Path::new(arg) == path);
    if comm == "pgherd" {
        if args.get(1).is_some_and(|arg| arg == "dcs") && is_arg(&place.store()) {
            return Some((Kind::Store, "store"));
        }
        if args.get(1).is_some_and(|arg| arg == "guard") {
            return NAMES.into_iter().find(|name| is_arg(&place.data(name))).map(|name| (Kind::Guard, name));
        }
        return NAMES.into_iter().find(|name| is_arg(&place.config(name))).map(|name| (Kind::Agent, name));
    }
    let is_server = comm == "postgres" || comm == "postmaster";
    for name in NAMES {
        let data = place.data(name);
        if is_server && (is_arg(&data) || cwd.starts_with(&data)) {
            // A child of the postmaster shows what it does instead of a command line.
            let is_child = args.first().is_some_and(|arg| arg.starts_with("postgres: "));
            return Some((if is_child { Kind::Backend } else { Kind::Postmaster }, name));
        }
        let is_tool = comm == "initdb" || (comm.starts_with("pg_") && !comm.starts_with("pgherd"));
        let data = data.display().to_string();
        if is_tool && args.iter().skip(1).any(|arg| arg.split('=').any(|part| part == data)) {
            return Some((Kind::Tool, name));
        }
    }
    None
}

/// The postmaster of a data directory, if one is alive.
pub(super) fn postmaster(place: &Place, name: &str) -> Option<i32> {
    let text = fs::read_to_string(place.data(name).join("postmaster.pid")).ok()?;
    let pid = text.lines().next()?.trim().parse().ok()?;
    // The file outlives a killed server, and its number may be somebody else's by now.
    look_at(place, pid).filter(|seen| seen.kind == Kind::Postmaster && seen.owner == name).map(|seen| seen.pid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processes_are_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let place = Place::claim(dir.path()).unwrap();
        let at = |below: &str| place.dir().join(below).display().to_string();
        let check = |comm: &str, line: &[&str], cwd: &str| {
            let args: Vec<String> = line.iter().map(ToString::to_string).collect();
            classify(&place, comm, &args, Path::new(cwd))
        };
        let data = at("herd2/data");
        assert_eq!(check("pgherd", &["/x/pgherd", &at("herd3.yml")], "/"), Some((Kind::Agent, "herd3")));
        assert_eq!(check("pgherd", &["pgherd", "dcs", "--data-dir", &at("store")], "/"), Some((Kind::Store, "store")));
        assert_eq!(check("pgherd", &["pgherd", "guard", "--data-dir", &data], "/"), Some((Kind::Guard, "herd2")));
        assert_eq!(check("postgres", &["/pg/postgres", "-D", &data], &data), Some((Kind::Postmaster, "herd2")));
        assert_eq!(check("postgres", &["postgres: demo: walsender "], &data), Some((Kind::Backend, "herd2")));
        let clone = format!("--pgdata={data}");
        assert_eq!(check("pg_basebackup", &["pg_basebackup", &clone], "/"), Some((Kind::Tool, "herd2")));
        // None of these is ours to end.
        assert_eq!(check("tail", &["tail", "-f", &at("log/herd1.log")], &data), None);
        assert_eq!(check("pgherdctl", &["pgherdctl", "-c", &at("ctl.yml"), "list"], "/"), None);
        assert_eq!(check("psql", &["psql", &at("pgpass")], place.dir().to_str().unwrap()), None);
        assert_eq!(check("postgres", &["postgres", "-D", "/var/lib/postgresql/15/main"], "/var/lib"), None);
        assert_eq!(check("pgherd", &["pgherd", "demo", "--dir", place.dir().to_str().unwrap()], "/"), None);
    }

    #[test]
    fn states() {
        let own = i32::try_from(std::process::id()).unwrap();
        assert!(state(own).is_some_and(|state| state != 'Z'));
        assert_eq!(state(i32::MAX), None);
    }
}
