//! Documents as operators store them.

use super::*;
use proptest::prelude::*;
use serde_json::json;

fn read(document: Value) -> (Dynamic, Vec<String>) {
    let (settings, findings) = Dynamic::from_document(document.as_object().unwrap());
    (settings, findings.into_iter().map(|finding| finding.message).collect())
}

fn timing_of(document: Value) -> ([u64; 3], Vec<String>) {
    let before = Dynamic { limits: Limits::Patroni, ..Dynamic::default() };
    let (settings, findings) = before.after(document.as_object().unwrap());
    let findings = findings.into_iter().map(|finding| finding.message).collect();
    ([settings.ttl, settings.loop_wait, settings.retry_timeout].map(|duration| duration.as_secs()), findings)
}

#[test]
fn an_empty_document_is_all_defaults() {
    assert_eq!(read(json!({})), (Dynamic::default(), vec![]));
}

#[test]
fn timing_is_brought_into_bounds() {
    let (timing, findings) = timing_of(json!({"ttl": 10, "loop_wait": 0, "retry_timeout": "1"}));
    assert_eq!(timing, [20, 1, 3]);
    assert_eq!(
        findings,
        [
            "loop_wait=0 can't be smaller than 1, adjusting...",
            "retry_timeout=1 can't be smaller than 3, adjusting...",
            "ttl=10 can't be smaller than 20, adjusting...",
        ]
    );
}

#[test]
fn timing_goes_further_down_when_every_member_is_ours() {
    let fast = json!({"ttl": 5, "loop_wait": 1, "retry_timeout": 1});
    let (ours, findings) = read(fast.clone());
    assert_eq!([ours.ttl, ours.loop_wait, ours.retry_timeout].map(|duration| duration.as_secs()), [5, 1, 1]);
    assert_eq!(findings, [""; 0]);
    assert!(ours.is_timing_limited());
    assert_eq!(timing_of(fast).0, [20, 1, 3]);
    let (slow, _) = read(json!({"ttl": 20, "loop_wait": 1, "retry_timeout": 3}));
    assert!(!slow.is_timing_limited());
    let (least, findings) = read(json!({"ttl": 1, "loop_wait": 0, "retry_timeout": 0}));
    assert_eq!([least.ttl, least.loop_wait, least.retry_timeout].map(|duration| duration.as_secs()), [5, 1, 1]);
    assert_eq!(findings.len(), 3);
}

#[test]
fn timing_is_brought_into_proportion() {
    let (timing, findings) = timing_of(json!({"ttl": 20}));
    assert_eq!(timing, [20, 1, 9]);
    assert_eq!(
        findings,
        ["Violated the rule \"loop_wait + 2*retry_timeout <= ttl\", where ttl=20. \
          Adjusting loop_wait from 10 to 1 and retry_timeout from 10 to 9"]
    );
    let (timing, findings) = timing_of(json!({"ttl": 25, "retry_timeout": 10.9}));
    assert_eq!(timing, [25, 5, 10]);
    assert_eq!(
        findings,
        ["Violated the rule \"loop_wait + 2*retry_timeout <= ttl\", where ttl=25 and retry_timeout=10. \
          Adjusting loop_wait from 10 to 5"]
    );
}

#[test]
fn an_unusable_document_keeps_timing_but_not_the_rest() {
    let (before, _) = read(json!({"ttl": 40, "postgresql": {"use_slots": false}}));
    for unusable in [
        json!({"ttl": "soon", "pause": true}),
        json!({"loop_wait": null, "pause": true}),
        json!({"ttl": 50, "pause": true, "postgresql": {"parameters": [1]}}),
        json!({"ttl": 50, "pause": true, "postgresql": "x"}),
    ] {
        let (after, findings) = before.after(unusable.as_object().unwrap());
        assert_eq!((after.ttl.as_secs(), after.use_slots, after.pause), (40, false, true), "{unusable}");
        assert_eq!(Value::Object(after.document), unusable);
        assert!(findings[0].message.starts_with("Exception when setting dynamic_configuration"), "{findings:?}");
    }
}

