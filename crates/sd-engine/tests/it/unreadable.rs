//! A store that holds something that cannot be read: damaged, or written by another version.

use std::path::Path;

use operations_contract::{ErrorCode, JobEvent, JobState, Operation, Terminator};
use sd_engine::{JobQuery, Retention, Store};

use crate::generator::TestGenerator;
use crate::restart::{killed, life};
use crate::support::Worker;

/// Changes the database by hand.
fn edit(dir: &Path, sql: &str, id: &str) {
    let connection = rusqlite::Connection::open(dir.join("jobs.sqlite3")).unwrap();
    assert!(connection.execute(sql, [id]).unwrap() > 0, "{sql}");
}

#[tokio::test]
async fn a_request_that_cannot_be_read_costs_its_own_job_alone() {
    let dir = tempfile::tempdir().unwrap();
    let worker = life(dir.path()).await;
    worker.occupy().await;
    let [unknown, broken, whole] = ["unknown", "broken", "whole"].map(|prompt| worker.submit(prompt));
    let copy = killed(dir.path());
    worker.gate.open();
    let request = r#"{"operation":"image_generation","prompt":"x","new_field":1}"#;
    edit(copy.path(), &format!("UPDATE jobs SET request = '{request}' WHERE id = ?"), unknown.as_str());
    edit(copy.path(), "UPDATE jobs SET request = '{\"operation\":' WHERE id = ?", broken.as_str());

    let worker = life(copy.path()).await;
    worker.gate.open();
    assert_eq!(worker.story(&whole).await.end, Terminator::Done);
    let error = |story: crate::support::Story| match story.last() {
        JobEvent::Error(detail) => detail.clone(),
        other => panic!("{other:?}"),
    };
    let told = error(worker.story(&unknown).await);
    let now = worker.router.submit_json(&serde_json::from_str(request).unwrap()).unwrap_err();
    assert_eq!(told, now.detail(), "as who sends it now is told");
    assert_eq!((told.code, &*told.fields[0].field), (ErrorCode::InvalidRequest, "new_field"));
    assert_eq!(error(worker.story(&broken).await).code, ErrorCode::StorageFailed);
    let again = killed(copy.path());

    let worker = life(again.path()).await;
    for id in [unknown, broken] {
        let view = worker.router.job(&id).unwrap();
        assert!(view.state == JobState::Failed && view.error.is_some(), "{view:?}");
    }
}

#[tokio::test]
async fn a_job_that_cannot_be_read_says_so_and_hides_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let worker = life(dir.path()).await;
    let [damaged, whole] = ["damaged", "whole"].map(|prompt| worker.submit(prompt));
    let told = worker.story(&damaged).await;
    worker.story(&whole).await;
    worker.occupy().await;
    let waiting = worker.submit("waits");
    let later = worker.submit("later");
    let copy = killed(dir.path());
    worker.gate.open();
    for id in [&damaged, &waiting] {
        edit(copy.path(), "UPDATE jobs SET view = '{\"job_id\":7}' WHERE id = ?", id.as_str());
    }

    let worker = life(copy.path()).await;
    worker.gate.open();
    let view = worker.router.job(&damaged).unwrap();
    assert_eq!((view.state, view.error.unwrap().code), (JobState::Completed, ErrorCode::StorageFailed));
    assert_eq!(worker.story(&damaged).await.events, told.events);
    assert!(worker.router.image(&damaged, 0).is_none());
    let JobEvent::Error(detail) = worker.story(&waiting).await.last().clone() else { panic!() };
    assert_eq!(detail.code, ErrorCode::StorageFailed);
    assert_eq!(worker.story(&later).await.end, Terminator::Done);
    let first = worker.router.list(&JobQuery { limit: Some(2), ..JobQuery::default() }).unwrap();
    assert_eq!(first.jobs.iter().map(|job| &job.job_id).collect::<Vec<_>>(), [&damaged, &whole]);
    assert!(first.next.is_some());
    assert_eq!(worker.router.jobs().len(), 5);
}

#[tokio::test]
async fn a_job_of_an_unknown_kind_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let worker = life(dir.path()).await;
    worker.occupy().await;
    let [unknown, whole] = ["unknown", "whole"].map(|prompt| worker.submit(prompt));
    let copy = killed(dir.path());
    worker.gate.open();
    let sql = "UPDATE jobs SET operation = 'sculpture', view = '{\"operation\":\"sculpture\"}' WHERE id = ?";
    edit(copy.path(), sql, unknown.as_str());

    let worker = life(copy.path()).await;
    worker.gate.open();
    assert_eq!(worker.story(&whole).await.end, Terminator::Done);
    // It counts for no page, and ends none.
    let page = worker.router.list(&JobQuery { limit: Some(2), ..JobQuery::default() }).unwrap();
    let rest = worker.router.list(&JobQuery { after: page.next, ..JobQuery::default() }).unwrap();
    assert_eq!((page.jobs.len(), rest.jobs.len()), (1, 1));
    assert_eq!(worker.router.job(&unknown), None);
}

#[tokio::test]
async fn an_event_that_cannot_be_read_is_left_out() {
    let dir = tempfile::tempdir().unwrap();
    let worker = life(dir.path()).await;
    let id = worker.submit("a cat");
    let told = worker.story(&id).await;
    let copy = killed(dir.path());
    let second = "UPDATE events SET body = '{}' WHERE id = 2 AND job = (SELECT seq FROM jobs WHERE id = ?)";
    edit(copy.path(), second, id.as_str());

    let store = Store::open(copy.path()).unwrap();
    let worker = Worker::over(store, TestGenerator::new(), 8, Retention::default()).await;
    let mut expected = told.events;
    expected.retain(|(id, _)| *id != 2);
    assert_eq!(worker.story(&id).await.events, expected);
    assert_eq!(worker.router.submit(Operation::generate("new")).map(|_| ()), Ok(()));
}
