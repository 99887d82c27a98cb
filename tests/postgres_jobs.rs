//! The long jobs on real servers: bootstrap, clone, divergence and rewind, crash recovery, slots, TLS.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test that cannot go on has failed and says so")]

#[path = "support/ground.rs"]
mod ground;
#[path = "postgres_jobs/rig.rs"]
mod rig;
#[path = "support/unprivileged.rs"]
mod unprivileged;

use std::sync::Arc;
use std::time::Duration;

use pgherd::cluster::{Divergence, Lsn, Rewound, SlotSync, Timeline, Upstream, WantedSlot};
use pgherd::config::{BootstrapConfig, PostgresConfig, Secret};
use pgherd::postgres::replication::{Replication, Target};
use pgherd::postgres::site::Session;
use pgherd::postgres::{
    ClonePlan, PgError, bootstrap, clone, crash_recovery, process_tree, query, rewind, slots, waldump,
};
use rig::{Node, PASSWORD, bootstrap_config, cancel};
use serde_json::json;
use unprivileged::run;

const LIMIT: Duration = Duration::from_secs(10);

const STREAMING: &str = "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'";

#[test]
fn a_new_cluster_gets_its_users() {
    run("a_new_cluster_gets_its_users", async {
        let node = Node::new("a", |_| {});
        let script = node.path("script");
        let text = format!(
            "echo \"$@\" > {0}\necho \"$PGOPTIONS\" >> {0}\ncat \"$PGPASSFILE\" >> {0}\n\
             psql -X -d \"$1\" -c 'CREATE TABLE made_by_script ()'\n",
            node.path("said").display()
        );
        std::fs::write(&script, text).unwrap();
        let config =
            BootstrapConfig { post_bootstrap: Some(format!("/bin/sh '{}'", script.display())), ..bootstrap_config() };
        bootstrap::create(&node.site, &config, &cancel()).await.unwrap();
        node.configure("");
        node.start().await;
        let client = node.client().await;
        bootstrap::post_bootstrap(&node.site, &config, &client, &cancel()).await.unwrap();
        // Again: roles that exist are brought to the same.
        bootstrap::post_bootstrap(&node.site, &bootstrap_config(), &client, &cancel()).await.unwrap();

        let said = std::fs::read_to_string(node.path("said")).unwrap();
        assert!(said.starts_with("dbname=postgres user=admin host=localhost port="), "{said}");
        assert!(
            said.contains("-c synchronous_commit=local") && said.contains(":*:admin:p'a$$s\\\\w\"o\\:rd"),
            "{said}"
        );
        assert_eq!(node.number("SELECT count(*) FROM pg_class WHERE relname = 'made_by_script'").await, 1);
        assert!(!node.log().contains("p'a$$s"), "the password is in the server's log");
        assert!(!node.log().contains("SCRAM-SHA-256$"), "the verifier is in the server's log");

        let upstream = node.upstream();
        let rewinder = node.site.connect(&node.site.rewind_params(&upstream)).await.unwrap();
        rewinder.query_one("SELECT pg_read_binary_file('PG_VERSION')", &[]).await.unwrap();
        let is_super: bool =
            rewinder.query_one("SELECT rolsuper FROM pg_roles WHERE rolname = current_user", &[]).await.unwrap().get(0);
        assert!(!is_super);

        let mut target = Target::new(&node.site.replication_params(&upstream)).unwrap();
        let identity = Replication::connect(&target, LIMIT).await.unwrap().identify_system().await.unwrap();
        assert_eq!(identity.timeline, Timeline(1));
        assert_eq!(identity.system_id, node.site.control_data().await.unwrap().system_id);
        target.password = Some(Secret::new("wrong"));
        let error = Replication::connect(&target, LIMIT).await.err().unwrap().to_string();
        assert!(error.contains("password authentication failed"), "{error}");
    });
}

#[test]
fn a_bad_initdb_option_is_named() {
    run("a_bad_initdb_option_is_named", async {
        let node = Node::new("a", |_| {});
        let forbidden = BootstrapConfig { initdb: json!([{"pwfile": "/x"}]), ..bootstrap_config() };
        let error = bootstrap::create(&node.site, &forbidden, &cancel()).await.unwrap_err().to_string();
        assert_eq!(error, "bootstrap.initdb: pwfile option for initdb is not allowed");
        let unknown = BootstrapConfig { initdb: json!(["no-such-option"]), ..bootstrap_config() };
        let error = bootstrap::create(&node.site, &unknown, &cancel()).await.unwrap_err().to_string();
        assert!(
            error.starts_with("initdb failed: exited with code 1: ") && error.contains("no-such-option"),
            "{error}"
        );
    });
}

