//! What a running server tells about itself.

use std::collections::BTreeMap;
use std::io::{BufRead, IsTerminal, Write};
use std::path::Path;

use nix::sys::termios::{LocalFlags, SetArg, tcgetattr, tcsetattr};
use serde_json::{Map, Value, json};

use crate::config::address::split_host_port;
use crate::config::generate::{FILL_IN, map_at};
use crate::config::overlay::Environment;
use crate::config::parameters::CONTROLLED;
use crate::config::{Credentials, Secret};
use crate::postgres::connection::{self, CONNECT_LIMIT, Failure, Session};
use crate::postgres::dsn;
use crate::postgres::pgpass::ConnParams;

/// Keywords of a connection that a user's section may hold, with libpq's variable and the first server version.
const KEYWORDS: [(&str, &str, u32); 12] = [
    ("user", "PGUSER", 0),
    ("password", "PGPASSWORD", 0),
    ("sslmode", "PGSSLMODE", 0),
    ("sslcert", "PGSSLCERT", 0),
    ("sslkey", "PGSSLKEY", 0),
    ("sslpassword", "", 130_000),
    ("sslrootcert", "PGSSLROOTCERT", 0),
    ("sslcrl", "PGSSLCRL", 0),
    ("sslcrldir", "PGSSLCRLDIR", 140_000),
    ("gssencmode", "PGGSSENCMODE", 120_000),
    ("channel_binding", "PGCHANNELBINDING", 130_000),
    ("sslnegotiation", "PGSSLNEGOTIATION", 170_000),
];

/// Parameters that stay with the member: commands, because who may change the cluster's configuration should not gain
/// a shell with it; and the places of files.
const LOCAL: [&str; 8] = [
    "archive_command",
    "restore_command",
    "archive_cleanup_command",
    "recovery_end_command",
    "ssl_passphrase_command",
    "hba_file",
    "ident_file",
    "config_file",
];

/// Parameters asked for whatever their source, beside the controlled ones.
const ALWAYS: [&str; 4] = ["hba_file", "ident_file", "config_file", "data_directory"];

/// What libpq takes when a connection string does not say.
const LIBPQ_DEFAULTS: [(&str, &str); 4] =
    [("sslmode", "prefer"), ("gssencmode", "prefer"), ("channel_binding", "prefer"), ("sslnegotiation", "postgres")];

/// Where the socket is when nobody says.
const SOCKETS: [&str; 2] = ["/var/run/postgresql", "/tmp"];

/// The template, filled in with what the server at `dsn` (or of libpq's variables) says.
pub(super) async fn document(
    template: Map<String, Value>,
    environment: &Environment,
    dsn: Option<&str>,
) -> Result<Map<String, Value>, String> {
    let mut document = template;
    let words = match dsn {
        Some(text) => dsn::parse(text).ok_or("Failed to parse DSN string: write `host=… port=… user=…` or a URI")?,
        None => BTreeMap::new(),
    };
    let mut way = Way { words, environment };
    if dsn.is_some() {
        // Patroni writes down what libpq would take anyway, so that it stays when libpq's defaults change.
        for (keyword, default) in LIBPQ_DEFAULTS {
            way.words.entry(keyword.to_owned()).or_insert_with(|| default.to_owned());
        }
    }
    let mut user = way.superuser(&document)?;
    let failed = |cause: &dyn std::fmt::Display| format!("Failed to establish PostgreSQL connection: {cause}");
    let session =
        connection::open(&way.params(&user)?, "pgherd", CONNECT_LIMIT).await.map_err(|failure| match failure {
            Failure::NotReady(text) | Failure::Refused(text) | Failure::Silent(text) => failed(&text),
        })?;
    let server = Server::ask(&session).await.map_err(|error| failed(&connection::describe(&error)))?;
    if !server.is_superuser {
        return Err("The provided user does not have superuser privilege".to_owned());
    }
    for (keyword, _, since) in KEYWORDS {
        if server.version < since {
            user.shift_remove(keyword);
        }
    }
    let authentication = json!({"superuser": user, "replication": {"username": FILL_IN, "password": FILL_IN}});
    map_at(&mut document, &["postgresql"]).insert("authentication".to_owned(), authentication);
    server.describe(&mut document, &way);
    take_files(&mut document, server.version)?;
    let data_dir = server.setting("data_directory").unwrap_or_default();
    let bin_dir = bin_dir(Path::new(data_dir))?;
    map_at(&mut document, &["postgresql"]).insert("bin_dir".to_owned(), json!(bin_dir));
    Ok(document)
}

