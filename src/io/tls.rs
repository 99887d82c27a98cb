//! TLS by rustls with ring, for the REST interface and whoever else talks TLS: PEM files in, configurations out.
//!
//! rustls refuses a certificate that is its own CA. Small clusters are often set up with exactly that: one self-signed
//! certificate that every side trusts. It is accepted here when it is, byte for byte, one of the trusted
//! certificates, is within its dates, and (for servers) carries the name that was asked for.

mod servers;

use std::path::Path;
use std::sync::{Arc, OnceLock};

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CipherSuite, ClientConfig, DigitallySignedStruct, DistinguishedName, Error, RootCertStore, ServerConfig,
    SignatureScheme,
};
use x509_parser::prelude::{FromDer, X509Certificate, X509Version};

use super::private_key;
pub(crate) use servers::{Shown, by_rule};
use servers::{TrustThese, is_pinned};

/// A TLS setting that cannot be used. Names the file and the way out.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file could not be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// Which.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A file does not hold what it should.
    #[error("{path}: {problem}")]
    Content {
        /// Which.
        path: String,
        /// What is wrong, and what to do.
        problem: String,
    },
    /// rustls does not take them together.
    #[error("certificate {path} cannot be used: {source}")]
    Unusable {
        /// The certificate file.
        path: String,
        /// Why.
        #[source]
        source: Error,
    },
    /// There is nothing to verify with.
    #[error("no trusted certificates: {0}")]
    NoRoots(String),
}

/// Whom a client trusts.
#[derive(Clone, Copy, Debug)]
pub enum Trust<'a> {
    /// Any certificate (`insecure`).
    Anybody,
    /// The certificates in this file.
    File(&'a str),
    /// The system's, read when the first certificate comes in.
    System,
    /// The certificates in this file, or the system's, also for other names than the one that was asked for.
    AnyName(Option<&'a str>),
}

/// A certificate with its key, as files.
#[derive(Clone, Copy)]
pub struct Identity<'a> {
    /// Certificate chain.
    pub cert: &'a str,
    /// Key; looked for in the certificate's file when absent.
    pub key: Option<&'a str>,
    /// Password of the key, if it is encrypted.
    pub password: Option<&'a str>,
}

/// What a server asks of its clients.
#[derive(Clone, Copy, Debug)]
pub enum AskClients<'a> {
    /// No certificate.
    Nothing,
    /// A certificate if they have one; it must verify against this file (or the system's certificates).
    Optional(Option<&'a str>),
    /// The same, but without one there is no connection.
    Required(Option<&'a str>),
}

/// Makes ring the provider of whatever in this process does not choose one itself. Safe to call again.
pub fn install_provider() {
    // An error only says that a provider is installed already.
    let _ = ring::default_provider().install_default();
}

/// ring, wherever TLS is spoken.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    Arc::clone(PROVIDER.get_or_init(|| Arc::new(ring::default_provider())))
}

fn with_suites(names: &[&str]) -> Arc<CryptoProvider> {
    let mut provider = ring::default_provider();
    provider.cipher_suites.retain(|suite| names.contains(&standard_name(suite.suite()).as_str()));
    Arc::new(provider)
}

/// rustls calls the suites of TLS 1.3 by names of its own.
fn standard_name(suite: CipherSuite) -> String {
    suite.as_str().unwrap_or_default().replacen("TLS13_", "TLS_", 1)
}

/// A client's configuration.
pub fn client_config(trust: Trust<'_>, identity: Option<Identity<'_>>) -> Result<ClientConfig, TlsError> {
    let verifier = match trust {
        // The certificate is not looked at; the handshake's signature still is.
        Trust::Anybody => by_rule(|_: &Shown<'_>| Ok(())),
        Trust::File(path) => TrustThese::file(path)?.verifier(),
        Trust::System => TrustThese::system().verifier(),
        Trust::AnyName(Some(path)) => TrustThese::file(path)?.by_any_name().verifier(),
        Trust::AnyName(None) => TrustThese::system().by_any_name().verifier(),
    };
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|source| TlsError::Unusable { path: "(none)".into(), source })?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    match identity {
        None => Ok(builder.with_no_client_auth()),
        Some(identity) => {
            let (chain, key) = read_identity(identity)?;
            let unusable = |source| TlsError::Unusable { path: identity.cert.to_owned(), source };
            builder.with_client_auth_cert(chain, key).map_err(unusable)
        }
    }
}

/// A server's configuration. Of the suites those are offered that are named, by the standard's names; without names
/// all of them.
pub fn server_config(
    identity: Identity<'_>,
    clients: AskClients<'_>,
    suites: Option<&[&str]>,
) -> Result<ServerConfig, TlsError> {
    let unusable = |source| TlsError::Unusable { path: identity.cert.to_owned(), source };
    let (chain, key) = read_identity(identity)?;
    let builder = ServerConfig::builder_with_provider(suites.map_or_else(provider, with_suites))
        .with_safe_default_protocol_versions()
        .map_err(unusable)?;
    let builder = match clients {
        AskClients::Nothing => builder.with_no_client_auth(),
        AskClients::Optional(ca) => builder.with_client_cert_verifier(Arc::new(KnownClients::new(ca, false)?)),
        AskClients::Required(ca) => builder.with_client_cert_verifier(Arc::new(KnownClients::new(ca, true)?)),
    };
    builder.with_single_cert(chain, key).map_err(unusable)
}

