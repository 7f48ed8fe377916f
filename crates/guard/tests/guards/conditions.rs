//! Conditional writes and fencing tokens, on real stores, with SQL that all of them read alike: what a statement that changed no row
//! means is told by what is there.

use std::time::Duration;

use baton_guard::conformance::SubjectError;
use baton_guard::{
    Admission, ApplyError, Condition, ConditionError, EffectOf, Group, Guard, Identity, Lock, Open, Verdict, Version,
    apply,
};

/// A store that runs statements in the transaction of a handler.
pub trait Statements {
    type Guard: Guard;

    /// What it calls a text that a number is cast to.
    const TEXT: &str = "text";

    /// One that remembers nothing.
    fn guard(&self) -> &Self::Guard;

    /// How many rows it changed.
    async fn change(effect: EffectOf<Self::Guard>, sql: String) -> Result<u64, SubjectError>;

    /// Creates a table.
    async fn create(&self, sql: &str)
    where
        Self: Sized,
    {
        change(self, sql).await;
    }

    /// The one text that it finds, if any.
    async fn look(effect: EffectOf<Self::Guard>, sql: String) -> Result<Option<String>, SubjectError>;
}

type Judged = Result<Verdict, ConditionError<SubjectError>>;

async fn open<S: Statements>(store: &S) -> <S::Guard as Guard>::Open {
    let message = Identity::new(Group::new("conditions").unwrap(), "message".try_into().unwrap());
    let Admission::Fresh(open) = store.guard().begin(&message).await.unwrap() else { panic!("it remembers something") };
    open
}

/// In a transaction of its own.
async fn change<S: Statements>(store: &S, sql: &str) -> u64 {
    let open = open(store).await;
    let changed = S::change(open.effect(), sql.to_owned()).await.unwrap();
    open.commit().await.unwrap();
    changed
}

async fn look<S: Statements>(store: &S, sql: &str) -> Option<String> {
    let open = open(store).await;
    let found = S::look(open.effect(), sql.to_owned()).await.unwrap();
    open.abort().await;
    found
}

/// Adds 10 on the condition of a version.
async fn add<S: Statements>(effect: EffectOf<S::Guard>, version: Version) -> Judged {
    let expected = version.expected();
    let write = format!(
        "UPDATE orders SET total = total + 10, version = version + 1 WHERE id = 'order-1' AND version = {expected}"
    );
    let now = async {
        let look = format!("SELECT CAST(version AS {}) FROM orders WHERE id = 'order-1'", S::TEXT);
        let found = S::look(effect.clone(), look);
        Ok(found.await?.map(|version| version.parse().unwrap()))
    };
    version.apply(S::change(effect.clone(), write), || now).await
}

async fn total<S: Statements>(store: &S) -> Option<String> {
    look(store, &format!("SELECT CAST(total AS {}) FROM orders WHERE id = 'order-1'", S::TEXT)).await
}

async fn added<S: Statements>(store: &S, version: Version) -> Verdict {
    let open = open(store).await;
    let verdict = add::<S>(open.effect(), version).await.unwrap();
    open.commit().await.unwrap();
    verdict
}

pub async fn versions_tell_apart_why_no_row_was_changed<S: Statements>(store: &S) {
    store
        .create("CREATE TABLE orders (id varchar(64) PRIMARY KEY, total integer NOT NULL, version integer NOT NULL)")
        .await;
    assert_eq!(added(store, Version::carried(2)).await, Verdict::NotYet, "there is no row yet");
    change(store, "INSERT INTO orders VALUES ('order-1', 0, 1), ('order-2', 0, 1)").await;
    // The copies and the early ones of a stream that says which version each message makes.
    for (makes, expected, total) in [
        (3, Verdict::NotYet, "0"),
        (2, Verdict::Applied, "10"),
        (2, Verdict::AlreadyApplied, "10"),
        (3, Verdict::Applied, "20"),
        (2, Verdict::AlreadyApplied, "20"),
        (3, Verdict::AlreadyApplied, "20"),
    ] {
        assert_eq!(added(store, Version::carried(makes)).await, expected, "the message that makes {makes}");
        let now = self::total(store).await;
        assert_eq!(now.as_deref(), Some(total), "after the message that makes {makes}");
    }
    // Two have read version 3, and one is quicker.
    assert_eq!(added(store, Version::read(3)).await, Verdict::Applied);
    assert_eq!(added(store, Version::read(3)).await, Verdict::Conflict);
    // A statement that names no single row takes nothing along when its handler hands the error on.
    let message = Identity::new(Group::new("conditions").unwrap(), "message".try_into().unwrap());
    let loose = apply(store.guard(), &message, |effect| async move {
        let write = S::change(effect, "UPDATE orders SET total = 0, version = version + 1".to_owned());
        Version::read(4).apply(write, || async { Ok(None) }).await.map(drop)
    });
    let refused = loose.await.unwrap_err();
    assert!(matches!(refused, ApplyError::Handler(ConditionError::ManyRows(2))), "{refused}");
    assert_eq!(total(store).await.as_deref(), Some("30"));
}

