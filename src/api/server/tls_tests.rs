//! Servers and clients over TLS, with certificates made on the spot.

use std::path::Path;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

use super::tests::{Running, config};
use super::*;
use crate::api::client::{Client, ClientError, HttpAnswer};
use crate::api::fake::FakeNode;
use crate::config::{CtlConfig, VerifyClient};

/// Certificates in a directory: `ca.pem`; `server.pem` and `client.pem` signed by it (each with its key in the same
/// file); `own.pem`, which is its own CA; `stranger.pem`, which nobody trusts.
struct Certificates {
    directory: tempfile::TempDir,
}

impl Certificates {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, text: String| std::fs::write(directory.path().join(name), text).unwrap();
        let ca_key = KeyPair::generate().unwrap();
        let mut ca = CertificateParams::new(Vec::new()).unwrap();
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        write("ca.pem", ca.self_signed(&ca_key).unwrap().pem());
        let issuer = Issuer::from_params(&ca, &ca_key);
        for name in ["server", "client"] {
            let key = KeyPair::generate().unwrap();
            let certificate = leaf().signed_by(&key, &issuer).unwrap();
            write(&format!("{name}.pem"), certificate.pem() + &key.serialize_pem());
        }
        for name in ["own", "stranger"] {
            let key = KeyPair::generate().unwrap();
            let mut params = leaf();
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            write(&format!("{name}.pem"), params.self_signed(&key).unwrap().pem() + &key.serialize_pem());
        }
        Self { directory }
    }

    fn path(&self, name: &str) -> Option<String> {
        Some(self.directory.path().join(name).to_string_lossy().into_owned())
    }

    fn server(&self, cert: &str, verify_client: VerifyClient, ca: &str) -> RestApiConfig {
        RestApiConfig { certfile: self.path(cert), cafile: self.path(ca), verify_client, ..config() }
    }

    fn client(&self, ca: &str, cert: Option<&str>) -> CtlConfig {
        let certfile = cert.and_then(|cert| self.path(cert));
        CtlConfig { cacert: self.path(ca), certfile, ..CtlConfig::default() }
    }
}

