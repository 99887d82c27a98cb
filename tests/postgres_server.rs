//! The real server behind the port, on real PostgreSQL.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test that cannot go on has failed and says so")]

#[path = "support/ground.rs"]
mod ground;
#[path = "postgres_server/rig.rs"]
mod rig;
#[path = "support/unprivileged.rs"]
mod unprivileged;

use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::Signal;
use pgherd::cluster::{DataDir, FollowChange, InstanceState, Lsn, Role, State, StopMode, StopProgress, Timeline};
use pgherd::postgres::process::Postmaster;
use pgherd::postgres::{
    Look, PgError, Postgres, Recovery, SlotSync, StartPlan, Started, StopPlan, WantedSlot, process_tree,
};
use rig::{DEADLINE, Node, everything, never};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use unprivileged::run;

fn fast() -> StopPlan {
    StopPlan { mode: StopMode::Fast, checkpoint: false, timeout: None }
}

#[test]
fn a_life() {
    run("a_life", async {
        let node = Node::new("a", |_| {});
        let empty = node.look().await;
        assert_eq!(
            (empty.data_dir, empty.state, empty.is_postmaster_alive),
            (DataDir::Empty, Some(State::Stopped), false)
        );
        node.server.bootstrap(&never()).await.unwrap();
        node.server.post_bootstrap(&never()).await.unwrap();

        let seen = node.look().await;
        let monitor = seen.monitor.clone().unwrap();
        assert_eq!((seen.state, seen.data_dir.clone()), (Some(State::Running), DataDir::Present));
        assert!(seen.is_postmaster_alive && seen.accepts_connections && !seen.is_recovery_configured);
        assert!(!monitor.in_recovery && monitor.flush_lsn > Lsn::ZERO && monitor.receiver.is_none());
        assert_eq!((monitor.timeline, monitor.control_timeline), (Some(Timeline(1)), Some(Timeline(1))));
        assert_eq!(seen.server_version.unwrap() / 10_000, 15);
        assert!(
            seen.can_rewind && seen.system_id.is_some() && seen.control.is_none() && seen.pending_restart.is_empty()
        );
        let start_time = seen.postmaster_start_time.unwrap();
        assert!(
            regex_lite::Regex::new(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{6}[+-]\d\d:\d\d$")
                .unwrap()
                .is_match(&start_time)
        );

        // Started outside of our family, with the controlled parameters on its command line in their order.
        let process = process_tree::process(node.pid()).unwrap();
        assert_ne!(process.parent, i32::try_from(std::process::id()).unwrap());
        assert_eq!(process.group, process.pid, "it has a session of its own");
        let opts = node.read("postmaster.opts");
        let at = |name: &str| opts.find(name).unwrap_or_else(|| panic!("{name} in {opts}"));
        assert!(at("--listen_addresses=127.0.0.1") < at("--port=") && at("--port=") < at("--cluster_name=demo"));
        assert!(node.read("postgresql.conf").contains("include 'postgresql.base.conf'"));
        assert!(node.read("postgresql.conf.backup") == node.read("postgresql.conf"));

        let (sender, mut receiver) = mpsc::channel(4);
        let plan = StopPlan { checkpoint: true, ..fast() };
        node.server.stop(&plan, Some(sender), &never()).await.unwrap();
        let StopProgress::ShutDown { checkpoint, previous } = receiver.recv().await.unwrap();
        let stopped = node.look().await;
        let control = stopped.control.unwrap();
        assert_eq!((stopped.state, control.cluster_state.as_str()), (Some(State::Stopped), "shut down"));
        assert_eq!((control.checkpoint, previous), (checkpoint, checkpoint));
        assert!(receiver.recv().await.is_none(), "said once");
        assert_eq!(stopped.system_id, control.system_id);
        assert!(!stopped.is_postmaster_alive && stopped.monitor.is_none() && stopped.can_rewind);
        node.server.stop(&fast(), None, &never()).await.unwrap();

        let began = Instant::now();
        assert_eq!(node.start(Recovery::None).await, Started::Running);
        eprintln!("start took {:?}", began.elapsed());
        let plan = StartPlan { recovery: Recovery::Keep, role: Role::Primary, timeout: None };
        let began = Instant::now();
        assert_eq!(node.server.restart(&plan, &never()).await.unwrap(), Started::Running);
        eprintln!("restart took {:?}", began.elapsed());
        assert_eq!(node.look().await.state, Some(State::Running));
        node.server.stop(&StopPlan { mode: StopMode::Immediate, ..fast() }, None, &never()).await.unwrap();
        assert_eq!(node.look().await.control.unwrap().cluster_state, "in production");
    });
}

#[test]
fn a_killed_postmaster_is_noticed_and_replaced_at_once() {
    run("a_killed_postmaster_is_noticed_and_replaced_at_once", async {
        let node = Node::primary("a", |_| {}).await;
        node.look().await;
        // A backend that is too busy to notice the death of its postmaster.
        let busy = node.client().await;
        let query = tokio::spawn(async move {
            let _ = busy.batch_execute("SELECT count(*) FROM generate_series(1, 100000000000)").await;
        });
        let give_up = Instant::now() + DEADLINE;
        while node.text("SELECT count(*)::text FROM pg_stat_activity WHERE query LIKE 'SELECT count%series%' AND state = 'active' AND pid <> pg_backend_pid()").await == "0" {
            assert!(Instant::now() < give_up, "the query never ran");
        }
        let events = node.server.events();
        // What happened so far is told; only the news counts.
        let _ = timeout(Duration::from_millis(1), events.notified()).await;
        let began = Instant::now();
        assert!(process_tree::signal(node.pid(), Signal::SIGKILL));
        timeout(Duration::from_secs(2), events.notified()).await.expect("the end of the postmaster is told");
        eprintln!("told after {:?}", began.elapsed());
        let seen = node.look().await;
        assert_eq!((seen.state, seen.is_postmaster_alive), (Some(State::Crashed), false));
        assert_eq!(seen.control.unwrap().cluster_state, "in production");
        assert_eq!(node.start(Recovery::None).await, Started::Running);
        eprintln!("running again {:?} after the kill", began.elapsed());
        assert!(!node.monitor().await.in_recovery);
        query.abort();
    });
}

#[test]
fn a_standby_follows_and_is_promoted() {
    run("a_standby_follows_and_is_promoted", async {
        let a =
            Node::primary("a", |config| drop(config.parameters.insert("max_connections".into(), "40".into()))).await;
        let mut b = Node::standby("b", &a, |_| {}).await;
        let seen = b.until("streaming", |seen| {
            seen.monitor.as_ref().is_some_and(|monitor| monitor.replication_state() == Some("streaming"))
        });
        let seen = seen.await;
        let monitor = seen.monitor.unwrap();
        assert!(monitor.in_recovery && seen.is_recovery_configured && monitor.receive_lsn > Lsn::ZERO);
        assert_eq!(monitor.timeline, Some(Timeline(1)));
        assert_eq!(monitor.receiver.unwrap().slot_name.as_deref(), Some("b"));
        // The primary's higher value is needed, and the wanted one waits for a restart after the promotion.
        assert_eq!(seen.pending_restart["max_connections"].new_value, "30");
        assert_eq!(b.text("SHOW max_connections").await, "40");
        assert!(!b.read("postgresql.conf").contains("p'a"), "no password in the file");

        let sender =
            a.until("a sender", |seen| seen.monitor.as_ref().is_some_and(|monitor| !monitor.senders.is_empty()));
        let on_a = sender.await.monitor.unwrap();
        assert_eq!((on_a.senders[0].application_name.as_str(), on_a.senders[0].sync_state.as_str()), ("b", "async"));
        let slot = on_a.slots.iter().find(|slot| slot.name == "b").unwrap();
        assert!(slot.is_active && slot.restart_lsn.is_some());
        let shown = a.server.replication().await;
        assert_eq!(shown[0]["application_name"], "b");
        assert_eq!(shown[0].as_object().unwrap().len(), 6);

        assert_eq!(b.server.follow_change(Some(&a.upstream())).await, FollowChange::None);
        assert_eq!(b.server.follow_change(None).await, FollowChange::Reload);
        let mut elsewhere = a.upstream();
        elsewhere.host = Some("localhost".to_owned());
        assert_eq!(b.server.follow_change(Some(&elsewhere)).await, FollowChange::Reload);
        b.server.follow(Some(&elsewhere)).await.unwrap();
        b.until("streaming from the other name", |seen| {
            let receiver = seen.monitor.as_ref().and_then(|monitor| monitor.receiver.clone());
            receiver.is_some_and(|receiver| {
                receiver.status.as_deref() == Some("streaming")
                    && receiver.conninfo.is_some_and(|text| text.contains("host=localhost"))
            })
        })
        .await;
        assert_eq!(b.server.follow_change(Some(&elsewhere)).await, FollowChange::None);

        // A change of parameters keeps the recovery settings, also those of another agent's time.
        b.configure(false, |config| drop(config.parameters.insert("work_mem".into(), "5MB".into()))).await;
        assert!(b.read("postgresql.conf").contains("primary_conninfo = 'dbname=postgres user=replicator passfile="));
        let successor = b.second_agent();
        successor.until("running", |seen| seen.state == Some(State::Running) && seen.monitor.is_some()).await;
        assert_eq!(successor.server.follow_change(Some(&elsewhere)).await, FollowChange::None);
        b.until("joined", |seen| seen.state == Some(State::Running)).await;

        b.execute("SELECT pg_wal_replay_pause()").await;
        b.until("paused", |seen| seen.monitor.as_ref().is_some_and(|monitor| monitor.replay_paused)).await;
        b.server.resume_replay().await.unwrap();
        assert!(!b.monitor().await.replay_paused);

        let began = Instant::now();
        assert!(b.server.promote(Duration::from_secs(30), &never()).await.unwrap());
        eprintln!("promotion took {:?}", began.elapsed());
        let seen = b.look().await;
        let monitor = seen.monitor.unwrap();
        assert!(!monitor.in_recovery && !seen.is_recovery_configured);
        assert_eq!(monitor.timeline, Some(Timeline(2)));
        let (lines, at) = b.server.timeline_history(Timeline(2)).await.unwrap();
        assert_eq!((lines.len(), lines[0].timeline), (1, Timeline(1)));
        assert!(at.is_some());
        b.server.checkpoint().await.unwrap();
        assert_eq!(b.monitor().await.control_timeline, Some(Timeline(2)));
        // As a primary it loses the recovery settings with the next rewrite.
        b.configure(true, |_| {}).await;
        assert!(!b.read("postgresql.conf").contains("primary_conninfo"));

        let wanted = vec![WantedSlot { name: "c".into(), ..WantedSlot::default() }];
        b.server.sync_slots(&SlotSync { wanted, may_drop: true, is_led: true }).await.unwrap();
        assert_eq!(b.monitor().await.slots.iter().map(|slot| slot.name.as_str()).collect::<Vec<_>>(), ["c"]);
    });
}

#[test]
fn a_standby_asks_for_wal_again_when_it_is_told_to() {
    run("a_standby_asks_for_wal_again_when_it_is_told_to", async {
        let a = Node::primary("a", |_| {}).await;
        let b = Node::standby("b", &a, |config| {
            // Left alone it would not ask before the test is given up.
            config.parameters.insert("wal_retrieve_retry_interval".into(), "1h".into());
        })
        .await;
        let streams = |seen: &InstanceState| {
            seen.monitor.as_ref().is_some_and(|monitor| monitor.replication_state() == Some("streaming"))
        };
        b.until("streaming", streams).await;
        let read_at = b.text("SELECT pg_conf_load_time()::text").await;
        a.server.stop(&fast(), None, &never()).await.unwrap();
        b.until("the end of the stream", |seen| !streams(seen)).await;
        assert_eq!(a.start(Recovery::None).await, Started::Running);
        let give_up = Instant::now() + DEADLINE;
        while !streams(&b.look().await) {
            assert!(Instant::now() < give_up, "it never asked");
            b.server.retry_stream().await.unwrap();
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        assert_eq!(b.text("SELECT pg_conf_load_time()::text").await, read_at, "nobody else has read the files");
        // A primary has nobody to ask.
        a.server.retry_stream().await.unwrap();
    });
}

#[test]
fn settings_change_live_or_wait_for_a_restart() {
    run("settings_change_live_or_wait_for_a_restart", async {
        let mut node = Node::primary("a", |_| {}).await;
        assert!(node.look().await.pending_restart.is_empty());
        let set = |name: &'static str, value: &'static str| {
            move |config: &mut pgherd::config::PostgresConfig| drop(config.parameters.insert(name.into(), value.into()))
        };
        node.configure(false, set("work_mem", "7MB")).await;
        assert_eq!(node.text("SHOW work_mem").await, "7MB");
        node.configure(false, set("shared_buffers", "24MB")).await;
        node.configure(false, set("max_connections", "35")).await;
        let pending = node.look().await.pending_restart;
        assert_eq!(pending.keys().map(String::as_str).collect::<Vec<_>>(), ["max_connections", "shared_buffers"]);
        assert_eq!(
            (pending["shared_buffers"].old_value.as_str(), pending["shared_buffers"].new_value.as_str()),
            ("16MB", "24MB")
        );
        // Set back before a restart: nothing waits, and the file has the old value again.
        node.configure(false, set("max_connections", "30")).await;
        let pending = node.look().await.pending_restart;
        assert_eq!(pending.keys().map(String::as_str).collect::<Vec<_>>(), ["shared_buffers"]);
        assert!(node.read("postgresql.conf").contains("max_connections = '30'"));

        let plan = StartPlan { recovery: Recovery::Keep, role: Role::Primary, timeout: None };
        node.server.restart(&plan, &never()).await.unwrap();
        assert!(node.look().await.pending_restart.is_empty());
        assert_eq!(node.text("SHOW shared_buffers").await, "24MB");

        // Who may connect changes with a reload as well.
        node.configure(false, |config| config.pg_hba.as_mut().unwrap().push("local nobody nobody reject".into())).await;
        assert_eq!(node.text("SELECT count(*)::text FROM pg_hba_file_rules WHERE auth_method = 'reject'").await, "1");
    });
}

#[test]
fn a_running_server_is_taken_over_with_its_synchronous_standbys() {
    run("a_running_server_is_taken_over_with_its_synchronous_standbys", async {
        let node = Node::primary("a", |_| {}).await;
        node.server.set_synchronous_standby_names(Some("\"b\"")).await.unwrap();
        assert_eq!(node.monitor().await.synchronous_standby_names, "\"b\"");
        let mut successor = node.second_agent();
        let seen = successor.look().await;
        assert_eq!((seen.state, seen.is_postmaster_alive), (Some(State::Running), true));
        successor
            .configure(true, |config| drop(config.parameters.insert("shared_buffers".into(), "20MB".into())))
            .await;
        let seen = successor.look().await;
        assert_eq!(seen.monitor.unwrap().synchronous_standby_names, "\"b\"");
        assert!(seen.pending_restart.contains_key("shared_buffers"));
        // What waits for a restart is known to the next agent, too.
        assert!(node.second_agent().look().await.pending_restart.contains_key("shared_buffers"));
        // So are settings that were changed while there was no agent.
        let mut third = node.second_agent_with(|config| {
            config.parameters.insert("shared_buffers".into(), "20MB".into());
            config.parameters.insert("work_mem".into(), "9MB".into());
        });
        let give_up = Instant::now() + DEADLINE;
        while third.look().await.state != Some(State::Running) || third.text("SHOW work_mem").await != "9MB" {
            assert!(Instant::now() < give_up, "the changed setting was never applied");
        }
        assert_eq!(third.monitor().await.synchronous_standby_names, "\"b\"");
        third.configure(false, |config| drop(config.parameters.insert("no_such_thing".into(), "1".into()))).await;
        assert!(!node.read("postgresql.conf").contains("no_such_thing"));

        successor.server.set_synchronous_standby_names(None).await.unwrap();
        assert_eq!(successor.monitor().await.synchronous_standby_names, "");
    });
}

#[test]
fn a_hung_server_is_looked_at_in_time_and_can_be_quit() {
    run("a_hung_server_is_looked_at_in_time_and_can_be_quit", async {
        let node = Node::primary("a", |_| {}).await;
        node.look().await;
        let pid = node.pid();
        let mut family: Vec<i32> = process_tree::descendants(pid).iter().map(|process| process.pid).collect();
        family.push(pid);
        for pid in &family {
            process_tree::signal(*pid, Signal::SIGSTOP);
        }
        let began = Instant::now();
        let seen = node.server.look(&Look { budget: Duration::from_millis(400), ..everything() }).await;
        assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
        assert!(seen.monitor.is_none() && seen.is_postmaster_alive && !seen.accepts_connections);
        assert_eq!(seen.state, Some(State::Running));
        node.server.quit_now();
        let postmaster = Postmaster::of(pid);
        if let Some(postmaster) = postmaster {
            timeout(Duration::from_secs(15), postmaster.ended()).await.expect("it quits although it was suspended");
        }
        assert_eq!(node.look().await.state, Some(State::Crashed));
    });
}

#[test]
fn a_stop_that_takes_too_long_is_enforced() {
    run("a_stop_that_takes_too_long_is_enforced", async {
        let node = Node::primary("a", |_| {}).await;
        let client = node.client().await;
        let backend: i32 = client.query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get(0);
        process_tree::signal(backend, Signal::SIGSTOP);
        let cancel = CancellationToken::new();
        let endless = fast();
        let stop = node.server.stop(&endless, None, &cancel);
        let cancelled = async {
            timeout(Duration::from_millis(300), std::future::pending::<()>()).await.unwrap_err();
            cancel.cancel();
        };
        let (stopped, ()) = tokio::join!(stop, cancelled);
        assert!(matches!(stopped, Err(PgError::Cancelled)));
        assert_eq!(node.look().await.state, Some(State::Stopping));
        let plan = StopPlan { timeout: Some(Duration::from_millis(300)), ..fast() };
        let began = Instant::now();
        node.server.stop(&plan, None, &never()).await.unwrap();
        assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
        assert_eq!(node.look().await.state, Some(State::Stopped));
        assert_eq!(process_tree::process(backend).filter(|process| !process.is_zombie), None);
    });
}

/// A server ignores orders until it has come to handling them; an order in that moment must not be lost.
#[test]
fn a_stop_in_the_first_moment_of_a_start_ends_it() {
    run("a_stop_in_the_first_moment_of_a_start_ends_it", async {
        let node = Node::primary("a", |_| {}).await;
        node.server.stop(&fast(), None, &never()).await.unwrap();
        for _ in 0..5 {
            let cancel = CancellationToken::new();
            let plan = StartPlan { recovery: Recovery::None, role: Role::Primary, timeout: None };
            let start = node.server.start(&plan, &cancel);
            let spawned = async {
                while !node.look().await.is_postmaster_alive {}
                cancel.cancel();
            };
            let (started, ()) = tokio::join!(start, spawned);
            drop(started);
            let stop = async { node.server.stop(&fast(), None, &never()).await };
            timeout(DEADLINE, stop).await.expect("the server ends").unwrap();
            assert!(!node.look().await.is_postmaster_alive);
        }
    });
}

#[test]
fn starts_that_fail_say_why() {
    run("starts_that_fail_say_why", async {
        let mut node = Node::primary("a", |_| {}).await;
        node.server.stop(&fast(), None, &never()).await.unwrap();
        let plan = StartPlan { recovery: Recovery::None, role: Role::Primary, timeout: None };
        node.configure(false, |config| drop(config.parameters.insert("log_timezone".into(), "Nowhere".into()))).await;
        let error = node.server.start(&plan, &never()).await.unwrap_err().to_string();
        assert!(error.contains("ended during its start"), "{error}");
        assert_eq!(node.look().await.state, Some(State::StartFailed));
        node.configure(false, |config| drop(config.parameters.remove("log_timezone"))).await;

        let cancelled = CancellationToken::new();
        cancelled.cancel();
        assert!(matches!(node.server.start(&plan, &cancelled).await, Err(PgError::Cancelled)));

        // The pid file names a living process that is no server.
        std::fs::write(node.data("postmaster.pid"), format!("{}\n", std::process::id())).unwrap();
        assert_eq!(node.start(Recovery::None).await, Started::Running);
        assert_eq!(node.start(Recovery::None).await, Started::StillStarting, "one runs already");
        node.until("running", |seen| seen.state == Some(State::Running)).await;
        assert!(matches!(node.server.remove_data_dir().await, Err(PgError::Refused(_))));
        node.server.stop(&fast(), None, &never()).await.unwrap();

        let version = node.read("PG_VERSION");
        std::fs::write(node.data("PG_VERSION"), "11\n").unwrap();
        let error = node.server.start(&plan, &never()).await.unwrap_err().to_string();
        assert!(error.contains("PostgreSQL 11 is not supported"), "{error}");
        std::fs::write(node.data("PG_VERSION"), version).unwrap();
        node.server.move_data_dir_away().await.unwrap();
        assert_eq!(node.look().await.data_dir, DataDir::Empty);
        assert!(node.path("data.failed").is_dir());
        let error = node.server.start(&plan, &never()).await.unwrap_err().to_string();
        assert!(error.contains("PG_VERSION"), "{error}");
    });
}

#[test]
fn a_slow_start_goes_on_without_its_caller() {
    run("a_slow_start_goes_on_without_its_caller", async {
        let node = Node::primary("a", |_| {}).await;
        node.server.stop(&StopPlan { mode: StopMode::Immediate, ..fast() }, None, &never()).await.unwrap();
        let gate = node.path("gate");
        let wait = format!("while [ ! -e {} ]; do sleep 0.05; done; false", gate.display());
        let slow = Arc::new(pgherd::config::PostgresConfig {
            recovery_conf: [("restore_command".to_owned(), wait)].into(),
            ..node.config.clone()
        });
        node.server.configure(slow, false).await.unwrap();
        let limit = Some(Duration::from_millis(300));
        let plan = StartPlan { recovery: Recovery::Standby(None), role: Role::Replica, timeout: limit };
        assert_eq!(node.server.start(&plan, &never()).await.unwrap(), Started::StillStarting);
        let seen = node.look().await;
        assert_eq!((seen.state, seen.accepts_connections, seen.monitor), (Some(State::Starting), false, None));
        let events = node.server.events();
        let _ = timeout(Duration::from_millis(1), events.notified()).await;
        std::fs::write(gate, "").unwrap();
        timeout(DEADLINE, events.notified()).await.expect("its readiness is told");
        let seen = node.look().await;
        assert_eq!((seen.state, seen.accepts_connections), (Some(State::Running), true));
        assert!(seen.monitor.unwrap().in_recovery);
        // No receiver tells its timeline; the replication protocol does.
        assert_eq!(node.monitor().await.timeline, Some(Timeline(1)));
    });
}

#[test]
fn scripts_run_at_their_moments() {
    run("scripts_run_at_their_moments", async {
        let said = tempfile::tempdir().unwrap();
        let script = said.path().join("script");
        let log = said.path().join("log");
        std::fs::write(&script, format!("echo \"$@\" >> {}\n[ \"$1\" != fail ]\n", log.display())).unwrap();
        let command = |word: &str| format!("/bin/sh {} {word}", script.display());
        let mut node = Node::primary("a", |config| {
            config.before_stop = Some(command("before"));
            config.pre_promote = Some(command("fail"));
            config.callbacks = [("on_reload".to_owned(), command("callback"))].into();
        })
        .await;
        assert!(!node.server.pre_promote(&never()).await);
        node.configure(true, |config| config.pre_promote = None).await;
        assert!(node.server.pre_promote(&never()).await);
        node.server.settle_callbacks(DEADLINE).await;
        node.server.stop(&fast(), None, &never()).await.unwrap();
        let give_up = Instant::now() + DEADLINE;
        loop {
            let text = std::fs::read_to_string(&log).unwrap_or_default();
            let mut lines: Vec<&str> = text.lines().collect();
            lines.sort_unstable();
            if lines == ["before", "callback on_reload primary demo", "fail"] {
                break;
            }
            assert!(Instant::now() < give_up, "{text}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
}
