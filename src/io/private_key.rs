//! Private keys in PEM files, plain or encrypted with a password.

use std::path::Path;
use std::sync::{Mutex, PoisonError};

use pkcs8::{EncryptedPrivateKeyInfoOwned, SecretDocument};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use super::tls::TlsError;

const BEGIN: &str = "-----BEGIN ENCRYPTED PRIVATE KEY-----";
const END: &str = "-----END ENCRYPTED PRIVATE KEY-----";
/// The way older programs encrypted keys, by MD5.
const OLD: &str = "Proc-Type: 4,ENCRYPTED";

/// The first private key in a file. A password for a key that is not encrypted is no mistake.
pub fn read(path: &str, password: Option<&str>) -> Result<PrivateKeyDer<'static>, TlsError> {
    let pem = std::fs::read(Path::new(path)).map_err(|source| TlsError::Read { path: path.to_owned(), source })?;
    let content = |problem: String| TlsError::Content { path: path.to_owned(), problem };
    let text = String::from_utf8_lossy(&pem);
    if text.contains(OLD) {
        return Err(content(format!(
            "the private key is encrypted in an old form, which is not supported; \
             convert it with `openssl pkcs8 -topk8 -in {path} -out NEW` and configure that file"
        )));
    }
    if let Some(block) = encrypted(&text) {
        let Some(password) = password else {
            return Err(content(format!(
                "the private key is encrypted, and no password for it is configured; configure one (keyfile_password, \
                 sslpassword), or write the key in plain with `openssl pkey -in {path} -out NEW`"
            )));
        };
        return decrypt(block, password).map_err(|error| {
            content(format!("the private key cannot be decrypted; is the password right? ({error})"))
        });
    }
    PrivateKeyDer::from_pem_slice(&pem).map_err(|error| content(format!("no usable private key in it ({error})")))
}

/// The encrypted key in a text that may have certificates beside it.
fn encrypted(text: &str) -> Option<&str> {
    let from = text.find(BEGIN)?;
    let length = text[from..].find(END)? + END.len();
    Some(&text[from..from + length])
}

/// An encrypted key, its password, and what they gave.
type Opened = (String, String, SecretDocument);

/// A few keys that were decrypted: that is made slow on purpose, and every connection to PostgreSQL needs its key.
static OPENED: Mutex<Vec<Opened>> = Mutex::new(Vec::new());

/// As many keys as one agent may be using, and a few that they have replaced.
const OPENED_AT_MOST: usize = 8;

fn decrypt(block: &str, password: &str) -> pkcs8::Result<PrivateKeyDer<'static>> {
    let opened = || OPENED.lock().unwrap_or_else(PoisonError::into_inner);
    let der = |key: &SecretDocument| PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.as_bytes().to_vec()));
    if let Some((.., key)) = opened().iter().find(|(known, word, _)| known == block && word == password) {
        return Ok(der(key));
    }
    let (_, document) = SecretDocument::from_pem(block)?;
    let key = EncryptedPrivateKeyInfoOwned::try_from(document.as_bytes())?.decrypt(password)?;
    let answer = der(&key);
    let mut opened = opened();
    if opened.len() == OPENED_AT_MOST {
        opened.remove(0);
    }
    opened.push((block.to_owned(), password.to_owned(), key));
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWORD: &str = "open-sesame";

    fn fixture(name: &str) -> String {
        format!("{}/tests/fixtures/tls/{name}", env!("CARGO_MANIFEST_DIR"))
    }

    fn error(name: &str, password: Option<&str>) -> String {
        read(&fixture(name), password).unwrap_err().to_string()
    }

    #[test]
    fn encrypted_keys_are_the_plain_one() {
        let plain = read(&fixture("plain.pem"), None).unwrap();
        assert_eq!(read(&fixture("plain.pem"), Some("anything")).unwrap(), plain);
        for name in ["locked.pem", "scrypt.pem"] {
            assert_eq!(read(&fixture(name), Some(PASSWORD)).unwrap().secret_der(), plain.secret_der(), "{name}");
        }
    }

    #[test]
    fn a_key_beside_certificates_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("both.pem").display().to_string();
        let both = ["cert.pem", "locked.pem", "cert.pem"].map(|name| std::fs::read_to_string(fixture(name)).unwrap());
        std::fs::write(&path, both.concat()).unwrap();
        assert!(read(&path, Some(PASSWORD)).is_ok());
    }

    #[test]
    fn what_cannot_be_opened_says_how_it_could() {
        assert!(error("locked.pem", None).contains("keyfile_password"));
        assert!(error("locked.pem", Some("wrong")).contains("is the password right?"));
        assert!(error("old.pem", Some(PASSWORD)).contains("openssl pkcs8 -topk8"));
        assert!(error("cert.pem", None).contains("no usable private key"));
        assert!(error("none.pem", None).contains("none.pem"));
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("junk.pem").display().to_string();
        std::fs::write(&path, format!("{BEGIN}\nAAAA\n{END}\n")).unwrap();
        assert!(read(&path, Some(PASSWORD)).unwrap_err().to_string().contains("cannot be decrypted"));
    }
}