fn leaf() -> CertificateParams {
    CertificateParams::new(vec!["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap()
}

async fn reload(server: &Running, host: &str, ctl: &CtlConfig) -> Result<HttpAnswer, ClientError> {
    let client = Client::new(ctl, Duration::from_secs(10)).unwrap();
    client.reload(&format!("https://{host}:{}/patroni", server.address.port())).await
}

async fn read(server: &Running, ctl: &CtlConfig) -> Result<HttpAnswer, ClientError> {
    let client = Client::new(ctl, Duration::from_secs(10)).unwrap();
    client.get(&format!("https://localhost:{}/patroni", server.address.port()), None).await
}

#[tokio::test]
async fn servers_are_verified() {
    let certs = Certificates::new();
    let server = Running::start(FakeNode::leader(), &certs.server("server.pem", VerifyClient::None, "ca.pem")).await;
    for host in ["localhost", "127.0.0.1"] {
        assert_eq!(reload(&server, host, &certs.client("ca.pem", None)).await.unwrap().status, 202);
    }
    for refused in [certs.client("own.pem", None), CtlConfig::default()] {
        let error = reload(&server, "localhost", &refused).await.unwrap_err();
        assert!(matches!(error, ClientError::Unreachable { .. }));
    }
    let insecure = CtlConfig { insecure: true, ..CtlConfig::default() };
    assert_eq!(reload(&server, "localhost", &insecure).await.unwrap().status, 202);
    let plain = Client::new(&CtlConfig::default(), Duration::from_secs(5)).unwrap();
    assert!(plain.get(&format!("http://{}/patroni", server.address), None).await.is_err());
}

#[tokio::test]
async fn a_certificate_that_is_its_own_ca_is_trusted_when_it_is_exactly_that_one() {
    let certs = Certificates::new();
    let server = Running::start(FakeNode::leader(), &certs.server("own.pem", VerifyClient::Required, "own.pem")).await;
    let both_own = certs.client("own.pem", Some("own.pem"));
    assert_eq!(reload(&server, "localhost", &both_own).await.unwrap().status, 202);
    let wrong_name = reload(&server, "[::ffff:127.0.0.1]", &both_own).await.unwrap_err();
    assert!(wrong_name.to_string().contains("not valid for name"), "{wrong_name}");
    let any_name = CtlConfig { insecure: true, ..both_own };
    assert_eq!(reload(&server, "[::ffff:127.0.0.1]", &any_name).await.unwrap().status, 202);
    assert!(reload(&server, "localhost", &certs.client("stranger.pem", Some("own.pem"))).await.is_err());
    assert!(reload(&server, "localhost", &certs.client("own.pem", Some("stranger.pem"))).await.is_err());
}

#[tokio::test]
async fn client_certificates_none_optional_required() {
    let certs = Certificates::new();
    let (with, without) = (certs.client("ca.pem", Some("client.pem")), certs.client("ca.pem", None));
    let stranger = certs.client("ca.pem", Some("stranger.pem"));

    let optional = certs.server("server.pem", VerifyClient::Optional, "ca.pem");
    let server = Running::start(FakeNode::leader(), &optional).await;
    assert_eq!(reload(&server, "localhost", &with).await.unwrap().status, 202);
    let any_name = CtlConfig { insecure: true, ..with.clone() };
    assert_eq!(reload(&server, "[::ffff:127.0.0.1]", &any_name).await.unwrap().status, 202);
    let no_issuer = CtlConfig { insecure: true, ..certs.client("stranger.pem", Some("client.pem")) };
    assert!(reload(&server, "localhost", &no_issuer).await.is_err(), "the issuer still counts");
    let refused = reload(&server, "localhost", &without).await.unwrap();
    assert_eq!((refused.status, refused.text.as_str()), (403, "client certificate required"));
    assert_eq!(read(&server, &without).await.unwrap().status, 200);
    assert!(read(&server, &stranger).await.is_err(), "a certificate that is sent must verify");

    let required = certs.server("server.pem", VerifyClient::Required, "ca.pem");
    let server = Running::start(FakeNode::leader(), &required).await;
    assert_eq!(reload(&server, "localhost", &with).await.unwrap().status, 202);
    assert!(read(&server, &without).await.is_err());
    assert!(read(&server, &stranger).await.is_err());
}

#[tokio::test]
async fn a_new_certificate_serves_the_next_connection() {
    let certs = Certificates::new();
    let mut config = certs.server("own.pem", VerifyClient::None, "own.pem");
    config.https_extra_headers.insert("Strict-Transport-Security".to_owned(), "max-age=1".to_owned());
    let server = Running::start(FakeNode::leader(), &config).await;
    assert!(read(&server, &certs.client("ca.pem", None)).await.is_err());
    let renewed = std::fs::read(Path::new(&certs.path("server.pem").unwrap())).unwrap();
    std::fs::write(certs.path("own.pem").unwrap(), renewed).unwrap();
    server.settings.send(Arc::new(Settings::load(&config).await.unwrap())).unwrap();
    assert_eq!(read(&server, &certs.client("ca.pem", None)).await.unwrap().status, 200);
}

#[tokio::test]
async fn a_key_may_be_encrypted() {
    let certs = Certificates::new();
    let fixture = |name: &str| Some(format!("{}/tests/fixtures/tls/{name}", env!("CARGO_MANIFEST_DIR")));
    let config = |password: &str| RestApiConfig {
        certfile: fixture("cert.pem"),
        keyfile: fixture("locked.pem"),
        keyfile_password: Some(crate::config::Secret::new(password)),
        ..certs.server("server.pem", VerifyClient::None, "ca.pem")
    };
    assert!(Settings::load(&config("open-sesame")).await.is_ok());
    let error = Settings::load(&config("wrong")).await.err().unwrap().to_string();
    assert!(error.contains("is the password right?"), "{error}");
    let ctl = |password: &str| CtlConfig {
        cacert: fixture("cert.pem"),
        certfile: fixture("cert.pem"),
        keyfile: fixture("locked.pem"),
        keyfile_password: Some(crate::config::Secret::new(password)),
        ..CtlConfig::default()
    };
    assert!(Client::new(&ctl("open-sesame"), Duration::from_secs(1)).is_ok());
    assert!(Client::new(&ctl("wrong"), Duration::from_secs(1)).is_err());
}

#[tokio::test]
async fn files_that_cannot_be_used_are_named() {
    let certs = Certificates::new();
    let error = |config: RestApiConfig| async move { Settings::load(&config).await.err().unwrap().to_string() };
    let missing = error(certs.server("nothing.pem", VerifyClient::None, "ca.pem")).await;
    assert!(missing.contains("nothing.pem"), "{missing}");
    let no_key = error(certs.server("ca.pem", VerifyClient::None, "ca.pem")).await;
    assert!(no_key.contains("no usable private key"), "{no_key}");
    std::fs::write(certs.path("junk.pem").unwrap(), "junk").unwrap();
    let junk = error(certs.server("junk.pem", VerifyClient::None, "ca.pem")).await;
    assert!(junk.contains("no certificate in it"), "{junk}");
    let encrypted = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
    std::fs::write(certs.path("locked.pem").unwrap(), encrypted).unwrap();
    let locked =
        RestApiConfig { keyfile: certs.path("locked.pem"), ..certs.server("server.pem", VerifyClient::None, "ca.pem") };
    let locked = error(locked).await;
    assert!(locked.contains("openssl pkey"), "{locked}");
    let ctl = CtlConfig { cacert: certs.path("junk.pem"), ..CtlConfig::default() };
    assert!(Client::new(&ctl, Duration::from_secs(1)).unwrap_err().to_string().contains("junk.pem"));
}
