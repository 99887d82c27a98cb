//! TLS towards PostgreSQL servers, by libpq's keywords (`sslmode`, `sslrootcert`, `sslcert`, …) and with libpq's
//! meaning of them: a server is only verified when the mode or a root certificate asks for it.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateRevocationListDer, ServerName};
use rustls::{CertificateError, ClientConfig, Error, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::tls::{ChannelBinding, MakeTlsConnect, TlsConnect, TlsStream};
use tokio_rustls::TlsConnector;

use crate::io::private_key;
use crate::io::tls::{Shown, by_rule, provider, read_certificates};

use super::PgError;

/// Whether a connection is encrypted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TlsMode {
    /// Never.
    Disable,
    /// If the server can; plain otherwise.
    #[default]
    Prefer,
    /// Always.
    Require,
}

/// How to connect to servers with one set of keywords.
#[derive(Clone)]
pub struct Tls {
    mode: TlsMode,
    config: Option<Arc<ClientConfig>>,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tls({:?})", self.mode)
    }
}

impl Default for Tls {
    fn default() -> Self {
        Self { mode: TlsMode::Disable, config: None }
    }
}

fn wrong(what: impl std::fmt::Display) -> PgError {
    PgError::Refused(format!("TLS settings of a PostgreSQL user: {what}"))
}

impl Tls {
    /// Reads the keywords. `Err` names the one that cannot be used; nothing that asks for more safety is passed over.
    pub fn from_options(options: &BTreeMap<String, String>) -> Result<Self, PgError> {
        let get = |name: &str| options.get(name).map(String::as_str).filter(|text| !text.is_empty());
        let root = get("sslrootcert");
        let (mode, verify) = match get("sslmode").unwrap_or("prefer") {
            "disable" => (TlsMode::Disable, Verify::Nothing),
            "allow" | "prefer" => (TlsMode::Prefer, Verify::Nothing),
            // As libpq does: with a root certificate the server has to show that it knows it.
            "require" if root.is_some() => (TlsMode::Require, Verify::Issuer),
            "require" => (TlsMode::Require, Verify::Nothing),
            "verify-ca" => (TlsMode::Require, Verify::Issuer),
            "verify-full" => (TlsMode::Require, Verify::IssuerAndName),
            other => return Err(wrong(format!("sslmode `{other}` is not known"))),
        };
        if mode == TlsMode::Disable {
            return Ok(Self::default());
        }
        let revoked = revocations(get("sslcrl"), get("sslcrldir"))?;
        let verifier = verifier(verify, root, revoked)?;
        let builder = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(wrong)?
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        let config = match (get("sslcert"), get("sslkey")) {
            (Some(cert), Some(key)) => {
                let key = private_key::read(key, get("sslpassword")).map_err(wrong)?;
                builder.with_client_auth_cert(read_certificates(cert).map_err(wrong)?, key).map_err(wrong)?
            }
            (None, None) => builder.with_no_client_auth(),
            _ => return Err(wrong("sslcert and sslkey belong together")),
        };
        Ok(Self { mode, config: Some(Arc::new(config)) })
    }

    /// Whether connections are encrypted.
    pub fn mode(&self) -> TlsMode {
        self.mode
    }

    /// The same mode for the ordinary client library.
    pub fn ssl_mode(&self) -> tokio_postgres::config::SslMode {
        match self.mode {
            TlsMode::Disable => tokio_postgres::config::SslMode::Disable,
            TlsMode::Prefer => tokio_postgres::config::SslMode::Prefer,
            TlsMode::Require => tokio_postgres::config::SslMode::Require,
        }
    }

    /// The handshake, on a connection whose server has agreed to it.
    pub async fn handshake<S>(&self, host: &str, stream: S) -> io::Result<tokio_rustls::client::TlsStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let config = self.config.clone().ok_or_else(|| io::Error::other("TLS is disabled"))?;
        let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
        TlsConnector::from(config).connect(name, stream).await
    }
}

/// The lists of revoked certificates in a file and in every file of a directory. libpq takes only those files of the
/// directory that have hashed names; whoever named a directory meant all that is in it.
fn revocations(
    file: Option<&str>,
    directory: Option<&str>,
) -> Result<Vec<CertificateRevocationListDer<'static>>, PgError> {
    let mut paths: Vec<PathBuf> = file.map(PathBuf::from).into_iter().collect();
    if let Some(directory) = directory {
        let entries = std::fs::read_dir(directory).map_err(|error| wrong(format!("sslcrldir {directory}: {error}")))?;
        paths.extend(entries.filter_map(|entry| Some(entry.ok()?.path())).filter(|path| path.is_file()));
    }
    let mut lists = Vec::new();
    for path in paths {
        let named = |error| wrong(format!("{}: {error}", path.display()));
        for list in CertificateRevocationListDer::pem_file_iter(&path).map_err(named)? {
            lists.push(list.map_err(named)?);
        }
    }
    if lists.is_empty() && (file.is_some() || directory.is_some()) {
        return Err(wrong("sslcrl and sslcrldir: there is no list of revoked certificates in PEM form"));
    }
    Ok(lists)
}

