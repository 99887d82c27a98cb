//! SQL typed by a person: sent as it is, and everything that comes back.

use std::net::IpAddr;
use std::time::Duration;

use postgres_protocol::message::backend::{Message, RowDescriptionBody};
use postgres_protocol::message::frontend;
use tokio::time::timeout;
use tokio_postgres::fallible_iterator::FallibleIterator;

use crate::postgres::wire::{Complaint, Wire, WireError, columns};

use super::libpq::Login;
use super::render::psycopg::Value;

/// How long a connection may take.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);

/// What one statement gave.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// Rows.
    Rows {
        /// Names of the columns.
        columns: Vec<String>,
        /// Values.
        rows: Vec<Vec<Value>>,
    },
    /// No rows: the words of the finished command, such as `INSERT 0 1`.
    Command(String),
    /// Data in a stream, which cannot be shown here.
    Copy,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// No connection; in the words of PostgreSQL's own library.
    Connection {
        /// The words.
        words: String,
        /// SQLSTATE, if a server was reached.
        code: Option<String>,
    },
    /// The server does not do it.
    Server(Complaint),
    /// The connection broke.
    Lost(String),
}

impl Trouble {
    /// What patronictl shows: the SQLSTATE alone where there is one.
    pub fn as_patronictl(&self) -> String {
        match self {
            Self::Server(complaint) => complaint.code.clone(),
            Self::Connection { words, .. } => words.replace('\n', " "),
            Self::Lost(words) => words.replace('\n', " "),
        }
    }
}

/// A connection.
pub struct Session {
    wire: Wire,
}

impl Session {
    /// Connects within five seconds.
    pub async fn open(login: &Login) -> Result<Self, Trouble> {
        let place = place(login).await?;
        let parameters: Vec<(&str, &str)> =
            login.parameters.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let host = login.target.host.as_str();
        let mut last = Trouble::Lost(String::new());
        for encrypted in login.target.ways(host) {
            match timeout(CONNECT_LIMIT, Wire::connect(host, &login.target, *encrypted, &parameters)).await {
                Ok(Ok(wire)) => return Ok(Self { wire: wire.without_message_limit() }),
                Ok(Err(error)) => last = no_connection(&place, &error),
                Err(_) => {
                    return Err(Trouble::Connection { words: "connection timeout expired".to_owned(), code: None });
                }
            }
        }
        Err(last)
    }

    /// Sends the text as it is; it may hold several statements. What went well before an error is kept back, as the
    /// server has undone it.
    pub async fn run(&mut self, text: &str) -> Result<Vec<Answer>, Trouble> {
        let mut out = bytes::BytesMut::new();
        frontend::query(text, &mut out).map_err(|error| Trouble::Lost(error.to_string()))?;
        self.wire.send(&out).await.map_err(lost)?;
        let (mut answers, mut failure) = (Vec::new(), None);
        let (mut heads, mut rows) = (None, Vec::new());
        loop {
            let message = match (self.wire.next().await, failure.take()) {
                (Ok(message), earlier) => {
                    failure = earlier;
                    message
                }
                // The last words of a server that ends the session.
                (Err(_), Some(complaint)) => return Err(Trouble::Server(complaint)),
                (Err(error), None) => return Err(lost(error)),
            };
            match message {
                Message::RowDescription(body) => heads = Some(described(&body)?),
                Message::DataRow(body) => {
                    let texts = columns(&body).map_err(lost)?;
                    let zone = self.wire.zone().unwrap_or("UTC");
                    let oids = heads.iter().flatten().map(|(_, oid)| *oid);
                    rows.push(oids.zip(&texts).map(|(oid, text)| Value::read(oid, text.as_deref(), zone)).collect());
                }
                Message::CommandComplete(body) => {
                    let tag = body.tag().unwrap_or_default().to_owned();
                    answers.push(match heads.take() {
                        Some(heads) => {
                            let columns = heads.into_iter().map(|(name, _)| name).collect();
                            Answer::Rows { columns, rows: std::mem::take(&mut rows) }
                        }
                        None => Answer::Command(tag),
                    });
                }
                Message::EmptyQueryResponse => answers.push(Answer::Command(String::new())),
                Message::CopyOutResponse(_) => answers.push(Answer::Copy),
                Message::CopyInResponse(_) => {
                    answers.push(Answer::Copy);
                    let mut out = bytes::BytesMut::new();
                    frontend::copy_fail("there is nothing to copy from", &mut out)
                        .map_err(|error| Trouble::Lost(error.to_string()))?;
                    self.wire.send(&out).await.map_err(lost)?;
                }
                Message::ErrorResponse(body) => failure = failure.or(Some(Complaint::read(&body))),
                Message::ReadyForQuery(_) => {
                    return match failure {
                        Some(complaint) if answers.first() != Some(&Answer::Copy) => Err(Trouble::Server(complaint)),
                        _ => Ok(answers),
                    };
                }
                // The pieces of a copy.
                _ => {}
            }
        }
    }

