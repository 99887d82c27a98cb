//! `host:port` texts and URLs, as configuration files spell them.

/// A host and port; the port is what follows the last colon. Brackets around an IPv6 address are removed, several
/// hosts (`a,b:5432`) stay one text. `None` when the port is no port or there is no host.
pub fn split_host_port(text: &str, default_port: u16) -> Option<(String, u16)> {
    let text = text.trim();
    let is_bare = !text.contains(':') || text.ends_with(']');
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !is_bare => (host, port.trim().parse().ok()?),
        _ => (text, default_port),
    };
    let hosts: Vec<_> = host.split(',').map(|host| host.trim().trim_matches(['[', ']'])).collect();
    let host = hosts.join(",");
    (!host.is_empty()).then_some((host, port))
}

/// `host:port` again, with brackets where an IPv6 address needs them.
pub fn join_host_port(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// The parts of a URL that name a server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Url {
    pub(super) scheme: String,
    pub(super) username: Option<String>,
    pub(super) password: Option<String>,
    pub(super) host: String,
    pub(super) port: Option<u16>,
    pub(super) path: String,
}

impl Url {
    /// Reads `[scheme://][user[:password]@][host][:port][/path]`; `None` when the port is no port.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let (scheme, rest) = text.split_once("//").unwrap_or(("", text));
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, tail) = rest.split_at(end);
        let path = tail.split(['?', '#']).next().unwrap_or_default();
        let (user, server) = authority.rsplit_once('@').map_or((None, authority), |(user, rest)| (Some(user), rest));
        let (username, password) = match user.map(|user| user.split_once(':').unwrap_or((user, ""))) {
            Some((name, password)) => (Some(decode(name)), Some(decode(password))),
            None => (None, None),
        };
        let after_address = server.rfind(']').map_or(0, |end| end + 1);
        let (host, port) = match server[after_address..].rfind(':') {
            Some(colon) => (&server[..after_address + colon], &server[after_address + colon + 1..]),
            None => (server, ""),
        };
        let filled = |text: Option<String>| text.filter(|text| !text.is_empty());
        Some(Self {
            scheme: scheme.trim_end_matches(':').to_lowercase(),
            username: filled(username),
            password: filled(password),
            host: host.trim_matches(['[', ']']).to_lowercase(),
            port: if port.is_empty() { None } else { Some(port.parse().ok()?) },
            path: path.to_owned(),
        })
    }
}

/// Undoes `%41` escapes; what is no escape stays.
fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut index = 0;
    while index < bytes.len() {
        let escaped = bytes.get(index + 1..index + 3).filter(|_| bytes[index] == b'%');
        let byte = escaped.and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
        decoded.push(byte.unwrap_or(bytes[index]));
        index += if byte.is_some() { 3 } else { 1 };
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn hosts_and_ports() {
        let split = |text| split_host_port(text, 5432);
        assert_eq!(split("a,b:5433"), Some(("a,b".into(), 5433)));
        assert_eq!(split("*"), Some(("*".into(), 5432)));
        assert_eq!(split("[::1]:1"), Some(("::1".into(), 1)));
        assert_eq!(split("[::1]"), Some(("::1".into(), 5432)));
        assert_eq!(split("127.0.0.1, [::1]:7"), Some(("127.0.0.1,::1".into(), 7)));
        assert_eq!(split("a:b"), None);
        assert_eq!(split("a:99999"), None);
        assert_eq!(split(":1"), None);
        assert_eq!(join_host_port("::1", 5), "[::1]:5");
    }

    #[test]
    fn urls() {
        let url = Url::parse("https://u:p%40ss@[::1]:2379/x?y").unwrap();
        assert_eq!((url.scheme.as_str(), url.host.as_str(), url.port), ("https", "::1", Some(2379)));
        assert_eq!((url.username.as_deref(), url.password.as_deref()), (Some("u"), Some("p@ss")));
        assert_eq!(url.path, "/x");
        let url = Url::parse("h1").unwrap();
        assert_eq!((url.scheme.as_str(), url.host.as_str(), url.port, url.username), ("", "h1", None, None));
        assert_eq!(Url::parse("//h:x"), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn no_text_panics(text in ".{0,20}", url in "[a-zé%:/@\\[\\]0-9?#]{0,20}") {
            for text in [text, url] {
                let _ = (Url::parse(&text), split_host_port(&text, 1));
            }
        }
    }
}
