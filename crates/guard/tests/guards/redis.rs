//! Redis: claims, and the lock.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use baton_guard::conformance::{Cut, CutGuard, Subject, SubjectError};
use baton_guard::{
    Admission, Claim, ClaimEffect, CommitError, Conditional, Group, Guard, GuardError, Identity, Lock, Open, Pruned,
    Redelivery,
};
use baton_testkit::servers::Server;
use redis::aio::{ConnectionManager, ConnectionManagerConfig};

use crate::conditions;
use crate::link::Link;
use crate::mysql::OnMysql;
use crate::postgres::OnPostgres;
use crate::sqlite::OnSqlite;

/// Short, so that what died is taken over while a case still waits; and longer than a busy machine stands still for a moment.
const LEASE: Duration = Duration::from_secs(4);
/// For the tests that do not wait for its end.
const LONG_LEASE: Duration = Duration::from_secs(600);
const DAY: Duration = Duration::from_secs(86_400);

pub async fn connect(port: u16) -> ConnectionManager {
    connect_as("", port).await
}

/// `user` as in an address: `name:password@`.
pub async fn connect_as(user: &str, port: u16) -> ConnectionManager {
    let client = redis::Client::open(format!("redis://{user}127.0.0.1:{port}/")).unwrap();
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
    let guard = claim(server.port()).await;
    let open = fresh(&guard, &message("slow")).await;
    tokio::time::sleep(LEASE * 2).await;
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
    for _ in 0..100 {
        if !open.effect().is_held() {
            return;
        }
        tokio::time::sleep(LEASE / 10).await;
    }
    panic!("the handler was not told");
}

/// Others kept one state for both: who was turned away could not know whether to acknowledge the message or to come back.
#[tokio::test(flavor = "multi_thread")]
async fn a_claim_in_progress_is_not_taken_for_one_that_is_done() {
    let server = Server::start("redis");
    let (guard, other) = (claim(server.port()).await, claim(server.port()).await);
    let open = fresh(&guard, &message("a")).await;
    let Admission::InProgress(wait) = other.begin(&message("a")).await.unwrap() else { panic!("it is in progress") };
    assert!(wait <= LEASE, "{wait:?}");
    // What failed is given back, and can be had at once.
    open.abort().await;
    fresh(&other, &message("a")).await.commit().await.unwrap();
    assert!(matches!(guard.begin(&message("a")).await.unwrap(), Admission::AlreadyDone));
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
    let lock = Lock::redis(admin.clone(), "stock", LONG_LEASE);
    let first = lock.acquire().await.unwrap().unwrap();
    let refused = lock.acquire().await.unwrap().unwrap_err();
    assert!(refused <= LONG_LEASE, "{refused:?}");
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
    let brief = Duration::from_millis(100);
    let old = Lock::redis(admin.clone(), "stock", brief).acquire().await.unwrap().unwrap();
    tokio::time::sleep(brief + Duration::from_millis(50)).await;
    let new = lock.acquire().await.unwrap().unwrap();
    assert!(!old.renew().await.unwrap());
    old.release().await.unwrap();
    assert!(new.renew().await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fencing_token_of_an_owner_before_is_refused_by_the_protected_store() {
    let server = Server::start("redis");
    let admin = connect(server.port()).await;
    let lost = async |name: &str| {
        let gone: u32 =
            redis::cmd("DEL").arg(format!("baton:lock:{{{name}}}")).query_async(&mut admin.clone()).await.unwrap();
        assert_eq!(gone, 1);
    };
    let on_sqlite = Lock::redis(admin.clone(), "on sqlite", LONG_LEASE);
    let sqlite = OnSqlite::new(Conditional::sqlite).await;
    conditions::a_stale_fencing_token_is_refused(&sqlite, &on_sqlite, async || lost("on sqlite").await).await;
    let on_postgres = Lock::redis(admin.clone(), "on postgres", LONG_LEASE);
    let postgres = OnPostgres::new(&Arc::new(Server::start("postgres")), Conditional::postgres).await;
    conditions::a_stale_fencing_token_is_refused(&postgres, &on_postgres, async || lost("on postgres").await).await;
    let on_mariadb = Lock::redis(admin.clone(), "on mariadb", LONG_LEASE);
    let mariadb = OnMysql::new(&Arc::new(Server::start("mariadb")), Conditional::mysql).await;
    conditions::a_stale_fencing_token_is_refused(&mariadb, &on_mariadb, async || lost("on mariadb").await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rights_that_the_guide_names_are_enough() {
    let server = Server::start("redis");
    let guide = crate::guide("redis", 0);
    let mut words = guide.split_whitespace();
    let mut allow = redis::cmd(words.next().unwrap());
    for word in words {
        allow.arg(word);
    }
    let _: () = allow.query_async(&mut connect(server.port()).await).await.unwrap();
    let connection = connect_as("consumer:secret@", server.port()).await;
    let stranger: Result<(), _> = redis::cmd("SET").arg("other").arg(1).query_async(&mut connection.clone()).await;
    assert!(stranger.is_err(), "it may touch keys of others");
    let guard = Claim::redis(connection.clone(), DAY, Redelivery::from_topic(DAY)).unwrap().lease(LEASE);
    let it = message("a");
    let fence = guard.take_over(&it.group, &baton_core::TopicPartition::new("orders", 0)).await.unwrap();
    let it = it.fenced(fence);
    fresh(&guard, &it).await.abort().await;
    let open = fresh(&guard, &it).await;
    // Renewed meanwhile.
    tokio::time::sleep(LEASE / 2).await;
    assert!(open.effect().is_held());
    open.commit().await.unwrap();
    assert!(matches!(guard.begin(&it).await.unwrap(), Admission::AlreadyDone));
    assert!(guard.weaknesses().await.unwrap().is_empty());
    let held = Lock::redis(connection, "stock", LONG_LEASE).acquire().await.unwrap().unwrap();
    assert!(held.renew().await.unwrap());
    held.release().await.unwrap();
}
