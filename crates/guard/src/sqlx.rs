//! Marks in a transaction that the caller opened with sqlx, on Postgres.

use sqlx_core::Error;
use sqlx_core::query::query;
use sqlx_core::raw_sql::raw_sql;
use sqlx_core::row::Row;
use sqlx_postgres::{PgConnection, PgRow, Postgres};

use crate::kinds::{fences, inbox_states, one_group, sorted_ids};
use crate::postgres_sql as sql;
use crate::{GuardError, Identity, State};

/// Creates the tables of [`crate::Inbox`] on Postgres where they are not there yet.
pub async fn prepare_inbox(connection: &mut PgConnection) -> Result<(), GuardError> {
    let created = raw_sql(sql::TABLES).execute(connection).await;
    created.map(drop).map_err(|error| refused("creating the tables", error))
}

/// Marks messages of one group in the caller's open transaction, and says what each of them is. The tables are those of
/// [`crate::Inbox`] on Postgres, so both may be used side by side.
///
/// The caller applies what is [`State::Fresh`], writes its effect in the same transaction, commits, and acknowledges after that. If
/// it rolls back, nothing was marked. It waits as long as the transaction's `lock_timeout` says for who is marking the same
/// message; without one, without end.
///
/// ```no_run
/// # mod sqlx { pub use sqlx_core::query::query; pub use sqlx_postgres::PgPool; }
/// use baton_guard::{Identity, State, mark_inbox};
///
/// async fn give_beans(pool: &sqlx::PgPool, order: &Identity) -> Result<(), Box<dyn std::error::Error>> {
///     let mut transaction = pool.begin().await?;
///     match mark_inbox(&mut transaction, std::slice::from_ref(order)).await?[..] {
///         [State::Fresh] => {
///             let beans = sqlx::query("INSERT INTO beans (order_id, amount) VALUES ($1, 100)");
///             beans.bind(order.id.as_str()).execute(&mut *transaction).await?;
///             transaction.commit().await?;
///             Ok(()) // acknowledge it now
///         }
///         [State::Fenced] => Err("the partition has a new owner: acknowledge nothing".into()),
///         _ => Ok(()), // it was done before: acknowledge it
///     }
/// }
/// ```
///
/// Hand on each error of a statement, as `?` does here: Postgres has failed the whole transaction then, and a `commit` of a failed
/// transaction succeeds, as a roll back.
///
/// Failure window: none between effect and mark as long as both are in this one transaction, which is up to the caller. See
/// [`crate::Inbox`] for the rest.
pub async fn mark_inbox(connection: &mut PgConnection, identities: &[Identity]) -> Result<Vec<State>, GuardError> {
    let doing = "marking";
    let group = one_group(identities)?;
    let fences = fences(identities)?;
    if !fences.is_empty() {
        let topics: Vec<&str> = fences.keys().map(|(topic, _)| *topic).collect();
        let partitions: Vec<i64> = fences.keys().map(|(_, partition)| i64::from(*partition)).collect();
        let epochs: Vec<i64> = fences.values().copied().collect();
        let held = query::<Postgres>(sql::CHECK_FENCES).bind(group).bind(topics).bind(partitions).bind(epochs);
        let held = held.fetch_all(&mut *connection).await.map_err(|error| refused(doing, error))?;
        if held.len() < fences.len() {
            return Ok(vec![State::Fenced; identities.len()]);
        }
    }
    let mark = query::<Postgres>(sql::MARK_MANY).bind(group).bind(sorted_ids(identities));
    let rows = mark.fetch_all(connection).await.map_err(|error| refused(doing, error))?;
    let id = |row: &PgRow| row.try_get::<String, _>(0);
    let mut new = rows.iter().map(id).collect::<Result<Vec<_>, _>>().map_err(|error| refused(doing, error))?;
    new.sort_unstable();
    Ok(inbox_states(identities, |id| new.binary_search_by(|new| new.as_str().cmp(id)).is_ok()))
}

fn refused(doing: &'static str, error: Error) -> GuardError {
    let code = error.as_database_error().and_then(|answer| answer.code()).map(|code| code.into_owned());
    match code.as_deref() {
        None => GuardError::Unavailable { doing, source: error.into() },
        Some("42P01") => GuardError::NotPrepared(error.into()),
        // Not in time, deadlock, serialization: the whole transaction must be begun again.
        Some("55P03" | "40P01" | "40001") => GuardError::Busy { doing, retry_after: std::time::Duration::ZERO },
        Some(code) if ["08", "53", "57", "58"].iter().any(|class| code.starts_with(class)) => {
            GuardError::Unavailable { doing, source: error.into() }
        }
        Some(_) => GuardError::Refused { doing, source: error.into() },
    }
}
