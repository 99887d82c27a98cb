//! An etcd of three servers, and what happens to such a thing.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::etcd_nodes::EtcdNodes;
use crate::harness::{Cluster, Kind, Store, stderr, stdout};

const LONG: Duration = Duration::from_secs(60);

const ALL: usize = 1;
const ONE: usize = 0;
const PROXY: usize = 2;

/// Member 1 knows all servers, member 0 one of them, and member 2 takes that one for a proxy.
async fn born(etcd: &EtcdNodes) -> Cluster {
    // An election in etcd takes a second or two, more on a busy machine; it must fit well into one operation.
    let dynamic = json!({"ttl": 20, "loop_wait": 1, "retry_timeout": 8});
    let mut cluster = Cluster::new(Store::Elsewhere, &[Kind::Pgherd; 3], dynamic);
    let login = |mut section: Value| {
        section["username"] = "patroni".into();
        section["password"] = "word".into();
        section
    };
    let first = etcd.address(0);
    cluster.reconfigure(ALL, |document| document["etcd3"] = login(json!({"hosts": etcd.addresses()})));
    cluster.reconfigure(ONE, |document| document["etcd3"] = login(json!({"host": first})));
    cluster.reconfigure(PROXY, |document| document["etcd3"] = login(json!({"proxy": format!("http://{first}")})));
    operator(&cluster, etcd, "word");
    cluster.start(ALL);
    cluster.wait_leader(LONG, |_| true).await;
    cluster.start(ONE);
    cluster.start(PROXY);
    cluster.wait_healthy(LONG).await;
    assert_eq!(cluster.leader().await, Some(ALL));
    cluster
}

fn operator(cluster: &Cluster, etcd: &EtcdNodes, password: &str) {
    let section = json!({"hosts": etcd.addresses(), "username": "patroni", "password": password});
    cluster.write("ctl.yml", &json!({"scope": cluster.scope, "etcd3": section}).to_string());
}

async fn last_seen(cluster: &Cluster, i: usize) -> Option<u64> {
    cluster.status(i).await?["dcs_last_seen"].as_u64()
}

