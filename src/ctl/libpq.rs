//! What PostgreSQL's own client library would add to a connection: the `PG*` variables, a section of the service file,
//! the password file, the certificates in the home directory.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::config::Secret;
use crate::postgres::tls::Tls;
use crate::postgres::wire::Target;

use super::error::CtlError;
use super::exit::Exit;

type Environment = BTreeMap<String, String>;

/// Variables and the keywords that they stand for.
const VARIABLES: [(&str, &str); 19] = [
    ("PGUSER", "user"),
    ("PGPASSWORD", "password"),
    ("PGPASSFILE", "passfile"),
    ("PGDATABASE", "dbname"),
    ("PGHOSTADDR", "hostaddr"),
    ("PGAPPNAME", "application_name"),
    ("PGOPTIONS", "options"),
    ("PGTZ", "timezone"),
    ("PGDATESTYLE", "datestyle"),
    ("PGGEQO", "geqo"),
    ("PGSSLMODE", "sslmode"),
    ("PGSSLCERT", "sslcert"),
    ("PGSSLKEY", "sslkey"),
    ("PGSSLROOTCERT", "sslrootcert"),
    ("PGSSLCRL", "sslcrl"),
    ("PGSSLCRLDIR", "sslcrldir"),
    ("PGCHANNELBINDING", "channel_binding"),
    ("PGREQUIREAUTH", "require_auth"),
    ("PGTARGETSESSIONATTRS", "target_session_attrs"),
];

/// Keywords that the server is told about.
const STARTUP: [&str; 4] = ["options", "timezone", "datestyle", "geqo"];

/// How to reach one database.
#[derive(Clone, Debug)]
pub struct Login {
    /// Server and user.
    pub target: Target,
    /// The server's name in messages; the target may hold its address.
    pub host: String,
    /// What the server is told at the beginning besides the user.
    pub parameters: Vec<(String, String)>,
    /// `target_session_attrs`: what the server has to be.
    pub session: Option<String>,
    /// Something to know about the password file.
    pub warning: Option<String>,
}

/// What was said on the command line.
#[derive(Clone, Debug, Default)]
pub struct Given {
    /// `--username`.
    pub user: Option<String>,
    /// The answer to the question for it.
    pub password: Option<String>,
    /// `--dbname`.
    pub database: Option<String>,
}

/// Puts together what the command line, the service file and the environment say, in this order.
pub fn login(host: &str, port: u16, given: &Given, environment: &Environment) -> Result<Login, CtlError> {
    let home = home(environment);
    let mut words: BTreeMap<String, String> = BTreeMap::new();
    let own = [("user", &given.user), ("password", &given.password), ("dbname", &given.database)];
    for (name, value) in own {
        words.extend(value.iter().filter(|value| !value.is_empty()).map(|value| (name.to_owned(), value.clone())));
    }
    for (name, value) in service(environment, home.as_deref())? {
        words.entry(name).or_insert(value);
    }
    for (variable, name) in VARIABLES {
        if let Some(value) = environment.get(variable).filter(|value| !value.is_empty()) {
            words.entry(name.to_owned()).or_insert_with(|| value.clone());
        }
    }
    let user = words.get("user").cloned().or_else(own_name).unwrap_or_default();
    let database = words.get("dbname").cloned().unwrap_or_else(|| user.clone());
    let (mut password, mut warning) = (words.get("password").cloned(), None);
    if password.is_none() {
        let file = words.get("passfile").map(PathBuf::from);
        if let Some(file) = file.or_else(|| home.as_ref().map(|home| home.join(".pgpass"))) {
            (password, warning) = from_password_file(&file, [host, &port.to_string(), &database, &user]);
        }
    }
    let tls = tls(&words, home.as_deref())?;
    check_demands(&words)?;
    let application = words.get("application_name").map_or("Patroni ctl", String::as_str).to_owned();
    let mut parameters = vec![("database".to_owned(), database), ("application_name".to_owned(), application)];
    let told = STARTUP.iter().filter_map(|name| Some(((*name).to_owned(), words.get(*name)?.clone())));
    parameters.extend(told);
    let address = words.get("hostaddr").cloned().unwrap_or_else(|| host.to_owned());
    let session = words.get("target_session_attrs").filter(|kind| *kind != "any").cloned();
    let target = Target { host: address, port, user, password: password.map(Secret::new), tls };
    Ok(Login { target, host: host.to_owned(), parameters, session, warning })
}

