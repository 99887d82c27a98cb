//! Connection strings for programs, and the password file that keeps passwords out of them.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::cluster::Upstream;
use crate::config::Credentials;

use super::PgError;

/// Where to and as whom a program connects: what goes into its connection string, and the password apart.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ConnParams {
    /// Host or hosts, comma separated; `None` is the library's default socket.
    pub host: Option<String>,
    /// Port; 5432 when absent.
    pub port: Option<u16>,
    /// Database.
    pub dbname: Option<String>,
    /// User, password and the other keywords of that user.
    pub credentials: Credentials,
    /// More keywords, such as `target_session_attrs`.
    pub extra: Vec<(String, String)>,
}

impl ConnParams {
    /// The way to another server as one of our configured users. `database` is used when the server's own address
    /// names none.
    pub fn to(upstream: &Upstream, credentials: &Credentials, database: &str) -> Self {
        Self {
            host: upstream.host.clone(),
            port: upstream.port.or(Some(5432)),
            dbname: Some(upstream.database.clone().unwrap_or_else(|| database.to_owned())),
            credentials: credentials.clone(),
            extra: Vec::new(),
        }
    }

    /// The user; that of the operating system when none is configured, as libpq does it.
    pub fn user(&self) -> String {
        let own = || nix::unistd::User::from_uid(nix::unistd::geteuid()).ok().flatten().map(|user| user.name);
        let configured = self.credentials.username.clone().filter(|name| !name.is_empty());
        configured.or_else(own).unwrap_or_default()
    }

    /// `key=value …` for libpq, without the password; blanks, quotes and backslashes in values are escaped.
    pub fn text(&self) -> String {
        let port = self.port.map(|port| port.to_string());
        let first = [
            ("dbname", self.dbname.as_deref()),
            ("user", self.credentials.username.as_deref()),
            ("host", self.host.as_deref()),
            ("port", port.as_deref()),
        ];
        let first = first.into_iter().filter_map(|(name, value)| Some((name, value?)));
        let options = self.credentials.options.iter().chain(self.extra.iter().map(|(name, value)| (name, value)));
        let all = first.chain(options.map(|(name, value)| (name.as_str(), value.as_str())));
        all.map(|(name, value)| format!("{name}={}", escape_value(value))).collect::<Vec<_>>().join(" ")
    }

    /// The lines for the password file: one per host, and one for `localhost` when a socket is used, because that is
    /// the name libpq looks for then. Empty without a password.
    pub fn password_lines(&self) -> String {
        let Some(password) = &self.credentials.password else { return String::new() };
        let mut hosts: Vec<&str> = self.host.iter().flat_map(|hosts| hosts.split(',')).map(str::trim).collect();
        hosts.retain(|host| !host.is_empty());
        if hosts.is_empty() {
            hosts.push("*");
        }
        if hosts.iter().any(|host| host.starts_with('/')) && !hosts.contains(&"localhost") {
            hosts.push("localhost");
        }
        let port = self.port.map_or_else(|| "*".to_owned(), |port| port.to_string());
        let user = self.credentials.username.as_deref().filter(|user| !user.is_empty()).unwrap_or("*");
        let (user, password) = (escape_field(user), escape_field(password.reveal()));
        hosts.iter().map(|host| format!("{}:{port}:*:{user}:{password}\n", escape_field(host))).collect()
    }

    /// Writes the password file, readable by us alone. `None`: no password, nothing written, and no `PGPASSFILE` to
    /// set.
    pub fn write_pgpass(&self, path: &Path) -> Result<Option<String>, PgError> {
        let lines = self.password_lines();
        if lines.is_empty() {
            return Ok(None);
        }
        write_pgpass(path, &lines)?;
        Ok(Some(path.display().to_string()))
    }
}

/// A value in a libpq connection string.
pub fn escape_value(value: &str) -> String {
    if value.is_empty() {
        // Without quotes the next keyword would be taken as the value.
        return "''".to_owned();
    }
    let mut text = String::with_capacity(value.len());
    for c in value.chars() {
        if matches!(c, '\'' | '\\') || c.is_whitespace() {
            text.push('\\');
        }
        text.push(c);
    }
    text
}

fn escape_field(value: &str) -> String {
    value.replace('\\', "\\\\").replace(':', "\\:")
}

/// Puts the lines in place at once and with the right mode from the beginning: another program may be reading.
pub fn write_pgpass(path: &Path, lines: &str) -> Result<(), PgError> {
    let failed = |source| PgError::Io { path: path.display().to_string(), source };
    if path.exists() && !path.is_file() {
        return Err(PgError::Refused(format!(
            "{} exists and is not a regular file; give another path as postgresql.pgpass",
            path.display()
        )));
    }
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(directory).map_err(failed)?;
    let mut file = tempfile::Builder::new().prefix(".pgpass").tempfile_in(directory).map_err(failed)?;
    file.as_file().set_permissions(PermissionsExt::from_mode(0o600)).map_err(failed)?;
    file.write_all(lines.as_bytes()).map_err(failed)?;
    file.persist(path).map_err(|error| failed(error.error))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Secret;

    fn params() -> ConnParams {
        ConnParams {
            host: Some("h1,h2".to_owned()),
            port: Some(6432),
            dbname: Some("my db".to_owned()),
            credentials: Credentials {
                username: Some("o'neil".to_owned()),
                password: Some(Secret::new("a:b\\c")),
                options: [("sslmode".to_owned(), "require".to_owned())].into(),
            },
            extra: vec![("target_session_attrs".to_owned(), "read-write".to_owned())],
        }
    }

    #[test]
    fn strings_hold_no_password() {
        let expected =
            r"dbname=my\ db user=o\'neil host=h1,h2 port=6432 sslmode=require target_session_attrs=read-write";
        assert_eq!(params().text(), expected);
        let empty = ConnParams { dbname: Some(String::new()), ..ConnParams::default() };
        assert_eq!(empty.text(), "dbname=''");
    }

    #[test]
    fn one_line_per_host() {
        assert_eq!(params().password_lines(), "h1:6432:*:o'neil:a\\:b\\\\c\nh2:6432:*:o'neil:a\\:b\\\\c\n");
        let socket = ConnParams { host: Some("/tmp".to_owned()), port: None, ..params() };
        assert_eq!(socket.password_lines(), "/tmp:*:*:o'neil:a\\:b\\\\c\nlocalhost:*:*:o'neil:a\\:b\\\\c\n");
        assert_eq!(ConnParams::default().password_lines(), "");
    }

    #[test]
    fn the_file_is_ours_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("new/pgpass");
        assert_eq!(ConnParams::default().write_pgpass(&path).unwrap(), None);
        assert!(!path.exists());
        for _ in 0..2 {
            params().write_pgpass(&path).unwrap();
        }
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), params().password_lines());
        assert!(params().write_pgpass(directory.path()).is_err());
    }
}