    /// Checks that the server is what `target_session_attrs` wants.
    pub async fn check(&mut self, wanted: &str, login: &Login) -> Result<(), Trouble> {
        let is_standby = self.is_in_recovery().await?;
        let why = match wanted {
            "primary" if is_standby => "server is in hot standby mode",
            "standby" if !is_standby => "server is not in hot standby mode",
            "read-write" if is_standby || self.is_read_only().await? => "session is read-only",
            "read-only" if !is_standby && !self.is_read_only().await? => "session is not read-only",
            "primary" | "standby" | "read-write" | "read-only" | "prefer-standby" => return Ok(()),
            other => {
                let words = format!("connection is bad: invalid target_session_attrs value: \"{other}\"");
                return Err(Trouble::Connection { words, code: None });
            }
        };
        let place = place(login).await?;
        let words = format!("connection failed: connection to server at {place} failed: {why}");
        Err(Trouble::Connection { words, code: None })
    }

    async fn is_read_only(&mut self) -> Result<bool, Trouble> {
        let answers = self.run("SELECT pg_catalog.current_setting('default_transaction_read_only') = 'on'").await?;
        Ok(matches!(answers.first(), Some(Answer::Rows { rows, .. }) if rows == &[vec![Value::Bool(true)]]))
    }

    /// Whether the server is a standby.
    pub async fn is_in_recovery(&mut self) -> Result<bool, Trouble> {
        let answers = self.run("SELECT pg_catalog.pg_is_in_recovery()").await?;
        Ok(!matches!(answers.first(), Some(Answer::Rows { rows, .. }) if rows == &[vec![Value::Bool(false)]]))
    }
}

fn described(body: &RowDescriptionBody) -> Result<Vec<(String, u32)>, Trouble> {
    let mut heads = Vec::new();
    let mut fields = body.fields();
    while let Some(field) = fields.next().map_err(|error| Trouble::Lost(error.to_string()))? {
        heads.push((field.name().to_owned(), field.type_oid()));
    }
    Ok(heads)
}

fn lost(error: WireError) -> Trouble {
    Trouble::Lost(match error {
        WireError::Server(complaint) => return Trouble::Server(complaint),
        WireError::Broken(text) if text == "the server closed the connection" => {
            "consuming input failed: server closed the connection unexpectedly\n\tThis probably means the server \
             terminated abnormally\n\tbefore or while processing the request."
                .to_owned()
        }
        error => error.to_string(),
    })
}

/// `"127.0.0.1", port 5432`: the address that a name stands for.
async fn place(login: &Login) -> Result<String, Trouble> {
    let (host, port) = (login.host.as_str(), login.target.port);
    if host.parse::<IpAddr>().is_ok() {
        return Ok(format!("\"{host}\", port {port}"));
    }
    let found = timeout(CONNECT_LIMIT, tokio::net::lookup_host((login.target.host.as_str(), port))).await;
    match found.ok().and_then(Result::ok).and_then(|mut found| found.next()) {
        Some(address) => Ok(format!("\"{}\", port {port}", address.ip())),
        None => {
            let words = format!("failed to resolve host '{host}': [Errno -2] Name or service not known");
            Err(Trouble::Connection { words, code: None })
        }
    }
}

fn no_connection(place: &str, error: &WireError) -> Trouble {
    let (why, code) = match error {
        WireError::Server(complaint) => {
            let more = |name: &str, text: &Option<String>| {
                text.as_ref().map(|text| format!("\n{name}:  {text}")).unwrap_or_default()
            };
            let (detail, hint) = (more("DETAIL", &complaint.detail), more("HINT", &complaint.hint));
            let text = format!("{}:  {}{detail}{hint}", complaint.severity, complaint.message);
            (text, Some(complaint.code.clone()))
        }
        WireError::NoPassword(_) => ("fe_sendauth: no password supplied".to_owned(), Some("28P01".to_owned())),
        WireError::Unreachable(text) => match text.split_once(" (os error") {
            Some((text, _)) => {
                let question = "\n\tIs the server running on that host and accepting TCP/IP connections?";
                (format!("{text}{question}"), None)
            }
            None => (text.clone(), None),
        },
        WireError::Broken(text) => (text.clone(), None),
    };
    Trouble::Connection { words: format!("connection failed: connection to server at {place} failed: {why}"), code }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_the_library() {
        let complaint = Complaint {
            severity: "FATAL".to_owned(),
            code: "28000".to_owned(),
            message: "role \"peer\" does not exist".to_owned(),
            ..Complaint::default()
        };
        let trouble = no_connection("\"127.0.0.1\", port 22432", &WireError::Server(complaint.clone()));
        let expected = "connection failed: connection to server at \"127.0.0.1\", port 22432 failed: FATAL:  role \
                        \"peer\" does not exist";
        assert_eq!(trouble.as_patronictl(), expected);
        let refused =
            no_connection("\"h\", port 1", &WireError::Unreachable("Connection refused (os error 111)".into()));
        assert!(refused.as_patronictl().ends_with(
            "failed: Connection refused \tIs the server running on that host \
                                                   and accepting TCP/IP connections?"
        ));
        assert_eq!(Trouble::Server(complaint).as_patronictl(), "28000");
    }
}