/// How much of a server's certificate is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verify {
    Nothing,
    Issuer,
    IssuerAndName,
}

/// libpq's rules on top of the usual verification of a chain.
fn verifier(
    verify: Verify,
    root: Option<&str>,
    revoked: Vec<CertificateRevocationListDer<'static>>,
) -> Result<Arc<dyn ServerCertVerifier>, PgError> {
    if verify == Verify::Nothing {
        return Ok(by_rule(|_: &Shown<'_>| Ok(())));
    }
    let (mut roots, mut trusted) = (RootCertStore::empty(), Vec::new());
    match root {
        Some("system") => {
            let system = rustls_native_certs::load_native_certs().certs;
            roots.add_parsable_certificates(system);
        }
        Some(path) => {
            trusted = read_certificates(path).map_err(wrong)?;
            for certificate in &trusted {
                roots.add(certificate.clone()).map_err(|error| wrong(format!("{path}: {error}")))?;
            }
        }
        None => return Err(wrong("sslmode asks for verification, so sslrootcert must name the root certificate")),
    }
    let mut builder = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider());
    if !revoked.is_empty() {
        builder = builder.with_crls(revoked);
    }
    let chain = builder.build().map_err(wrong)?;
    Ok(by_rule(move |shown: &Shown<'_>| {
        // A certificate that is its own CA and was handed out as the root.
        if shown.is_pinned(&trusted) {
            return if verify == Verify::IssuerAndName { shown.has_the_name() } else { Ok(()) };
        }
        match shown.satisfies(&chain) {
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) if verify == Verify::Issuer => Ok(()),
            result => result,
        }
    }))
}

/// An encrypted stream for the ordinary client library.
pub struct PgTlsStream<S>(tokio_rustls::client::TlsStream<S>);

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for PgTlsStream<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for PgTlsStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> TlsStream for PgTlsStream<S> {
    fn channel_binding(&self) -> ChannelBinding {
        ChannelBinding::none()
    }
}

