//! The REST server, following reloads of the configuration: its settings, its certificates, its address.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use crate::api;
use crate::config::RestApiConfig;

use super::configuration::Files;
use super::node::AgentNode;
use super::task::{chain, field};

/// The old socket is gone by then, when the new address overlaps with it.
const REBIND_LIMIT: Duration = Duration::from_secs(3);

/// Between two attempts to listen again.
const REBIND_PAUSE: Duration = Duration::from_millis(50);

/// Serves until `shutdown`. Errs when the address or the certificate cannot be used at the start.
pub(super) async fn serve(
    files: Arc<Files>,
    node: Arc<AgentNode>,
    shutdown: CancellationToken,
) -> Result<JoinHandle<()>, String> {
    let local = files.local();
    let listen = local.restapi.listen.clone();
    let located = |key: &str, message: String| files.origins().locate(key, &message);
    let listener = api::bind(&local.restapi).await.map_err(|error| {
        located("restapi.listen", format!("restapi.listen: cannot listen on {listen}: {error}; choose another address"))
    })?;
    let settings = api::Settings::load(&local.restapi).await;
    let settings = settings.map_err(|error| located("restapi.certfile", format!("restapi: {}", chain(&error))))?;
    let (sender, receiver) = watch::channel(Arc::new(settings));
    let mut rest = Rest { node, receiver, listen, servers: JoinSet::new(), stop: shutdown.child_token() };
    rest.start(listener);
    let mut followed = files.follow();
    Ok(tokio::spawn(async move {
        loop {
            tokio::select! {
                () = shutdown.cancelled() => break,
                changed = followed.changed() => if changed.is_err() { break },
            }
            let config = followed.borrow_and_update().restapi.clone();
            match api::Settings::load(&config).await {
                Ok(settings) => drop(sender.send_replace(Arc::new(settings))),
                Err(error) => {
                    error!(error = field(&error), "restapi: the old settings stay in force");
                    continue;
                }
            }
            if config.listen != rest.listen {
                rest.move_to(&config, &shutdown).await;
            }
        }
        rest.stop.cancel();
        while rest.servers.join_next().await.is_some() {}
    }))
}

struct Rest {
    node: Arc<AgentNode>,
    receiver: watch::Receiver<Arc<api::Settings>>,
    listen: String,
    servers: JoinSet<()>,
    /// Ends the server at the present address.
    stop: CancellationToken,
}

impl Rest {
    fn start(&mut self, listener: TcpListener) {
        let node = Arc::clone(&self.node) as Arc<dyn api::Node>;
        self.servers.spawn(api::serve(listener, node, self.receiver.clone(), self.stop.clone()));
    }

    /// Listens at another address. The old one is given up for it, and taken back if the new one cannot be had.
    async fn move_to(&mut self, config: &RestApiConfig, shutdown: &CancellationToken) {
        let first = api::bind(config).await;
        self.stop.cancel();
        self.stop = shutdown.child_token();
        let old = RestApiConfig { listen: self.listen.clone(), ..config.clone() };
        let moved = match first {
            Ok(listener) => Ok(listener),
            // The old address may be part of the new one.
            Err(_) => bind_again(config).await,
        };
        match moved {
            Ok(listener) => {
                info!("the REST interface listens on {} instead of {}", config.listen, self.listen);
                self.listen.clone_from(&config.listen);
                self.start(listener);
            }
            Err(error) => {
                error!(error = field(&error), "restapi.listen: {} stays in use", self.listen);
                match bind_again(&old).await {
                    Ok(listener) => self.start(listener),
                    Err(error) => error!(error = field(&error), "restapi.listen: correct the address and reload"),
                }
            }
        }
    }
}

async fn bind_again(config: &RestApiConfig) -> std::io::Result<TcpListener> {
    let give_up = Instant::now() + REBIND_LIMIT;
    loop {
        match api::bind(config).await {
            Ok(listener) => return Ok(listener),
            Err(error) if Instant::now() >= give_up => return Err(error),
            Err(_) => tokio::time::sleep(REBIND_PAUSE).await,
        }
    }
}
