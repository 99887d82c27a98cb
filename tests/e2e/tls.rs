//! One self-signed certificate, its own CA, on every wire at once: the store, PostgreSQL, the REST interfaces.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::{Duration, Instant};

use pgherd::io::tls::{Identity, Trust, client_config};
use serde_json::{Value, json};

use crate::etcd_nodes::EtcdNodes;
use crate::harness::{Cluster, Kind, Store, stderr, stdout};
use crate::rewind::{count, crash_with_extra_wal};

const LONG: Duration = Duration::from_secs(60);
const KEY_PASSWORD: &str = "open sesame";

/// Asks no certificate of who only looks; its settings change while it runs.
const OPTIONAL: usize = 1;
/// Talks to nobody without a certificate.
const REQUIRED: usize = 0;

/// The one suite of TLS 1.2 that a member has left, and one that it could have.
const ALLOWED_SUITE: &str = "ECDHE-RSA-AES256-GCM-SHA384";
const OTHER_SUITE: &str = "ECDHE-RSA-AES128-GCM-SHA256";

fn openssl(args: &[&str]) {
    let output = Command::new("openssl").args(args).output().expect("openssl runs");
    assert!(output.status.success(), "openssl {args:?}: {}", stderr(&output));
}

fn text(cluster: &Cluster, name: &str) -> String {
    cluster.path(name).to_str().unwrap().to_owned()
}

/// `NAME.pem`, its plain key `NAME.key`, and the encrypted one `NAME-locked.key`.
fn make_certificate(cluster: &Cluster, name: &str) {
    let [pem, key, locked] = [".pem", ".key", "-locked.key"].map(|end| text(cluster, &format!("{name}{end}")));
    let names = "subjectAltName=IP:127.0.0.1,DNS:localhost";
    let subject = format!("/CN={name}");
    openssl(&[
        "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", &subject, "-addext", names, "-keyout",
        &key, "-out", &pem,
    ]);
    let password = format!("pass:{KEY_PASSWORD}");
    openssl(&["pkcs8", "-topk8", "-in", &key, "-out", &locked, "-passout", &password]);
    for path in [pem, key, locked] {
        let text = fs::read_to_string(&path).unwrap();
        let name = path.rsplit('/').next().unwrap();
        cluster.write(name, &text);
        // PostgreSQL and libpq take no key that others can read.
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    }
}

fn copy(cluster: &Cluster, from: &str, to: &str) {
    cluster.write(to, &fs::read_to_string(cluster.path(from)).unwrap());
}

/// A client that trusts one certificate and may show one.
fn client(cluster: &Cluster, trusted: &str, shown: Option<&str>) -> reqwest::Client {
    let (trusted, shown) = (text(cluster, trusted), shown.map(|name| text(cluster, name)));
    let key = text(cluster, "own-locked.key");
    let identity = shown.as_deref().map(|cert| Identity { cert, key: Some(&key), password: Some(KEY_PASSWORD) });
    let config = client_config(Trust::File(&trusted), identity).unwrap();
    reqwest::Client::builder().tls_backend_preconfigured(config).pool_max_idle_per_host(0).build().unwrap()
}