/// Whoever demands something that is not done here is not to be connected without it.
fn check_demands(words: &BTreeMap<String, String>) -> Result<(), CtlError> {
    const MODES: [&str; 6] = ["disable", "allow", "prefer", "require", "verify-ca", "verify-full"];
    let refuse = |text: String, step: &str| Err(CtlError::new(text).ending(Exit::Usage).next(step));
    let word = |name: &str| words.get(name).map(String::as_str);
    match (word("sslmode"), word("channel_binding"), word("require_auth")) {
        (Some(mode), ..) if !MODES.contains(&mode) => {
            refuse(format!("invalid sslmode value: \"{mode}\""), &format!("use one of {}", MODES.join(", ")))
        }
        (_, Some("require"), _) => {
            let text = "channel binding is required, which this program does not do";
            refuse(text.to_owned(), "take PGCHANNELBINDING away; PGSSLMODE=verify-full knows the server, too")
        }
        (.., Some(methods)) => {
            let text = format!("authentication by {methods} is required, and this program cannot be bound to a method");
            refuse(text, "take PGREQUIREAUTH away")
        }
        _ => Ok(()),
    }
}

fn own_name() -> Option<String> {
    nix::unistd::User::from_uid(nix::unistd::geteuid()).ok().flatten().map(|user| user.name)
}

fn home(environment: &Environment) -> Option<PathBuf> {
    let own = || nix::unistd::User::from_uid(nix::unistd::geteuid()).ok().flatten().map(|user| user.dir);
    environment.get("HOME").filter(|home| !home.is_empty()).map(PathBuf::from).or_else(own)
}

/// Certificates have their usual places in the home directory, if they are there.
fn tls(words: &BTreeMap<String, String>, home: Option<&Path>) -> Result<Tls, CtlError> {
    let mut options: BTreeMap<String, String> =
        words.iter().filter(|(name, _)| name.starts_with("ssl")).map(|(n, v)| (n.clone(), v.clone())).collect();
    let usual = |file: &str| {
        let path = home?.join(".postgresql").join(file);
        path.exists().then(|| path.display().to_string())
    };
    let mut add = |name: &str, file: &str| {
        if let (false, Some(path)) = (options.contains_key(name), usual(file)) {
            options.insert(name.to_owned(), path);
        }
    };
    add("sslrootcert", "root.crt");
    add("sslcrl", "root.crl");
    if usual("postgresql.key").is_some() || words.contains_key("sslkey") {
        add("sslcert", "postgresql.crt");
        add("sslkey", "postgresql.key");
    }
    Tls::from_options(&options).map_err(|error| {
        let error = CtlError::new("cannot connect to PostgreSQL").because(error).ending(Exit::Usage);
        error.next("correct PGSSLMODE and its companions, or the service file")
    })
}

/// The section of the service file that `PGSERVICE` names.
fn service(environment: &Environment, home: Option<&Path>) -> Result<BTreeMap<String, String>, CtlError> {
    let Some(name) = environment.get("PGSERVICE").filter(|name| !name.is_empty()) else { return Ok(BTreeMap::new()) };
    let named = environment.get("PGSERVICEFILE").map(PathBuf::from);
    let users = named.or_else(|| home.map(|home| home.join(".pg_service.conf")));
    let system = environment.get("PGSYSCONFDIR").map_or("/etc/postgresql-common", String::as_str);
    let files = users.into_iter().chain([Path::new(system).join("pg_service.conf")]);
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap_or_default();
        if let Some(found) = section(&text, name) {
            return Ok(found);
        }
    }
    let error = CtlError::new(format!("definition of service \"{name}\" not found")).ending(Exit::Usage);
    Err(error.next("see PGSERVICE, PGSERVICEFILE and ~/.pg_service.conf"))
}

fn section(text: &str, name: &str) -> Option<BTreeMap<String, String>> {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let mut found: Option<BTreeMap<String, String>> = None;
    for line in lines {
        let head = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        match (head, &mut found) {
            (Some(_), Some(_)) => break,
            (Some(head), None) if head == name => found = Some(BTreeMap::new()),
            (None, Some(found)) => {
                found.extend(line.split_once('=').map(|(n, v)| (n.trim().to_owned(), v.trim().to_owned())));
            }
            _ => {}
        }
    }
    found
}

