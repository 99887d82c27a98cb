//! Cipher lists as OpenSSL understands them, for the suites that this build has. Those are few, and all of them are
//! safe; a list can only leave some of them out.

/// A suite of TLS 1.2: OpenSSL's name, the standard's, and the words by which a list selects it.
struct Suite {
    name: &'static str,
    standard: &'static str,
    words: &'static [&'static str],
}

/// The suites of TLS 1.2, best first.
const SUITES: [Suite; 6] = [
    Suite {
        name: "ECDHE-ECDSA-AES256-GCM-SHA384",
        standard: "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
        words: &["aECDSA", "ECDSA", "AES", "AES256", "AESGCM", "FIPS", "SUITEB128", "SUITEB192"],
    },
    Suite {
        name: "ECDHE-ECDSA-AES128-GCM-SHA256",
        standard: "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
        words: &["aECDSA", "ECDSA", "AES", "AES128", "AESGCM", "FIPS", "SUITEB128", "SUITEB128ONLY"],
    },
    Suite {
        name: "ECDHE-ECDSA-CHACHA20-POLY1305",
        standard: "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
        words: &["aECDSA", "ECDSA", "CHACHA20"],
    },
    Suite {
        name: "ECDHE-RSA-AES256-GCM-SHA384",
        standard: "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
        words: &["aRSA", "AES", "AES256", "AESGCM", "FIPS"],
    },
    Suite {
        name: "ECDHE-RSA-AES128-GCM-SHA256",
        standard: "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
        words: &["aRSA", "AES", "AES128", "AESGCM", "FIPS"],
    },
    Suite {
        name: "ECDHE-RSA-CHACHA20-POLY1305",
        standard: "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
        words: &["aRSA", "CHACHA20"],
    },
];

/// Words that stand for every suite we have.
const EVERY: [&str; 8] = ["ALL", "DEFAULT", "HIGH", "TLSv1.2", "ECDHE", "EECDH", "kECDHE", "kEECDH"];

/// The suites of TLS 1.3, which have one name only.
const NEWER: [&str; 3] = ["TLS_AES_256_GCM_SHA384", "TLS_AES_128_GCM_SHA256", "TLS_CHACHA20_POLY1305_SHA256"];

/// The suites that a list allows, by the standard's names; `None` when it allows none of ours.
///
/// The list is about TLS 1.2. The suites of TLS 1.3 stay with it, as with OpenSSL, unless it names some of them.
pub fn allowed(list: &str) -> Option<Vec<&'static str>> {
    let (mut chosen, mut banned, mut newer) = (Vec::new(), Vec::new(), Vec::new());
    for item in list.split([':', ',', ' ', ';']).filter(|item| !item.is_empty() && !item.starts_with('@')) {
        newer.extend(NEWER.into_iter().filter(|name| *name == item));
        let (sign, words) = match item.split_at_checked(1) {
            Some((sign @ ("!" | "-" | "+"), words)) => (sign, words),
            _ => ("", item),
        };
        let is_meant = |suite: &&Suite| words.split('+').all(|word| suite.answers_to(word));
        let meant: Vec<&str> = SUITES.iter().filter(is_meant).map(|suite| suite.standard).collect();
        match sign {
            "!" => banned.extend(meant),
            "-" => chosen.retain(|name| !meant.contains(name)),
            // Only about the order, which is the client's here.
            "+" => {}
            _ => chosen.extend(meant),
        }
    }
    chosen.retain(|name| !banned.contains(name));
    if chosen.is_empty() && newer.is_empty() {
        return None;
    }
    let newer = if newer.is_empty() { NEWER.to_vec() } else { newer };
    let ours = SUITES.iter().map(|suite| suite.standard).filter(|name| chosen.contains(name));
    Some(newer.into_iter().chain(ours).collect())
}

/// The suites of TLS 1.2 under OpenSSL's names, for messages.
pub fn known() -> String {
    SUITES.map(|suite| suite.name).join(", ")
}

impl Suite {
    fn answers_to(&self, word: &str) -> bool {
        word == self.name || word == self.standard || self.words.contains(&word) || EVERY.contains(&word)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Without the part that all of them have.
    fn older(list: &str) -> Option<Vec<&'static str>> {
        let mut names = allowed(list)?;
        names.retain(|name| !NEWER.contains(name));
        Some(names.into_iter().map(|name| name.trim_start_matches("TLS_ECDHE_")).collect())
    }

    #[test]
    fn names_words_and_signs() {
        let all = older("ALL").unwrap();
        assert_eq!(all.len(), 6);
        for list in ["HIGH:!aNULL:!MD5:!RC4", "DEFAULT@SECLEVEL=2,HIGH", "ECDHE", "ALL:+RSA", "EECDH"] {
            assert_eq!(older(list).unwrap(), all, "{list}");
        }
        assert_eq!(older("ECDHE-RSA-AES256-GCM-SHA384").unwrap(), ["RSA_WITH_AES_256_GCM_SHA384"]);
        assert_eq!(older("ECDHE+AESGCM+aRSA:!AES128:DHE-RSA-AES128-SHA").unwrap(), ["RSA_WITH_AES_256_GCM_SHA384"]);
        assert_eq!(older("TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256").unwrap(), ["RSA_WITH_AES_128_GCM_SHA256"]);
        let chacha = ["ECDSA_WITH_CHACHA20_POLY1305_SHA256", "RSA_WITH_CHACHA20_POLY1305_SHA256"];
        assert_eq!(older("ALL:-AES").unwrap(), chacha);
        assert_eq!(older("ALL:-ALL:CHACHA20").unwrap(), chacha);
        assert_eq!(older("!AES:ALL").unwrap(), chacha, "what is banned once does not come back");
    }

    #[test]
    fn the_suites_of_the_newer_protocol_stay_unless_some_are_named() {
        assert_eq!(allowed("ECDHE-RSA-CHACHA20-POLY1305").unwrap().len(), 4);
        assert_eq!(allowed("TLS_AES_128_GCM_SHA256"), Some(vec!["TLS_AES_128_GCM_SHA256"]));
    }

    #[test]
    fn a_list_that_leaves_nothing() {
        for list in ["", "RSA", "AES256-SHA", "HIGH:!ALL", "nonsense", "DHE+AESGCM", "!", "+", "é"] {
            assert_eq!(allowed(list), None, "{list}");
        }
    }
}
