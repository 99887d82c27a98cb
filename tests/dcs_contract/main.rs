//! One contract, every backend: what `dcs::Dcs` promises is held against the model, a real etcd, and the embedded
//! store. Each case has a cluster of its own, so all of them run side by side on one server.

#![allow(clippy::unwrap_used, reason = "this is all test")]

#[path = "../support/etcd.rs"]
mod etcd;
#[path = "../support/ground.rs"]
mod ground;

mod backend;
mod cached;
mod cases;
mod cases_model;
mod cases_wakes;
mod faults;
mod proxy;
mod secured;

use backend::{Backend, MemoryBackend, RemoteBackend};
use std::sync::Arc;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn memory() {
    run_all(Arc::new(MemoryBackend::default())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn real_etcd() {
    if etcd::is_etcd_installed() {
        run_all(Arc::new(RemoteBackend::new(etcd::Server::etcd(&[])).await)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn embedded_store() {
    run_all(Arc::new(RemoteBackend::new(etcd::Server::embedded(env!("CARGO_BIN_EXE_pgherd"))).await)).await;
}

macro_rules! run {
    ($backend:ident: $($module:ident::$case:ident,)*) => {{
        let mut running = Vec::new();
        $(
            let world = backend::World::new($backend.clone(), stringify!($case));
            running.push((stringify!($case), tokio::spawn(async move { $module::$case(&world).await })));
        )*
        running
    }};
}

async fn run_all(backend: Arc<dyn Backend>) {
    let running = run! { backend:
        cases::an_absent_cluster_is_an_empty_view,
        cases::documents_come_back_as_they_were_written,
        cases::the_leader_key_is_created_once,
        cases::the_leader_key_is_refused_by_an_older_sync,
        cases::of_many_only_one_wins,
        cases::an_unchanged_member_is_not_written_but_its_lease_lives,
        cases::a_lease_that_nobody_renews_takes_its_keys_along,
        cases::nothing_renews_a_lease_but_a_call,
        cases::renewing_leaves_the_leader_key_alone,
        cases::renewing_after_the_lease_is_gone_puts_the_key_on_a_new_one,
        cases::renewing_does_not_take_the_key_from_somebody_else,
        cases::renewing_adopts_the_own_key_from_another_lease,
        cases::releasing_deletes_only_the_own_key,
        cases::taking_the_leader_key_asks_nobody,
        cases::initialize_is_raced_for_set_and_cancelled,
        cases::conditional_writes_need_the_version,
        cases::sync_is_written_and_deleted_by_version,
        cases::a_new_ttl_means_a_new_lease,
        cases::an_operator_has_no_lease,
        cases::deleting_a_cluster_leaves_its_neighbours,
        cases::citus_groups_share_a_scope,
        cases::values_nobody_can_read_do_not_hurt,
        cases_model::a_long_row_of_calls_ends_as_in_the_model,
        cases_wakes::news_wakes,
        cases_wakes::positions_wake_nobody,
        cases_wakes::status_wakes_all_but_the_leader,
        cases_wakes::an_expired_leader_wakes,
    };
    let mut failed = Vec::new();
    for (name, task) in running {
        if task.await.is_err() {
            failed.push(name);
        }
    }
    assert!(failed.is_empty(), "these cases failed, see above: {failed:#?}");
}
