use proptest::prelude::*;

use super::*;
use crate::config::Secret;
use crate::postgres::conf::parameters::tests::config;

const VERSION: u32 = 150_000;

fn upstream() -> Upstream {
    Upstream { member: Some("n1".into()), host: Some("10.0.0.2".to_owned()), port: Some(5432), ..Upstream::default() }
}

fn with_password() -> PostgresConfig {
    let mut config = config(&[]);
    config.replication.password = Some(Secret::new("x"));
    config
}

fn present(wanted: &BTreeMap<String, String>) -> Current {
    let setting = |value: &String| Setting { value: value.clone(), ..Setting::default() };
    Current {
        settings: wanted.iter().map(|(name, value)| (name.clone(), setting(value))).collect(),
        receiver: None,
        is_passfile_current: true,
    }
}

#[test]
fn the_connection_string_is_written_in_the_known_order() {
    let settings = wanted(&with_password(), Some(&upstream()), VERSION, "/tmp/pgpass");
    assert_eq!(
        settings["primary_conninfo"],
        "dbname=postgres user=replicator passfile=/tmp/pgpass host=10.0.0.2 port=5432 sslmode=prefer \
         application_name=n0 gssencmode=prefer channel_binding=prefer"
    );
    assert_eq!(settings["primary_slot_name"], "n0");
    let newer = wanted(&with_password(), Some(&upstream()), 170_000, "/tmp/pgpass");
    assert!(newer["primary_conninfo"].ends_with(" sslnegotiation=postgres"));
}

#[test]
fn a_standby_of_nobody_has_only_its_targets() {
    let mut config = config(&[]);
    config.recovery_conf = [("restore_command", "cp %f %p"), ("recovery_target_time", "x"), ("trigger_file", "/t")]
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    let settings = wanted(&config, None, VERSION, "");
    assert_eq!(settings["recovery_target_timeline"], "latest");
    assert_eq!(settings["recovery_target_time"], "");
    assert_eq!(settings["restore_command"], "cp %f %p");
    assert_eq!(settings["promote_trigger_file"], "/t");
    assert!(!settings.contains_key("primary_conninfo") && !settings.contains_key("primary_slot_name"));
    assert!(!wanted(&config, None, 160_000, "").contains_key("promote_trigger_file"));
    let own = Upstream { member: Some("n0".into()), ..upstream() };
    assert!(!wanted(&config, Some(&own), VERSION, "").contains_key("primary_conninfo"));
}

#[test]
fn slots_follow_the_upstream() {
    let config = config(&[]);
    let slot = |slot: UpstreamSlot| {
        let upstream = Upstream { slot, member: None, ..upstream() };
        wanted(&config, Some(&upstream), VERSION, "").remove("primary_slot_name")
    };
    assert_eq!(slot(UpstreamSlot::Own).as_deref(), Some("n0"));
    assert_eq!(slot(UpstreamSlot::Named("My-Slot".to_owned())).as_deref(), Some("my_slot"));
    assert_eq!(slot(UpstreamSlot::None), None);
}

#[test]
fn nothing_changes_when_all_is_as_wanted() {
    let wanted = wanted(&with_password(), Some(&upstream()), VERSION, "/tmp/pgpass");
    assert_eq!(compare(&wanted, &present(&wanted), VERSION), FollowChange::None);
    let mut current = present(&wanted);
    current.receiver = Some(WalReceiver {
        slot_name: Some("n0".to_owned()),
        conninfo: Some(
            "user=replicator passfile=/tmp/pgpass channel_binding=prefer dbname=replication host=10.0.0.2 port=5432 \
             application_name=n0 fallback_application_name=demo sslmode=prefer sslcompression=0 gssencmode=prefer \
             krbsrvname=postgres target_session_attrs=any"
                .to_owned(),
        ),
        ..WalReceiver::default()
    });
    assert_eq!(compare(&wanted, &current, VERSION), FollowChange::None);
    // The settings say so, but the receiver still streams from somewhere else.
    let receiver = current.receiver.as_mut().unwrap();
    receiver.conninfo = receiver.conninfo.as_ref().map(|text| text.replace("10.0.0.2", "10.0.0.3"));
    assert_eq!(compare(&wanted, &current, VERSION), FollowChange::Reload);
    current.receiver.as_mut().unwrap().slot_name = None;
    assert_eq!(compare(&wanted, &current, VERSION), FollowChange::Reload);
}

