//! Reads the recorded runs of Patroni's tool, and makes a cluster out of the member table that a run shows.

use pgherd::dcs::memory::MemoryStore;
use serde_json::{Map, Value, json};

/// One recorded run.
#[derive(Clone, Debug)]
pub(crate) struct Run {
    /// Number within the file, from 1.
    pub(crate) number: usize,
    /// The arguments after the program's name, without `-c FILE`.
    pub(crate) args: Vec<String>,
    /// The configuration file it was given.
    pub(crate) config: String,
    /// What was piped in.
    pub(crate) stdin: String,
    /// What was typed, for a run on a terminal: stdout and stderr are one there, and what was typed is echoed.
    pub(crate) keys: Option<Vec<String>>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    /// The exit code; `None` for a run that had to be killed.
    pub(crate) exit: Option<i32>,
    /// The `failover` key afterwards, where it was recorded.
    pub(crate) failover: Option<String>,
}

impl Run {
    /// Everything that was fed to the program.
    pub(crate) fn input(&self) -> String {
        self.keys.as_ref().map_or_else(|| self.stdin.clone(), |keys| keys.concat())
    }

    /// All output in order, without the echo of what was typed.
    pub(crate) fn output(&self) -> String {
        let mut text = format!("{}{}", self.stdout, self.stderr);
        let mut from = 0;
        for key in self.keys.iter().flatten() {
            let prompt = text[from..].find(&format!("]: {key}")).expect("the echo of what was typed");
            from += prompt + "]: ".len();
            text.replace_range(from..from + key.len(), "");
        }
        text
    }
}

/// Cuts a file into its runs.
pub(crate) fn runs(text: &str) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    let mut section = "";
    for line in text.lines() {
        if let Some(command) = line.strip_prefix("$ patronictl") {
            let mut args = words(command);
            let config = if args.first().is_some_and(|arg| arg == "-c") {
                args.drain(..2).nth(1).unwrap()
            } else {
                String::new()
            };
            let number = runs.len() + 1;
            let (stdin, stdout, stderr) = (String::new(), String::new(), String::new());
            runs.push(Run { number, args, config, stdin, keys: None, stdout, stderr, exit: None, failover: None });
            section = "";
            continue;
        }
        let Some(run) = runs.last_mut() else { continue };
        if let Some(keys) = line.strip_prefix("[keys] ") {
            run.keys = Some(serde_json::from_str(keys).unwrap());
        } else if let Some(text) = line.strip_prefix("[stdin] ") {
            run.stdin = serde_json::from_str(text).unwrap();
        } else if let Some(keys) = line.strip_prefix("# failover key now: ") {
            run.failover = serde_json::from_str::<Vec<String>>(keys).unwrap().pop();
        } else if let Some(code) = line.strip_prefix("[exit] ") {
            run.exit = code.parse().ok();
            section = "end";
        } else if ["[stdout]", "[stderr]", "[pty]"].contains(&line) {
            section = if line == "[stderr]" { "stderr" } else { "stdout" };
        } else if line == "[no newline at end]" {
            let text = if section == "stderr" { &mut run.stderr } else { &mut run.stdout };
            text.pop();
        } else if section == "stdout" {
            run.stdout.push_str(line);
            run.stdout.push('\n');
        } else if section == "stderr" {
            run.stderr.push_str(line);
            run.stderr.push('\n');
        }
    }
    runs
}

/// Splits a shell command as far as the recordings need it: blanks, single and double quotes.
fn words(command: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    for c in command.chars() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, ' ') => words.extend(word.take()),
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

/// The member tables in a text, each with its footer.
pub(crate) fn tables(text: &str) -> Vec<Vec<&str>> {
    let mut tables: Vec<Vec<&str>> = Vec::new();
    for line in text.lines() {
        let is_footer =
            line.starts_with(" Maintenance") || line.starts_with(" Switchover") || line.starts_with("      ");
        if line.starts_with("+ Cluster: ") {
            tables.push(vec![line]);
        } else if let (true, Some(table)) = (line.starts_with(['+', '|']) || is_footer, tables.last_mut()) {
            table.push(line);
        }
    }
    tables
}

