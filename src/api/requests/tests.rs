use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::api::fake::object;

/// 2026-11-20T00:00:00Z
const NOW_MS: i64 = 1_795_132_800_000;

fn words(answer: Answer) -> (u16, String) {
    (answer.status.as_u16(), answer.content().map(|(_, body)| body).unwrap_or_default())
}

fn restart_error(body: Value) -> (u16, String) {
    words(parse_restart(&object(body), NOW_MS).unwrap_err())
}

#[test]
fn restart_conditions() {
    let body = json!({"role": "replica", "postgres_version": "15.4", "timeout": "30s", "restart_pending": false});
    let RestartOrder::Now(request) = parse_restart(&object(body), NOW_MS).unwrap() else { panic!("scheduled") };
    assert_eq!(request.role.as_deref(), Some("replica"));
    assert_eq!(request.postgres_version.as_deref(), Some("15.4"));
    assert_eq!(request.timeout_seconds, Some(30));
    assert_eq!(request.restart_pending, Some(json!(false)));
    assert_eq!(parse_restart(&Map::new(), NOW_MS), Ok(RestartOrder::Now(RestartRequest::default())));
}

#[test]
fn a_scheduled_restart_is_published_as_it_was_asked_for() {
    let body = json!({"timeout": "30s", "schedule": "2035-01-01 00:00Z", "role": "replica", "restart_pending": true});
    let RestartOrder::Later(restart) = parse_restart(&object(body), NOW_MS).unwrap() else { panic!("immediate") };
    assert_eq!(restart.at_ms, 2_051_222_400_000);
    assert_eq!(
        serde_json::to_string(&restart.published).unwrap(),
        r#"{"timeout":30,"schedule":"2035-01-01T00:00:00+00:00","role":"replica","restart_pending":true}"#
    );
}

#[test]
fn wrong_restarts() {
    let unreadable = "Unable to parse scheduled timestamp. It should be in an unambiguous format, e.g. ISO 8601";
    let role = "PostgreSQL role should be either primary, standby_leader, or replica";
    let timeout = "Timeout should be a positive number of seconds";
    for (body, code, message) in [
        (json!({"schedule": "2035-01-01T00:00"}), 400, "Timezone information is mandatory for the scheduled restart"),
        (json!({"schedule": "2020-01-01T00:00Z"}), 422, "Cannot schedule restart in the past"),
        (json!({"schedule": "soon"}), 422, unreadable),
        (json!({"schedule": null}), 422, unreadable),
        (json!({"schedule": 5}), 422, unreadable),
        (json!({"role": "master"}), 400, role),
        (json!({"role": null}), 400, role),
        (json!({"postgres_version": "a.b"}), 400, "Invalid PostgreSQL version: a.b"),
        (json!({"postgres_version": 15}), 400, "Invalid PostgreSQL version: 15"),
        (json!({"postgres_version": "15"}), 400, "Invalid PostgreSQL version format: X.Y or X.Y.Z is accepted: 15"),
        (json!({"postgres_version": "9.6"}), 400, "Invalid PostgreSQL version format: X.Y or X.Y.Z is accepted: 9.6"),
        (json!({"timeout": 0}), 400, timeout),
        (json!({"timeout": "-5"}), 400, timeout),
        (json!({"timeout": true}), 400, timeout),
        (json!({"foo": 1, "role": "x"}), 400, "Unknown filter for the scheduled restart: foo"),
        (json!({"role": "x", "foo": 1}), 400, role),
    ] {
        assert_eq!(restart_error(body.clone()), (code, message.to_owned()), "{body}");
    }
}

#[test]
fn reinitialize_flags_are_read_leniently() {
    let read = |body| parse_reinitialize(&object(body));
    assert_eq!(read(json!({})), ReinitRequest::default());
    assert!(read(json!({"force": "yes"})).force);
    assert!(read(json!({"from_leader": 1})).from_leader);
    assert!(!read(json!({"from-leader": true, "force": "maybe"})).from_leader);
}

#[test]
fn wrong_handovers_in_order() {
    use Handover::{Failover, Switchover};
    let zone = "Timezone information is mandatory for the scheduled switchover";
    let paused_any = "Switchover is possible only to a specific candidate in a paused state";
    let same = "Switchover target and source are the same";
    let later = "2035-01-01T00:00Z";
    for (kind, paused, body, code, message) in [
        (Failover, false, json!({"leader": "a"}), 400, "Failover could be performed only to a specific candidate"),
        (
            Switchover,
            false,
            json!({"candidate": "a"}),
            400,
            "Switchover could be performed only from a specific leader",
        ),
        (Failover, true, json!({"candidate": "a", "scheduled_at": "x"}), 400, "Failover can't be scheduled"),
        (
            Switchover,
            true,
            json!({"leader": "a", "scheduled_at": "x"}),
            400,
            "Can't schedule switchover in the paused state",
        ),
        (Switchover, false, json!({"leader": "a", "scheduled_at": "2035-01-01"}), 400, zone),
        (
            Switchover,
            false,
            json!({"leader": "a", "scheduled_at": "2001-01-01Z"}),
            422,
            "Cannot schedule switchover in the past",
        ),
        (Switchover, true, json!({"leader": "a"}), 400, paused_any),
        (Switchover, false, json!({"leader": "a", "member": "a"}), 400, same),
        (Switchover, false, json!({"leader": "a", "candidate": "a", "scheduled_at": later}), 400, same),
    ] {
        let refused = parse_handover(kind, &object(body.clone()), paused, NOW_MS).unwrap_err();
        assert_eq!(words(refused), (code, message.to_owned()), "{body}");
    }
}

#[test]
fn handovers() {
    let read = |kind, body| parse_handover(kind, &object(body), false, NOW_MS).unwrap();
    let (kind, key) = read(Handover::Failover, json!({"leader": "a", "candidate": "b"}));
    assert_eq!((kind, key.leader, key.candidate), (Handover::Switchover, Some("a".into()), Some("b".into())));
    let (kind, key) = read(Handover::Failover, json!({"leader": null, "candidate": "", "member": "b"}));
    assert_eq!((kind, key.leader, key.candidate), (Handover::Failover, None, Some("b".into())));
    let (_, key) = read(Handover::Switchover, json!({"leader": "a", "scheduled_at": "2035-01-01T00:00+02"}));
    assert_eq!(key.scheduled_at.as_deref(), Some("2035-01-01T00:00:00+02:00"));
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (0..3i64).prop_map(Value::from),
        "[a1]".prop_map(Value::from)
    ];
    leaf.prop_recursive(3, 16, 3, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            proptest::collection::btree_map("[abc]", inner, 0..3)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn bodies_never_panic(body in any_json()) {
        let body = Map::from_iter([("schedule".to_owned(), body.clone()), ("timeout".to_owned(), body)]);
        let _ = parse_restart(&body, NOW_MS);
    }
}