/// The first line for this host, port, database and user. A file that others may read is not used.
fn from_password_file(path: &Path, wanted: [&str; 4]) -> (Option<String>, Option<String>) {
    let Ok(metadata) = std::fs::metadata(path) else { return (None, None) };
    let refuse = |why: &str| (None, Some(format!("password file {} is not used: {why}", path.display())));
    if !metadata.is_file() {
        return refuse("it is not a plain file");
    }
    if metadata.permissions().mode() & 0o077 != 0 {
        return refuse("others may read it; chmod 600 it");
    }
    let text = std::fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    (text.lines().find_map(|line| password(line, wanted)), None)
}

fn password(line: &str, wanted: [&str; 4]) -> Option<String> {
    if line.starts_with('#') {
        return None;
    }
    let mut fields = fields(line).into_iter();
    let fits = wanted.iter().all(|wanted| {
        fields.next().is_some_and(|(field, is_escaped)| (field == "*" && !is_escaped) || field == *wanted)
    });
    fields.next().map(|(password, _)| password).filter(|_| fits)
}

/// Fields between colons; a backslash takes the meaning from the next character. The fifth goes on to the end.
fn fields(line: &str) -> Vec<(String, bool)> {
    let mut fields = vec![(String::new(), false)];
    let mut characters = line.chars();
    while let Some(c) = characters.next() {
        let last = fields.len();
        let field = &mut fields[last - 1];
        match c {
            '\\' => {
                field.0.extend(characters.next());
                field.1 = true;
            }
            ':' if last < 5 => fields.push((String::new(), false)),
            c => field.0.push(c),
        }
    }
    fields
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(pairs: &[(&str, &str)]) -> Environment {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn logged_in(given: &Given, pairs: &[(&str, &str)]) -> Login {
        login("db1", 5433, given, &environment(pairs)).unwrap()
    }

    fn password_of(login: &Login) -> Option<&str> {
        login.target.password.as_ref().map(Secret::reveal)
    }

    #[test]
    fn the_command_line_comes_before_the_service_and_that_before_the_environment() {
        let directory = tempfile::tempdir().unwrap();
        let home = directory.path().to_str().unwrap();
        let services = "# ours\n[other]\nuser=no\n[demo]\nuser=from_service\ndbname = sales\nhost=elsewhere\n";
        std::fs::write(directory.path().join(".pg_service.conf"), services).unwrap();
        let pairs = [("HOME", home), ("PGSERVICE", "demo"), ("PGUSER", "from_env"), ("PGPASSWORD", "secret")];
        let login = logged_in(&Given::default(), &pairs);
        assert_eq!((login.target.user.as_str(), password_of(&login)), ("from_service", Some("secret")));
        assert_eq!(login.parameters[0].1, "sales");
        assert_eq!((login.target.host.as_str(), login.target.port), ("db1", 5433));
        let given = Given { user: Some("typed".to_owned()), ..Given::default() };
        assert_eq!(logged_in(&given, &pairs).target.user, "typed");
        let missing = super::login("db1", 1, &given, &environment(&[("HOME", home), ("PGSERVICE", "no")]));
        assert_eq!(missing.unwrap_err().to_string(), "definition of service \"no\" not found");
    }

    #[test]
    fn the_database_has_the_users_name() {
        let login = logged_in(&Given::default(), &[("HOME", "/nowhere"), ("PGUSER", "ann"), ("PGTZ", "UTC")]);
        assert_eq!(login.parameters[0], ("database".to_owned(), "ann".to_owned()));
        assert!(login.parameters.contains(&("timezone".to_owned(), "UTC".to_owned())));
    }

    #[test]
    fn the_password_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(".pgpass");
        let lines = "# comment\ndb2:*:*:*:wrong\ndb1:5433:sales:ann:first\n*:*:*:o\\:neil:a\\:b:c\\\\\n";
        std::fs::write(&path, lines).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
        let home = directory.path().to_str().unwrap();
        let given =
            |user: &str| Given { user: Some(user.to_owned()), database: Some("sales".to_owned()), ..Given::default() };
        let login = logged_in(&given("ann"), &[("HOME", home)]);
        assert_eq!(password_of(&login), Some("first"));
        assert_eq!(password_of(&logged_in(&given("o:neil"), &[("HOME", home)])), Some("a:b:c\\"));
        assert_eq!(password_of(&logged_in(&given("bob"), &[("HOME", home)])), None);
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).unwrap();
        let login = logged_in(&given("ann"), &[("HOME", home)]);
        assert_eq!(password_of(&login), None);
        assert!(login.warning.unwrap().contains("others may read it"));
    }
}
