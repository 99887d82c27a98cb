//! `query`: SQL on a member.

use std::path::Path;

use crate::cluster::ClusterView;
use crate::ctl::commands::dsn::no_address;
use crate::ctl::commands::list::period;
use crate::ctl::documents::{QueryResults, StatementResult};
use crate::ctl::libpq::{self, Given};
use crate::ctl::render::{Format, ours, rows};
use crate::ctl::sql::{Answer, Session, Trouble};
use crate::ctl::targets::{self, RoleFilter};
use crate::ctl::{Context, CtlError, ErrorKind, Exit, pager};

/// Arguments of `query`.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct QueryArgs {
    /// Cluster; the configured scope by default
    #[arg(value_name = "CLUSTER_NAME")]
    pub cluster: Option<String>,
    /// Citus group
    #[arg(long, allow_negative_numbers = true)]
    pub group: Option<i64>,
    /// Output format (pretty, tsv, json, yaml)
    #[arg(long, value_name = "TEXT", hide_default_value = true, default_value = "tsv")]
    pub format: String,
    /// Execute the SQL commands from this file
    #[arg(short = 'f', long, value_name = "FILENAME")]
    pub file: Option<String>,
    /// Ask for the password
    #[arg(long)]
    pub password: bool,
    /// Database user
    #[arg(short = 'U', long, value_name = "TEXT")]
    pub username: Option<String>,
    /// Show again every 2 seconds
    #[arg(short = 'W')]
    pub every_two_seconds: bool,
    /// Show again every so many seconds
    #[arg(short = 'w', long, value_name = "SECONDS", allow_negative_numbers = true)]
    pub watch: Option<f64>,
    /// The role of the member to ask
    #[arg(short = 'r', long, value_enum)]
    pub role: Option<RoleFilter>,
    /// The member to ask
    #[arg(short = 'm', long, value_name = "NAME")]
    pub member: Option<String>,
    /// Between the columns of tsv, instead of a tab
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub delimiter: Option<String>,
    /// The SQL commands to execute
    #[arg(short = 'c', long, value_name = "TEXT", allow_hyphen_values = true)]
    pub command: Option<String>,
    /// Database
    #[arg(short = 'd', long, value_name = "TEXT")]
    pub dbname: Option<String>,
}

impl QueryArgs {
    /// What is wrong with the arguments, as patronictl says it.
    pub fn check(&self) -> Result<(), String> {
        let Some(file) = self.file.as_deref().filter(|file| *file != "-") else { return Ok(()) };
        match std::fs::File::open(Path::new(file)).and_then(|file| file.metadata()) {
            Ok(metadata) if metadata.is_dir() => {
                Err(format!("Invalid value for '--file' / '-f': '{file}': Is a directory"))
            }
            Ok(_) => Ok(()),
            Err(error) => {
                let why = error.to_string();
                let why = why.split(" (os error").next().unwrap_or_default();
                Err(format!("Invalid value for '--file' / '-f': '{file}': {why}"))
            }
        }
    }
}

/// Everything one round needs.
struct Job<'a> {
    context: &'a Context<'a>,
    args: &'a QueryArgs,
    cluster: &'a str,
    view: ClusterView,
    sql: String,
    given: Given,
}

/// Why a round has no answer.
enum Problem {
    /// There is nobody to ask.
    Nobody(String),
    /// PostgreSQL does not answer, or does not want to.
    Trouble(String, Trouble),
    /// The variables and files that say how to connect make no sense.
    Login(CtlError),
    /// It cannot even be tried.
    Error(CtlError),
}

/// Runs it.
pub async fn run(context: &Context<'_>, args: &QueryArgs) -> Result<Exit, CtlError> {
    let sql = statement(context, args).await?;
    let ours = !context.personality().is_patronictl();
    let password = if args.password { Some(context.ui.prompt_hidden("Password").await?) } else { None };
    let given = Given { user: args.username.clone(), password, database: args.dbname.clone() };
    let cluster = context.cluster_name(args.cluster.as_deref())?;
    let view = context.load(cluster, context.groups(args.group)).await?;
    if ours {
        context.check_known(cluster, &view)?;
    }
    let job = Job { context, args, cluster, view, sql, given };
    let Some(period) = period(args.every_two_seconds, args.watch) else { return round(&job).await };
    let _ = round(&job).await?;
    let mut next = tokio::time::Instant::now() + period;
    loop {
        tokio::time::sleep_until(next).await;
        match round(&job).await {
            Ok(_) => {}
            Err(error) if ours && matches!(error.kind, ErrorKind::End(_)) => {
                crate::ctl::report::report(context.ui, &error);
            }
            Err(error) => return Err(error),
        }
        next += period;
    }
}