/// How the server is reached.
struct Way<'a> {
    words: BTreeMap<String, String>,
    environment: &'a Environment,
}

impl Way<'_> {
    fn get(&self, keyword: &str, variable: &str) -> Option<String> {
        let found = self.words.get(keyword).or_else(|| self.environment.get(variable));
        found.filter(|text| !text.is_empty()).cloned()
    }

    /// The section of the superuser, by whom we connect. Asks for a password that is given nowhere.
    fn superuser(&self, document: &Map<String, Value>) -> Result<Map<String, Value>, String> {
        let given =
            KEYWORDS.into_iter().filter_map(|(keyword, variable, _)| Some((keyword, self.get(keyword, variable)?)));
        let mut user: Map<String, Value> = given.map(|(keyword, value)| (keyword.to_owned(), json!(value))).collect();
        let configured = |key: &str| {
            let users = document.get("postgresql")?.get("authentication")?;
            let variable = format!("PATRONI_SUPERUSER_{}", key.to_uppercase());
            users.get("superuser")?.get(key).filter(|_| self.environment.contains_key(&variable)).cloned()
        };
        let name = user.shift_remove("user").or_else(|| configured("username"));
        user.insert("username".to_owned(), name.unwrap_or_else(|| json!(ConnParams::default().user())));
        if let Some(password) = configured("password").filter(|_| !user.contains_key("password")) {
            user.insert("password".to_owned(), password);
        }
        if !user.contains_key("password") {
            let password = ask_password().map_err(|error| format!("the password cannot be read: {error}"))?;
            user.insert("password".to_owned(), json!(password));
        }
        Ok(user)
    }

    fn params(&self, user: &Map<String, Value>) -> Result<ConnParams, String> {
        let text = |key: &str| user.get(key).and_then(Value::as_str).map(str::to_owned);
        let port = self.get("port", "PGPORT").unwrap_or_else(|| "5432".to_owned());
        let port: u16 = port.parse().map_err(|_| format!("Failed to parse DSN string: '{port}' is no port"))?;
        let socket = || {
            let is_there = |dir: &&str| Path::new(dir).join(format!(".s.PGSQL.{port}")).exists();
            SOCKETS.into_iter().find(is_there).unwrap_or(SOCKETS[0]).to_owned()
        };
        let host = self.get("hostaddr", "PGHOSTADDR").or_else(|| self.get("host", "PGHOST")).unwrap_or_else(socket);
        let options = user.iter().filter(|(key, _)| !["username", "password"].contains(&key.as_str()));
        Ok(ConnParams {
            host: Some(host),
            port: Some(port),
            dbname: self.get("dbname", "PGDATABASE").or_else(|| text("username")),
            credentials: Credentials {
                username: text("username"),
                password: text("password").filter(|text| !text.is_empty()).map(Secret::new),
                options: options.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect(),
            },
            extra: Vec::new(),
        })
    }
}

/// What the server says.
struct Server {
    version: u32,
    is_superuser: bool,
    settings: Vec<(String, String)>,
}

impl Server {
    async fn ask(session: &Session) -> Result<Self, tokio_postgres::Error> {
        let query = "SELECT current_setting('server_version_num'), current_setting('is_superuser')";
        let row = session.query_one(query, &[]).await?;
        let (version, is_superuser): (String, String) = (row.try_get(0)?, row.try_get(1)?);
        let wanted: Vec<&str> = CONTROLLED.iter().map(|parameter| parameter.name).chain(ALWAYS).collect();
        // What an operator or an installer has set, without recovery targets, which belong to one recovery only.
        let query = "SELECT name, current_setting(name) FROM pg_settings WHERE name = ANY($1) OR (context <> 'internal' \
                     AND source IN ('configuration file', 'command line', 'environment variable') \
                     AND category <> 'Write-Ahead Log / Recovery Target' AND setting <> '(disabled)') ORDER BY name";
        let rows = session.query(query, &[&wanted]).await?;
        let settings = rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?)));
        Ok(Self {
            version: version.parse().unwrap_or(0),
            is_superuser: is_superuser == "on",
            settings: settings.collect::<Result<_, tokio_postgres::Error>>()?,
        })
    }

    fn setting(&self, name: &str) -> Option<&str> {
        self.settings.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    fn describe(&self, document: &mut Map<String, Value>, way: &Way<'_>) {
        for (name, value) in &self.settings {
            let value = json!(value);
            match name.as_str() {
                "listen_addresses" | "port" => {}
                "data_directory" => {
                    map_at(document, &["postgresql"]).insert("data_dir".to_owned(), value);
                }
                "cluster_name" if value != "" => {
                    document.insert("scope".to_owned(), value);
                }
                name if LOCAL.contains(&name) => {
                    map_at(document, &["postgresql", "parameters"]).insert(name.to_owned(), value);
                }
                name => {
                    let path = ["bootstrap", "dcs", "postgresql", "parameters"];
                    map_at(document, &path).insert(name.to_owned(), value);
                }
            }
        }
        let own_port = self.setting("port").unwrap_or("5432");
        let section = map_at(document, &["postgresql"]);
        let address = section.get("connect_address").and_then(Value::as_str).unwrap_or(FILL_IN);
        let host = split_host_port(address, 0).map_or_else(|| FILL_IN.to_owned(), |(host, _)| host);
        let port = way.get("port", "PGPORT").unwrap_or_else(|| own_port.to_owned());
        section.insert("connect_address".to_owned(), json!(format!("{host}:{port}")));
        let listen = format!("{}:{own_port}", self.setting("listen_addresses").unwrap_or_default());
        section.insert("listen".to_owned(), json!(listen));
    }
}