/// Moves a row on the condition of what it is.
async fn moved<S: Statements>(store: &S, column: &str, condition: &Condition<String>) -> Verdict {
    let (before, after) = (condition.before(), condition.after());
    let write = format!("UPDATE accounts SET {column} = '{after}' WHERE id = 'account-1' AND {column} = '{before}'");
    let open = open(store).await;
    let now = S::look(open.effect(), format!("SELECT {column} FROM accounts WHERE id = 'account-1'"));
    let verdict = condition.apply(S::change(open.effect(), write), || now).await.unwrap();
    open.commit().await.unwrap();
    verdict
}

pub async fn conditions_tell_apart_why_no_row_was_changed<S: Statements>(store: &S) {
    store.create("CREATE TABLE accounts (id varchar(64) PRIMARY KEY, state text, balance text)").await;
    let way = ["draft", "new", "paid", "shipped"].map(String::from);
    let pay = Condition::from_to("new".to_owned(), "paid".to_owned()).along(way);
    assert_eq!(moved(store, "state", &pay).await, Verdict::NotYet, "there is no row yet");
    change(store, "INSERT INTO accounts VALUES ('account-1', 'draft', '100')").await;
    for (state, expected, then) in [
        ("draft", Verdict::NotYet, "draft"),
        ("new", Verdict::Applied, "paid"),
        ("paid", Verdict::AlreadyApplied, "paid"),
        ("shipped", Verdict::AlreadyApplied, "shipped"),
        ("cancelled", Verdict::Conflict, "cancelled"),
    ] {
        change(store, &format!("UPDATE accounts SET state = '{state}' WHERE id = 'account-1'")).await;
        assert_eq!(moved(store, "state", &pay).await, expected, "at {state}");
        let now = look(store, "SELECT state FROM accounts WHERE id = 'account-1'").await;
        assert_eq!(now.as_deref(), Some(then));
    }
    let spend = Condition::from_to("100".to_owned(), "70".to_owned());
    assert_eq!(moved(store, "balance", &spend).await, Verdict::Applied);
    assert_eq!(moved(store, "balance", &spend).await, Verdict::AlreadyApplied);
    change(store, "UPDATE accounts SET balance = '40' WHERE id = 'account-1'").await;
    assert_eq!(moved(store, "balance", &spend).await, Verdict::Conflict);
    // The failure window that the documentation names: who comes back to a balance lets a late copy through.
    change(store, "UPDATE accounts SET balance = '100' WHERE id = 'account-1'").await;
    assert_eq!(moved(store, "balance", &spend).await, Verdict::Applied);
}

/// Two at once: the second waits for the first, changes no row, and is judged by what the first has left.
pub async fn a_write_that_waited_is_judged_by_what_came_before_it<S: Statements>(store: &S) {
    store
        .create("CREATE TABLE orders (id varchar(64) PRIMARY KEY, total integer NOT NULL, version integer NOT NULL)")
        .await;
    change(store, "INSERT INTO orders VALUES ('order-1', 0, 1)").await;
    for (version, expected) in [(Version::carried(2), Verdict::AlreadyApplied), (Version::read(2), Verdict::Conflict)] {
        let (first, second) = (open(store).await, open(store).await);
        assert_eq!(add::<S>(first.effect(), version).await.unwrap(), Verdict::Applied);
        let commit = async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            first.commit().await.unwrap();
        };
        let (judged, ()) = tokio::join!(add::<S>(second.effect(), version), commit);
        assert_eq!(judged.unwrap(), expected);
        second.commit().await.unwrap();
    }
    assert_eq!(total(store).await.as_deref(), Some("20"));
}

/// The owner before, who stood still while its lease ended, writes after the next owner: `lost` ends the lease.
pub async fn a_stale_fencing_token_is_refused<S: Statements>(store: &S, lock: &Lock, lost: impl AsyncFnOnce()) {
    store
        .create(
            "CREATE TABLE stock (item varchar(64) PRIMARY KEY, amount integer NOT NULL, fencing_token bigint NOT NULL)",
        )
        .await;
    change(store, "INSERT INTO stock VALUES ('beans', 100, 0)").await;
    let write = async |amount: u32, token: u64| {
        let set = format!("UPDATE stock SET amount = {amount}, fencing_token = {token}");
        change(store, &format!("{set} WHERE item = 'beans' AND fencing_token <= {token}")).await
    };
    let old = lock.acquire().await.unwrap().unwrap();
    assert_eq!(write(90, old.fencing_token()).await, 1);
    lost().await;
    let new = lock.acquire().await.unwrap().unwrap();
    // The documented window: until the next owner writes, nothing tells the store of it.
    assert_eq!(write(80, old.fencing_token()).await, 1);
    assert_eq!(write(70, new.fencing_token()).await, 1);
    assert_eq!(write(60, old.fencing_token()).await, 0, "a late write of the owner before was let through");
    let amount = look(store, &format!("SELECT CAST(amount AS {}) FROM stock WHERE item = 'beans'", S::TEXT)).await;
    assert_eq!(amount.as_deref(), Some("70"));
    assert_eq!(write(50, new.fencing_token()).await, 1, "the owner may go on");
}
