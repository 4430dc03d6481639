//! [`Queue`]: a thread that owns a connection and does jobs on it; the writer's does many in one transaction.

use std::sync::Arc;

use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

use super::{Fault, StoreError};

/// Jobs that may wait; whoever comes later waits to be queued.
const QUEUED: usize = 1024;

/// Jobs in one transaction: enough to spread the cost of a sync, few enough that none waits long.
const GROUP: usize = 256;

/// Answers a job, given whether its transaction was committed.
type Reply = Box<dyn FnOnce(Result<(), Arc<rusqlite::Error>>) + Send>;

/// Runs on the connection, or only makes its reply where there is no transaction to run in.
type Job = Box<dyn FnOnce(Option<&Connection>) -> Reply + Send>;

enum Order {
    Job(Job),
    Close(oneshot::Sender<()>),
}

/// The sending end; clones share the thread.
#[derive(Clone, Debug)]
pub(super) struct Queue {
    orders: mpsc::Sender<Order>,
}

impl Queue {
    /// A thread that groups jobs into transactions.
    pub fn writer(connection: Connection) -> Result<Self, StoreError> {
        Self::start("store-writer", move |orders| write_loop(&connection, orders))
    }

    /// A thread that runs each job in a snapshot of its own.
    pub fn reader(connection: Connection) -> Result<Self, StoreError> {
        Self::start("store-reader", move |orders| read_loop(&connection, orders))
    }

    fn start(name: &str, run: impl FnOnce(mpsc::Receiver<Order>) + Send + 'static) -> Result<Self, StoreError> {
        let (orders, receiver) = mpsc::channel(QUEUED);
        std::thread::Builder::new().name(name.to_owned()).spawn(move || run(receiver)).map_err(StoreError::Thread)?;
        Ok(Self { orders })
    }

    /// Queues one job and waits for its committed answer. Dropping the future does not take a queued job back.
    pub async fn run<T: Send + 'static>(
        &self,
        step: &'static str,
        job: impl FnOnce(&Connection) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (answer, answered) = oneshot::channel();
        let job = Box::new(move |connection: Option<&Connection>| -> Reply {
            let done = |connection| in_savepoint(connection, job).map_err(|source| StoreError::Step { step, source });
            let result = connection.map_or(Err(StoreError::Closed), done);
            Box::new(move |committed| {
                // Whoever asked may be gone; the write stands all the same.
                let _ = answer.send(committed.map_err(StoreError::Commit).and(result));
            })
        });
        self.orders.send(Order::Job(job)).await.map_err(|_| StoreError::Closed)?;
        answered.await.map_err(|_| StoreError::Closed)?
    }

    /// Ends the thread after what is queued.
    pub async fn close(&self) {
        let (done, finished) = oneshot::channel();
        if self.orders.send(Order::Close(done)).await.is_ok() {
            let _ = finished.await;
        }
    }
}

/// Runs a job so that its failure leaves nothing, whatever else is in the transaction.
fn in_savepoint<T>(connection: &Connection, job: impl FnOnce(&Connection) -> Result<T, Fault>) -> Result<T, Fault> {
    connection.execute_batch("SAVEPOINT job")?;
    let result = job(connection);
    match result {
        Ok(_) => connection.execute_batch("RELEASE job")?,
        // A full disk may have ended the whole transaction, and the savepoint with it.
        Err(_) if connection.is_autocommit() => {}
        Err(_) => connection.execute_batch("ROLLBACK TO job; RELEASE job")?,
    }
    result
}

fn write_loop(connection: &Connection, mut orders: mpsc::Receiver<Order>) {
    let mut closing = None;
    while closing.is_none() {
        let Some(first) = orders.blocking_recv() else { break };
        let mut next = Some(first);
        let mut replies: Vec<Reply> = Vec::new();
        let begun = connection.execute_batch("BEGIN IMMEDIATE");
        while let Some(order) = next.take() {
            match order {
                // Outside of a transaction a job would commit by itself, and be answered as failed.
                Order::Job(job) => replies.push(job(begun.is_ok().then_some(connection))),
                Order::Close(done) => closing = Some(done),
            }
            // A full disk may end the whole transaction within a job: nobody else is let into what is left of it.
            let lost = begun.is_ok() && connection.is_autocommit();
            if closing.is_none() && replies.len() < GROUP && !lost {
                next = orders.try_recv().ok();
            }
        }
        let committed = begun.and_then(|()| connection.execute_batch("COMMIT")).map_err(Arc::new);
        if committed.is_err() {
            let _ = connection.execute_batch("ROLLBACK");
        }
        for reply in replies {
            reply(committed.clone());
        }
    }
    // The database file alone is then a whole backup.
    let _ = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
    if let Some(done) = closing {
        let _ = done.send(());
    }
}

