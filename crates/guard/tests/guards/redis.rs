//! Redis: claims, and the lock.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use baton_guard::conformance::{Cut, CutGuard, Subject, SubjectError};
use baton_guard::{
    Admission, Claim, ClaimEffect, CommitError, Group, Guard, GuardError, Identity, Lock, Open, Pruned, Redelivery,
};
use redis::aio::{ConnectionManager, ConnectionManagerConfig};

use crate::link::Link;
use crate::servers::Server;

/// Short, so that what died is taken over while a case still waits.
const LEASE: Duration = Duration::from_millis(700);
const DAY: Duration = Duration::from_secs(86_400);

async fn connect(port: u16) -> ConnectionManager {
    let client = redis::Client::open(format!("redis://127.0.0.1:{port}/")).unwrap();
    let config = ConnectionManagerConfig::new()
        .set_number_of_retries(1)
        .set_response_timeout(Some(Duration::from_secs(2)))
        .set_connection_timeout(Some(Duration::from_secs(2)));
    ConnectionManager::new_lazy_with_config(client, config).unwrap()
}

async fn claim(port: u16) -> Claim {
    Claim::redis(connect(port).await, 7 * DAY, Redelivery::from_topic(DAY)).unwrap().lease(LEASE)
}

struct OnRedis {
    server: Arc<Server>,
    guard: Claim,
    /// The outside world, on which handlers have their effect.
    effects: Mutex<HashMap<String, u64>>,
}

impl Subject for OnRedis {
    type Guard = Claim;

    fn guard(&self) -> &Claim {
        &self.guard
    }

    async fn write(&self, effect: ClaimEffect, name: String) -> Result<(), SubjectError> {
        if !effect.is_held() {
            return Err(SubjectError("the lease has ended".to_owned()));
        }
        *self.effects.lock().unwrap().entry(name).or_default() += 1;
        Ok(())
    }

    async fn blunder(&self, _: ClaimEffect) -> Result<(), SubjectError> {
        Ok(())
    }

    async fn count(&self, name: &str) -> u64 {
        self.effects.lock().unwrap().get(name).copied().unwrap_or_default()
    }

    async fn prune(&self, _: &Group, _: Duration, _: Redelivery) -> Option<Result<Pruned, GuardError>> {
        None
    }

    async fn age(&self, _: &Group, _: Duration) {}

    async fn cut(&self, cut: Cut) -> Option<CutGuard<Claim>> {
        let link = Link::to(self.server.port(), cut).await;
        let guard = claim(link.port).await;
        Some(CutGuard { guard, was_cut: Box::new(move || link.was_cut()) })
    }

    async fn restart(&self) -> bool {
        let server = Arc::clone(&self.server);
        tokio::task::spawn_blocking(move || server.restart()).await.unwrap();
        true
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn claims_pass_the_suite() {
    let server = Arc::new(Server::start("redis"));
    let guard = claim(server.port()).await;
    let subject = OnRedis { server, guard, effects: Mutex::default() };
    crate::judge("redis", &[baton_guard::conformance::run(&subject).await]);
}

fn message(id: &str) -> Identity {
    Identity::new(Group::new("beans").unwrap(), id.try_into().unwrap())
}

async fn fresh(guard: &Claim, identity: &Identity) -> baton_guard::OpenClaim {
    match guard.begin(identity).await.unwrap() {
        Admission::Fresh(open) => open,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_is_renewed_while_the_handler_runs() {
    let server = Server::start("redis");
    // Long enough that a machine which stands still for a moment does not end it.
    let lease = LEASE * 4;
    let guard = claim(server.port()).await.lease(lease);
    let open = fresh(&guard, &message("slow")).await;
    tokio::time::sleep(lease * 2).await;
    assert!(open.effect().is_held());
    assert!(matches!(guard.begin(&message("slow")).await.unwrap(), Admission::InProgress(_)));
    open.commit().await.unwrap();
    assert!(matches!(guard.begin(&message("slow")).await.unwrap(), Admission::AlreadyDone));
}

/// The lease of the first has ended and the second has the claim: neither giving it back nor committing may touch it.
#[tokio::test(flavor = "multi_thread")]
async fn who_lost_its_lease_touches_nothing_of_the_next_owner() {
    let server = Server::start("redis");
    let guard = claim(server.port()).await;
    let mut admin = connect(server.port()).await;
    for commit in [false, true] {
        let it = message(if commit { "committed" } else { "aborted" });
        let first = fresh(&guard, &it).await;
        let _: () = redis::cmd("FLUSHALL").query_async(&mut admin).await.unwrap();
        let second = fresh(&guard, &it).await;
        if commit {
            assert!(matches!(first.commit().await, Err(CommitError::LeaseLost)));
        } else {
            first.abort().await;
        }
        assert!(matches!(guard.begin(&it).await.unwrap(), Admission::InProgress(_)), "the claim of the second is gone");
        second.commit().await.unwrap();
        assert!(matches!(guard.begin(&it).await.unwrap(), Admission::AlreadyDone));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_that_was_lost_is_told_to_the_handler() {
    let server = Server::start("redis");
    let guard = claim(server.port()).await;
    let open = fresh(&guard, &message("lost")).await;
    let mut admin = connect(server.port()).await;
    let _: () = redis::cmd("FLUSHALL").query_async(&mut admin).await.unwrap();
    tokio::time::sleep(LEASE).await;
    assert!(!open.effect().is_held());
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_that_forget_are_named() {
    let server = Server::start("redis");
    let guard = claim(server.port()).await;
    let mut admin = connect(server.port()).await;
    for (setting, value) in [("appendfsync", "everysec"), ("maxmemory-policy", "allkeys-lru"), ("appendonly", "no")] {
        let _: () = redis::cmd("CONFIG").arg("SET").arg(setting).arg(value).query_async(&mut admin).await.unwrap();
        let found = guard.weaknesses().await.unwrap();
        assert!(found.iter().any(|found| found.setting == setting && found.value == value), "{found:?}");
    }
}

#[tokio::test]
async fn marks_that_end_before_messages_can_come_again_are_refused() {
    let connection = connect(1).await;
    let refused = Claim::redis(connection, DAY, Redelivery::from_topic(7 * DAY)).unwrap_err();
    assert!(matches!(refused, GuardError::WindowTooShort { .. }), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_of_a_lock_grow_also_after_redis_lost_everything() {
    let server = Server::start("redis");
    let mut admin = connect(server.port()).await;
    let lock = Lock::redis(admin.clone(), "stock", LEASE);
    let first = lock.acquire().await.unwrap().unwrap();
    let refused = lock.acquire().await.unwrap().unwrap_err();
    assert!(refused <= LEASE, "{refused:?}");
    assert!(first.renew().await.unwrap());
    let mut last = first.fencing_token();
    first.release().await.unwrap();
    for flush in [false, true, false] {
        if flush {
            let _: () = redis::cmd("FLUSHALL").query_async(&mut admin).await.unwrap();
        }
        let held = lock.acquire().await.unwrap().unwrap();
        assert!(held.fencing_token() > last);
        assert!(i64::try_from(held.fencing_token()).is_ok());
        last = held.fencing_token();
        held.release().await.unwrap();
    }
    // An owner whose lease has ended neither renews nor releases what is another's.
    let old = lock.acquire().await.unwrap().unwrap();
    tokio::time::sleep(LEASE + Duration::from_millis(50)).await;
    let new = lock.acquire().await.unwrap().unwrap();
    assert!(!old.renew().await.unwrap());
    old.release().await.unwrap();
    assert!(new.renew().await.unwrap());
}
