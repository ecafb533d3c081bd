//! The images of a job.

use http::Request;
use serde_json::json;

use crate::support::Worker;

#[tokio::test]
async fn an_image_has_its_type_and_a_tag() {
    let worker = Worker::start().await;
    for (format, media_type) in [("png", "image/png"), ("jpeg", "image/jpeg"), ("webp", "image/webp")] {
        let body = json!({"operation": "image_generation", "prompt": "x", "num_images": 2, "seed": 5,
                          "output": {"format": format}});
        let id = worker.post(&body).await.json()["job_id"].as_str().unwrap().to_owned();
        worker.stream(&format!("/v1/jobs/{id}")).await;
        let path = format!("/v1/jobs/{id}/images/1");
        let answer = worker.get(&path).await;
        assert_eq!(
            (answer.status.as_u16(), &answer.headers["content-type"]),
            (200, &media_type.parse().unwrap())
        );
        let picture = image::load_from_memory(&answer.body).unwrap().into_rgb8();
        assert!(picture[(0, 0)][0].abs_diff(6) <= 2, "the second image has the second seed");

        let etag = answer.headers["etag"].to_str().unwrap().to_owned();
        for (tag, status) in
            [(etag.clone(), 304), (format!("\"x\", W/{etag}"), 304), ("\"x\"".to_owned(), 200)]
        {
            let request = Request::get(&path).header("if-none-match", &tag).body(String::new()).unwrap();
            let again = worker.send(request).await;
            assert_eq!((again.status.as_u16(), again.body.is_empty()), (status, status == 304), "{tag}");
            assert_eq!(again.headers["etag"], etag);
        }
        assert_ne!(worker.get(&format!("/v1/jobs/{id}/images/0")).await.headers["etag"], etag);
    }
}

#[tokio::test]
async fn what_is_not_there_is_not_found() {
    let worker = Worker::start().await;
    let running = worker.occupy().await;
    assert_eq!(worker.get(&format!("{running}/images/0")).await.code(), "not_found");
    worker.gate.open();
    worker.stream(&running).await;
    let beyond = worker.get(&format!("{running}/images/1")).await;
    assert_eq!(beyond.status, 404);
    assert!(beyond.text().contains("they are 0..=0"), "{}", beyond.text());
    assert_eq!(worker.get(&format!("{running}/images/x")).await.status, 404);
    assert_eq!(worker.get("/v1/jobs/job-none/images/0").await.status, 404);
}