#[test]
fn a_password_that_the_receiver_hides_is_no_difference() {
    let mut config = with_password();
    config.replication.options.insert("sslpassword".to_owned(), "open sesame".to_owned());
    let wanted = wanted(&config, Some(&upstream()), VERSION, "/tmp/pgpass");
    assert!(wanted["primary_conninfo"].contains(r"sslpassword=open\ sesame"));
    let mut current = present(&wanted);
    let shown = wanted["primary_conninfo"].replace(r"open\ sesame", "********");
    let slot_name = Some("n0".to_owned());
    current.receiver = Some(WalReceiver { slot_name, conninfo: Some(shown), ..WalReceiver::default() });
    assert_eq!(compare(&wanted, &current, VERSION), FollowChange::None);
    let before = current.settings.get_mut("primary_conninfo").unwrap();
    before.value = before.value.replace("sesame", "barley");
    assert_eq!(compare(&wanted, &current, VERSION), FollowChange::Reload);
}

#[test]
fn what_differs_decides_how_much_must_be_done() {
    let wanted = wanted(&with_password(), Some(&upstream()), VERSION, "/tmp/pgpass");
    let mut current = present(&wanted);
    current.is_passfile_current = false;
    assert_eq!(compare(&wanted, &current, VERSION), FollowChange::Reload);

    let mut current = present(&wanted);
    current.settings.get_mut("primary_conninfo").unwrap().value = "host=10.0.0.9".to_owned();
    assert_eq!(compare(&wanted, &current, VERSION), FollowChange::Reload);
    current.settings.get_mut("primary_conninfo").unwrap().needs_restart = true;
    assert_eq!(compare(&wanted, &current, 120_000), FollowChange::Restart);

    let mut current = present(&wanted);
    let target = Setting { value: "2026-01-01".to_owned(), needs_restart: true, is_operators: true };
    current.settings.insert("recovery_target_time".to_owned(), target);
    assert_eq!(compare(&wanted, &current, VERSION), FollowChange::Restart);
}

#[test]
fn the_operators_own_commands_stay() {
    let wanted = wanted(&config(&[]), Some(&upstream()), VERSION, "");
    let mut current = present(&wanted);
    let mut restore = Setting { value: "cp".to_owned(), needs_restart: false, is_operators: true };
    current.settings.insert("restore_command".to_owned(), restore.clone());
    assert_eq!(compare(&wanted, &current, VERSION), FollowChange::None);
    restore.is_operators = false;
    current.settings.insert("restore_command".to_owned(), restore);
    assert_eq!(compare(&wanted, &current, VERSION), FollowChange::Reload);
    let delay = Setting { value: "5min".to_owned(), ..Setting::default() };
    let mut current = present(&wanted);
    current.settings.insert("recovery_min_apply_delay".to_owned(), delay);
    let mut delayed = wanted.clone();
    delayed.insert("recovery_min_apply_delay".to_owned(), "300000".to_owned());
    assert_eq!(compare(&delayed, &current, VERSION), FollowChange::None);
    assert_eq!(compare(&wanted, &current, VERSION), FollowChange::Reload);
}

#[test]
fn connection_strings_are_read() {
    let words = parse_conninfo(r"host=a\ b user = 'o x' dbname='a\'b' port=1").unwrap();
    assert_eq!((words["host"].as_str(), words["dbname"].as_str(), words["port"].as_str()), ("a b", "a'b", "1"));
    for broken in ["host", "=x", "host='a", "a b=c"] {
        assert_eq!(parse_conninfo(broken), None, "{broken}");
    }
    assert_eq!(parse_conninfo("  "), Some(BTreeMap::new()));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_value_in_a_connection_string_round_trips(host in "\\PC{1,20}", user in "\\PC{0,20}") {
        let text = format!("user={} host={}", escape_value(&user), escape_value(&host));
        let words = parse_conninfo(&text).unwrap();
        prop_assert_eq!((&words["host"], &words["user"]), (&host, &user));
    }

    #[test]
    fn no_text_panics(text in "\\PC{0,40}") {
        let _ = parse_conninfo(&text);
    }
}

#[test]
fn a_recovery_to_a_target_keeps_what_a_standby_must_not_have() {
    let configured = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    };
    let settings = until_target(
        &configured(&[
            ("recovery_target_name", "here"),
            ("pause_at_recovery_target", "False"),
            ("standby_mode", "off"),
            ("restore_command", "cp %f %p"),
            ("no_such_setting", "1"),
        ]),
        VERSION,
    );
    let expected =
        [("recovery_target_action", "promote"), ("recovery_target_name", "here"), ("restore_command", "cp %f %p")];
    assert_eq!(settings, configured(&expected));
    // The new name wins over the old one.
    let both = configured(&[("pause_at_recovery_target", "true"), ("recovery_target_action", "promote")]);
    assert_eq!(until_target(&both, VERSION), configured(&[("recovery_target_action", "promote")]));
}
