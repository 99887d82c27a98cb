//! Loggers: configurations name Patroni's modules, and so do the lines; ours have other names.

use tracing_subscriber::filter::{LevelFilter, Targets};

use crate::config::LogConfig;

/// Our modules, and the module of Patroni that does the same. The longest prefix counts.
const NAMES: [(&str, &str); 21] = [
    ("pgherd", "patroni"),
    ("pgherd::agent::carry_out", "patroni.ha"),
    ("pgherd::agent::configuration", "patroni.config"),
    ("pgherd::agent::lease", "patroni.ha"),
    ("pgherd::agent::life", "patroni.__main__"),
    ("pgherd::agent::logging", "patroni.log"),
    ("pgherd::agent::run", "patroni.ha"),
    ("pgherd::agent::task", "patroni.async_executor"),
    ("pgherd::agent::watchdog", "patroni.watchdog.base"),
    ("pgherd::api", "patroni.api"),
    ("pgherd::api::client", "patroni.request"),
    ("pgherd::dcs", "patroni.dcs"),
    ("pgherd::dcs::etcd3", "patroni.dcs.etcd3"),
    ("pgherd::postgres", "patroni.postgresql"),
    ("pgherd::postgres::bootstrap", "patroni.postgresql.bootstrap"),
    ("pgherd::postgres::callbacks", "patroni.postgresql.callback_executor"),
    ("pgherd::postgres::clone", "patroni.postgresql.bootstrap"),
    ("pgherd::postgres::conf", "patroni.postgresql.config"),
    ("pgherd::postgres::process", "patroni.postgresql.postmaster"),
    ("pgherd::postgres::rewind", "patroni.postgresql.rewind"),
    ("pgherd::postgres::slots", "patroni.postgresql.slots"),
];

/// The name of a line's logger, as Patroni would call it.
pub(super) fn logger(target: &str) -> String {
    let fits = NAMES.iter().filter(|(ours, _)| is_below(target, ours, "::"));
    match fits.max_by_key(|(ours, _)| ours.len()) {
        Some((_, theirs)) => (*theirs).to_owned(),
        None => target.replace("::", "."),
    }
}

fn is_below(name: &str, above: &str, separator: &str) -> bool {
    name.strip_prefix(above).is_some_and(|rest| rest.is_empty() || rest.starts_with(separator))
}

/// Which lines are wanted. Crates that we use say what goes wrong, and less only when they are named.
pub(super) fn targets(config: &LogConfig) -> Targets {
    let root = level(&config.level);
    let mut targets = Targets::new().with_default(root.min(LevelFilter::WARN));
    for (ours, theirs) in NAMES {
        let named = config.loggers.iter().filter(|(name, _)| is_below(theirs, name, "."));
        let nearest = named.max_by_key(|(name, _)| name.len());
        targets = targets.with_target(ours, nearest.map_or(root, |(_, text)| level(text)));
    }
    let is_patronis = |name: &str| NAMES.iter().any(|(_, theirs)| is_below(theirs, name, "."));
    for (name, text) in config.loggers.iter().filter(|(name, _)| !is_patronis(name)) {
        targets = targets.with_target(name.replace('.', "::"), level(text));
    }
    targets
}

fn level(text: &str) -> LevelFilter {
    match text.to_uppercase().as_str() {
        "DEBUG" | "10" | "NOTSET" => LevelFilter::DEBUG,
        "WARN" | "WARNING" | "30" => LevelFilter::WARN,
        "ERROR" | "FATAL" | "CRITICAL" | "40" | "50" => LevelFilter::ERROR,
        _ => LevelFilter::INFO,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::LocalConfig;
    use std::collections::BTreeMap;
    use tracing::Level;

    fn wanted(log: &str) -> Targets {
        let text = format!(
            "scope: a\nname: b\nrestapi: {{listen: 'a:1'}}\npostgresql: {{listen: 'a:1', data_dir: d}}\nlog: {log}\n"
        );
        let (local, _) = LocalConfig::build(&[("node.yml".to_owned(), text)], &BTreeMap::new()).unwrap();
        targets(&local.log)
    }

    #[test]
    fn lines_carry_patronis_names() {
        assert_eq!(logger("pgherd::postgres::callbacks"), "patroni.postgresql.callback_executor");
        assert_eq!(logger("pgherd::postgres::conf::write"), "patroni.postgresql.config");
        assert_eq!(logger("pgherd::agent::guard::keeper"), "patroni");
        assert_eq!(logger("hyper::client"), "hyper.client");
        assert_eq!(logger("pgherdish"), "pgherdish");
    }

    #[test]
    fn levels_by_patronis_names_and_by_ours() {
        let targets = wanted(
            "{level: INFO, loggers: {patroni.postgresql: DEBUG, patroni.postgresql.rewind: ERROR, hyper: debug, \
             pgherd.agent.guard: DEBUG}}",
        );
        assert!(targets.would_enable("pgherd::postgres::callbacks", &Level::DEBUG));
        assert!(targets.would_enable("pgherd::agent::guard::keeper", &Level::DEBUG));
        assert!(targets.would_enable("hyper::x", &Level::DEBUG));
        assert!(!targets.would_enable("pgherd::postgres::rewind", &Level::INFO));
        assert!(!targets.would_enable("pgherd::agent::run", &Level::DEBUG));
        assert!(targets.would_enable("pgherd::agent::run", &Level::INFO));
        assert!(!targets.would_enable("rustls", &Level::INFO) && targets.would_enable("rustls", &Level::WARN));
        let targets = wanted("{level: ERROR, loggers: {patroni: WARNING}}");
        assert!(targets.would_enable("pgherd::dcs", &Level::WARN) && !targets.would_enable("rustls", &Level::WARN));
    }
}
