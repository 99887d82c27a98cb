//! A reload, with everything that depends on the local files beside the loop: the log, the client for peers, systemd.

use std::sync::Arc;

use serde_json::{Map, Value};
use tracing::{error, info};

use crate::config::Dynamic;
use crate::dcs::{Dcs, Renewed};

use super::configuration::Files;
use super::lead::FailsafeLead;
use super::life::peer_client;
use super::logging::Log;
use super::notify::Notify;
use super::peers::RestPeers;
use super::ports::{Configure, Configured};
use super::task::field;

/// The local files as the loop's port.
pub(super) struct Reloading {
    pub(super) files: Arc<Files>,
    pub(super) log: Log,
    pub(super) notify: Arc<Notify>,
    pub(super) peers: Arc<RestPeers>,
    pub(super) dcs: Arc<dyn Dcs>,
}

impl Reloading {
    fn take_over(&self) {
        let local = self.files.local();
        if let Err(error) = self.log.apply(&local.log) {
            error!(error = field(&error), "the log stays as it was");
        }
        match peer_client(&local) {
            Ok(client) => self.peers.replace(client),
            Err(error) => error!(error = field(&error), "requests to other members are made as before"),
        }
        match self.dcs.reconfigure(&local.dcs) {
            Ok(renewed) => renewed.iter().for_each(|renewed| self.tell(renewed)),
            Err(error) => error!(error = field(&error), "the connection to etcd stays as it was"),
        }
    }

    fn tell(&self, renewed: &Renewed) {
        let key = renewed.key;
        let what = match &renewed.file {
            Some(file) => format!("{key}: {file} was replaced"),
            None => self.files.origins().locate(key, &format!("{key} was changed")),
        };
        info!("{what}; it is used from now on");
    }
}

impl Configure for Reloading {
    fn configure(&self, dynamic: &Map<String, Value>, before: &Dynamic) -> Configured {
        self.files.configure(dynamic, before)
    }

    fn reload(&self) -> Result<bool, String> {
        self.notify.reloading();
        let result = self.files.reload();
        if result.is_ok() {
            // Also when nothing changed: certificates are files of their own.
            self.take_over();
        }
        self.notify.ready();
        result
    }

    fn keep(&self, dynamic: &Map<String, Value>) {
        self.files.keep(dynamic);
    }

    fn keep_lead(&self, lead: Option<&FailsafeLead>) {
        self.files.keep_lead(lead);
    }
}