fn secure(document: &mut Value, cluster: &Cluster, store: &str, i: usize) {
    let [own, key, locked] = ["own.pem", "own.key", "own-locked.key"].map(|name| text(cluster, name));
    let [cert, cert_key] = ["pem", "key"].map(|end| text(cluster, &format!("store-{i}.{end}")));
    document["etcd3"] = json!({"host": store, "protocol": "https", "cacert": own, "cert": cert, "key": cert_key});
    document["ctl"] =
        json!({"cacert": own, "certfile": own, "keyfile": locked, "keyfile_password": KEY_PASSWORD, "insecure": false});
    let rest = &mut document["restapi"];
    rest["certfile"] = json!(text(cluster, &format!("rest-{i}.pem")));
    rest["keyfile"] = json!(text(cluster, &format!("rest-{i}.key")));
    rest["keyfile_password"] = KEY_PASSWORD.into();
    rest["cafile"] = json!(own);
    rest["verify_client"] = json!(if i == OPTIONAL { "optional" } else { "required" });
    rest["http_extra_headers"] = json!({"X-Herd": "plain", "X-Place": "here"});
    rest["https_extra_headers"] = json!({"X-Herd": "secured"});
    rest["ciphers"] = if i == OPTIONAL { ALLOWED_SUITE } else { "RC4-MD5" }.into();
    let postgresql = &mut document["postgresql"];
    for user in ["superuser", "replication", "rewind"] {
        let user = &mut postgresql["authentication"][user];
        user["sslmode"] = "verify-ca".into();
        user["sslrootcert"] = json!(own);
        user["sslcert"] = json!(own);
        user["sslkey"] = json!(locked);
        user["sslpassword"] = KEY_PASSWORD.into();
    }
    let parameters = &mut postgresql["parameters"];
    parameters["ssl"] = "on".into();
    for (name, file) in [("ssl_cert_file", &own), ("ssl_key_file", &key), ("ssl_ca_file", &own)] {
        parameters[name] = json!(file);
    }
    postgresql["pg_hba"] = json!([
        "local all all trust",
        "hostssl all all 127.0.0.1/32 scram-sha-256 clientcert=verify-ca",
        "hostssl replication replicator 127.0.0.1/32 scram-sha-256 clientcert=verify-ca",
    ]);
}

/// Files for everybody, the store, and members that are not running yet.
fn prepared() -> (EtcdNodes, Cluster) {
    let dynamic = json!({"ttl": 20, "loop_wait": 1, "retry_timeout": 5, "primary_start_timeout": 0,
        "maximum_lag_on_failover": 1_073_741_824, "postgresql": {"use_pg_rewind": true}});
    let mut cluster = Cluster::new(Store::Elsewhere, &[Kind::Pgherd; 3], dynamic);
    make_certificate(&cluster, "own");
    make_certificate(&cluster, "next");
    let files = ["own.pem", "own.key", "own.pem"].map(|name| text(&cluster, name));
    let etcd = EtcdNodes::start_with(1, &[], Some(files));
    for i in 0..3 {
        copy(&cluster, "own.pem", &format!("rest-{i}.pem"));
        copy(&cluster, "own-locked.key", &format!("rest-{i}.key"));
        copy(&cluster, "own.pem", &format!("store-{i}.pem"));
        copy(&cluster, "own.key", &format!("store-{i}.key"));
        cluster.reconfigure(i, |document| secure(document, &cluster, &etcd.address(0), i));
    }
    cluster.through_socket = true;
    cluster.over_tls = Some(client(&cluster, "own.pem", Some("own.pem")));
    operator(&cluster, &etcd, true);
    (etcd, cluster)
}

fn operator(cluster: &Cluster, etcd: &EtcdNodes, shows_certificate: bool) {
    let [own, key, locked] = ["own.pem", "own.key", "own-locked.key"].map(|name| text(cluster, name));
    let mut ctl = json!({"cacert": own});
    if shows_certificate {
        ctl = json!({"cacert": own, "certfile": own, "keyfile": locked, "keyfile_password": KEY_PASSWORD});
    }
    let store = json!({"host": etcd.address(0), "protocol": "https", "cacert": own, "cert": own, "key": key});
    cluster.write("ctl.yml", &json!({"scope": cluster.scope, "etcd3": store, "ctl": ctl}).to_string());
}

async fn status_of(client: &reqwest::Client, cluster: &Cluster, method: &str, i: usize, path: &str) -> Option<u16> {
    let url = format!("https://127.0.0.1:{}{path}", cluster.members[i].api_port);
    let request = client.request(method.parse().unwrap(), url).timeout(Duration::from_secs(3));
    request.send().await.ok().map(|answer| answer.status().as_u16())
}