#[test]
fn a_custom_method_makes_the_cluster() {
    run("a_custom_method_makes_the_cluster", async {
        let node = Node::new("a", |_| {});
        let script = node.path("restore");
        let initdb = node.site.program_path("initdb").display().to_string();
        let text = format!(
            "echo \"$@\" > {0}\ndata=${{2#--datadir=}}\n{initdb} -N -U admin -A trust \"$data\" > /dev/null\n\
             touch \"$data/recovery.signal\"\n",
            node.path("said").display()
        );
        std::fs::write(&script, text).unwrap();
        let section = json!({"restore": {"command": format!("/bin/sh '{}'", script.display()), "stanza": "x y"}});
        let config = BootstrapConfig {
            method: "restore".to_owned(),
            section: section.as_object().unwrap().clone(),
            ..bootstrap_config()
        };
        bootstrap::create(&node.site, &config, &cancel()).await.unwrap();
        let said = std::fs::read_to_string(node.path("said")).unwrap();
        assert!(said.starts_with("--scope=demo --datadir=") && said.ends_with(" --stanza=x y\n"), "{said}");
        assert!(!node.site.data_dir().join("recovery.signal").exists());
        let hba = std::fs::read_to_string(node.site.data_dir().join("pg_hba.conf")).unwrap();
        assert!(hba.ends_with("\nhost replication all 127.0.0.1/32 scram-sha-256\n"));
        node.configure("");
        node.start().await;
        let failing = json!({"restore": {"command": "/bin/false"}});
        let config = BootstrapConfig { section: failing.as_object().unwrap().clone(), ..config };
        assert!(bootstrap::create(&node.site, &config, &cancel()).await.is_err());
    });
}

#[test]
fn a_standby_is_cloned_and_its_slot_kept() {
    run("a_standby_is_cloned_and_its_slot_kept", async {
        let a = Node::primary("a", "").await;
        a.execute("CREATE TABLE t AS SELECT generate_series(1, 1000) AS i").await;
        let b = Node::standby("b", &a).await;
        a.wait_for(STREAMING, 1).await;
        b.wait_for("SELECT count(*) FROM t", 1000).await;
        assert_eq!(rewind::check_divergence(&b.site, &a.upstream()).await, Divergence::Consistent);

        let client = a.client().await;
        let no_other = |_| async { Err::<Session, _>(PgError::Refused("no other database".to_owned())) };
        let only = |wanted: &[WantedSlot]| SlotSync { wanted: wanted.to_vec(), may_drop: true, is_led: false };
        let want = |name: &str, advance_to| WantedSlot {
            name: name.to_owned(),
            advance_to,
            expected_active: Some(false),
            ..WantedSlot::default()
        };
        slots::sync(&client, &only(&[want("b", None), want("old", None)]), no_other).await.unwrap();
        let found = query::slots(&client).await.unwrap().slots;
        let before = found.iter().find(|slot| slot.name == "b").unwrap().restart_lsn.unwrap();

        a.execute("INSERT INTO t SELECT generate_series(1, 1000)").await;
        let end: String = client.query_one("SELECT pg_current_wal_lsn()::text", &[]).await.unwrap().get(0);
        let end: Lsn = end.parse().unwrap();
        assert!(end > before);
        slots::sync(&client, &only(&[want("b", Some(end))]), no_other).await.unwrap();
        let found = query::slots(&client).await.unwrap().slots;
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].restart_lsn, Some(end));

        let target = Target::new(&a.site.replication_params(&a.upstream())).unwrap();
        let mut connection = Replication::connect(&target, LIMIT).await.unwrap();
        assert_eq!(connection.read_slot("b").await.unwrap().unwrap().restart_lsn, Some(end));
        assert_eq!(connection.read_slot("old").await.unwrap(), None);
        assert!(connection.timeline_history(Timeline(7)).await.is_err());
        assert!(connection.identify_system().await.is_ok());
    });
}

#[test]
fn a_logical_slot_is_made_in_its_database() {
    run("a_logical_slot_is_made_in_its_database", async {
        let a = Node::primary("a", "wal_level = logical").await;
        a.execute("CREATE DATABASE app").await;
        let connect = |database: String| {
            let mut params = a.site.superuser_params();
            params.dbname = Some(database);
            let site = &a.site;
            async move { site.connect(&params).await }
        };
        let only = |wanted: &[WantedSlot]| SlotSync { wanted: wanted.to_vec(), may_drop: true, is_led: false };
        let logical = Some(("app".to_owned(), "pgoutput".to_owned()));
        let wanted = [WantedSlot { name: "feed".to_owned(), logical, ..WantedSlot::default() }];
        let client = a.client().await;
        slots::sync(&client, &only(&wanted), connect).await.unwrap();
        let found = query::slots(&client).await.unwrap().slots;
        assert_eq!(found[0].database.as_deref(), Some("app"));
        slots::sync(&client, &only(&[]), connect).await.unwrap();
        assert_eq!(query::slots(&client).await.unwrap().slots, []);
    });
}

