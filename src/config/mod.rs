//! Configuration documents and their rules. Text and maps come in, never a path: files are read where they belong.

pub mod address;
pub mod ciphers;
pub mod dcs;
pub mod dynamic;
pub mod finding;
pub mod generate;
pub mod local;
pub mod merge;
pub mod operator;
pub mod origin;
pub mod overlay;
pub mod parameters;
pub mod postgresql;
mod reader;
pub mod schema;
pub mod secret;
pub mod yaml;

pub use dcs::{DcsConfig, Etcd3Config};
pub use dynamic::{Dynamic, Limits, StandbyCluster, SynchronousMode};
pub use finding::{ConfigError, Finding, Missing, Severity};
pub use local::{
    BootstrapConfig, CtlConfig, LocalConfig, LogConfig, RestApiConfig, VerifyClient, WatchdogConfig, WatchdogMode,
};
pub use operator::OperatorConfig;
pub use origin::Origins;
pub use postgresql::{Credentials, PostgresConfig};
pub use secret::Secret;
