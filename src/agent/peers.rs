//! Questions to other members, over REST.

use std::collections::BTreeMap;

use async_trait::async_trait;

use crate::api::Client;
use crate::cluster::{MemberName, PeerAnswer};

use super::ports::Peers;

/// The REST client as the port.
pub(super) struct RestPeers {
    pub(super) client: Client,
}

#[async_trait]
impl Peers for RestPeers {
    async fn ask(&self, members: &BTreeMap<MemberName, String>) -> BTreeMap<MemberName, PeerAnswer> {
        self.client.ask_all(members).await
    }
}