#[test]
fn a_primary_that_was_shut_down_can_follow_its_successor() {
    run("a_primary_that_was_shut_down_can_follow_its_successor", async {
        let a = Node::primary("a", "archive_mode = on\narchive_command = 'true'").await;
        let b = Node::standby("b", &a).await;
        a.wait_for(STREAMING, 1).await;
        a.execute("CREATE TABLE t AS SELECT generate_series(1, 1000) AS i").await;
        assert_eq!(waldump::shutdown_lsns(&a.site, &a.site.control_data().await.unwrap()).await, None);
        a.stop().await;
        // With archiving the checkpoint stands in a fresh segment; the record before is a switch.
        let (checkpoint, previous) =
            waldump::shutdown_lsns(&a.site, &a.site.control_data().await.unwrap()).await.unwrap();
        assert!(previous < checkpoint, "{previous} {checkpoint}");

        b.promote().await;
        assert_eq!(rewind::check_divergence(&a.site, &b.upstream()).await, Divergence::Consistent);
        a.follow(&b);
        a.start().await;
        b.wait_for(STREAMING, 1).await;
    });
}

#[test]
fn a_former_primary_with_extra_wal_is_rewound() {
    run("a_former_primary_with_extra_wal_is_rewound", async {
        let a = Node::primary("a", "").await;
        a.execute("CREATE TABLE t AS SELECT generate_series(1, 1000) AS i").await;
        let b = Node::standby("b", &a).await;
        a.wait_for(STREAMING, 1).await;
        assert!(matches!(rewind::check_divergence(&a.site, &b.upstream()).await, Divergence::Unknown(_)));
        b.promote().await;
        b.execute("INSERT INTO t VALUES (-1); CHECKPOINT").await;
        a.execute("INSERT INTO t SELECT generate_series(1, 500)").await;
        a.stop().await;
        // Without archiving the shutdown checkpoint is what others need.
        let (checkpoint, previous) =
            waldump::shutdown_lsns(&a.site, &a.site.control_data().await.unwrap()).await.unwrap();
        assert_eq!(previous, checkpoint);

        let gone = Upstream { port: Some(1), ..b.upstream() };
        assert!(matches!(rewind::check_divergence(&a.site, &gone).await, Divergence::Unknown(_)));
        assert!(matches!(rewind::rewind(&a.site, &gone, &cancel()).await, Rewound::SourceLost(_)));
        assert_eq!(rewind::check_divergence(&a.site, &b.upstream()).await, Divergence::Diverged);
        let good = a.site.config();
        let bad = PostgresConfig { rewind_options: json!(["no-such-option"]), ..(*good).clone() };
        a.site.set_config(Arc::new(bad));
        let broken = rewind::rewind(&a.site, &b.upstream(), &cancel()).await;
        assert!(matches!(&broken, Rewound::Failed(why) if why.contains("no-such-option")), "{broken:?}");
        a.site.set_config(good);
        a.configure("restore_command = '/bin/false'");
        assert_eq!(rewind::rewind(&a.site, &b.upstream(), &cancel()).await, Rewound::Done);
        a.follow(&b);
        a.start().await;
        b.wait_for(STREAMING, 1).await;
        a.wait_for("SELECT count(*) FROM t", 1001).await;
        assert_eq!(rewind::check_divergence(&a.site, &b.upstream()).await, Divergence::Consistent);
    });
}

#[test]
fn a_crashed_server_is_recovered_archived_and_rewound() {
    run("a_crashed_server_is_recovered_archived_and_rewound", async {
        let a = Node::primary("a", "").await;
        let archive = a.path("archive");
        std::fs::create_dir(&archive).unwrap();
        a.configure(&format!(
            "archive_mode = on\narchive_command = 'test ! -e {0}/stop && cp %p {0}/%f'",
            archive.display()
        ));
        a.stop().await;
        a.start().await;
        let b = Node::standby("b", &a).await;
        a.wait_for(STREAMING, 1).await;
        b.promote().await;
        b.execute("CHECKPOINT").await;
        std::fs::write(archive.join("stop"), "").unwrap();
        a.execute("CREATE TABLE t AS SELECT generate_series(1, 1000) AS i").await;
        a.execute("SELECT pg_switch_wal(); INSERT INTO t VALUES (0)").await;
        a.kill();
        assert_eq!(a.site.control_data().await.unwrap().cluster_state, "in production");
        assert!(matches!(rewind::check_divergence(&a.site, &b.upstream()).await, Divergence::Unknown(_)));

        let archived = || std::fs::read_dir(&archive).unwrap().count();
        std::fs::remove_file(archive.join("stop")).unwrap();
        let before = archived();
        crash_recovery::crash_recovery(&a.site, &cancel()).await.unwrap();
        assert!(archived() > before, "the waiting segment was not archived");
        assert_eq!(a.site.control_data().await.unwrap().cluster_state, "shut down");
        assert_eq!(rewind::check_divergence(&a.site, &b.upstream()).await, Divergence::Diverged);
        assert_eq!(rewind::rewind(&a.site, &b.upstream(), &cancel()).await, Rewound::Done);
    });
}