#[test]
fn modes_and_flags() {
    let mode = |value: Value| read(json!({"synchronous_mode": value})).0.synchronous_mode;
    assert_eq!(mode(json!("on")), SynchronousMode::Priority);
    assert_eq!(mode(json!("Quorum")), SynchronousMode::Quorum);
    assert_eq!(mode(json!("never")), SynchronousMode::Off);
    let (settings, _) = read(json!({"synchronous_mode": true, "standby_cluster": {"port": 5432}}));
    assert!(settings.is_standby_cluster() && !settings.is_synchronous());
    let (settings, findings) = read(json!({"pause": "yes", "failsafe_mode": "perhaps", "check_timeline": 1}));
    assert!(settings.pause && settings.check_timeline && !settings.failsafe_mode);
    assert_eq!(findings, ["failsafe_mode 'perhaps' is not a boolean (true or false); false is used"]);
}

#[test]
fn numbers_fall_back_to_their_defaults() {
    let (settings, findings) = read(json!({
        "maximum_lag_on_failover": "1MB", "maximum_lag_on_syncnode": 0, "member_slots_ttl": "30min",
        "primary_start_timeout": 0, "master_stop_timeout": 7, "synchronous_node_count": 0, "max_timelines_history": 3,
    }));
    assert_eq!(settings.maximum_lag_on_failover_bytes, 1_048_576);
    assert_eq!(settings.maximum_lag_on_syncnode_bytes, None);
    assert_eq!(settings.member_slots_ttl.as_secs(), 1800);
    assert_eq!(settings.primary_start_timeout, Duration::ZERO);
    assert_eq!(settings.primary_stop_timeout.as_secs(), 7);
    assert_eq!((settings.synchronous_node_count, settings.max_timelines_history), (1, 3));
    assert_eq!(findings, ["maximum_lag_on_failover '1MB' is not an integer; the default is used"]);
}

#[test]
fn slots_and_the_standby_section() {
    let (settings, _) = read(json!({"slots": {"a": null}, "permanent_slots": {"b": {}}}));
    assert_eq!(Value::Object(settings.slots), json!({"b": {}}));
    assert_eq!(read(json!({"standby_cluster": {"primary_slot_name": "x"}})).0.standby_cluster, None);
    let (settings, _) =
        read(json!({"standby_cluster": {"host": "h", "port": "5433", "create_replica_methods": ["x"]}}));
    let standby = settings.standby_cluster.unwrap();
    assert_eq!((standby.host.as_deref(), standby.port), (Some("h"), Some(5433)));
    assert_eq!(standby.create_replica_methods, ["x"]);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn timing_always_fits(ttl in any::<i64>(), loop_wait in -5i64..100, retry_timeout in -5i64..100) {
        let (settings, _) = read(json!({"ttl": ttl % 100, "loop_wait": loop_wait, "retry_timeout": retry_timeout}));
        prop_assert!(settings.loop_wait + 2 * settings.retry_timeout <= settings.ttl);
        prop_assert!(settings.ttl.as_secs() >= 5 && settings.loop_wait.as_secs() >= 1);
        prop_assert!(settings.retry_timeout.as_secs() >= 1);
    }

    #[test]
    fn no_document_panics(
        keys in prop::collection::vec(prop::sample::select(vec!["ttl", "loop_wait", "slots", "standby_cluster",
            "postgresql", "ignore_slots", "synchronous_mode", "member_slots_ttl", "pause"]), 3),
        values in prop::collection::vec(crate::config::yaml::tests::value(), 3)
    ) {
        let document: Map<String, Value> =
            keys.into_iter().map(str::to_owned).zip(values).collect();
        let (settings, _) = Dynamic::from_document(&document);
        let kept: Dynamic = serde_json::from_value(serde_json::to_value(&settings).unwrap()).unwrap();
        prop_assert_eq!(kept, settings);
    }
}
