//! What to do about a member's refusal, by what it says. Pure.

/// The next step for the operator, where there is an obvious one.
pub fn next_step(status: u16, body: &str) -> Option<&'static str> {
    const BY_WORDS: [(&str, &str); 13] = [
        ("status unknown", "look at `list`: it may still be under way"),
        ("no good candidates", "see in `list` which members are running, and which of them have the tag nofailover"),
        ("does not match with sync_standby", "name the synchronous standby, or use failover to give up commits"),
        ("can not find sync_standby", "wait until `list` shows a synchronous standby"),
        ("leader name does not match", "the leader has changed meanwhile: look at `list` and try again"),
        ("only to a specific candidate", "name one with --candidate"),
        ("in the past", "give a moment to come, with its offset: 2030-01-31T04:00+01:00"),
        ("in the paused state", "resume the cluster first"),
        ("already in progress", "wait for it to end, or cancel it with --force where the command has it"),
        ("Cluster has no leader", "a leader is needed to clone from: look at `list`"),
        ("I am the leader", "switch over to another member first"),
        ("restart conditions", "its role, version or pending restart is not what was asked for"),
        ("already scheduled", "repeat with --force to replace it"),
    ];
    let by_words = BY_WORDS.iter().find(|(words, _)| contains(body, words)).map(|(_, next)| *next);
    by_words.or(match status {
        401 => Some("set ctl.authentication (or restapi.authentication) to the REST API's user name and password"),
        403 => Some("add this host to restapi.allowlist of the member, or run the command on a member"),
        409 => Some("somebody else changed it at the same moment: try again"),
        500.. => Some("the member's own log says more"),
        _ => None,
    })
}

fn contains(body: &str, words: &str) -> bool {
    body.to_lowercase().contains(&words.to_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_go_before_codes() {
        assert!(next_step(503, "Switchover status unknown").unwrap().contains("`list`"));
        assert!(next_step(503, "Switchover failed").unwrap().contains("log"));
        assert!(next_step(401, "no auth header received").unwrap().contains("ctl.authentication"));
        assert_eq!(next_step(404, "whatever"), None);
    }
}