#[test]
fn methods_are_tried_in_order() {
    run("methods_are_tried_in_order", async {
        let a = Node::primary("a", "").await;
        let b = Node::new("b", |config| {
            config.create_replica_methods = vec!["broken".to_owned(), "mine".to_owned(), "basebackup".to_owned()];
            let section = |value: serde_json::Value| value.as_object().unwrap().clone();
            config.methods.insert("broken".to_owned(), section(json!({"command": "/bin/false"})));
            let command = "/bin/sh -c 'mkdir -p \"$0\"; printf \"%s\\n\" \"$@\" > \"$0/args\"'".to_owned();
            let command = format!("{command} {}", config.data_dir);
            config.methods.insert("mine".to_owned(), section(json!({"command": command, "no_leader": true, "n": 1})));
        });
        std::fs::create_dir(b.site.data_dir()).unwrap();
        std::fs::write(b.site.data_dir().join("left over"), "").unwrap();
        let plan = ClonePlan { source: Some(a.upstream()), basebackup_only: false };
        clone::clone_from(&b.site, &plan, &cancel()).await.unwrap();
        let args = std::fs::read_to_string(b.site.data_dir().join("args")).unwrap();
        let port = a.site.config().port;
        assert!(args.starts_with("--no_leader=True\n--n=1\n--scope=demo\n--role=replica\n--datadir="), "{args}");
        assert!(args.contains(&format!("\n--connstring=dbname=postgres user=Repli-cator host=127.0.0.1 port={port} ")));
        assert!(!args.contains(PASSWORD) && !b.site.data_dir().join("left over").exists());

        let alone = ClonePlan { source: None, basebackup_only: false };
        clone::clone_from(&b.site, &alone, &cancel()).await.unwrap();
        let refused = ClonePlan { source: None, basebackup_only: true };
        assert!(clone::clone_from(&b.site, &refused, &cancel()).await.is_err());
    });
}

#[test]
fn a_cancelled_clone_leaves_nothing() {
    run("a_cancelled_clone_leaves_nothing", async {
        let a = Node::primary("a", "").await;
        let b = Node::new("b", |config| config.basebackup = json!({"max-rate": "32k", "checkpoint": "fast"}));
        let plan = ClonePlan { source: Some(a.upstream()), basebackup_only: true };
        let token = cancel();
        let (result, ()) = tokio::join!(clone::clone_from(&b.site, &plan, &token), async {
            for _ in 0..400 {
                if b.site.data_dir().join("backup_label").exists() {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(25)).await;
            }
            token.cancel();
        });
        assert!(matches!(result, Err(PgError::Cancelled)), "{result:?}");
        assert!(std::fs::read_dir(b.site.data_dir()).map_or(true, |mut entries| entries.next().is_none()));
        let me = i32::try_from(std::process::id()).unwrap();
        assert!(process_tree::descendants(me).iter().all(|process| process.is_zombie));
    });
}

#[test]
fn a_server_that_asks_for_tls_gets_it() {
    run("a_server_that_asks_for_tls_gets_it", async {
        let a = Node::primary("a", "").await;
        let certificate = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        let (cert, key) = (a.site.data_dir().join("server.crt"), a.site.data_dir().join("server.key"));
        std::fs::write(&cert, certificate.cert.pem()).unwrap();
        std::fs::write(&key, certificate.signing_key.serialize_pem()).unwrap();
        std::fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        let hba = "hostssl all all 127.0.0.1/32 scram-sha-256\nhostssl replication all 127.0.0.1/32 scram-sha-256\n";
        std::fs::write(a.site.data_dir().join("pg_hba.conf"), hba).unwrap();
        a.configure("ssl = on");
        a.stop().await;
        a.start().await;

        a.client().await.batch_execute("SELECT 1").await.unwrap();
        let mut params = a.site.replication_params(&a.upstream());
        let mut try_with = async |mode: &str| {
            let options = &mut params.credentials.options;
            options.insert("sslmode".to_owned(), mode.to_owned());
            options.insert("sslrootcert".to_owned(), cert.display().to_string());
            Replication::connect(&Target::new(&params).unwrap(), LIMIT).await.map(drop)
        };
        for mode in ["prefer", "require", "verify-ca", "verify-full"] {
            try_with(mode).await.unwrap();
        }
        let error = try_with("disable").await.unwrap_err().to_string();
        assert!(error.contains("no encryption"), "{error}");
    });
}
