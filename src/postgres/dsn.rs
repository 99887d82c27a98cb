//! Connection strings as people type them: keywords or a URI.

use std::collections::BTreeMap;

use super::conf::recovery::parse_conninfo;

/// Reads `host=h port=5432 …` or `postgresql://user:password@host:port/database?key=value` into keywords. `None`: it is
/// neither.
pub fn parse(text: &str) -> Option<BTreeMap<String, String>> {
    let rest = text.strip_prefix("postgresql://").or_else(|| text.strip_prefix("postgres://"));
    let words = match rest {
        Some(rest) => parse_uri(rest)?,
        None => parse_conninfo(text)?,
    };
    (!words.is_empty()).then_some(words)
}

fn parse_uri(rest: &str) -> Option<BTreeMap<String, String>> {
    let mut words = BTreeMap::new();
    let mut set = |name: &str, value: String| {
        if !value.is_empty() {
            words.insert(name.to_owned(), value);
        }
    };
    let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (authority, database) = place.split_once('/').unwrap_or((place, ""));
    let (user, servers) = authority.rsplit_once('@').unwrap_or(("", authority));
    let (user, password) = user.split_once(':').unwrap_or((user, ""));
    set("user", decode(user)?);
    set("password", decode(password)?);
    set("dbname", decode(database)?);
    let (mut hosts, mut ports) = (Vec::new(), Vec::new());
    for server in servers.split(',') {
        let (host, port) = match server.rfind(']') {
            Some(end) => (&server[..=end], server[end + 1..].strip_prefix(':').unwrap_or_default()),
            None => server.rsplit_once(':').unwrap_or((server, "")),
        };
        hosts.push(decode(host.trim_matches(['[', ']']))?);
        ports.push(decode(port)?);
    }
    set("host", hosts.join(","));
    // One port for all, or one for each; without any there is none.
    ports.dedup();
    set("port", ports.join(","));
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=')?;
        set(&decode(name)?, decode(value)?);
    }
    Some(words)
}

/// Undoes `%41` escapes.
fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let hex = [rest.next()?, rest.next()?];
            bytes.push(u8::from_str_radix(std::str::from_utf8(&hex).ok()?, 16).ok()?);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn words(text: &str) -> Vec<(String, String)> {
        parse(text).unwrap_or_default().into_iter().collect()
    }

    fn expect(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn keywords_and_uris() {
        assert_eq!(words("host=h password='a b'"), expect(&[("host", "h"), ("password", "a b")]));
        let uri = "postgresql://u:p%40@[::1]:5433/db?sslmode=require";
        let expected = [
            ("dbname", "db"),
            ("host", "::1"),
            ("password", "p@"),
            ("port", "5433"),
            ("sslmode", "require"),
            ("user", "u"),
        ];
        assert_eq!(words(uri), expect(&expected));
        assert_eq!(words("postgres:///db?host=/tmp"), expect(&[("dbname", "db"), ("host", "/tmp")]));
        assert_eq!(words("postgres://a:1,b:1/"), expect(&[("host", "a,b"), ("port", "1")]));
        for broken in ["", "nonsense", "postgresql://%zz@h", "postgresql://h?x", "host='h"] {
            assert_eq!(parse(broken), None, "{broken}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn no_text_panics(text in ".{0,20}", uri in "[a-zé%:/@\\[\\]0-9?&=,]{0,20}") {
            let _ = (parse(&text), parse(&format!("postgres://{uri}")));
        }
    }
}
