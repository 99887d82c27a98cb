//! The machine as a check of a configuration sees it: ports, servers, directories, programs.

use std::fs;
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::config::schema::{Found, Surroundings};
use crate::postgres::{site, version};

/// A server that has not answered by then counts as not reachable.
const CONNECT_LIMIT: Duration = Duration::from_secs(3);

/// This machine.
pub(super) struct Machine;

impl Surroundings for Machine {
    fn is_taken(&self, hosts: &[&str], port: u16) -> Result<bool, String> {
        let hosts: &[&str] = if hosts.contains(&"*") { &["0.0.0.0", "::"] } else { hosts };
        for host in hosts {
            if resolve(host.trim(), port)?.iter().any(answers) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn is_reachable(&self, host: &str, port: u16) -> Result<bool, String> {
        Ok(resolve(host, port)?.iter().any(answers))
    }

    fn look(&self, path: &str) -> Found {
        let Ok(metadata) = fs::metadata(path) else { return Found::Nothing };
        if !metadata.is_dir() {
            return Found::File;
        }
        let is_something = |name: &str| !name.starts_with('.') && name != "lost+found";
        let mut entries = fs::read_dir(path).into_iter().flatten().flatten();
        if entries.any(|entry| is_something(&entry.file_name().to_string_lossy())) {
            Found::Directory
        } else {
            Found::EmptyDirectory
        }
    }

    fn read(&self, path: &str) -> Option<String> {
        fs::read_to_string(path).ok()
    }

    fn has_program(&self, name: &str, dir: Option<&str>) -> bool {
        find_program(name, dir).is_some()
    }

    fn server_version(&self, program: &str, dir: Option<&str>) -> Option<String> {
        server_version(program, dir).ok().map(|found| version::show(version::major(found)))
    }
}

fn answers(address: &SocketAddr) -> bool {
    TcpStream::connect_timeout(address, CONNECT_LIMIT).is_ok()
}

fn resolve(host: &str, port: u16) -> Result<Vec<SocketAddr>, String> {
    let found = (host, port).to_socket_addrs().map_err(|error| format!("the name '{host}' is unknown: {error}"))?;
    Ok(found.collect())
}

/// An executable file, found as the agent would find it.
pub(super) fn find_program(name: &str, dir: Option<&str>) -> Option<PathBuf> {
    let is_executable =
        |path: &PathBuf| fs::metadata(path).is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0);
    match dir.filter(|dir| !dir.is_empty()) {
        Some(dir) => Some(Path::new(dir).join(name)).filter(is_executable),
        None => site::find_program(name).filter(is_executable),
    }
}

/// The version that the server program says it is.
pub(super) fn server_version(program: &str, dir: Option<&str>) -> Result<u32, String> {
    let place = dir.filter(|dir| !dir.is_empty()).unwrap_or("PATH");
    let path = find_program(program, dir).ok_or_else(|| {
        format!("Failed to get postgres version: there is no program '{program}' in {place}; set postgresql.bin_dir")
    })?;
    let said = Command::new(&path).arg("--version").stdin(Stdio::null()).output();
    let said = said.map_err(|error| format!("Failed to get postgres version: {}: {error}", path.display()))?;
    version::parse(&String::from_utf8_lossy(&said.stdout))
        .ok_or_else(|| format!("Failed to get postgres version: {} --version names none", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_in_use_are_seen() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        assert_eq!(Machine.is_taken(&["127.0.0.1"], port), Ok(true));
        assert_eq!(Machine.is_taken(&["*"], port), Ok(true));
        assert_eq!(Machine.is_reachable("localhost", port), Ok(true));
        drop(listener);
        assert_eq!(Machine.is_taken(&["127.0.0.1"], port), Ok(false));
        assert!(Machine.is_taken(&["no such host"], port).unwrap_err().contains("no such host"));
    }

    #[test]
    fn directories_are_empty_but_for_hidden_files() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name).display().to_string();
        assert_eq!(Machine.look(&path("none")), Found::Nothing);
        fs::create_dir(path("lost+found")).unwrap();
        fs::write(path(".hidden"), "").unwrap();
        assert_eq!(Machine.look(&path("")), Found::EmptyDirectory);
        fs::write(path("file"), "").unwrap();
        assert_eq!((Machine.look(&path("")), Machine.look(&path("file"))), (Found::Directory, Found::File));
    }

    #[test]
    fn a_program_must_be_executable() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().display().to_string();
        fs::write(dir.path().join("tool"), "").unwrap();
        assert!(!Machine.has_program("tool", Some(&place)));
        fs::set_permissions(dir.path().join("tool"), fs::Permissions::from_mode(0o755)).unwrap();
        assert!(Machine.has_program("tool", Some(&place)));
        assert!(server_version("postgres", Some(&place)).unwrap_err().contains("postgresql.bin_dir"));
    }
}
