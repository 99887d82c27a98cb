//! What the configuration files of a server say, whether it runs or not.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::PgError;
use super::site::Site;

const LIMIT: Duration = Duration::from_secs(30);

/// The value a parameter would have after a start (`postgres -C`). `None` when the files cannot be read as
/// configuration, which is logged: a start would say more about it.
pub async fn value(site: &Site, name: &str, cancel: &CancellationToken) -> Result<Option<String>, PgError> {
    let program = site
        .tool("postgres")
        .arg("-D")
        .arg(site.data_dir().display().to_string())
        .arg("-C")
        .arg(name)
        .arg(format!("--config-file={}", site.config_file().display()));
    match program.limit(LIMIT).run(cancel).await {
        Ok(finished) if finished.is_success() => Ok(Some(finished.stdout.trim_end_matches('\n').to_owned())),
        Ok(finished) => {
            tracing::warn!("the configured value of {name} cannot be read: {}", finished.detail());
            Ok(None)
        }
        Err(PgError::Cancelled) => Err(PgError::Cancelled),
        Err(error) => {
            tracing::warn!("the configured value of {name} cannot be read: {error}");
            Ok(None)
        }
    }
}
