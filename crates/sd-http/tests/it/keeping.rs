//! Repeated submissions, lists page by page, and a store without room.

use http::Request;
use sd_engine::Store;
use serde_json::{Value, json};

use crate::support::{Answer, Setup, Worker};

async fn post(worker: &Worker, keys: &[&str], prompt: &str) -> Answer {
    post_to(worker, "/v1/jobs", keys, prompt).await
}

async fn post_to(worker: &Worker, address: &str, keys: &[&str], prompt: &str) -> Answer {
    let body = json!({"operation": "image_generation", "prompt": prompt}).to_string();
    let mut request = Request::post(address).header("content-type", "application/json");
    for key in keys {
        request = request.header("idempotency-key", *key);
    }
    worker.send(request.body(body).unwrap()).await
}

fn ids(list: &Value) -> Vec<String> {
    let jobs = list["jobs"].as_array().unwrap();
    jobs.iter().map(|job| format!("/v1/jobs/{}", job["job_id"].as_str().unwrap())).collect()
}

#[tokio::test]
async fn a_post_that_is_repeated_is_the_same_job() {
    let worker = Worker::start().await;
    let first = post(&worker, &["a-key"], "a cat").await;
    let again = post(&worker, &["a-key"], "a cat").await;
    assert_eq!((first.status.as_u16(), again.status.as_u16()), (202, 202));
    assert_eq!(first.json(), again.json());
    assert_eq!(first.headers["location"], again.headers["location"]);
    assert!(!first.headers.contains_key("idempotent-replayed"));
    assert_eq!(again.headers["idempotent-replayed"], "true");

    let waits = post_to(&worker, "/v1/jobs?wait=true", &["a-key"], "a cat").await;
    assert_eq!(
        (waits.status.as_u16(), &waits.headers["idempotent-replayed"]),
        (200, &again.headers["idempotent-replayed"])
    );

    let other = post(&worker, &["a-key"], "a dog").await;
    assert_eq!((other.status.as_u16(), other.code().as_str()), (422, "idempotency_key_reused"));
    assert!(other.text().contains(first.json()["job_id"].as_str().unwrap()), "{}", other.text());
    assert_ne!(post(&worker, &["another"], "a cat").await.json(), first.json());
    assert_eq!(worker.get("/v1/jobs").await.json()["jobs"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn bad_keys_are_named() {
    let worker = Worker::start().await;
    let long = "k".repeat(256);
    let bad = "must be 1..=255 visible ASCII characters";
    for (keys, message) in [
        (&["a", "b"][..], "is sent more than once"),
        (&[""], bad),
        (&["a b"], bad),
        (&["a\tb"], bad),
        (&["é"], bad),
        (&[&long], "has 256 characters; at most 255 are allowed"),
    ] {
        let refused = post(&worker, keys, "a cat").await;
        assert_eq!((refused.status.as_u16(), refused.fields()), (400, vec!["Idempotency-Key".to_owned()]));
        assert!(refused.text().contains(message), "{keys:?}: {}", refused.text());
    }
    let nameless = worker.get("/v1/jobs?=&=").await;
    assert_eq!(
        (nameless.status.as_u16(), nameless.fields()),
        (400, vec!["\"\"".to_owned(), "\"\"".to_owned()])
    );
    assert_eq!(post(&worker, &[&long[..255]], "a cat").await.status, 202);
}

async fn post_to_face(worker: &Worker, address: &str, key: &str, body: &Value) -> Answer {
    let request =
        Request::post(address).header("content-type", "application/json").header("idempotency-key", key);
    worker.send(request.body(body.to_string()).unwrap()).await
}

/// A request to another program's interface, how a picture of it looks in the answer, and the code of an error.
type Face = (&'static str, fn(&Value) -> &Value, fn(&Value) -> &Value);

const FACES: [Face; 2] = [
    ("/v1/images/generations", |told| &told["data"][0]["b64_json"], |told| &told["error"]["code"]),
    ("/sdapi/v1/txt2img", |told| &told["images"][0], |told| &told["error"]),
];

#[tokio::test]
async fn a_request_to_another_interface_that_is_repeated_is_the_same_job() {
    let worker = Worker::start().await;
    for (address, picture, code) in FACES {
        // Its seed is drawn: by chance the pictures would differ.
        let body = json!({"prompt": "a cat"});
        let first = post_to_face(&worker, address, address, &body).await;
        assert_eq!(first.status, 200, "{}", first.text());
        assert!(!first.headers.contains_key("idempotent-replayed"));
        // What the caller has set meanwhile makes it no other request.
        post_to_face(&worker, "/sdapi/v1/options", "-", &json!({"samples_format": "jpg"})).await;
        let again = post_to_face(&worker, address, address, &body).await;
        assert_eq!(
            (again.status.as_u16(), &again.headers["idempotent-replayed"]),
            (200, &"true".parse().unwrap())
        );
        assert_eq!(again.headers["x-job-id"], first.headers["x-job-id"]);
        assert!(picture(&first.json()).as_str().is_some_and(|picture| picture.len() > 100));
        assert_eq!(picture(&again.json()), picture(&first.json()));

        let other = post_to_face(&worker, address, address, &json!({"prompt": "a dog"})).await;
        assert_eq!((other.status.as_u16(), code(&other.json())), (422, &json!("idempotency_key_reused")));
        assert!(other.text().contains(first.headers["x-job-id"].to_str().unwrap()), "{}", other.text());
        let bad = post_to_face(&worker, address, &"k".repeat(256), &body).await;
        assert_eq!((bad.status.as_u16(), code(&bad.json())), (400, &json!("invalid_request")));
        assert!(bad.text().contains("Idempotency-Key"), "{}", bad.text());
    }
    assert_eq!(worker.get("/v1/jobs").await.json()["jobs"].as_array().unwrap().len(), FACES.len());
}

#[tokio::test]
async fn a_repeated_request_waits_for_the_job_of_the_first() {
    for (address, picture, _) in FACES {
        let worker = Worker::start().await;
        let body = json!({"prompt": format!("gated {address}")});
        let second = async {
            worker.gate.reached().await;
            let again = post_to_face(&worker, address, address, &body);
            let open = async {
                tokio::task::yield_now().await;
                worker.gate.open();
            };
            tokio::join!(again, open).0
        };
        let (first, again) = tokio::join!(post_to_face(&worker, address, address, &body), second);
        assert_eq!((first.status.as_u16(), again.status.as_u16()), (200, 200));
        assert_eq!(again.headers["x-job-id"], first.headers["x-job-id"]);
        assert_eq!(picture(&again.json()), picture(&first.json()));
    }
}

#[tokio::test]
async fn a_stream_that_is_repeated_is_of_the_same_job() {
    let worker = Worker::start().await;
    let address = FACES[0].0;
    let mut body = json!({"prompt": "a cat", "stream": true, "partial_images": 1});
    let first = post_to_face(&worker, address, "k", &body).await;
    let again = post_to_face(&worker, address, "k", &body).await;
    assert_eq!(again.headers["x-job-id"], first.headers["x-job-id"]);
    assert_eq!(again.headers["idempotent-replayed"], "true");
    let pictures = |answer: &Answer| {
        let text = answer.text();
        let data = text.lines().filter_map(|line| line.strip_prefix("data: ")).map(str::to_owned);
        data.map(|data| serde_json::from_str::<Value>(&data).unwrap()["b64_json"].clone()).collect::<Vec<_>>()
    };
    assert_eq!((pictures(&first).len(), pictures(&again)), (2, pictures(&first)));
    // How it is to be answered is not what is asked for.
    body["stream"] = false.into();
    let whole = post_to_face(&worker, address, "k", &body).await;
    assert_eq!(whole.headers["x-job-id"], first.headers["x-job-id"]);
    assert_eq!(FACES[0].1(&whole.json()), &pictures(&first)[1]);
}

#[tokio::test]
async fn a_faulty_request_takes_no_key() {
    let worker = Worker::start().await;
    assert_eq!(post(&worker, &["k"], &"a".repeat(10_001)).await.status, 400);
    assert_eq!(post(&worker, &["k"], "a cat").await.status, 202);
}

#[tokio::test]
async fn jobs_come_in_pages() {
    let worker = Worker::start().await;
    let mut jobs = Vec::new();
    for prompt in ["1", "2", "3", "4", "5"] {
        let job = worker.submit(prompt).await;
        worker.stream(&job).await;
        jobs.push(job);
    }
    let mut newest = jobs.clone();
    newest.reverse();
    for (order, expected) in [("oldest", &jobs), ("newest", &newest)] {
        let (mut found, mut path) = (Vec::new(), format!("/v1/jobs?limit=2&order={order}"));
        for pages in 1.. {
            let page = worker.get(&path).await.json();
            found.extend(ids(&page));
            let Some(cursor) = page["next_cursor"].as_str() else {
                assert_eq!(pages, 3);
                break;
            };
            path = format!("/v1/jobs?limit=2&order={order}&cursor={cursor}");
        }
        assert_eq!(found, *expected);
    }
    let whole = worker.get("/v1/jobs").await.json();
    assert_eq!((ids(&whole), whole.get("next_cursor")), (jobs, None));
}

#[tokio::test]
async fn jobs_are_filtered() {
    let worker = Worker::start().await;
    let done = worker.submit("done").await;
    let failed = worker.submit("fail in step").await;
    worker.stream(&done).await;
    worker.stream(&failed).await;
    let running = worker.occupy().await;
    let waiting = worker.submit("waits").await;
    let created = worker.get(&failed).await.json()["created_ms"].as_u64().unwrap();
    for (query, expected) in [
        ("state=completed", vec![&done]),
        ("state=completed,failed", vec![&done, &failed]),
        ("state=queued&state=running", vec![&running, &waiting]),
        ("state=cancelled", vec![]),
        ("operation=image_generation&limit=1", vec![&done]),
        ("operation=image_inpaint", vec![]),
        ("model=test-model&state=failed", vec![&failed]),
        ("model=another", vec![]),
        ("until_ms=1", vec![]),
    ] {
        let found = ids(&worker.get(&format!("/v1/jobs?{query}")).await.json());
        assert_eq!(found.iter().collect::<Vec<_>>(), expected, "{query}");
    }
    let since = ids(&worker.get(&format!("/v1/jobs?since_ms={created}")).await.json());
    assert!(since.ends_with(&[failed, running, waiting]), "{since:?}");
    worker.gate.open();
}

#[tokio::test]
async fn bad_queries_are_named() {
    let worker = Worker::start().await;
    for (query, fields) in [
        ("state=done", vec!["state"]),
        ("operation=image_generation2", vec!["operation"]),
        ("since_ms=yesterday&until_ms=-1", vec!["since_ms", "until_ms"]),
        ("limit=0", vec!["limit"]),
        ("limit=1001", vec!["limit"]),
        ("limit=ten", vec!["limit"]),
        ("limit=1&limit=2", vec!["limit"]),
        ("order=random", vec!["order"]),
        ("cursor=x", vec!["cursor"]),
        ("page=2", vec!["page"]),
    ] {
        let refused = worker.get(&format!("/v1/jobs?{query}")).await;
        assert_eq!(
            (refused.status.as_u16(), refused.fields()),
            (400, fields.iter().map(|f| (*f).to_owned()).collect()),
            "{query}"
        );
    }
}

#[tokio::test]
async fn without_room_new_jobs_are_refused_and_old_ones_served() {
    let store = Store::in_memory().unwrap();
    let worker = Worker::with(Setup { store: store.clone(), ..Setup::default() }).await;
    let job = worker.submit("early").await;
    worker.stream(&job).await;
    store.limit_bytes(0).unwrap();
    let large = "x".repeat(9000);
    let refused = loop {
        let answer = post(&worker, &[], &large).await;
        match answer.status.as_u16() {
            202 => {
                drop(worker.stream(&format!("/v1/jobs/{}", answer.json()["job_id"].as_str().unwrap())).await)
            }
            _ => break answer,
        }
    };
    assert_eq!((refused.status.as_u16(), refused.code().as_str()), (507, "storage_full"));
    assert_eq!(worker.get(&format!("{job}/images/0")).await.status, 200);
    assert_eq!(worker.get("/health").await.status, 200);
    store.limit_bytes(1 << 30).unwrap();
    let late = worker.submit("late").await;
    assert_eq!(worker.stream(&late).await.last().unwrap().data, "[DONE]");
}