async fn wait_for<T: PartialEq + std::fmt::Debug>(cluster: &Cluster, wanted: T, ask: impl AsyncFn() -> T) {
    let give_up = Instant::now() + LONG;
    loop {
        let found = ask().await;
        if found == wanted {
            return;
        }
        assert!(Instant::now() < give_up, "{found:?} instead of {wanted:?}\n{}", cluster.dump());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// What each kind of caller is told.
async fn doors(cluster: &Cluster) {
    let known = client(cluster, "own.pem", Some("own.pem"));
    let anonymous = client(cluster, "own.pem", None);
    let url = format!("https://127.0.0.1:{}/reload", cluster.members[OPTIONAL].api_port);
    let answer = anonymous.post(&url).send().await.unwrap();
    assert_eq!(answer.status(), 403);
    assert_eq!(answer.text().await.unwrap(), "client certificate required");
    assert_eq!(status_of(&anonymous, cluster, "GET", OPTIONAL, "/patroni").await, Some(200));
    assert_eq!(status_of(&anonymous, cluster, "GET", REQUIRED, "/patroni").await, None);
    assert_eq!(status_of(&known, cluster, "POST", REQUIRED, "/reload").await, Some(202));
    assert!(crate::harness::http("GET", cluster.members[OPTIONAL].api_port, "/patroni", None).await.is_none());

    let answer = known.get(url.replace("/reload", "/patroni")).send().await.unwrap();
    let header = |name: &str| answer.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
    assert_eq!((header("X-Herd").as_deref(), header("X-Place").as_deref()), (Some("secured"), Some("here")));
}

/// The allowlist is followed live.
async fn allowlist(cluster: &Cluster) {
    let known = client(cluster, "own.pem", Some("own.pem"));
    let reload = async || status_of(&known, cluster, "POST", OPTIONAL, "/reload").await;
    let change = |includes_members: bool| {
        cluster.reconfigure(OPTIONAL, |document| {
            document["restapi"]["allowlist"] = json!(["10.0.0.0/8"]);
            document["restapi"]["allowlist_include_members"] = includes_members.into();
        });
        cluster.signal_agent(OPTIONAL, "HUP");
    };
    change(false);
    wait_for(cluster, Some(403), &reload).await;
    assert_eq!(status_of(&known, cluster, "GET", OPTIONAL, "/patroni").await, Some(200));
    change(true);
    wait_for(cluster, Some(202), &reload).await;
}

/// A new certificate is served after a reload; one that cannot be used changes nothing.
async fn replacement(cluster: &Cluster) {
    let (old, new) = (client(cluster, "own.pem", None), client(cluster, "next.pem", None));
    let seen_by = async || {
        let sees = async |client| status_of(client, cluster, "GET", OPTIONAL, "/liveness").await.is_some();
        (sees(&old).await, sees(&new).await)
    };
    assert_eq!(seen_by().await, (true, false));
    let kept = |name: &str| fs::read_to_string(cluster.path(name)).unwrap();
    copy(cluster, "next.pem", "rest-1.pem");
    cluster.signal_agent(OPTIONAL, "HUP");
    cluster.wait_log(OPTIONAL, "the old settings stay in force", LONG).await;
    assert_eq!(seen_by().await, (true, false), "{}", kept("n1.log"));
    copy(cluster, "next-locked.key", "rest-1.key");
    cluster.signal_agent(OPTIONAL, "HUP");
    wait_for(cluster, (false, true), seen_by).await;
    copy(cluster, "own.pem", "rest-1.pem");
    copy(cluster, "own-locked.key", "rest-1.key");
    cluster.signal_agent(OPTIONAL, "HUP");
    wait_for(cluster, (true, false), seen_by).await;
}

/// Whether a handshake of TLS 1.2 with this suite succeeds.
fn speaks(cluster: &Cluster, i: usize, suite: &str) -> bool {
    let [own, key] = ["own.pem", "own.key"].map(|name| text(cluster, name));
    let address = format!("127.0.0.1:{}", cluster.members[i].api_port);
    let args =
        ["s_client", "-connect", &address, "-tls1_2", "-cipher", suite, "-CAfile", &own, "-cert", &own, "-key", &key];
    let output = Command::new("openssl").args(args).stdin(std::process::Stdio::null()).output().unwrap();
    output.status.success()
}

/// The leader's certificate for the store is replaced under its name, and it stays the leader.
async fn store_certificate(cluster: &Cluster) {
    let [own, own_key, csr, new, new_key] =
        ["own.pem", "own.key", "client.csr", "client.pem", "client.key"].map(|name| text(cluster, name));
    openssl(&[
        "req",
        "-new",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-subj",
        "/CN=client",
        "-keyout",
        &new_key,
        "-out",
        &csr,
    ]);
    // Without an extension it would be a certificate of the first version, which is of no use.
    cluster.write("client.ext", "basicConstraints=CA:FALSE\n");
    let ext = text(cluster, "client.ext");
    openssl(&[
        "x509",
        "-req",
        "-in",
        &csr,
        "-CA",
        &own,
        "-CAkey",
        &own_key,
        "-CAcreateserial",
        "-extfile",
        &ext,
        "-out",
        &new,
    ]);
    // Half of a pair changes nothing.
    copy(cluster, "client.key", "store-0.key");
    cluster.signal_agent(REQUIRED, "HUP");
    cluster.wait_log(REQUIRED, "the connection to etcd stays as it was", LONG).await;
    copy(cluster, "client.pem", "store-0.pem");
    cluster.signal_agent(REQUIRED, "HUP");
    cluster.wait_log(REQUIRED, &format!("etcd3.cert: {} was replaced", text(cluster, "store-0.pem")), LONG).await;
    // Over the new connection a switch of a setting is read and answered.
    let shown = cluster.ctl(&["edit-config", "e2e", "-s", "maximum_lag_on_failover=1073741825", "--force"]);
    assert!(shown.status.success(), "{}", stderr(&shown));
    wait_for(cluster, Some(1_073_741_825), async || {
        let answer =
            cluster.over_tls.as_ref()?.get(format!("https://127.0.0.1:{}/config", cluster.members[REQUIRED].api_port));
        let document: Value = answer.send().await.ok()?.json().await.ok()?;
        document["maximum_lag_on_failover"].as_i64()
    })
    .await;
    cluster.wait_healthy(LONG).await;
    assert_eq!(cluster.leader().await, Some(REQUIRED), "{}", cluster.dump());
    assert_eq!(cluster.status(REQUIRED).await.unwrap()["timeline"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_certificate_that_is_its_own_ca_secures_everything() {
    let (etcd, mut cluster) = prepared();
    cluster.start(REQUIRED);
    cluster.wait_leader(LONG, |_| true).await;
    cluster.start(OPTIONAL);
    cluster.start(2);
    cluster.wait_healthy(LONG).await;
    let plain =
        cluster.sql(REQUIRED, "SELECT count(*) FROM pg_stat_ssl JOIN pg_stat_replication USING (pid) WHERE ssl");
    assert_eq!(plain.await.unwrap()[0][0].as_deref(), Some("2"), "both standbys stream over TLS");
    cluster.wait_log(REQUIRED, "restapi.ciphers 'RC4-MD5' leaves none", LONG).await;
    assert!(speaks(&cluster, REQUIRED, OTHER_SUITE), "what cannot be used is as if it were not there");
    assert!(speaks(&cluster, OPTIONAL, ALLOWED_SUITE) && !speaks(&cluster, OPTIONAL, OTHER_SUITE));
    store_certificate(&cluster).await;
    doors(&cluster).await;
    allowlist(&cluster).await;
    replacement(&cluster).await;

    operator(&cluster, &etcd, false);
    let refused = cluster.ctl(&["reload", "e2e", &cluster.members[REQUIRED].name, "--force"]);
    let words = stdout(&refused) + &stderr(&refused);
    assert!(words.contains("CertificateRequired"), "{words}");
    let (from, to) = (&cluster.members[REQUIRED].name, &cluster.members[OPTIONAL].name);
    let switchover = ["switchover", "e2e", "--leader", from, "--candidate", to, "--force"];
    operator(&cluster, &etcd, true);
    let done = cluster.ctl(&switchover);
    let words = stdout(&done) + &stderr(&done);
    assert!(done.status.success() && words.contains("Successfully switched over"), "{words}");
    cluster.wait_leader(LONG, |now| now == OPTIONAL).await;
    cluster.wait_healthy(LONG).await;

    cluster.sql(OPTIONAL, "CREATE TABLE extra (id int)").await.unwrap();
    cluster.wait_healthy(LONG).await;
    let former = crash_with_extra_wal(&cluster).await;
    cluster.wait_healthy(LONG).await;
    assert!(count(&cluster, former, "pg_rewind exit code=0") > 0, "{}", cluster.dump());
}