/// Waits until these members have heard of the store after this moment.
async fn wait_contact(cluster: &Cluster, members: &[usize]) {
    // Clocks are read in whole seconds.
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    for i in members {
        let give_up = Instant::now() + LONG;
        while last_seen(cluster, *i).await.is_none_or(|seen| seen <= since) {
            assert!(Instant::now() < give_up, "member {i} does not reach the store\n{}", cluster.dump());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

/// The same primary as before, on its first timeline.
async fn assert_untouched(cluster: &Cluster) {
    cluster.wait_healthy(LONG).await;
    assert_eq!(cluster.leader().await, Some(ALL), "{}", cluster.dump());
    assert_eq!(cluster.status(ALL).await.unwrap()["timeline"], 1);
    cluster.sql(ALL, "CREATE TABLE IF NOT EXISTS alive (id int)").await.unwrap();
}

async fn wait_in_recovery(cluster: &Cluster, i: usize) {
    let give_up = Instant::now() + LONG;
    loop {
        let answer = cluster.sql(i, "SELECT pg_is_in_recovery()").await;
        if answer.is_ok_and(|rows| rows[0][0].as_deref() == Some("t")) {
            return;
        }
        assert!(Instant::now() < give_up, "the primary went on writing without a store\n{}", cluster.dump());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn enable_authentication(etcd: &mut EtcdNodes, prefix: &str) {
    for command in [
        &["user", "add", "root:secret"][..],
        &["role", "add", "root"],
        &["user", "grant-role", "root", "root"],
        &["user", "add", "patroni:word"],
        &["role", "add", "ours"],
        &["role", "grant-permission", "--prefix=true", "ours", "readwrite", prefix],
        &["user", "grant-role", "patroni", "ours"],
        &["auth", "enable"],
    ] {
        etcd.ctl(command);
    }
    etcd.user = Some("root:secret".into());
}

/// The leader is given another user, who is known to the servers but not allowed anything yet.
async fn new_user(cluster: &Cluster, etcd: &EtcdNodes, leader: usize) {
    let timeline = cluster.status(leader).await.unwrap()["timeline"].clone();
    etcd.ctl(&["user", "add", "newcomer:word"]);
    cluster.reconfigure(leader, |document| {
        document["etcd3"]["username"] = "newcomer".into();
        document["etcd3"]["password"] = "word".into();
    });
    cluster.signal_agent(leader, "HUP");
    cluster.wait_log(leader, "etcd does not accept user `newcomer`", LONG).await;
    assert!(cluster.log(leader).contains("permission denied); user `patroni` stays in use"), "{}", cluster.log(leader));
    wait_contact(cluster, &[leader]).await;
    etcd.ctl(&["user", "grant-role", "newcomer", "ours"]);
    cluster.signal_agent(leader, "HUP");
    cluster.wait_log(leader, "etcd takes user `newcomer`", LONG).await;
    wait_contact(cluster, &[leader]).await;
    assert_eq!(cluster.leader().await, Some(leader), "{}", cluster.dump());
    assert_eq!(cluster.status(leader).await.unwrap()["timeline"], timeline);
}

/// One is killed, one hangs, the leader moves, the majority goes and comes.
async fn servers_fail(etcd: &mut EtcdNodes, cluster: &Cluster) {
    // The server that all members talk to is killed: who has heard of the others goes on.
    etcd.kill(0);
    wait_contact(cluster, &[ALL, ONE]).await;
    let cut_off = last_seen(cluster, PROXY).await;
    wait_contact(cluster, &[ALL]).await;
    assert_eq!(last_seen(cluster, PROXY).await, cut_off, "behind a proxy only the proxy is asked");
    etcd.revive(0);
    wait_contact(cluster, &[PROXY]).await;
    assert_untouched(cluster).await;

    // One that only hangs.
    let leading = etcd.wait_leader();
    etcd.freeze(leading, true);
    wait_contact(cluster, &[ALL]).await;
    etcd.freeze(leading, false);
    assert_untouched(cluster).await;

    let leading = etcd.wait_leader();
    etcd.move_leader((leading + 1) % 3);
    wait_contact(cluster, &[ALL, ONE, PROXY]).await;
    assert_untouched(cluster).await;

    // Without a majority the key cannot be renewed.
    etcd.kill(1);
    etcd.kill(2);
    wait_in_recovery(cluster, ALL).await;
    etcd.revive(1);
    etcd.revive(2);
    cluster.wait_healthy(LONG).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn three_servers_may_come_and_go() {
    // Tokens that are not used for two seconds run out.
    let mut etcd = EtcdNodes::start(3, &["--auth-token-ttl", "2"]);
    let mut cluster = born(&etcd).await;
    servers_fail(&mut etcd, &cluster).await;
    let leader = cluster.leader().await.unwrap();

    enable_authentication(&mut etcd, "/service/");
    let before = cluster.status(leader).await.unwrap()["timeline"].clone();
    wait_contact(&cluster, &[ALL, ONE, PROXY]).await;
    etcd.kill(0);
    etcd.revive(0);
    wait_contact(&cluster, &[ALL, ONE, PROXY]).await;
    cluster.wait_healthy(LONG).await;
    assert_eq!(cluster.leader().await, Some(leader), "{}", cluster.dump());
    assert_eq!(cluster.status(leader).await.unwrap()["timeline"], before);
    let shown = cluster.ctl(&["list"]);
    assert!(shown.status.success() && stdout(&shown).contains("n2"), "{}", stderr(&shown));

    // The leader is given a new password and another list of servers while it runs, before the servers know of it.
    let listed = [etcd.address(2), etcd.address(1)];
    cluster.reconfigure(leader, |document| {
        document["etcd3"] = json!({"hosts": listed, "username": "patroni", "password": "new word"});
    });
    cluster.signal_agent(leader, "HUP");
    cluster.wait_log(leader, "etcd3.password was changed", LONG).await;
    assert!(cluster.log(leader).contains(&format!("etcd3.hosts was changed ({}", cluster.path("").display())));
    wait_contact(&cluster, &[leader]).await;
    etcd.set_password("patroni", "new word");
    wait_contact(&cluster, &[leader]).await;
    assert_eq!(cluster.leader().await, Some(leader), "{}", cluster.dump());
    assert_eq!(cluster.status(leader).await.unwrap()["timeline"], before);
    etcd.set_password("patroni", "word");
    new_user(&cluster, &etcd, leader).await;
    cluster.reconfigure(leader, |document| {
        document["etcd3"]["username"] = "patroni".into();
        document["etcd3"]["password"] = "word".into();
    });
    cluster.signal_agent(leader, "HUP");
    wait_contact(&cluster, &[ALL, ONE, PROXY]).await;
    cluster.wait_healthy(LONG).await;

    // Who does not know the password is told where and as whom it tried.
    operator(&cluster, &etcd, "wrong");
    let refused = cluster.ctl(&["list"]);
    let words = stderr(&refused);
    assert!(!refused.status.success() && words.contains("127.0.0.1:") && words.contains("patroni"), "{words}");
    let replica = if leader == ONE { ALL } else { ONE };
    cluster.terminate_agent(replica, LONG);
    cluster.reconfigure(replica, |document| document["etcd3"]["password"] = "wrong".into());
    cluster.start(replica);
    cluster.wait_log(replica, "does not accept user `patroni`", LONG).await;
    assert!(cluster.log(replica).contains("127.0.0.1:"));
    cluster.wait_agent_ended(replica, LONG).await;
}
