//! User names, passwords and certificates, against a real etcd.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use etcd_client::{Client, ConnectOptions, Permission, PermissionType};
use pgherd::config::{DcsConfig, Etcd3Config, Secret};
use pgherd::dcs::{Dcs, DcsError, Identity, Renewed, Timing, connect};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair};
use tokio::time::sleep;

use crate::cases_wakes::Sleeper;
use crate::etcd::{Server, is_etcd_installed};

async fn agent(config: Etcd3Config) -> Arc<dyn Dcs> {
    let identity = Identity::Agent { name: "a".into() };
    let timing = Timing { retry_timeout: Duration::from_secs(5), ..Timing::default() };
    connect(&DcsConfig::Etcd3(config), "service", "demo", None, identity, timing).await.unwrap()
}

fn login(server: &Server, name: &str, password: &str) -> Etcd3Config {
    Etcd3Config {
        hosts: vec![server.address()],
        username: Some(name.to_owned()),
        password: Some(Secret::new(password)),
        ..Etcd3Config::default()
    }
}

async fn enable_authentication(server: &Server) {
    let mut client = Client::connect([server.address()], None).await.unwrap();
    client.user_add("root", "secret", None).await.unwrap();
    client.role_add("root").await.unwrap();
    client.user_grant_role("root", "root").await.unwrap();
    client.user_add("patroni", "word", None).await.unwrap();
    client.role_add("ours").await.unwrap();
    let ours = Permission::new(PermissionType::Readwrite, "/service/").with_prefix();
    client.role_grant_permission("ours", ours).await.unwrap();
    client.user_grant_role("patroni", "ours").await.unwrap();
    client.auth_enable().await.unwrap();
}

