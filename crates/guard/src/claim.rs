//! Claims on Redis, for effects that no transaction can hold.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use baton_core::TopicPartition;
use redis::aio::ConnectionManager;
use redis::{FromRedisValue, RedisError, Script};
use tokio::task::JoinHandle;
use uuid::Uuid;

use crate::kinds::{fences, inbox_states, one_group, sorted_ids};
use crate::{
    Admission, Batch, CommitError, Durable, Fence, Group, Guard, GuardError, Identity, Open, Redelivery, State,
    Strength, Weakness,
};

/// How long a claim lasts without being renewed, unless [`Claim::lease`] says otherwise: as long as a message waits whose consumer
/// died, and much longer than a process stands still for a moment.
const LEASE: Duration = Duration::from_secs(30);
/// A claim is renewed this many times before it would end.
const RENEWALS: u32 = 3;
/// How often a command is sent whose answer did not come. It carries its owner's token, so that sending it again changes nothing.
const ATTEMPTS: u32 = 3;
/// Between two attempts.
const ATTEMPT_WAIT: Duration = Duration::from_millis(50);

/// Checks the fences (`KEYS` after the claims, their epochs after the third argument), then claims what nobody has. For each claim:
/// 0 it is ours, -1 it is done, else the milliseconds until it ends. -2 alone: fenced.
const BEGIN: &str = "
local claims = tonumber(ARGV[3])
for at = claims + 1, #KEYS do
  if redis.call('GET', KEYS[at]) ~= ARGV[3 + at - claims] then return {-2} end
end
local found = {}
for at = 1, claims do
  local now = redis.call('GET', KEYS[at])
  if not now or now == 'p:' .. ARGV[1] then
    redis.call('SET', KEYS[at], 'p:' .. ARGV[1], 'PX', ARGV[2])
    found[at] = 0
  elseif string.sub(now, 1, 2) == 'd:' then
    found[at] = -1
  else
    found[at] = math.max(1, redis.call('PTTL', KEYS[at]))
  end
end
return found";

/// Marks what is ours as done. The answer is the worst of: 0 done by us (now or before), 1 fenced (and marked, since the effect
/// is there), 2 done by somebody else, 3 not ours any more.
const COMMIT: &str = "
local claims, worst = tonumber(ARGV[3]), 0
for at = claims + 1, #KEYS do
  if redis.call('GET', KEYS[at]) ~= ARGV[3 + at - claims] then worst = 1 end
end
for at = 1, claims do
  local now = redis.call('GET', KEYS[at])
  if now == 'p:' .. ARGV[1] then
    redis.call('SET', KEYS[at], 'd:' .. ARGV[1], 'PX', ARGV[2])
  elseif now ~= 'd:' .. ARGV[1] then
    if now and string.sub(now, 1, 2) == 'd:' then worst = math.max(worst, 2) else worst = 3 end
  end
end
return worst";

/// Gives back what is ours, and nothing else: the lease may have ended, and the claim be another's.
const RELEASE: &str = "
for at = 1, #KEYS do
  if redis.call('GET', KEYS[at]) == 'p:' .. ARGV[1] then redis.call('DEL', KEYS[at]) end
end
return 0";

/// Makes what is ours last longer; says whether all of it is ours.
const RENEW: &str = "
local held = 1
for at = 1, #KEYS do
  if redis.call('GET', KEYS[at]) == 'p:' .. ARGV[1] then redis.call('PEXPIRE', KEYS[at], ARGV[2]) else held = 0 end
end
return held";

