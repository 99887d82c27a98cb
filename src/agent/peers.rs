//! Questions to other members, over REST.

use std::collections::BTreeMap;
use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;

use crate::api::{Client, FailsafePing};
use crate::cluster::{MemberName, PeerAnswer};

use super::ports::Peers;

/// The REST client as the port.
pub(super) struct RestPeers {
    client: RwLock<Client>,
}

impl RestPeers {
    pub(super) fn new(client: Client) -> Self {
        Self { client: RwLock::new(client) }
    }

    fn client(&self) -> Client {
        self.client.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Asks by another client from now on: certificates or passwords have changed.
    pub(super) fn replace(&self, client: Client) {
        *self.client.write().unwrap_or_else(PoisonError::into_inner) = client;
    }
}

#[async_trait]
impl Peers for RestPeers {
    async fn ask(&self, members: &BTreeMap<MemberName, String>) -> BTreeMap<MemberName, PeerAnswer> {
        self.client().ask_all(members).await
    }

    async fn tell_failsafe(
        &self,
        members: &BTreeMap<MemberName, String>,
        ping: &FailsafePing,
        limit: Duration,
    ) -> BTreeMap<MemberName, Option<String>> {
        // One lost packet must not cost a primary, nor an agent that is just being restarted: half of the time is for a
        // second try.
        let client = self.client().with_timeout(limit / 2);
        let told = members.iter().map(|(name, api_url)| {
            let client = client.clone();
            async move {
                let again_at = Instant::now() + limit / 2;
                let answer = match client.failsafe(api_url, ping).await {
                    Err(_) => {
                        tokio::time::sleep_until(again_at).await;
                        client.failsafe(api_url, ping).await
                    }
                    answer => answer,
                };
                let refusal = match answer {
                    Ok(Some(_)) => None,
                    Ok(None) => Some("it refused".to_owned()),
                    Err(error) => Some(error.to_string()),
                };
                (name.clone(), refusal)
            }
        });
        futures::future::join_all(told).await.into_iter().collect()
    }
}
