//! `POST /v1/jobs?wait=true`.

use http::Request;
use serde_json::{Value, json};

use crate::support::{Answer, Worker};

async fn wait(worker: &Worker, query: &str, accept: &str, body: &Value) -> Answer {
    let request = Request::post(format!("/v1/jobs{query}"))
        .header("content-type", "application/json")
        .header("accept", accept)
        .body(body.to_string())
        .unwrap();
    worker.send(request).await
}

fn generation(prompt: &str) -> Value {
    json!({"operation": "image_generation", "prompt": prompt, "seed": 5, "num_images": 2})
}

#[tokio::test]
async fn the_answer_is_the_finished_job() {
    let worker = Worker::start().await;
    let answer = wait(&worker, "?wait=true", "*/*", &generation("a cat")).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let job = answer.json();
    assert_eq!((&job["state"], &job["parameters"]["prompt"]), (&json!("completed"), &json!("a cat")));
    let id = job["job_id"].as_str().unwrap();
    assert_eq!(answer.headers["x-job-id"], id);
    assert_eq!(answer.headers["location"], format!("/v1/jobs/{id}"));
    let url = job["images"][1]["url"].as_str().unwrap();
    let image = worker.get(url).await;
    assert_eq!(
        (image.status.as_u16(), image.body.len()),
        (200, job["images"][1]["bytes"].as_u64().unwrap() as usize)
    );
    // What the job itself tells, and where the pictures are.
    let mut shown = worker.get(&format!("/v1/jobs/{id}")).await.json();
    for (index, image) in shown["images"].as_array_mut().unwrap().iter_mut().enumerate() {
        image["url"] = format!("/v1/jobs/{id}/images/{index}").into();
    }
    assert_eq!(job, shown);
}

#[tokio::test]
async fn pictures_come_with_the_job_on_request() {
    let worker = Worker::start().await;
    let job = wait(&worker, "?wait=1&images=true", "application/json", &generation("a cat")).await.json();
    for (index, image) in job["images"].as_array().unwrap().iter().enumerate() {
        use base64::Engine as _;
        let sent =
            base64::engine::general_purpose::STANDARD.decode(image["image"].as_str().unwrap()).unwrap();
        let url = image["url"].as_str().unwrap();
        assert_eq!(worker.get(url).await.body, sent, "{index}");
    }
}

#[tokio::test]
async fn a_picture_is_answered_to_who_accepts_one() {
    let worker = Worker::start().await;
    for (accept, media_type, format) in [
        ("image/png", "image/png", image::ImageFormat::Png),
        ("image/jpeg, application/json;q=0.5", "image/jpeg", image::ImageFormat::Jpeg),
        ("image/avif,image/webp,*/*;q=0.8", "image/webp", image::ImageFormat::WebP),
        ("image/*", "image/png", image::ImageFormat::Png),
    ] {
        let answer = wait(&worker, "?wait=true", accept, &generation("a cat")).await;
        assert_eq!(
            (answer.status.as_u16(), &answer.headers["content-type"]),
            (200, &media_type.parse().unwrap())
        );
        assert_eq!(answer.headers["x-seed"], "5");
        assert!(answer.headers["x-job-id"].to_str().unwrap().starts_with("job-"));
        assert_eq!(image::guess_format(&answer.body).unwrap(), format, "{accept}");
    }
}

#[tokio::test]
async fn what_is_wrong_is_told_before_a_job_exists() {
    let worker = Worker::start().await;
    let mut png = generation("a cat");
    png["output"] = json!({"format": "png"});
    let refused = wait(&worker, "?wait=true", "image/webp", &png).await;
    assert_eq!((refused.status.as_u16(), refused.fields()), (400, vec!["output.format".to_owned()]));
    let refused = wait(&worker, "?wait=later", "*/*", &png).await;
    assert_eq!((refused.status.as_u16(), refused.fields()), (400, vec!["wait".to_owned()]));
    // Also where nobody waits.
    let refused = wait(&worker, "?images=maybe", "*/*", &png).await;
    assert_eq!((refused.status.as_u16(), refused.fields()), (400, vec!["images".to_owned()]));
    let refused = wait(&worker, "?wiat=true", "*/*", &png).await;
    assert_eq!((refused.status.as_u16(), refused.fields()), (400, vec!["wiat".to_owned()]));
    let refused = wait(&worker, "?wait=true", "image/png", &json!({"operation": "image_generation"})).await;
    assert_eq!((refused.status.as_u16(), refused.fields()), (400, vec!["prompt".to_owned()]));
    assert_eq!(worker.get("/v1/jobs").await.json()["jobs"], json!([]));
    assert_eq!(wait(&worker, "?wait=false", "image/png", &png).await.status, 202);
}

#[tokio::test]
async fn a_failure_has_the_status_of_its_code() {
    let worker = Worker::start().await;
    for (prompt, status, code) in
        [("fail in step", 500, "inference_failed"), ("no memory", 507, "out_of_memory")]
    {
        for accept in ["application/json", "image/png"] {
            let answer = wait(&worker, "?wait=true", accept, &generation(prompt)).await;
            assert_eq!((answer.status.as_u16(), answer.code().as_str()), (status, code));
            let job = worker.get(answer.headers["location"].to_str().unwrap()).await.json();
            assert_eq!(
                (&job["state"], &job["job_id"]),
                (&json!("failed"), &json!(answer.headers["x-job-id"].to_str().unwrap()))
            );
        }
    }
    worker.occupy().await;
    let mut late = generation("late");
    late["deadline_ms"] = 1.into();
    let waiting = wait(&worker, "?wait=true", "image/png", &late);
    let opening = async {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        worker.gate.open();
    };
    let (answer, ()) = tokio::join!(waiting, opening);
    assert_eq!((answer.status.as_u16(), answer.code().as_str()), (408, "timeout"));
}

#[tokio::test]
async fn a_cancelled_job_is_a_conflict_to_who_waits() {
    let worker = Worker::start().await;
    worker.occupy().await;
    let body = generation("waits");
    let waiting = wait(&worker, "?wait=true", "*/*", &body);
    let cancelling = async {
        loop {
            let jobs = worker.get("/v1/jobs").await.json();
            if let Some(job) =
                jobs["jobs"].as_array().unwrap().iter().find(|job| job["parameters"]["prompt"] == "waits")
            {
                worker.delete(&format!("/v1/jobs/{}", job["job_id"].as_str().unwrap())).await;
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    let (answer, ()) = tokio::join!(waiting, cancelling);
    assert_eq!((answer.status.as_u16(), answer.code().as_str()), (409, "cancelled"));
    worker.gate.open();
}

/// By default the job goes on.
#[tokio::test]
async fn a_job_outlives_the_client_that_waited() {
    let worker = Worker::start().await;
    let body = generation("gated by nobody");
    {
        let waiting = wait(&worker, "?wait=true", "*/*", &body);
        tokio::select! {
            _ = waiting => panic!("nobody opened the gate"),
            () = worker.gate.reached() => {}
        }
    }
    worker.gate.open();
    let job = worker.get("/v1/jobs").await.json()["jobs"][0]["job_id"].as_str().unwrap().to_owned();
    let stream = worker.stream(&format!("/v1/jobs/{job}")).await;
    assert_eq!(stream.last().unwrap().data, "[DONE]");
}