/// By a connection of its own: tokens end soon here.
async fn change_password(server: &Server, password: &str) {
    let options = Some(ConnectOptions::new().with_user("root", "secret"));
    let mut client = Client::connect([server.address()], options).await.unwrap();
    client.user_change_password("patroni", password).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_with_a_password_is_let_in_and_others_are_told() {
    if !is_etcd_installed() {
        return;
    }
    // Tokens live for a second here, so that they run out in the middle of things.
    let server = Server::etcd(&["--auth-token-ttl", "1"]);
    let before = agent(login(&server, "patroni", "word")).await;
    before.load().await.expect("authentication is not enabled yet");
    enable_authentication(&server).await;

    before.load().await.expect("what was not needed before is done now");
    let good = agent(login(&server, "patroni", "word")).await;
    let mut sleeper = Sleeper::new(good.clone(), good.clone()).await;
    assert!(good.acquire_leader(None).await.unwrap());
    sleeper.hears("a new leader").await;
    for _ in 0..4 {
        sleep(Duration::from_millis(700)).await;
        let seen = good.load().await.unwrap().leader.unwrap();
        assert!(good.renew_leader(&seen).await.unwrap());
    }
    good.set_initialize("x").await.unwrap();
    sleeper.hears("news on a watch older than its token").await;

    // A new password comes to the configuration first here, and to the server a moment later.
    let renewed = good.reconfigure(&DcsConfig::Etcd3(login(&server, "patroni", "new word"))).unwrap();
    assert_eq!(renewed.iter().map(|renewed| renewed.key).collect::<Vec<_>>(), ["etcd3.password"]);
    let seen = good.load().await.expect("the former password is still good").leader.unwrap();
    change_password(&server, "new word").await;
    for _ in 0..2 {
        let now = good.load().await.expect("the new one is").leader.unwrap();
        assert_eq!(now.session, seen.session, "the lease is the same");
        assert!(good.renew_leader(&now).await.unwrap());
        sleep(Duration::from_millis(1100)).await;
    }
    good.set_initialize("y").await.unwrap();
    sleeper.hears("news on a watch older than its password").await;
    change_password(&server, "word").await;

    without_rights(&server, &*good, &mut sleeper).await;

    let wrong = agent(login(&server, "patroni", "other")).await.load().await;
    assert!(matches!(&wrong, Err(DcsError::Config(text)) if text.contains("etcd3")), "{wrong:?}");
    let nobody = agent(Etcd3Config { hosts: vec![server.address()], ..Etcd3Config::default() }).await;
    assert!(matches!(nobody.load().await, Err(DcsError::Refused { .. })));
    let config = DcsConfig::Etcd3(login(&server, "patroni", "word"));
    let elsewhere = connect(&config, "elsewhere", "demo", None, Identity::Operator, Timing::default()).await.unwrap();
    assert!(matches!(elsewhere.load().await, Err(DcsError::Refused { .. })));
}

async fn as_root(server: &Server) -> Client {
    let options = Some(ConnectOptions::new().with_user("root", "secret"));
    Client::connect([server.address()], options).await.unwrap()
}

/// Whoever is configured anew counts only when the server lets them do what a member does.
async fn without_rights(server: &Server, dcs: &dyn Dcs, sleeper: &mut Sleeper) {
    let take = |config: Etcd3Config| drop(dcs.reconfigure(&DcsConfig::Etcd3(config)).unwrap());
    take(login(server, "patroni", "word"));
    let session = dcs.load().await.unwrap().leader.unwrap().session;
    let works = async |when: &str| {
        let seen = dcs.load().await.unwrap_or_else(|error| panic!("{when}: {error:?}")).leader.unwrap();
        assert_eq!(seen.session, session, "the lease is the same");
        assert!(dcs.renew_leader(&seen).await.unwrap());
        dcs.set_initialize(&format!("{when} {}", seen.version.0)).await.expect("it may write");
    };
    as_root(server).await.user_add("reader", "word", None).await.unwrap();
    // No role at all, then nobody, then one that may only look.
    take(login(server, "reader", "word"));
    works("no role").await;
    sleeper.hears("news while the new user is on trial").await;
    take(Etcd3Config { hosts: vec![server.address()], ..Etcd3Config::default() });
    works("nobody").await;
    let mut root = as_root(server).await;
    root.role_add("look").await.unwrap();
    let look = Permission::new(PermissionType::Read, "/service/").with_prefix();
    root.role_grant_permission("look", look).await.unwrap();
    root.user_grant_role("reader", "look").await.unwrap();
    take(login(server, "reader", "word"));
    works("read only").await;
    // The former one goes on also when its token has run out.
    sleep(Duration::from_millis(1100)).await;
    works("token over").await;

    // Given what it lacks, the new one is taken at the next reload, though nothing in the section is different.
    as_root(server).await.user_grant_role("reader", "ours").await.unwrap();
    take(login(server, "reader", "word"));
    works("granted").await;
    as_root(server).await.user_delete("patroni").await.unwrap();
    works("former user gone").await;
    sleeper.hears("news for the new user").await;
    let mut root = as_root(server).await;
    root.user_add("patroni", "word", None).await.unwrap();
    root.user_grant_role("patroni", "ours").await.unwrap();
    take(login(server, "patroni", "word"));
    works("and back").await;
}

struct Files {
    dir: tempfile::TempDir,
}

impl Files {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let issuer = |name: &str| {
            let mut params = CertificateParams::new(Vec::new()).unwrap();
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params.distinguished_name.push(rcgen::DnType::CommonName, name);
            CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
        };
        let (ca, stranger) = (issuer("ours"), issuer("somebody"));
        let leaf = |usage| {
            let key = KeyPair::generate().unwrap();
            let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
            params.extended_key_usages = vec![usage];
            let certificate = params.signed_by(&key, &ca).unwrap();
            (certificate.pem(), key.serialize_pem())
        };
        let server = leaf(ExtendedKeyUsagePurpose::ServerAuth);
        let client = leaf(ExtendedKeyUsagePurpose::ClientAuth);
        let next = leaf(ExtendedKeyUsagePurpose::ClientAuth);
        let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
        write("ca.pem", &ca.pem());
        write("stranger.pem", &stranger.pem());
        write("server.pem", &server.0);
        write("server.key", &server.1);
        write("client.pem", &format!("{}{}", client.0, client.1));
        write("next.pem", &format!("{}{}", next.0, next.1));
        Self { dir }
    }

    fn path(&self, name: &str) -> String {
        let path: &Path = self.dir.path();
        path.join(name).to_str().unwrap().to_owned()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_are_checked_on_both_sides() {
    if !is_etcd_installed() {
        return;
    }
    let files = Files::new();
    let [ca, cert, key] = ["ca.pem", "server.pem", "server.key"].map(|name| files.path(name));
    let server =
        Server::etcd(&["--cert-file", &cert, "--key-file", &key, "--client-cert-auth", "--trusted-ca-file", &ca]);
    let config = Etcd3Config {
        hosts: vec![server.address()],
        is_https: true,
        cacert: Some(ca),
        cert: Some(files.path("client.pem")),
        ..Etcd3Config::default()
    };
    let dcs = agent(config.clone()).await;
    assert!(dcs.acquire_leader(None).await.unwrap());
    let mut sleeper = Sleeper::new(dcs.clone(), dcs.clone()).await;
    dcs.set_initialize("x").await.unwrap();
    sleeper.hears("news over TLS").await;

    // The client's certificate is replaced while it holds the lock.
    assert!(dcs.reconfigure(&DcsConfig::Etcd3(config.clone())).unwrap().is_empty());
    std::fs::copy(files.path("next.pem"), files.path("client.pem")).unwrap();
    let renewed = dcs.reconfigure(&DcsConfig::Etcd3(config.clone())).unwrap();
    assert_eq!(renewed, [Renewed { key: "etcd3.cert", file: config.cert.clone() }]);
    let seen = dcs.load().await.unwrap().leader.unwrap();
    assert!(dcs.renew_leader(&seen).await.unwrap());
    assert_eq!(dcs.load().await.unwrap().leader.unwrap().session, seen.session);
    dcs.set_initialize("y").await.unwrap();
    sleeper.hears("news over the new connection").await;
    let missing = DcsConfig::Etcd3(Etcd3Config { cacert: Some(files.path("none.pem")), ..config.clone() });
    let error = dcs.reconfigure(&missing).unwrap_err().to_string();
    assert!(error.contains("none.pem"), "{error}");
    assert!(dcs.renew_leader(&seen).await.unwrap());

    let fails = async |config: Etcd3Config| {
        let error = agent(config).await.load().await.unwrap_err();
        assert!(matches!(error, DcsError::Unavailable { .. }), "{error:?}");
        format!("{error:?}").to_lowercase()
    };
    let anonymous = fails(Etcd3Config { cert: None, ..config.clone() }).await;
    assert!(!anonymous.is_empty());
    let distrusted = fails(Etcd3Config { cacert: Some(files.path("stranger.pem")), ..config.clone() }).await;
    assert!(distrusted.contains("certificate"), "{distrusted}");
    fails(Etcd3Config { is_https: false, cacert: None, cert: None, ..config }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn other_servers_are_taken_while_it_runs_if_they_are_of_the_same_cluster() {
    if !is_etcd_installed() {
        return;
    }
    let (ours, theirs) = (Server::etcd(&[]), Server::etcd(&[]));
    let at = |hosts: &[String]| {
        DcsConfig::Etcd3(Etcd3Config { hosts: hosts.to_vec(), use_proxies: true, ..Etcd3Config::default() })
    };
    let DcsConfig::Etcd3(first) = at(&[ours.address()]) else { panic!("etcd3") };
    let dcs = agent(first).await;
    assert!(dcs.acquire_leader(None).await.unwrap());
    let seen = dcs.load().await.unwrap().leader.unwrap();
    let mut sleeper = Sleeper::new(dcs.clone(), dcs.clone()).await;

    // Another name of the same server, behind one of another cluster.
    let elsewhere = ours.address().replace("127.0.0.1", "localhost");
    let renewed = dcs.reconfigure(&at(&[theirs.address(), elsewhere])).unwrap();
    assert_eq!(renewed, [Renewed { key: "etcd3.hosts", file: None }]);
    assert!(dcs.renew_leader(&seen).await.unwrap());
    dcs.set_initialize("x").await.unwrap();
    sleeper.hears("news from the server under its new name").await;

    dcs.reconfigure(&at(&[theirs.address()])).unwrap();
    let error = dcs.load().await.unwrap_err();
    assert!(format!("{error:?}").contains("another etcd cluster"), "{error:?}");
    assert!(dcs.renew_leader(&seen).await.is_err());
    let mut client = Client::connect([theirs.address()], None).await.unwrap();
    let found = client.get("/", Some(etcd_client::GetOptions::new().with_prefix())).await.unwrap();
    assert!(found.kvs().is_empty(), "nothing was written there");

    dcs.reconfigure(&at(&[ours.address()])).unwrap();
    assert!(dcs.renew_leader(&seen).await.unwrap());
    assert_eq!(dcs.load().await.unwrap().leader.unwrap().session, seen.session);
}
