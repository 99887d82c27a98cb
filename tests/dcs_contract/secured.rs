//! User names, passwords and certificates, against a real etcd.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use etcd_client::{Client, Permission, PermissionType};
use pgherd::config::{DcsConfig, Etcd3Config, Secret};
use pgherd::dcs::{Dcs, DcsError, Identity, Timing, connect};
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
    assert!(good.acquire_leader().await.unwrap());
    sleeper.hears("a new leader").await;
    for _ in 0..4 {
        sleep(Duration::from_millis(700)).await;
        let seen = good.load().await.unwrap().leader.unwrap();
        assert!(good.renew_leader(&seen).await.unwrap());
    }
    good.set_initialize("x").await.unwrap();
    sleeper.hears("news on a watch older than its token").await;

    let wrong = agent(login(&server, "patroni", "other")).await.load().await;
    assert!(matches!(&wrong, Err(DcsError::Config(text)) if text.contains("etcd3")), "{wrong:?}");
    let nobody = agent(Etcd3Config { hosts: vec![server.address()], ..Etcd3Config::default() }).await;
    assert!(matches!(nobody.load().await, Err(DcsError::Refused { .. })));
    let config = DcsConfig::Etcd3(login(&server, "patroni", "word"));
    let elsewhere = connect(&config, "elsewhere", "demo", None, Identity::Operator, Timing::default()).await.unwrap();
    assert!(matches!(elsewhere.load().await, Err(DcsError::Refused { .. })));
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
        let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
        write("ca.pem", &ca.pem());
        write("stranger.pem", &stranger.pem());
        write("server.pem", &server.0);
        write("server.key", &server.1);
        write("client.pem", &format!("{}{}", client.0, client.1));
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
    assert!(dcs.acquire_leader().await.unwrap());
    let mut sleeper = Sleeper::new(dcs.clone(), dcs.clone()).await;
    dcs.set_initialize("x").await.unwrap();
    sleeper.hears("news over TLS").await;

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