/// Puts the cluster that a table shows into a store. `api` gives the address of a member's REST API.
pub(crate) fn fill(store: &MemoryStore, scope: &str, table: &[&str], api: impl Fn(&str) -> String) {
    let put = |key: &str, value: String| store.put(&format!("/service/{scope}/{key}"), value);
    let mut config = json!({"ttl": 20, "loop_wait": 2, "retry_timeout": 3});
    let mut failover = Map::new();
    let mut members: Vec<Row> = Vec::new();
    let mut header = Vec::new();
    for line in table {
        if let Some(title) = line.strip_prefix("+ Cluster: ") {
            let id = title.split_once(" (").unwrap().1.split_once(')').unwrap().0;
            if id == "uninitialized" {
                return;
            }
            put("initialize", id.to_owned());
        } else if line.starts_with('|') {
            let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
            if header.is_empty() {
                header = cells;
            } else {
                read_row(&mut members, &header, &cells);
            }
        } else if line.starts_with(" Maintenance mode") {
            config["pause"] = Value::Bool(true);
        } else if let Some((word, value)) = line.split_once(": ") {
            let key = match word.trim() {
                "Switchover scheduled at" => "scheduled_at",
                "from" => "leader",
                "to" => "member",
                other => panic!("unknown footer {other}"),
            };
            failover.insert(key.to_owned(), value.into());
        }
    }
    for row in &mut members {
        row.data.insert("api_url".to_owned(), api(&row.name).into());
        put(&format!("members/{}", row.name), Value::Object(row.data.clone()).to_string());
    }
    match members.iter().find(|row| row.is_leader) {
        Some(leader) => put("leader", leader.name.clone()),
        None => store.delete(&format!("/service/{scope}/leader")),
    }
    if let Some(sync) = members.iter().find(|row| row.is_sync) {
        let leader = members.iter().find(|row| row.is_leader).map(|row| row.name.clone());
        config["synchronous_mode"] = Value::Bool(true);
        put("sync", json!({"leader": leader, "sync_standby": sync.name, "quorum": 0}).to_string());
    }
    if members.iter().any(|row| row.data["role"] == "standby_leader") {
        config["standby_cluster"] = json!({"restore_command": "/bin/false"});
    }
    put("config", config.to_string());
    put("status", json!({"optime": members.iter().map(|row| row.leader_at).max()}).to_string());
    if !failover.is_empty() {
        put("failover", Value::Object(failover).to_string());
    }
}

/// One line of a member table.
struct Row {
    name: String,
    is_leader: bool,
    is_sync: bool,
    /// Where the leader must be for the lags to be what they are.
    leader_at: u64,
    data: Map<String, Value>,
}

fn read_row(members: &mut Vec<Row>, header: &[&str], cells: &[&str]) {
    let cell = |name: &str| header.iter().position(|title| *title == name).map_or("", |at| cells[at]);
    if cell("Member").is_empty() {
        add_tag(members.last_mut().unwrap(), cell("Tags"));
        return;
    }
    let is_standby = cell("Role") == "Standby Leader";
    let is_leader = is_standby || cell("Role") == "Leader";
    let mut data = Map::new();
    let mut put = |key: &str, value: Value| drop(data.insert(key.to_owned(), value));
    put("conn_url", format!("postgres://{}/postgres", cell("Host")).into());
    let replicates = ["streaming", "in archive recovery"].contains(&cell("State"));
    let state = if replicates { "running" } else { cell("State") };
    put("state", state.into());
    let role = match (is_standby, is_leader) {
        (true, _) => "standby_leader",
        (_, true) => "primary",
        _ => "replica",
    };
    put("role", role.into());
    put("version", "4.1.5".into());
    if state != cell("State") {
        put("replication_state", cell("State").into());
    }
    if let Ok(timeline) = cell("TL").parse::<u32>() {
        put("timeline", timeline.into());
    }
    let mut leader_at = 0;
    for (at, title) in header.iter().enumerate() {
        let key = match *title {
            "Receive LSN" => "receive_lsn",
            "Replay LSN" => "replay_lsn",
            _ => continue,
        };
        let Some((high, low)) = cells[at].split_once('/') else { continue };
        let hex = |text: &str| u64::from_str_radix(text, 16).unwrap();
        let position = (hex(high) << 32) + hex(low);
        put(key, position.into());
        leader_at = leader_at.max(position + cells[at + 1].parse::<u64>().unwrap_or(0) * 1_048_576);
    }
    if cell("Pending restart") == "*" {
        put("pending_restart", true.into());
        let (name, values) = cell("Pending restart reason").split_once(": ").unwrap();
        let (old, new) = values.split_once("->").unwrap();
        put("pending_restart_reason", json!({name: {"old_value": old, "new_value": new}}));
    }
    match cell("Scheduled restart").split_once(" if version < ") {
        Some((schedule, version)) => {
            put("scheduled_restart", json!({"schedule": schedule, "postgres_version": version}));
        }
        None if !cell("Scheduled restart").is_empty() => {
            put("scheduled_restart", json!({"schedule": cell("Scheduled restart")}));
        }
        None => {}
    }
    let is_sync = cell("Role") == "Sync Standby";
    members.push(Row { name: cell("Member").to_owned(), is_leader, is_sync, leader_at, data });
    add_tag(members.last_mut().unwrap(), cell("Tags"));
}

fn add_tag(row: &mut Row, text: &str) {
    let Some((name, value)) = text.split_once(": ") else { return };
    let tags = row.data.entry("tags").or_insert_with(|| json!({}));
    tags[name] = match value {
        "true" => true.into(),
        "false" => false.into(),
        other => other.parse::<i64>().map_or_else(|_| other.into(), Value::from),
    };
}