fn read_loop(connection: &Connection, mut orders: mpsc::Receiver<Order>) {
    while let Some(order) = orders.blocking_recv() {
        match order {
            Order::Job(job) => job(Some(connection))(Ok(())),
            Order::Close(done) => {
                let _ = done.send(());
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Store;
    use super::*;

    fn store() -> (tempfile::TempDir, Store) {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let store = Store::open(&directory.path().join("muster.db")).expect("opens");
        (directory, store)
    }

    fn insert(connection: &Connection, name: &str) -> Result<(), Fault> {
        connection
            .execute("INSERT INTO admins (name, serial, created_at, expires_at) VALUES (?1, x'00', 0, 0)", [name])?;
        Ok(())
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn waiting_writes_share_a_commit_and_are_answered_after_it() {
        let (directory, store) = store();
        let path = directory.path().join("muster.db");
        // Holds the writer, so that the others queue up behind it.
        let (release, held) = std::sync::mpsc::channel::<()>();
        let (holding, is_held) = oneshot::channel();
        let first = tokio::spawn({
            let store = store.clone();
            async move {
                store
                    .write("hold", move |_| {
                        let _ = holding.send(());
                        held.recv().expect("released");
                        Ok(())
                    })
                    .await
            }
        });
        is_held.await.expect("held");
        let mut writes = tokio::task::JoinSet::new();
        for number in 0..100 {
            let store = store.clone();
            writes.spawn(async move { store.write("insert", move |c| insert(c, &format!("admin-{number}"))).await });
        }
        // The last job sees the others' rows before anybody else does: they are in its transaction.
        let (inside, outside) = oneshot::channel();
        let (go_on, gone_on) = std::sync::mpsc::channel::<()>();
        while store.writer.orders.capacity() > QUEUED - 100 {
            tokio::task::yield_now().await;
        }
        let last = tokio::spawn({
            let store = store.clone();
            async move {
                store
                    .write("look", move |connection| {
                        let rows: i64 = connection.query_row("SELECT count(*) FROM admins", [], |row| row.get(0))?;
                        let _ = inside.send(rows);
                        gone_on.recv().expect("released");
                        Ok(())
                    })
                    .await
            }
        });
        while store.writer.orders.capacity() > QUEUED - 101 {
            tokio::task::yield_now().await;
        }
        release.send(()).expect("waiting");
        assert_eq!(outside.await.expect("it looked"), 100);
        let seen: i64 = Connection::open(&path)
            .and_then(|other| other.query_row("SELECT count(*) FROM admins", [], |row| row.get(0)))
            .expect("readable");
        assert_eq!(seen, 0, "something was committed before its group was");
        assert!(writes.try_join_next().is_none(), "something was answered before it was committed");
        go_on.send(()).expect("waiting");
        while let Some(written) = writes.join_next().await {
            written.expect("no panic").expect("committed");
        }
        first.await.expect("no panic").expect("committed");
        last.await.expect("no panic").expect("committed");
        store.close().await;
    }

    #[tokio::test]
    async fn a_write_that_fails_leaves_nothing_and_spoils_no_other() {
        let (directory, store) = store();
        let failing = store.write("fail", |connection| {
            insert(connection, "half")?;
            Err::<(), _>(Fault::Damaged { what: "it".to_owned(), detail: "no".to_owned() })
        });
        let (failed, written) = tokio::join!(failing, store.write("insert", |c| insert(c, "whole")));
        assert!(matches!(failed, Err(StoreError::Step { step: "fail", .. })));
        written.expect("committed");
        store.close().await;
        assert!(matches!(store.write("late", |_| Ok(())).await, Err(StoreError::Closed)));
        let again = Store::open(&directory.path().join("muster.db")).expect("opens again");
        let names: Vec<_> =
            again.admins().await.expect("read").into_iter().map(|admin| admin.name.to_string()).collect();
        assert_eq!(names, ["whole"]);
    }

    #[tokio::test]
    async fn without_a_transaction_nothing_is_written_and_everybody_is_told() {
        let (directory, store) = store();
        // What SQLite does by itself when the disk is full: it ends the whole transaction.
        let lost = store.write("lose", |connection| {
            insert(connection, "lost")?;
            connection.execute_batch("ROLLBACK")?;
            Err::<(), _>(Fault::Damaged { what: "the disk".to_owned(), detail: "full".to_owned() })
        });
        let (lost, after) = tokio::join!(lost, store.write("insert", |c| insert(c, "after")));
        assert!(matches!(lost, Err(StoreError::Commit(_))), "{lost:?}");
        after.expect("in a transaction of its own");
        // Somebody else holds the database for longer than a write waits.
        store.write("wait less", |c| Ok(c.busy_timeout(std::time::Duration::ZERO)?)).await.expect("set");
        let other = Connection::open(directory.path().join("muster.db")).expect("opens");
        other.execute_batch("BEGIN IMMEDIATE").expect("held");
        let refused = store.write("insert", |c| insert(c, "busy")).await;
        assert!(matches!(refused, Err(StoreError::Commit(_))), "{refused:?}");
        other.execute_batch("ROLLBACK").expect("released");
        let names: Vec<_> = store.admins().await.expect("read").into_iter().map(|a| a.name.to_string()).collect();
        assert_eq!(names, ["after"]);
        store.close().await;
    }
}
