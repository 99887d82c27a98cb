//! The member value: what this node tells the others about itself, in the order in which it is written.

use serde_json::{Map, Value, json};

use crate::cluster::member::OURS;
use crate::cluster::{Lsn, Role, State};
use crate::{COMPATIBLE_VERSION, VERSION};

use super::memory::Memory;
use super::observation::Observation;

/// The value for `members/{us}`. The WAL part is left out while a long task other than a promotion runs, and when
/// the server did not answer.
pub(super) fn member_value(seen: &Observation, memory: &Memory) -> Map<String, Value> {
    let node = &seen.node;
    let state = seen.instance.state.unwrap_or(State::Stopped);
    let role = memory.role.unwrap_or(Role::Uninitialized);
    let mut value = Map::new();
    let mut put = |key: &str, entry: Value| {
        value.insert(key.to_owned(), entry);
    };
    put("conn_url", json!(node.conn_url));
    put("api_url", json!(node.api_url));
    put("state", json!(state.as_str()));
    put("role", json!(role.as_str()));
    put("version", json!(COMPATIBLE_VERSION));
    put(OURS, json!(VERSION));
    if let Some(url) = &node.proxy_url {
        put("proxy_url", json!(url));
    }
    if seen.leads() && !memory.is_checkpoint_done {
        put("checkpoint_after_promote", json!(false));
    }
    let mut tags = node.tags.published();
    if memory.yields_sync_since_ms.is_some() {
        // About to stop: no commit should wait for this standby any more.
        tags.0.insert("nosync".into(), json!(true));
        tags.0.insert("sync_priority".into(), json!(0));
    }
    if !tags.is_empty() {
        put("tags", Value::Object(tags.0));
    }
    if !seen.instance.pending_restart.is_empty() {
        put("pending_restart", json!(true));
        put("pending_restart_reason", json!(seen.instance.pending_restart));
    }
    wal_part(seen, state, &mut put);
    if let Some(restart) = &memory.scheduled_restart {
        let mut published = restart.published.clone();
        published.insert("postmaster_start_time".into(), json!(restart.postmaster_start_time));
        put("scheduled_restart", Value::Object(published));
    }
    if seen.settings.pause {
        put("pause", json!(true));
    }
    value
}

fn wal_part(seen: &Observation, state: State, put: &mut impl FnMut(&str, Value)) {
    use super::decision::Task;
    let busy = seen.task.as_ref().is_some_and(|task| !matches!(task.task, Task::Promote { .. }));
    let live = matches!(state, State::Running | State::Restarting | State::Starting);
    let Some(monitor) = seen.instance.monitor.as_ref().filter(|_| live && !busy) else { return };
    put("xlog_location", json!(monitor.position()));
    if monitor.in_recovery {
        for (key, lsn) in [("replay_lsn", monitor.replay_lsn), ("receive_lsn", monitor.receive_lsn)] {
            if lsn != Lsn::ZERO {
                put(key, json!(lsn));
            }
        }
        if let Some(replication_state) = monitor.replication_state() {
            put("replication_state", json!(replication_state));
        }
    }
    if let Some(timeline) = monitor.timeline {
        put("timeline", json!(timeline));
    }
}
