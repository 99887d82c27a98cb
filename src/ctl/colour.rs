//! When text is coloured. One decision, for each stream by itself.

use std::collections::BTreeMap;

/// `--color`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum ColorChoice {
    /// On a terminal, unless the environment is against it (NO_COLOR).
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

impl ColorChoice {
    /// Whether a stream is coloured. What was said with the option goes before the environment, and NO_COLOR before
    /// CLICOLOR_FORCE.
    pub fn is_used(self, is_terminal: bool, environment: &BTreeMap<String, String>) -> bool {
        let value = |name: &str| environment.get(name).map(String::as_str).filter(|value| !value.is_empty());
        match self {
            Self::Always => true,
            Self::Never => false,
            Self::Auto if value("NO_COLOR").is_some() => false,
            Self::Auto if value("CLICOLOR_FORCE").is_some_and(|value| value != "0") => true,
            Self::Auto => is_terminal && !is_dumb(environment) && value("CLICOLOR") != Some("0"),
        }
    }
}

/// A terminal that knows neither colours nor how to move its cursor.
pub fn is_dumb(environment: &BTreeMap<String, String>) -> bool {
    environment.get("TERM").is_some_and(|term| term == "dumb")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_decides() {
        use ColorChoice::*;
        type Variables = [(&'static str, &'static str)];
        let cases: [(ColorChoice, bool, &Variables, bool); 14] = [
            (Auto, true, &[], true),
            (Auto, false, &[], false),
            (Auto, true, &[("NO_COLOR", "1")], false),
            (Auto, true, &[("NO_COLOR", "")], true),
            (Auto, false, &[("CLICOLOR_FORCE", "1")], true),
            (Auto, false, &[("CLICOLOR_FORCE", "0")], false),
            (Auto, true, &[("CLICOLOR_FORCE", "1"), ("NO_COLOR", "1")], false),
            (Auto, true, &[("CLICOLOR", "0")], false),
            (Auto, true, &[("TERM", "dumb")], false),
            (Auto, true, &[("TERM", "xterm")], true),
            (Auto, false, &[("CLICOLOR", "1")], false),
            (Always, false, &[("NO_COLOR", "1")], true),
            (Never, true, &[("CLICOLOR_FORCE", "1")], false),
            (Never, true, &[], false),
        ];
        for (choice, is_terminal, environment, expected) in cases {
            let map = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
            assert_eq!(choice.is_used(is_terminal, &map), expected, "{choice:?} {is_terminal} {environment:?}");
        }
    }
}