async fn statement(context: &Context<'_>, args: &QueryArgs) -> Result<String, CtlError> {
    match (&args.command, &args.file) {
        (Some(_), Some(_)) => Err(CtlError::usage("--file and --command are mutually exclusive options")),
        (None, None) => Err(CtlError::usage("You need to specify either --command or --file")),
        (Some(command), None) => Ok(command.clone()),
        (None, Some(file)) if file == "-" => context.ui.read_all().await,
        (None, Some(file)) => {
            let failed = |error| CtlError::usage(format!("cannot read {file}")).because(error);
            std::fs::read_to_string(file).map_err(failed)
        }
    }
}

async fn round(job: &Job<'_>) -> Result<Exit, CtlError> {
    let result = ask(job).await;
    if job.context.personality().is_patronictl() { as_patronictl(job, result) } else { as_pgherdctl(job, result) }
}

/// Who was asked, and what was answered.
struct Told {
    member: String,
    answers: Vec<Answer>,
}

async fn ask(job: &Job<'_>) -> Result<Told, Problem> {
    let args = job.args;
    let found = targets::any_member(&job.view, args.role, args.member.as_deref()).map_err(Problem::Error)?;
    let nobody = || {
        Problem::Nobody(match (&args.member, args.role) {
            (Some(member), _) => format!("No connection to member {member} is available"),
            (None, Some(role)) => format!("No connection to role '{}' is available", role.as_str()),
            (None, None) => "No connection is available".to_owned(),
        })
    };
    let found = found.ok_or_else(nobody)?;
    let (host, port) = found.address.ok_or_else(|| Problem::Error(no_address(&found.name)))?;
    let login = libpq::login(&host, port, &job.given, job.context.environment).map_err(Problem::Login)?;
    if let Some(warning) = &login.warning {
        job.context.ui.warn(warning).map_err(Problem::Error)?;
    }
    let trouble = |trouble| Problem::Trouble(found.name.to_string(), trouble);
    let mut session = Session::open(&login).await.map_err(trouble)?;
    if let Some(wanted) = &login.session {
        session.check(wanted, &login).await.map_err(trouble)?;
    }
    // What the DCS says of a role may be old; a leader is a leader by the DCS alone.
    let in_recovery = match args.role {
        None | Some(RoleFilter::Any | RoleFilter::Leader) => None,
        Some(RoleFilter::Primary) => Some(false),
        Some(RoleFilter::Replica | RoleFilter::Standby | RoleFilter::StandbyLeader) => Some(true),
    };
    if let Some(wanted) = in_recovery
        && session.is_in_recovery().await.map_err(trouble)? != wanted
    {
        return Err(nobody());
    }
    let answers = session.run(&job.sql).await.map_err(trouble)?;
    Ok(Told { member: found.name.to_string(), answers })
}

/// Problems are rows without a header, and the exit code is 0 all the same.
fn as_patronictl(job: &Job<'_>, result: Result<Told, Problem>) -> Result<Exit, CtlError> {
    let failed = |what: &str| format!("ERROR, SQLSTATE: {what}");
    let no_records = |tag: &str| {
        let status =
            if tag.is_empty() { "result status: EMPTY_QUERY".to_owned() } else { format!("command status: {tag}") };
        failed(&format!("the last operation didn't produce records ({status})"))
    };
    let text = match result {
        Err(Problem::Error(error)) => return Err(error),
        Err(Problem::Login(error)) => failed(&format!("connection is bad: {}", said(&error))),
        Err(Problem::Nobody(text)) => text,
        Err(Problem::Trouble(_, trouble)) => failed(&trouble.as_patronictl()),
        Ok(told) => match told.answers.first() {
            None => no_records(""),
            Some(Answer::Command(tag)) => no_records(tag),
            Some(Answer::Copy) => failed("COPY cannot be used with this method; use copy() instead"),
            Some(Answer::Rows { columns, rows }) => match rows.iter().flatten().find_map(|value| value.refusal()) {
                Some(why) => failed(&why.replace('\n', " ")),
                None => return print(job, columns, rows),
            },
        },
    };
    let row = vec![rows::Value::Text(job.context.ui.now_text()), rows::Value::Text(text)];
    print(job, &[], &[row])
}

/// The innermost cause in one line.
fn said(error: &CtlError) -> String {
    error.causes().last().cloned().unwrap_or_else(|| error.to_string()).replace('\n', " ")
}

