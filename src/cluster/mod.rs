//! One cluster, as data: the snapshot in the DCS and what a node knows of its own server.
//!
//! Nothing here does I/O, waits, reads a clock or logs. Every type is plain, comparable and round-trips through
//! JSON, so that an observation of one cycle can be stored and decided again.

#[doc(hidden)]
pub mod builder;
pub mod instance;
pub mod lsn;
pub mod member;
pub mod names;
pub mod peer;
pub mod requests;
pub mod role;
pub mod server;
pub mod slots;
pub mod status;
pub mod sync_state;
pub mod tags;
pub mod timeline;
pub mod upstream;
pub mod view;

pub use instance::{
    ControlData, DataDir, InstanceState, Monitor, PendingValue, SlotState, Unfinished, WalReceiver, WalSender,
};
pub use lsn::{Lag, Lsn};
pub use member::Member;
pub use names::{MemberName, SystemId};
pub use peer::PeerAnswer;
pub use requests::{FailoverKey, ReinitRequest, RestartRequest, ScheduledRestart};
pub use role::{Role, State};
pub use server::{
    Callback, Divergence, FollowChange, Recovery, Rewound, SlotSync, Started, StopMode, StopProgress, WantedSlot,
};
pub use slots::{SlotAdvance, SlotTending};
pub use status::Status;
pub use sync_state::SyncState;
pub use tags::Tags;
pub use timeline::{History, HistoryLine, Timeline};
pub use upstream::{Upstream, UpstreamSlot};
pub use view::{ClusterView, ConfigKey, LeaderKey, Session, Version};