/// One handshake to come, for the ordinary client library.
pub struct PgTlsConnect {
    tls: Tls,
    host: String,
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> TlsConnect<S> for PgTlsConnect {
    type Stream = PgTlsStream<S>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<PgTlsStream<S>>> + Send>>;

    fn connect(self, stream: S) -> Self::Future {
        Box::pin(async move { self.tls.handshake(&self.host, stream).await.map(PgTlsStream) })
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> MakeTlsConnect<S> for Tls {
    type Stream = PgTlsStream<S>;
    type TlsConnect = PgTlsConnect;
    type Error = io::Error;

    fn make_tls_connect(&mut self, host: &str) -> io::Result<PgTlsConnect> {
        Ok(PgTlsConnect { tls: self.clone(), host: host.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::pki_types::PrivateKeyDer;

    fn read(pairs: &[(&str, &str)]) -> Result<Tls, PgError> {
        Tls::from_options(&pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
    }

    #[test]
    fn modes() {
        assert_eq!(read(&[]).unwrap().mode(), TlsMode::Prefer);
        assert_eq!(read(&[("sslmode", "disable")]).unwrap().mode(), TlsMode::Disable);
        assert_eq!(read(&[("sslmode", "require")]).unwrap().mode(), TlsMode::Require);
        for wrong in [
            &[("sslmode", "sometimes")][..],
            &[("sslmode", "verify-full")],
            &[("sslmode", "verify-ca"), ("sslrootcert", "/nonexistent")],
            &[("sslcert", "/a")],
            &[("sslcrldir", "/nonexistent")],
        ] {
            assert!(read(wrong).is_err(), "{wrong:?}");
        }
    }

    /// A client and a server that shows `certificate`; whether the client goes through with it.
    async fn accepted(tls: &Tls, host: &str, certificate: &rcgen::CertifiedKey<rcgen::KeyPair>) -> bool {
        let key = PrivateKeyDer::try_from(certificate.signing_key.serialize_der()).unwrap();
        let config = rustls::ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.cert.der().clone()], key)
            .unwrap();
        let (ours, theirs) = tokio::io::duplex(1 << 16);
        let server = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let (client, _) = tokio::join!(tls.handshake(host, ours), server.accept(theirs));
        client.is_ok()
    }

    #[tokio::test]
    async fn only_verification_looks_at_the_certificate() {
        let certificate = rcgen::generate_simple_self_signed(["db.example".to_owned()]).unwrap();
        let other = rcgen::generate_simple_self_signed(["db.example".to_owned()]).unwrap();
        let its_own_ca = {
            let mut params = rcgen::CertificateParams::new(vec!["db.example".to_owned()]).unwrap();
            params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
            let signing_key = rcgen::KeyPair::generate().unwrap();
            rcgen::CertifiedKey { cert: params.self_signed(&signing_key).unwrap(), signing_key }
        };
        let directory = tempfile::tempdir().unwrap();
        let file = |name: &str, text: String| {
            let path = directory.path().join(name);
            std::fs::write(&path, text).unwrap();
            path.display().to_string()
        };
        let (known, unknown) = (file("known", certificate.cert.pem()), file("unknown", other.cert.pem()));
        let own = file("own", its_own_ca.cert.pem());
        let with = |mode: &str, root: &str| read(&[("sslmode", mode), ("sslrootcert", root)]).unwrap();

        assert!(accepted(&read(&[("sslmode", "require")]).unwrap(), "db.example", &certificate).await);
        assert!(accepted(&with("verify-full", &known), "db.example", &certificate).await);
        assert!(!accepted(&with("verify-full", &known), "10.0.0.1", &certificate).await);
        assert!(accepted(&with("verify-ca", &known), "10.0.0.1", &certificate).await);
        assert!(accepted(&with("verify-full", &own), "db.example", &its_own_ca).await);
        assert!(!accepted(&with("verify-full", &own), "10.0.0.1", &its_own_ca).await);
        assert!(accepted(&with("verify-ca", &own), "10.0.0.1", &its_own_ca).await);
        assert!(!accepted(&with("verify-full", &known), "db.example", &its_own_ca).await);
        assert!(!accepted(&with("verify-ca", &unknown), "db.example", &certificate).await);
        assert!(!accepted(&with("require", &unknown), "db.example", &certificate).await);
    }

    #[tokio::test]
    async fn revoked_certificates_are_refused() {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut ca = rcgen::CertificateParams::new(Vec::new()).unwrap();
        ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        ca.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign, rcgen::KeyUsagePurpose::CrlSign];
        let issuer = rcgen::Issuer::from_params(&ca, &key);
        let leaf = |serial: u64| {
            let signing_key = rcgen::KeyPair::generate().unwrap();
            let mut params = rcgen::CertificateParams::new(vec!["db.example".to_owned()]).unwrap();
            params.serial_number = Some(serial.into());
            rcgen::CertifiedKey { cert: params.signed_by(&signing_key, &issuer).unwrap(), signing_key }
        };
        let (good, bad) = (leaf(1), leaf(2));
        let revoked = rcgen::CertificateRevocationListParams {
            this_update: rcgen::date_time_ymd(2020, 1, 1),
            next_update: rcgen::date_time_ymd(4000, 1, 1),
            crl_number: 1.into(),
            issuing_distribution_point: None,
            revoked_certs: vec![rcgen::RevokedCertParams {
                serial_number: 2.into(),
                revocation_time: rcgen::date_time_ymd(2020, 1, 1),
                reason_code: None,
                invalidity_date: None,
            }],
            key_identifier_method: rcgen::KeyIdMethod::Sha256,
        };
        let directory = tempfile::tempdir().unwrap();
        let lists = directory.path().join("lists");
        std::fs::create_dir(&lists).unwrap();
        let (root, lists) = (directory.path().join("root").display().to_string(), lists.display().to_string());
        std::fs::write(&root, ca.self_signed(&key).unwrap().pem()).unwrap();
        let verify = [("sslmode", "verify-full"), ("sslrootcert", root.as_str())];
        let strict = || read(&[&verify[..], &[("sslcrldir", &lists)]].concat());
        assert!(strict().is_err(), "no list in it");
        std::fs::write(format!("{lists}/some"), revoked.signed_by(&issuer).unwrap().pem().unwrap()).unwrap();
        let strict = strict().unwrap();
        assert!(accepted(&strict, "db.example", &good).await);
        assert!(!accepted(&strict, "db.example", &bad).await);
        assert!(accepted(&read(&verify).unwrap(), "db.example", &bad).await);
    }
}