/// Remembers each message id of a group in Redis: `in progress` with its owner and a lease, then `done`.
///
/// For effects that no transaction can hold (a call to another service, a file) and whose repetition in the rare case can be borne.
/// If the effect is a write to a database, an [`crate::Inbox`] there is stronger and no slower.
///
/// The two states are told apart: a message that is in progress is not done, and is asked for again when the lease ends. A claim
/// bears the token of the attempt that made it; only that attempt renews it, marks it as done and gives it back, and when it asks
/// again since an answer was lost, it is recognised. The lease is renewed while the handler runs.
///
/// # Failure window
///
/// | the process dies, or is cut off from Redis | effect | claim | the message comes again and is |
/// |---|---|---|---|
/// | before [`crate::Guard::begin`] | no | no | fresh |
/// | after it, before the effect | no | in progress | fresh, when the lease has ended |
/// | **after the effect, before the commit** | **yes** | in progress | **fresh, when the lease has ended: the effect happens twice** |
/// | after the commit | yes | done | done |
/// | **the handler is cut off after the effect**: its partition is lost, its deadline passes | **yes** | given back | **fresh at once: the effect happens twice** |
/// | **the handler fails after the effect**: the answer was lost | **yes** | given back | **fresh at once: the effect happens twice** |
///
/// A handler that fails after half of its effect has the claim given back at once, and the half is there. A process that stands
/// still for longer than the lease, and goes on then, does the effect while another may be doing it too: [`ClaimEffect::is_held`]
/// says so before the call, and [`CommitError::LeaseLost`] after it; pass [`ClaimEffect::token`] on where the other side can check it
/// (an idempotency key). A zombie that commits under an old fence gets [`CommitError::Fenced`]; its effect cannot be undone, so the
/// message is marked, and the new owner finds it done.
///
/// **Redis loses its last second** (`appendfsync everysec`, which is the default of `appendonly`; a failover, since replication is
/// asynchronous): claims and marks of that second are gone, and their messages are applied **twice** if they come again. Without
/// `appendonly` that goes for minutes; with `maxmemory-policy` other than `noeviction` for any mark at any time.
/// [`crate::Guard::weaknesses`] names such settings.
///
/// **Marks end too early** (`remember`): a message that comes again after that is applied **twice**. The window is
/// therefore asked for, and a shorter one is refused.
#[derive(Clone)]
pub struct Claim {
    connection: ConnectionManager,
    prefix: Arc<str>,
    lease: Duration,
    remember: Duration,
}

impl fmt::Debug for Claim {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { prefix, lease, remember, .. } = self;
        formatter
            .debug_struct("Claim")
            .field("prefix", prefix)
            .field("lease", lease)
            .field("remember", remember)
            .finish()
    }
}

impl Claim {
    /// Claims through this connection. Done messages are remembered for `remember`, which must not be shorter than they can come
    /// again. The connection must not send commands again by itself; a [`ConnectionManager`] does not.
    pub fn redis(
        connection: ConnectionManager,
        remember: Duration,
        redelivery: Redelivery,
    ) -> Result<Self, GuardError> {
        redelivery.check(remember)?;
        Ok(Self { connection, prefix: "baton".into(), lease: LEASE, remember })
    }

    /// How long a claim lasts without being renewed (30 s), at least 1 ms.
    pub fn lease(mut self, lease: Duration) -> Self {
        self.lease = lease.max(Duration::from_millis(1));
        self
    }

    /// What all keys begin with (`baton`).
    pub fn prefix(mut self, prefix: impl Into<Arc<str>>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// All keys of a group lie in one slot of a cluster. The length keeps two groups apart whatever their names hold.
    fn key(&self, group: &str, what: fmt::Arguments<'_>) -> String {
        format!("{}:{}:{{{group}}}:{what}", self.prefix, group.len())
    }

    /// The keys of these claims, and those of their fences with the epochs.
    fn keys(&self, group: &str, identities: &[Identity]) -> Result<Keys, GuardError> {
        let claims = sorted_ids(identities).into_iter().map(|id| self.key(group, format_args!("id:{id}"))).collect();
        let mut held = Keys { claims, fences: Vec::new(), epochs: Vec::new() };
        for ((topic, partition), epoch) in fences(identities)? {
            held.fences.push(self.key(group, format_args!("fence:{partition}:{topic}")));
            held.epochs.push(epoch.to_string());
        }
        Ok(held)
    }

    async fn begin_all(&self, identities: &[Identity]) -> Result<(Vec<State>, Option<OpenClaim>), GuardError> {
        let keys = self.keys(one_group(identities)?, identities)?;
        let token: Arc<str> = Uuid::new_v4().as_hyphenated().to_string().into();
        let claim = Call { connection: self.connection.clone(), token, keys };
        let found: Vec<i64> = match claim.run(BEGIN, self.lease, true).await {
            Ok(found) => found,
            Err(error) => {
                // What may have been claimed would be in progress until the lease ends.
                tokio::spawn(async move { claim.release().await });
                return Err(unavailable("claiming", error));
            }
        };
        if found == [-2] {
            return Ok((vec![State::Fenced; identities.len()], None));
        }
        let ids = sorted_ids(identities);
        if found.len() != ids.len() {
            return Err(GuardError::Corrupt(format!("{} claims were answered with {}", ids.len(), found.len())));
        }
        let found: BTreeMap<&str, i64> = ids.into_iter().zip(found).collect();
        let mut states = inbox_states(identities, |id| found.get(id) == Some(&0));
        for (state, identity) in states.iter_mut().zip(identities) {
            if let Some(milliseconds @ 1..) = found.get(identity.id.as_str()) {
                *state = State::InProgress(Duration::from_millis(milliseconds.unsigned_abs()));
            }
        }
        if !states.contains(&State::Fresh) {
            return Ok((states, None));
        }
        let ours = claim.keys.claims.iter().zip(found.values()).filter(|(_, found)| **found == 0);
        let claims = ours.map(|(key, _)| key.clone()).collect();
        let call = Call { keys: Keys { claims, ..claim.keys }, ..claim };
        Ok((states, Some(OpenClaim::new(call, self.lease, self.remember))))
    }
}

impl Guard for Claim {
    type Open = OpenClaim;