fn print(job: &Job<'_>, columns: &[String], values: &[Vec<rows::Value>]) -> Result<Exit, CtlError> {
    let delimiter = job.args.delimiter.as_deref().unwrap_or("\t");
    if let Some(text) = rows::as_patronictl(columns, values, &job.args.format, delimiter).map_err(CtlError::new)? {
        job.context.ui.data(&text)?;
    }
    Ok(Exit::Done)
}

fn as_pgherdctl(job: &Job<'_>, result: Result<Told, Problem>) -> Result<Exit, CtlError> {
    let Told { member, answers } = match result {
        Ok(told) => told,
        Err(Problem::Error(error) | Problem::Login(error)) => return Err(error),
        Err(Problem::Nobody(text)) => {
            let error = CtlError::new(text).in_better_words(format!("cluster {} has no such member", job.cluster));
            return Err(error.ending(Exit::NotFound).next(targets::advice(&job.view, job.args.member.as_deref())));
        }
        Err(Problem::Trouble(member, trouble)) => return Err(failed(&member, trouble)),
    };
    if answers.iter().any(|answer| matches!(answer, Answer::Copy)) {
        let error = CtlError::new("COPY from or to this program is not possible");
        return Err(error.next("use psql for it; `dsn` says where to"));
    }
    let format = Format::of(&job.args.format).unwrap_or(Format::Tsv);
    if format.is_document() {
        show(job, &ours::document(&document(job.cluster, member, &answers), format))?;
        return Ok(Exit::Done);
    }
    for answer in &answers {
        match answer {
            Answer::Copy => {}
            Answer::Command(tag) => job.context.ui.say(tag)?,
            Answer::Rows { .. } if format == Format::Name => {}
            Answer::Rows { columns, rows } => show(
                job,
                &match format {
                    Format::Pretty => rows::pretty(columns, rows),
                    _ => rows::tsv(columns, rows, job.args.delimiter.as_deref().unwrap_or("\t")),
                },
            )?,
        }
    }
    if format == Format::Name {
        job.context.ui.data(&member)?;
    }
    Ok(Exit::Done)
}

fn show(job: &Job<'_>, text: &str) -> Result<(), CtlError> {
    let is_watched = period(job.args.every_two_seconds, job.args.watch).is_some();
    if is_watched { job.context.ui.data(text) } else { pager::data(job.context, text) }
}

/// Every statement's answer in one document.
fn document(cluster: &str, member: String, answers: &[Answer]) -> QueryResults {
    let values = |row: &Vec<rows::Value>| row.iter().map(|value| value.json(false).unwrap_or_default()).collect();
    let without_rows =
        |tag: &str| StatementResult { command: Some(tag.to_owned()), columns: Vec::new(), rows: Vec::new() };
    let results = answers.iter().map(|answer| match answer {
        Answer::Rows { columns, rows } => {
            StatementResult { command: None, columns: columns.clone(), rows: rows.iter().map(values).collect() }
        }
        Answer::Command(tag) => without_rows(tag),
        Answer::Copy => without_rows("COPY"),
    });
    QueryResults { cluster: cluster.to_owned(), member, results: results.collect() }
}

fn failed(member: &str, trouble: Trouble) -> CtlError {
    match trouble {
        Trouble::Server(complaint) => {
            let (severity, message) = (&complaint.severity, &complaint.message);
            let text = format!("{member}: {severity}: {message} (SQLSTATE {})", complaint.code);
            let text = complaint.detail.iter().fold(text, |text, detail| format!("{text}\n  detail: {detail}"));
            let error = CtlError::new(text);
            match complaint.hint {
                Some(hint) => error.next(hint),
                None => error,
            }
        }
        Trouble::Connection { words, code } => {
            let is_denied = code.as_deref().is_some_and(|code| code.starts_with("28"));
            let words = match &code {
                Some(code) => format!("{words} (SQLSTATE {code})"),
                None => words,
            };
            let error = CtlError::new(format!("cannot connect to PostgreSQL of {member}")).because(words);
            if is_denied {
                return error.ending(Exit::Denied).next("check -U, -d, --password, PGPASSWORD, ~/.pgpass and pg_hba");
            }
            error.ending(Exit::Unreachable).next("see `list`, and whether its address can be reached from here")
        }
        Trouble::Lost(words) => {
            let error = CtlError::new(format!("the connection to {member} was lost")).because(words);
            error
                .ending(Exit::Unknown)
                .next("whether the statement was executed is not known; look before repeating it")
        }
    }
}