/// The lines of `pg_hba.conf` and `pg_ident.conf`, if they are in the data directory, where the agent may write them.
fn take_files(document: &mut Map<String, Value>, version: u32) -> Result<(), String> {
    let section = map_at(document, &["postgresql"]);
    let text = |value: Option<&Value>| value.and_then(Value::as_str).unwrap_or_default().to_owned();
    let data_dir = text(section.get("data_dir"));
    for (key, parameter, file) in [("pg_hba", "hba_file", "pg_hba.conf"), ("pg_ident", "ident_file", "pg_ident.conf")] {
        let path = Path::new(&data_dir).join(file);
        let configured = text(section.get("parameters").and_then(|parameters| parameters.get(parameter)));
        if Path::new(&configured) != path {
            continue;
        }
        let content = std::fs::read_to_string(&path).map_err(|error| format!("Failed to read {file}: {error}"))?;
        let lines = content.lines().map(str::trim);
        let lines: Vec<&str> = match key {
            "pg_hba" => lines.filter(|line| is_hba_line(line, version)).collect(),
            _ => lines.filter(|line| !line.is_empty() && !line.starts_with('#')).collect(),
        };
        if key == "pg_hba" || !lines.is_empty() {
            section.insert(key.to_owned(), json!(lines));
        }
    }
    Ok(())
}

fn is_hba_line(line: &str, version: u32) -> bool {
    match line.split_whitespace().next() {
        Some("local" | "host" | "hostssl" | "hostnossl" | "hostgssenc" | "hostnogssenc") => true,
        Some("include" | "include_if_exists" | "include_dir") => version >= 160_000,
        _ => false,
    }
}

/// Where the postmaster's program is.
fn bin_dir(data_dir: &Path) -> Result<String, String> {
    let text = std::fs::read_to_string(data_dir.join("postmaster.pid"))
        .map_err(|error| format!("Error while reading postmaster.pid file: {error}"))?;
    let pid: u32 = text
        .lines()
        .next()
        .and_then(|line| line.trim().parse().ok())
        .ok_or("Failed to obtain postmaster pid from postmaster.pid file")?;
    let program = std::fs::read_link(format!("/proc/{pid}/exe"));
    let program = program.map_err(|_| "Obtained postmaster pid doesn't exist.".to_owned())?;
    Ok(program.parent().unwrap_or(Path::new("")).display().to_string())
}

/// Reads a line that is not shown while it is typed.
fn ask_password() -> std::io::Result<String> {
    let mut line = String::new();
    eprint_now("Please enter the user password:")?;
    let input = std::io::stdin();
    if !input.is_terminal() {
        input.lock().read_line(&mut line)?;
        return Ok(line.trim_end_matches(['\r', '\n']).to_owned());
    }
    let before = tcgetattr(&input)?;
    let mut silent = before.clone();
    silent.local_flags.remove(LocalFlags::ECHO);
    tcsetattr(&input, SetArg::TCSAFLUSH, &silent)?;
    let read = input.lock().read_line(&mut line);
    tcsetattr(&input, SetArg::TCSAFLUSH, &before)?;
    eprint_now("\n")?;
    read?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

fn eprint_now(text: &str) -> std::io::Result<()> {
    let mut out = std::io::stderr().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}
