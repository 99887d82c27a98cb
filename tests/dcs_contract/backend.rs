//! The backends under test, and the strange hand that changes keys behind their backs.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use etcd_client::{Client, DeleteOptions, PutOptions};
use pgherd::config::{DcsConfig, Etcd3Config};
use pgherd::dcs::layout::Layout;
use pgherd::dcs::memory::MemoryStore;
use pgherd::dcs::{Dcs, Identity, Timing, connect};
use serde_json::{Map, Value};

use crate::etcd::Server;

/// Short enough to wait for, long enough for a busy machine.
pub(crate) const TIMING: Timing =
    Timing { ttl: Duration::from_secs(3), loop_wait: Duration::from_secs(1), retry_timeout: Duration::from_secs(8) };

#[async_trait]
pub(crate) trait Backend: Send + Sync {
    async fn connect(&self, scope: &str, group: Option<u32>, identity: Identity) -> Arc<dyn Dcs>;
    async fn put(&self, key: &str, value: &[u8]);
    async fn delete(&self, key: &str);
    async fn get(&self, key: &str) -> Option<Vec<u8>>;
    async fn revoke(&self, lease: i64);
}

#[derive(Default)]
pub(crate) struct MemoryBackend(MemoryStore);

#[async_trait]
impl Backend for MemoryBackend {
    async fn connect(&self, scope: &str, group: Option<u32>, identity: Identity) -> Arc<dyn Dcs> {
        let name = match &identity {
            Identity::Agent { name } => Some(name.as_str()),
            Identity::Operator => None,
        };
        let handle = self.0.handle_at(Layout::new("service", scope, group), name);
        handle.set_timing(TIMING);
        handle
    }

    async fn put(&self, key: &str, value: &[u8]) {
        self.0.put(key, value);
    }

    async fn delete(&self, key: &str) {
        self.0.delete(key);
    }

    async fn get(&self, key: &str) -> Option<Vec<u8>> {
        self.0.get(key).map(String::into_bytes)
    }

    async fn revoke(&self, lease: i64) {
        self.0.revoke(lease);
    }
}

/// Anything that speaks etcd's API.
pub(crate) struct RemoteBackend {
    server: Server,
    client: Client,
}

impl RemoteBackend {
    pub(crate) async fn new(server: Server) -> Self {
        let client = Client::connect([server.address()], None).await.unwrap();
        Self { server, client }
    }
}

#[async_trait]
impl Backend for RemoteBackend {
    async fn connect(&self, scope: &str, group: Option<u32>, identity: Identity) -> Arc<dyn Dcs> {
        connect(&config(&self.server.address()), "service", scope, group, identity, TIMING).await.unwrap()
    }

    async fn put(&self, key: &str, value: &[u8]) {
        self.client.clone().put(key, value, None::<PutOptions>).await.unwrap();
    }

    async fn delete(&self, key: &str) {
        self.client.clone().delete(key, None::<DeleteOptions>).await.unwrap();
    }

    async fn get(&self, key: &str) -> Option<Vec<u8>> {
        let answer = self.client.clone().get(key, None).await.unwrap();
        answer.kvs().first().map(|kv| kv.value().to_vec())
    }

    async fn revoke(&self, lease: i64) {
        // It may be gone already.
        let _ = self.client.clone().lease_revoke(lease).await;
    }
}

pub(crate) fn config(address: &str) -> DcsConfig {
    DcsConfig::Etcd3(Etcd3Config { hosts: vec![address.to_owned()], ..Etcd3Config::default() })
}

/// One case's cluster.
pub(crate) struct World {
    pub(crate) backend: Arc<dyn Backend>,
    pub(crate) scope: String,
}

impl World {
    pub(crate) fn new(backend: Arc<dyn Backend>, scope: &str) -> Self {
        Self { backend, scope: scope.to_owned() }
    }

    pub(crate) async fn agent(&self, name: &str) -> Arc<dyn Dcs> {
        self.backend.connect(&self.scope, None, Identity::Agent { name: name.into() }).await
    }

    pub(crate) async fn operator(&self) -> Arc<dyn Dcs> {
        self.backend.connect(&self.scope, None, Identity::Operator).await
    }

    pub(crate) fn key(&self, relative: &str) -> String {
        format!("/service/{}/{relative}", self.scope)
    }

    pub(crate) async fn put(&self, relative: &str, value: &str) {
        self.backend.put(&self.key(relative), value.as_bytes()).await;
    }

    pub(crate) async fn get(&self, relative: &str) -> Option<String> {
        let value = self.backend.get(&self.key(relative)).await?;
        Some(String::from_utf8(value).unwrap())
    }
}

pub(crate) fn object(value: Value) -> Map<String, Value> {
    value.as_object().unwrap().clone()
}
