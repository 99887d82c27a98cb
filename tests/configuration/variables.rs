//! Every variable at once, read as Patroni reads them.

use std::collections::BTreeMap;

use pgherd::config::overlay;
use serde_json::{Value, json};

use crate::stage::{self, Stage};

/// Names by the kind of their value.
const TEXTS: &str = "SCOPE NAME NAMESPACE THREAD_STACK_SIZE LOG_TYPE LOG_LEVEL LOG_TRACEBACK_LEVEL LOG_DATEFORMAT \
    LOG_DIR RESTAPI_LISTEN RESTAPI_CONNECT_ADDRESS RESTAPI_USERNAME RESTAPI_PASSWORD RESTAPI_CERTFILE RESTAPI_KEYFILE \
    RESTAPI_KEYFILE_PASSWORD RESTAPI_CAFILE RESTAPI_CIPHERS RESTAPI_VERIFY_CLIENT RESTAPI_SERVER_TOKENS CTL_USERNAME \
    CTL_PASSWORD CTL_CACERT CTL_CERTFILE CTL_KEYFILE CTL_KEYFILE_PASSWORD POSTGRESQL_LISTEN \
    POSTGRESQL_CONNECT_ADDRESS POSTGRESQL_PROXY_ADDRESS POSTGRESQL_DATA_DIR POSTGRESQL_CONFIG_DIR POSTGRESQL_PGPASS \
    POSTGRESQL_BIN_DIR POSTGRESQL_BIN_PG_CTL POSTGRESQL_BIN_INITDB POSTGRESQL_BIN_PG_CONTROLDATA \
    POSTGRESQL_BIN_PG_BASEBACKUP POSTGRESQL_BIN_POSTGRES POSTGRESQL_BIN_PG_ISREADY POSTGRESQL_BIN_PG_REWIND \
    RAFT_SELF_ADDR RAFT_BIND_ADDR RAFT_DATA_DIR RAFT_PASSWORD CITUS_DATABASE CITUS_HOST ETCD3_USERNAME ETCD3_PASSWORD \
    ETCD_USERNAME ETCD_PASSWORD CONSUL_USERNAME UNKNOWN";
const INTEGERS: &str = "LOG_MAX_QUEUE_SIZE LOG_FILE_SIZE LOG_FILE_NUM LOG_MODE RESTAPI_REQUEST_QUEUE_SIZE CITUS_GROUP \
    CONSUL_PORT EXHIBITOR_PORT";
const FLAGS: &str =
    "LOG_DEDUPLICATE_HEARTBEAT_LOGS RESTAPI_ALLOWLIST_INCLUDE_MEMBERS CTL_INSECURE ZOOKEEPER_VERIFY CONSUL_VERIFY";
const LISTS: &str = "RESTAPI_ALLOWLIST RAFT_PARTNER_ADDRS CONSUL_CHECKS CONSUL_SERVICE_TAGS EXHIBITOR_HOSTS";
const MAPS: &str = "LOG_STATIC_FIELDS LOG_LOGGERS RESTAPI_HTTP_EXTRA_HEADERS RESTAPI_HTTPS_EXTRA_HEADERS \
    KUBERNETES_LABELS KUBERNETES_BOOTSTRAP_LABELS ZOOKEEPER_SET_ACLS ZOOKEEPER_AUTH_DATA";

/// Below each of the users.
const USER: &str = "USERNAME PASSWORD SSLMODE SSLCERT SSLKEY SSLPASSWORD SSLROOTCERT SSLCRL SSLCRLDIR GSSENCMODE \
    CHANNEL_BINDING SSLNEGOTIATION UNKNOWN";

/// Below `etcd3`; the other stores take the same words.
const STORE: &str = "HOST PROTOCOL SRV SRV_SUFFIX URL PROXY CACERT CERT KEY TOKEN DC CONSISTENCY NAMESPACE CONTEXT \
    SCOPE_LABEL ROLE_LABEL POD_IP KEY_PASSWORD USE_SSL SERVICE_CHECK_INTERVAL SERVICE_CHECK_TLS_SERVER_NAME \
    LEADER_LABEL_VALUE FOLLOWER_LABEL_VALUE STANDBY_LEADER_LABEL_VALUE TMP_ROLE_LABEL";

fn variables() -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    let mut add = |name: &str, value: String| drop(all.insert(format!("PATRONI_{name}"), value));
    TEXTS.split_whitespace().for_each(|name| add(name, format!("value of {name}")));
    INTEGERS.split_whitespace().enumerate().for_each(|(i, name)| add(name, (40 + i).to_string()));
    FLAGS.split_whitespace().zip(["on", "off", "yes", "0", "True"]).for_each(|(name, word)| add(name, word.to_owned()));
    LISTS.split_whitespace().zip(["a", "a,b", "[a, 1]", "'a b', 'c'", "- a"]).for_each(|(name, text)| {
        add(name, text.to_owned());
    });
    MAPS.split_whitespace().for_each(|name| add(name, "a: b, 'c': 1".to_owned()));
    for user in ["SUPERUSER", "REPLICATION", "REWIND"] {
        USER.split_whitespace().for_each(|key| add(&format!("{user}_{key}"), format!("{user} {key}")));
    }
    for store in ["ETCD3", "ETCD", "CONSUL", "KUBERNETES", "ZOOKEEPER", "EXHIBITOR"] {
        STORE.split_whitespace().for_each(|key| add(&format!("{store}_{key}"), format!("{store} {key}")));
    }
    for (name, value) in [
        ("LOG_FORMAT", "%(asctime)s %(message)s"),
        ("LOGLEVEL", "the old name"),
        ("LOG_DATEFMT", "the old name"),
        ("ETCD3_HOSTS", "h1:2379, 'h2:2379'"),
        ("ETCD3_PORT", "2380"),
        ("ETCD3_USE_PROXIES", "true"),
        ("ETCD_HOSTS", "[h1, h2]"),
        ("KUBERNETES_PORTS", "{name: postgresql, port: 5432}"),
        ("KUBERNETES_USE_ENDPOINTS", "1"),
        ("KUBERNETES_BYPASS_API_SERVICE", "no"),
        ("KUBERNETES_RETRIABLE_HTTP_CODES", "500, 503"),
        ("RETRIABLE_HTTP_CODES", "500"),
        ("CONSUL_REGISTER_SERVICE", "yes"),
        ("CONSUL_SCHEME", "https"),
        ("RESTAPI_THREAD_POOL_SIZE", "9"),
    ] {
        add(name, value.to_owned());
    }
    all
}

#[test]
fn every_variable_is_read_as_patroni_reads_it() {
    let Some(stage) = Stage::new() else { return };
    let variables = variables();
    let script = stage::fixture("variables.py");
    let Some(theirs) = stage::ask_python(&script, &json!(variables), &stage.bin) else { return };
    let (ours, findings) = overlay::from_environment(&variables);
    assert!(findings.is_empty(), "{findings:?}");
    let sorted = |document: &Value| -> BTreeMap<String, BTreeMap<String, Value>> {
        let section = |value: &Value| match value {
            Value::Object(map) => map.clone().into_iter().collect(),
            other => BTreeMap::from([(String::new(), other.clone())]),
        };
        document.as_object().unwrap().iter().map(|(name, value)| (name.clone(), section(value))).collect()
    };
    let (ours, theirs) = (sorted(&Value::Object(ours)), sorted(&theirs));
    for name in ours.keys().chain(theirs.keys()) {
        assert_eq!(ours.get(name), theirs.get(name), "{name}");
    }
}
