//! Questions to other members, over REST.

use std::collections::BTreeMap;
use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;

use crate::api::{Client, FailsafePing};
use crate::cluster::{Lsn, MemberName, PeerAnswer};

use super::ports::Peers;

/// Between two tries to reach a member that a primary without the DCS depends on.
const FAILSAFE_PAUSE: Duration = Duration::from_millis(250);

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
    ) -> BTreeMap<MemberName, Result<Option<Lsn>, String>> {
        // One lost packet must not cost a primary, nor an agent that is just being restarted: half of the time is for
        // another try.
        let client = self.client().with_timeout(limit / 2);
        let give_up = Instant::now() + limit;
        let told = members.iter().map(|(name, api_url)| {
            let client = client.clone();
            async move {
                let mut last = None;
                loop {
                    match tokio::time::timeout_at(give_up, client.failsafe(api_url, ping)).await {
                        Ok(Ok(accepted)) => {
                            return (name.clone(), accepted.ok_or_else(|| "it refused".to_owned()));
                        }
                        Ok(Err(error)) => last = Some(error.to_string()),
                        Err(_) => {}
                    }
                    if Instant::now() + FAILSAFE_PAUSE >= give_up {
                        return (name.clone(), Err(last.unwrap_or_else(|| format!("no answer within {limit:?}"))));
                    }
                    tokio::time::sleep(FAILSAFE_PAUSE).await;
                }
            }
        });
        futures::future::join_all(told).await.into_iter().collect()
    }
}
