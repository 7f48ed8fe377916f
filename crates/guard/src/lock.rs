//! A lease with a fencing token.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use redis::aio::ConnectionManager;
use redis::{RedisError, Script};
use uuid::Uuid;

use crate::GuardError;
use crate::claim::unavailable;

/// Takes the lock if nobody has it, or if it is ours already (an answer was lost). The token grows with each owner; it is at least
/// the server's clock, so that it goes on growing after Redis has lost its data.
const ACQUIRE: &str = "
local owner, token = false, false
local now = redis.call('GET', KEYS[1])
if now then owner, token = string.match(now, '^(.*) (%d+)$') end
if owner and owner ~= ARGV[1] then return {'0', tostring(math.max(1, redis.call('PTTL', KEYS[1])))} end
if not owner then
  local time = redis.call('TIME')
  local next = tonumber(time[1]) * 1000000 + tonumber(time[2])
  local last = tonumber(redis.call('GET', KEYS[2]) or '0')
  token = string.format('%.0f', math.max(next, last + 1))
  redis.call('SET', KEYS[2], token)
end
redis.call('SET', KEYS[1], ARGV[1] .. ' ' .. token, 'PX', ARGV[2])
return {token, '0'}";

const RENEW: &str = "
local now = redis.call('GET', KEYS[1])
if now ~= ARGV[1] .. ' ' .. ARGV[3] then return 0 end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return 1";

const RELEASE: &str = "
local now = redis.call('GET', KEYS[1])
if now == ARGV[1] .. ' ' .. ARGV[3] then redis.call('DEL', KEYS[1]) end
return 0";

/// A lock on Redis with a lease and a fencing token.
///
/// A lease alone protects nothing: its owner may stand still until it has ended, and go on then. What protects is the token, if the
/// store that is written to checks it:
///
/// ```sql
/// UPDATE stock SET amount = $1, fencing_token = $2 WHERE item = $3 AND fencing_token <= $2
/// ```
///
/// Whoever changes no row has lost the lock. Tokens grow with each owner, so a late write of an earlier owner is refused from the
/// first write of a later one on.
///
/// # Failure window
///
/// Between the end of the lease and the first write of the next owner, a late write of the owner before is still let through.
/// If Redis loses its data, two can hold the lock at once; tokens grow nevertheless, as long as the server's clock does not go
/// back by more than the time since the last owner.
#[derive(Clone)]
pub struct Lock {
    connection: ConnectionManager,
    key: Arc<str>,
    lease: Duration,
}

impl fmt::Debug for Lock {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Lock").field("key", &self.key).field("lease", &self.lease).finish_non_exhaustive()
    }
}

impl Lock {
    /// The lock of this name. Whoever holds it has it for `lease` (at least 1 ms), and again with each [`Held::renew`].
    pub fn redis(connection: ConnectionManager, name: &str, lease: Duration) -> Self {
        let key = format!("baton:lock:{{{name}}}").into();
        Self { connection, key, lease: lease.max(Duration::from_millis(1)) }
    }

    /// Takes the lock, or says for how long somebody else has it at least.
    pub async fn acquire(&self) -> Result<Result<Held, Duration>, GuardError> {
        let doing = "taking a lock";
        let owner = Uuid::new_v4().as_hyphenated().to_string();
        let counter = format!("{}:token", self.key);
        let script = Script::new(ACQUIRE);
        let mut call = script.prepare_invoke();
        call.key(&*self.key).key(counter).arg(&owner).arg(milliseconds(self.lease));
        let mut answer: Result<(u64, u64), RedisError> = call.invoke_async(&mut self.connection.clone()).await;
        if answer.as_ref().is_err_and(|error| error.is_io_error() || error.is_timeout()) {
            // Once more, as the same owner: if the first was heard, this is recognised.
            answer = call.invoke_async(&mut self.connection.clone()).await;
        }
        match answer.map_err(|error| unavailable(doing, error))? {
            (0, wait) => Ok(Err(Duration::from_millis(wait))),
            (token, _) => Ok(Ok(Held { lock: self.clone(), owner, token })),
        }
    }
}

/// A lock that was taken. It is given back with [`Held::release`], or ends with its lease.
#[derive(Debug)]
pub struct Held {
    lock: Lock,
    owner: String,
    token: u64,
}

impl Held {
    /// Higher than that of every owner before. Fits into a signed 64-bit integer.
    pub fn fencing_token(&self) -> u64 {
        self.token
    }

    /// Makes the lease last its whole time from now on; `false` if it has ended.
    pub async fn renew(&self) -> Result<bool, GuardError> {
        self.run(RENEW, "renewing a lock").await.map(|held| held == 1)
    }

    /// Gives it back, if it is still ours.
    pub async fn release(self) -> Result<(), GuardError> {
        self.run(RELEASE, "giving a lock back").await.map(drop)
    }

    async fn run(&self, script: &str, doing: &'static str) -> Result<i64, GuardError> {
        let script = Script::new(script);
        let mut call = script.prepare_invoke();
        call.key(&*self.lock.key).arg(&self.owner).arg(milliseconds(self.lock.lease)).arg(self.token);
        call.invoke_async(&mut self.lock.connection.clone()).await.map_err(|error| unavailable(doing, error))
    }
}

fn milliseconds(lease: Duration) -> u64 {
    u64::try_from(lease.as_millis()).unwrap_or(u64::MAX).clamp(1, i64::MAX.unsigned_abs() / 2)
}
