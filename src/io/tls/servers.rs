//! Who counts as the server that was asked for.

use std::fmt;
use std::sync::{Arc, OnceLock};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::time::ASN1Time;

use super::{TlsError, provider, read_certificates, roots_of, system_certificates};

/// Whether `certificate` is exactly one of the trusted ones and within its dates.
pub(super) fn is_pinned(trusted: &[CertificateDer<'static>], certificate: &CertificateDer<'_>, now: UnixTime) -> bool {
    if !trusted.iter().any(|known| known.as_ref() == certificate.as_ref()) {
        return false;
    }
    let Ok((_, parsed)) = X509Certificate::from_der(certificate) else { return false };
    let seconds = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    ASN1Time::from_timestamp(seconds).is_ok_and(|now| parsed.validity().is_valid_at(now))
}

/// What a server shows of itself, to whom asked for `name`.
pub(crate) struct Shown<'a> {
    certificate: &'a CertificateDer<'a>,
    intermediates: &'a [CertificateDer<'a>],
    name: &'a ServerName<'a>,
    ocsp_response: &'a [u8],
    now: UnixTime,
}

impl Shown<'_> {
    /// Its certificate is exactly one of the trusted ones, and within its dates.
    pub(crate) fn is_pinned(&self, trusted: &[CertificateDer<'static>]) -> bool {
        is_pinned(trusted, self.certificate, self.now)
    }

    /// Its certificate carries the name that was asked for.
    pub(crate) fn has_the_name(&self) -> Result<(), Error> {
        verify_server_name(&ParsedCertificate::try_from(self.certificate)?, self.name)
    }

    /// Its certificate was issued by one of `roots`, for whatever name.
    fn is_issued_by(&self, roots: &RootCertStore) -> Result<(), Error> {
        let parsed = ParsedCertificate::try_from(self.certificate)?;
        let algorithms = provider().signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(&parsed, roots, self.intermediates, self.now, algorithms)
    }

    /// The usual: the issuer, the name, and what else the verifier was told to look at.
    pub(crate) fn satisfies(&self, usual: &WebPkiServerVerifier) -> Result<(), Error> {
        let Shown { certificate, intermediates, name, ocsp_response, now } = *self;
        usual.verify_server_cert(certificate, intermediates, name, ocsp_response, now).map(|_| ())
    }
}

/// Verifies servers by a rule. That a server has the key of its certificate is verified whatever the rule says.
pub(crate) fn by_rule<R>(rule: R) -> Arc<dyn ServerCertVerifier>
where
    R: Fn(&Shown<'_>) -> Result<(), Error> + Send + Sync + 'static,
{
    Arc::new(ByRule(rule))
}

struct ByRule<R>(R);

impl<R> fmt::Debug for ByRule<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ByRule")
    }
}

impl<R: Fn(&Shown<'_>) -> Result<(), Error> + Send + Sync> ServerCertVerifier for ByRule<R> {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let shown = Shown { certificate, intermediates, name, ocsp_response, now };
        self.0(&shown).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &provider().signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &provider().signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}

/// Trust in given certificates, or in the system's.
pub(super) struct TrustThese {
    trusted: Vec<CertificateDer<'static>>,
    web_pki: OnceLock<Result<WebPki, String>>,
    is_any_name: bool,
}

/// Roots, and what verifies by them.
struct WebPki {
    roots: Arc<RootCertStore>,
    usual: Arc<WebPkiServerVerifier>,
}

impl TrustThese {
    pub(super) fn file(path: &str) -> Result<Self, TlsError> {
        let trusted = read_certificates(path)?;
        let web_pki = Self::build(&trusted).map_err(|problem| TlsError::Content { path: path.to_owned(), problem })?;
        Ok(Self { trusted, web_pki: OnceLock::from(Ok(web_pki)), is_any_name: false })
    }

    /// Reading the system's store takes longer than most commands; it waits until a certificate must be judged.
    pub(super) fn system() -> Self {
        Self { trusted: Vec::new(), web_pki: OnceLock::new(), is_any_name: false }
    }

    /// The same, also for other names than the one that was asked for.
    pub(super) fn by_any_name(self) -> Self {
        Self { is_any_name: true, ..self }
    }

    pub(super) fn verifier(self) -> Arc<dyn ServerCertVerifier> {
        by_rule(move |shown: &Shown<'_>| self.judge(shown))
    }

    fn judge(&self, shown: &Shown<'_>) -> Result<(), Error> {
        match (shown.is_pinned(&self.trusted), self.is_any_name) {
            (true, true) => Ok(()),
            (true, false) => shown.has_the_name(),
            (false, true) => shown.is_issued_by(&self.web_pki()?.roots),
            (false, false) => shown.satisfies(&self.web_pki()?.usual),
        }
    }

    fn build(trusted: &[CertificateDer<'static>]) -> Result<WebPki, String> {
        let roots = Arc::new(roots_of(trusted));
        let usual = WebPkiServerVerifier::builder_with_provider(Arc::clone(&roots), provider()).build();
        let usual = usual.map_err(|error| format!("cannot be used to verify servers ({error})"))?;
        Ok(WebPki { roots, usual })
    }

    fn web_pki(&self) -> Result<&WebPki, Error> {
        let built = self.web_pki.get_or_init(|| Self::build(&system_certificates()?));
        built.as_ref().map_err(|problem| Error::General(problem.clone()))
    }
}