    fn name(&self) -> &'static str {
        "claim on redis"
    }

    fn strength(&self) -> Strength {
        Strength::Leased
    }

    async fn begin(&self, identity: &Identity) -> Result<Admission<OpenClaim>, GuardError> {
        let (states, open) = self.begin_all(std::slice::from_ref(identity)).await?;
        Ok(match (states.first(), open) {
            (Some(State::Fresh), Some(open)) => Admission::Fresh(open),
            (Some(State::Fenced), _) => Admission::Fenced,
            (Some(State::InProgress(wait)), _) => Admission::InProgress(*wait),
            _ => Admission::AlreadyDone,
        })
    }

    async fn begin_batch(&self, identities: &[Identity]) -> Result<Batch<OpenClaim>, GuardError> {
        let (states, open) = self.begin_all(identities).await?;
        Ok(Batch { states, open })
    }

    /// Effects of the owner before are in no transaction and may still be under way; what it begins from now on is refused.
    async fn take_over(&self, group: &Group, partition: &TopicPartition) -> Result<Fence, GuardError> {
        let key = self.key(group.as_str(), format_args!("fence:{}:{}", partition.partition, partition.topic));
        let taken = redis::cmd("INCR").arg(key).query_async(&mut self.connection.clone()).await;
        // Sent once: whether it was counted without our knowing does not matter, the next one is higher.
        let epoch = taken.map_err(|error| unavailable("taking over a partition", error))?;
        Ok(Fence { partition: partition.clone(), epoch })
    }

    async fn weaknesses(&self) -> Result<Vec<Weakness>, GuardError> {
        weaknesses(&self.connection, SETTINGS).await
    }
}

/// Which of these settings of a server are not as they should be.
pub(crate) async fn weaknesses(
    connection: &ConnectionManager,
    settings: &[Durable],
) -> Result<Vec<Weakness>, GuardError> {
    let mut found = Vec::new();
    for setting in settings {
        let mut ask = redis::cmd("CONFIG");
        ask.arg("GET").arg(setting.setting);
        let answer: Result<BTreeMap<String, String>, RedisError> = ask.query_async(&mut connection.clone()).await;
        match answer {
            Ok(values) => found.extend(values.get(setting.setting).and_then(|value| setting.judge(value))),
            Err(error) if error.is_io_error() || error.is_timeout() => {
                return Err(unavailable("reading the settings", error));
            }
            // Managed servers hide their settings.
            Err(_) => found.extend(setting.judge("unknown: CONFIG GET is not allowed")),
        }
    }
    Ok(found)
}

const SETTINGS: &[Durable] = &[
    Durable {
        setting: "appendonly",
        fine: &["yes"],
        wanted: "yes",
        consequence: "a crash forgets minutes of marks: their messages are applied twice if they come again",
    },
    Durable {
        setting: "appendfsync",
        fine: &["always"],
        wanted: "always",
        consequence: "a power failure forgets the last second's marks: their messages are applied twice if they come again",
    },
    Durable {
        setting: "no-appendfsync-on-rewrite",
        fine: &["no"],
        wanted: "no",
        consequence: "nothing is synced while the log is rewritten: a power failure then forgets marks",
    },
    Durable {
        setting: "maxmemory-policy",
        fine: &["noeviction"],
        wanted: "noeviction",
        consequence: "marks are thrown away when memory is short: their messages are applied twice if they come again",
    },
];

#[derive(Debug, Clone)]
struct Keys {
    claims: Vec<String>,
    fences: Vec<String>,
    epochs: Vec<String>,
}

/// Everything that a script needs to be run for an attempt.
#[derive(Clone)]
struct Call {
    connection: ConnectionManager,
    token: Arc<str>,
    keys: Keys,
}

impl Call {
    /// Runs a script, again if its answer is lost: the token makes the second time the same as the first.
    async fn run<T: FromRedisValue>(&self, script: &str, time: Duration, fenced: bool) -> Result<T, RedisError> {
        let script = Script::new(script);
        let mut call = script.prepare_invoke();
        for key in &self.keys.claims {
            call.key(key);
        }
        let milliseconds = u64::try_from(time.as_millis()).unwrap_or(u64::MAX).clamp(1, i64::MAX.unsigned_abs() / 2);
        call.arg(&*self.token).arg(milliseconds).arg(self.keys.claims.len());
        if fenced {
            for (key, epoch) in self.keys.fences.iter().zip(&self.keys.epochs) {
                call.key(key).arg(epoch);
            }
        }
        let mut attempt = 1;
        loop {
            match call.invoke_async(&mut self.connection.clone()).await {
                Err(error) if attempt < ATTEMPTS && (error.is_io_error() || error.is_timeout()) => attempt += 1,
                answered => return answered,
            }
            tokio::time::sleep(ATTEMPT_WAIT).await;
        }
    }