fn read(path: &str) -> Result<Vec<u8>, TlsError> {
    std::fs::read(Path::new(path)).map_err(|source| TlsError::Read { path: path.to_owned(), source })
}

/// Every certificate in a PEM file; at least one.
pub fn read_certificates(path: &str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let content = |problem: String| TlsError::Content { path: path.to_owned(), problem };
    let pem = read(path)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let found = found.map_err(|error| content(format!("not a PEM file of certificates ({error})")))?;
    if found.is_empty() {
        return Err(content("no certificate in it; it must be in PEM form".to_owned()));
    }
    Ok(found)
}

type Chain = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

fn read_identity(identity: Identity<'_>) -> Result<Chain, TlsError> {
    let chain = read_certificates(identity.cert)?;
    refuse_first_version(identity.cert, &chain[0])?;
    let key = private_key::read(identity.key.unwrap_or(identity.cert), identity.password)?;
    Ok((chain, key))
}

/// rustls knows no certificates of the first version, which `openssl x509 -req` makes unless it is told otherwise.
fn refuse_first_version(path: &str, certificate: &CertificateDer<'_>) -> Result<(), TlsError> {
    match X509Certificate::from_der(certificate) {
        Ok((_, parsed)) if parsed.version() != X509Version::V3 => Err(TlsError::Content {
            path: path.to_owned(),
            problem: "the certificate is of an X.509 version before 3, which is not supported; make it anew with \
                      extensions, for example by `openssl x509 -req -extfile FILE` with `basicConstraints=CA:FALSE` \
                      in FILE, or by `openssl req -x509 -addext subjectAltName=IP:10.0.0.1`"
                .to_owned(),
        }),
        _ => Ok(()),
    }
}

fn roots_of(certificates: &[CertificateDer<'static>]) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(certificates.iter().cloned());
    roots
}

fn system_certificates() -> Result<Vec<CertificateDer<'static>>, String> {
    let found = rustls_native_certs::load_native_certs();
    if found.certs.is_empty() {
        let causes: Vec<String> = found.errors.iter().map(ToString::to_string).collect();
        return Err(format!("the system has none ({}); name a CA file", causes.join("; ")));
    }
    Ok(found.certs)
}

/// Verifies clients.
#[derive(Debug)]
struct KnownClients {
    trusted: Vec<CertificateDer<'static>>,
    web_pki: Arc<dyn ClientCertVerifier>,
}

impl KnownClients {
    fn new(ca: Option<&str>, is_required: bool) -> Result<Self, TlsError> {
        let trusted = match ca {
            Some(path) => read_certificates(path)?,
            None => system_certificates().map_err(TlsError::NoRoots)?,
        };
        let mut builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots_of(&trusted)), provider());
        if !is_required {
            builder = builder.allow_unauthenticated();
        }
        let web_pki = builder.build().map_err(|error| TlsError::NoRoots(error.to_string()))?;
        Ok(Self { trusted, web_pki })
    }
}

impl ClientCertVerifier for KnownClients {
    fn offer_client_auth(&self) -> bool {
        self.web_pki.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.web_pki.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.web_pki.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        if is_pinned(&self.trusted, end_entity, now) {
            return Ok(ClientCertVerified::assertion());
        }
        self.web_pki.verify_client_cert(end_entity, intermediates, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.web_pki.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.web_pki.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.web_pki.supported_verify_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ciphers;

    #[test]
    fn a_certificate_of_the_first_version_is_refused_with_the_way_out() {
        let cert = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/tls/version1.pem");
        let identity = Identity { cert, key: None, password: None };
        for error in [
            server_config(identity, AskClients::Nothing, None).unwrap_err(),
            client_config(Trust::Anybody, Some(identity)).unwrap_err(),
        ] {
            let text = error.to_string();
            assert!(text.contains("version1.pem") && text.contains("-extfile"), "{text}");
        }
    }

    #[test]
    fn every_suite_can_be_named_and_others_are_left_out() {
        let every = ciphers::allowed("ALL").unwrap();
        assert_eq!(with_suites(&every).cipher_suites.len(), ring::ALL_CIPHER_SUITES.len());
        let one = ciphers::allowed("ECDHE-RSA-AES256-GCM-SHA384:TLS_AES_128_GCM_SHA256").unwrap();
        let left: Vec<CipherSuite> = with_suites(&one).cipher_suites.iter().map(|suite| suite.suite()).collect();
        let wanted = [CipherSuite::TLS13_AES_128_GCM_SHA256, CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384];
        assert_eq!(left, wanted);
    }
}
