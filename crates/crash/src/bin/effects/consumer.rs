//! The service that is killed: counts beans.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use baton::consumer::{ConsumerError, Undecided};
use baton::{Baton, ConsumerBuilder, DeadLetter, Handler, HandlerError, Received};
use baton_crash::{Apply, CLAIM_LEASE, CrashError, DEAD_LETTERS, GROUP, GuardKind, History, Order, Store, TOPIC};
use baton_engine::EngineError;
use baton_guard::{Claim, ClaimEffect, EffectOf, Frontier, Guard, Inbox, Redelivery};

use crate::noted::{Noted, NotedEffect, Notes};
use crate::{Common, failed};

/// How long handlers may go on when this process is told to end.
const STOP_WAIT: Duration = Duration::from_secs(20);
/// How long the engine may be away when this process starts: a busy machine needs minutes to stop RabbitMQ and to start it.
const START_WAIT: Duration = Duration::from_secs(400);
const START_PAUSE: Duration = Duration::from_millis(200);
/// Longer than any run.
const REMEMBER: Duration = Duration::from_secs(24 * 60 * 60);
/// The most time that an effect takes between its two writes.
const PAUSE_MS_MAX: u64 = 4;
/// The first attempt at one in so many messages fails after its writes.
const HICCUP_EVERY: u64 = 40;

/// Handles until `end`; fails if the library gives up before.
pub(crate) async fn consume(baton: &Baton, common: &Common, end: impl Future<Output = ()>) -> Result<(), CrashError> {
    let store = Store::open(&common.database)?;
    let history = History::create(&common.history, &format!("{}-calls", common.name))?;
    let notes = Arc::new(Notes::new(history, common.name.as_str().into(), common.guard == GuardKind::Claim));
    match (store, common.guard) {
        (Store::Sqlite(sqlite), GuardKind::Inbox) => {
            run(baton, common, Inbox::sqlite(&sqlite), notes, handler, end).await
        }
        (Store::Sqlite(sqlite), GuardKind::Frontier) => {
            run(baton, common, Frontier::sqlite(&sqlite), notes, handler, end).await
        }
        (Store::Postgres(pool), GuardKind::Inbox) => {
            run(baton, common, Inbox::postgres(pool), notes, handler, end).await
        }
        (Store::Postgres(pool), GuardKind::Frontier) => {
            run(baton, common, Frontier::postgres(pool), notes, handler, end).await
        }
        (Store::Mariadb(pool), GuardKind::Inbox) => run(baton, common, Inbox::mysql(pool), notes, handler, end).await,
        (Store::Mariadb(pool), GuardKind::Frontier) => {
            run(baton, common, Frontier::mysql(pool), notes, handler, end).await
        }
        (store, GuardKind::Claim) => {
            let claim = claim(common).await?;
            run(baton, common, claim, notes, || claimed(store.clone()), end).await
        }
    }
}

async fn claim(common: &Common) -> Result<Claim, CrashError> {
    let address = common.redis.as_deref().ok_or_else(|| CrashError::Process("claims need --redis".to_owned()))?;
    let client = redis::Client::open(address).map_err(failed("redis"))?;
    let connection = client.get_connection_manager().await.map_err(failed("redis"))?;
    let claim = Claim::redis(connection, REMEMBER, Redelivery::from_topic(REMEMBER)).map_err(failed("claims"))?;
    Ok(claim.lease(CLAIM_LEASE))
}

async fn run<G: Guard + Clone, H: Handler<NotedEffect<EffectOf<G>>, Order>>(
    baton: &Baton,
    common: &Common,
    guard: G,
    notes: Arc<Notes>,
    handler: impl Fn() -> H,
    end: impl Future<Output = ()>,
) -> Result<(), CrashError> {
    let deadline = Instant::now() + START_WAIT;
    let consumer = loop {
        let guard = Noted::new(guard.clone(), Arc::clone(&notes));
        match builder(baton, common).guard(guard).start_handler(handler()).await {
            Ok(consumer) => break consumer,
            // It may be started while the engine is away. Whoever supervises a service starts it again then.
            Err(ConsumerError::Engine(EngineError::Unavailable(cause))) if Instant::now() < deadline => {
                tracing::info!(cause, "the consumer does not start yet");
                tokio::time::sleep(START_PAUSE).await;
            }
            Err(error) => return Err(failed("the consumer does not start")(error)),
        }
    };
    common.ready()?;
    let mut told = false;
    let end = async {
        end.await;
        told = true;
    };
    match consumer.until(end, STOP_WAIT).await {
        Ok(metrics) => tracing::info!(?metrics, "ended"),
        // It could not say goodbye in time: the group misses it when its session ends, as if it had been killed.
        Err(ConsumerError::Engine(EngineError::Unavailable(cause))) if told => tracing::warn!(cause, "ended"),
        Err(error) => return Err(failed("the consumer gave up")(error)),
    }
    Ok(())
}

fn builder(baton: &Baton, common: &Common) -> ConsumerBuilder<Undecided, Order> {
    let mut builder = baton
        .consumer(GROUP)
        .topics([TOPIC])
        .decode(|delivery| serde_json::from_slice::<Order>(delivery.payload.as_deref().unwrap_or_default()))
        .concurrency(common.concurrency)
        .dead_letter(DeadLetter::topic(DEAD_LETTERS));
    for (name, value) in common.member_settings() {
        builder = builder.engine_setting(*name, *value);
    }
    builder
}

/// Writes in the guard's transaction.
fn handler<E: Apply + 'static>() -> impl Handler<NotedEffect<E>, Order> {
    |message: Received<Order>, noted: NotedEffect<E>| async move {
        noted.effect.write(&message.body, &noted.by(message.from()), pause(&message)).await?;
        verdict(&message)
    }
}

/// Writes in a transaction of its own, beside the claim.
fn claimed(store: Store) -> impl Handler<NotedEffect<ClaimEffect>, Order> {
    move |message: Received<Order>, noted: NotedEffect<ClaimEffect>| {
        let store = store.clone();
        async move {
            if !noted.effect.is_held() {
                return Err(HandlerError::transient("claim", "the lease ended before the effect began"));
            }
            let id = message.id()?;
            let by = noted.by(message.from());
            store.write_alone(id, &message.body, &by, pause(&message), || verdict(&message)).await
        }
    }
}

/// Different for each message, and the same whenever it comes.
fn pause(message: &Received<Order>) -> Duration {
    Duration::from_millis(message.body.number % (PAUSE_MS_MAX + 1))
}

/// What is known only after the writes, so that they have to be taken back.
fn verdict(message: &Received<Order>) -> Result<(), HandlerError> {
    let order = &message.body;
    if order.poison {
        return Err(HandlerError::permanent(
            "beans",
            format!("nobody can count order {} of {}", order.number, order.key),
        ));
    }
    if order.number.is_multiple_of(HICCUP_EVERY) && message.attempt() == 1 {
        return Err(HandlerError::transient("beans", "hiccup"));
    }
    Ok(())
}