    async fn release(&self) {
        if let Err(error) = self.run::<i64>(RELEASE, Duration::ZERO, false).await {
            tracing::debug!(%error, "a claim that was not given back ends with its lease");
        }
    }
}

/// A claim that is held.
pub struct OpenClaim {
    /// Taken when it is committed or given back.
    call: Option<Call>,
    effect: ClaimEffect,
    remember: Duration,
    renewal: JoinHandle<()>,
}

impl fmt::Debug for OpenClaim {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("OpenClaim").field("effect", &self.effect).finish_non_exhaustive()
    }
}

impl OpenClaim {
    fn new(call: Call, lease: Duration, remember: Duration) -> Self {
        let held = Arc::new(AtomicBool::new(true));
        let effect = ClaimEffect { token: Arc::clone(&call.token), held: Arc::clone(&held) };
        let renewal = tokio::spawn(renew(call.clone(), lease, held));
        Self { call: Some(call), effect, remember, renewal }
    }
}

async fn renew(call: Call, lease: Duration, held: Arc<AtomicBool>) {
    let mut renewed = tokio::time::Instant::now();
    loop {
        tokio::time::sleep(lease / RENEWALS).await;
        let asked = tokio::time::Instant::now();
        let answer = tokio::time::timeout(lease / RENEWALS, call.run::<i64>(RENEW, lease, false)).await;
        match answer {
            Ok(Ok(1)) => renewed = asked,
            Ok(Ok(_)) => break,
            // No answer: it is ours for as long as it was renewed for, and not a moment longer.
            Ok(Err(_)) | Err(_) if renewed.elapsed() < lease => (),
            Ok(Err(_)) | Err(_) => break,
        }
    }
    held.store(false, Relaxed);
}

impl Open for OpenClaim {
    type Effect = ClaimEffect;

    fn effect(&self) -> ClaimEffect {
        self.effect.clone()
    }

    async fn commit(mut self) -> Result<(), CommitError> {
        let Some(call) = self.call.take() else { return Err(CommitError::LeaseLost) };
        let marked = call.run::<i64>(COMMIT, self.remember, true).await;
        match marked {
            Ok(0) => Ok(()),
            Ok(1) => Err(CommitError::Fenced),
            Ok(2) => Err(CommitError::AlreadyDone),
            Ok(_) => Err(CommitError::LeaseLost),
            Err(error) => Err(CommitError::Unknown(unavailable("marking as done", error))),
        }
    }

    async fn abort(mut self) {
        self.renewal.abort();
        if let Some(call) = self.call.take() {
            call.release().await;
        }
    }
}

impl Drop for OpenClaim {
    fn drop(&mut self) {
        self.renewal.abort();
        self.effect.held.store(false, Relaxed);
        // Without a runtime nothing can be sent, and the claim ends with its lease.
        if let (Some(call), Ok(runtime)) = (self.call.take(), tokio::runtime::Handle::try_current()) {
            runtime.spawn(async move { call.release().await });
        }
    }
}

/// What a handler under a claim gets: no transaction, but the means to be careful.
#[derive(Debug, Clone)]
pub struct ClaimEffect {
    token: Arc<str>,
    held: Arc<AtomicBool>,
}

impl ClaimEffect {
    /// Different for each attempt. To make the other side recognise a repetition of the message, send the message id, not this.
    pub fn token(&self) -> &str {
        &self.token
    }

    /// Whether the claim is held, as far as is known here. Ask right before the effect: after a long pause it may be another's.
    pub fn is_held(&self) -> bool {
        self.held.load(Relaxed)
    }
}

pub(crate) fn unavailable(doing: &'static str, error: RedisError) -> GuardError {
    if error.is_io_error() || error.is_timeout() || error.is_connection_refusal() || error.is_cluster_error() {
        return GuardError::Unavailable { doing, source: error.into() };
    }
    match error.code() {
        Some("LOADING" | "BUSY" | "READONLY" | "MASTERDOWN" | "OOM" | "MISCONF" | "TRYAGAIN") => {
            GuardError::Unavailable { doing, source: error.into() }
        }
        _ => GuardError::Refused { doing, source: error.into() },
    }
}
