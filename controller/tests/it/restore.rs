//! Starting again: on what there was, and on an old backup.

use std::fs;

use muster_proto::ModelDigest;
use muster_proto::wire::to_agent::Message;

use crate::harness::{Running, assignment, hello};

#[tokio::test(flavor = "multi_thread")]
async fn after_a_restore_the_controller_goes_on_from_what_its_machines_hold() {
    let controller = Running::start().await;
    let desk = controller.desk().await;
    let decide = |controller: &Running, digest: u8| {
        let decision = vec![(desk.id(), vec![assignment(ModelDigest::new([digest; 32]))])];
        let (store, now) = (controller.store.clone(), controller.clock.now());
        async move { store.decide(decision, now).await.expect("decided") }
    };
    decide(&controller, 1).await;
    let data = controller.stop().await;
    let backup = fs::read(data.path().join("muster.db")).expect("one file is the whole backup");

    let controller = Running::on(data).await;
    decide(&controller, 2).await;
    decide(&controller, 3).await;
    let mut linked = desk.link(&controller, hello(1)).await.expect("let in: the CA is the same");
    linked.next().await.expect("welcome");
    assert_eq!(linked.desired().await.generation, 3);
    drop(linked);
    let data = controller.stop().await;

    fs::write(data.path().join("muster.db"), backup).expect("restored");
    let controller = Running::on(data).await;
    // The backup knows of an older certificate than the one that the desk has by now.
    let machine = desk.id().to_string();
    let stale =
        |db: &rusqlite::Connection| db.execute("UPDATE machines SET certificate_expires = 1 WHERE id = ?1", [&machine]);
    let opened = rusqlite::Connection::open(controller.data.path().join("muster.db")).expect("opens");
    assert_eq!(stale(&opened).expect("written"), 1);
    drop(opened);
    let mut linked = desk.link(&controller, hello(3)).await.expect("let in");
    assert!(matches!(linked.next().await, Ok(Message::Welcome(_))));
    let desired = linked.desired().await;
    assert_eq!(desired.generation, 4, "an agent that holds 3 refuses less");
    assert_eq!(desired.assignments[0].digest, vec![1; 32], "the backup's content under a new number");
    assert!(controller.actions().await.contains(&"generation.went_on".to_owned()));
    controller.stop().await;
}
