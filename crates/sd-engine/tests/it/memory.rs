//! What jobs that wait weigh.

use operations_contract::{ImageData, ImageTransform, Operation};
use sd_engine::{Retention, Store};

use crate::generator::TestGenerator;
use crate::support::Worker;

const JOBS: usize = 1000;
const MIB: usize = 1 << 20;

/// Bytes of memory that the process has now, as Linux counts them.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 1024
}

/// A picture that is small as a file and 300 kB when decoded: a thousand of those are more than is allowed.
fn picture() -> ImageData {
    let mut bytes = std::io::Cursor::new(Vec::new());
    image::DynamicImage::new_rgb8(320, 320).write_to(&mut bytes, image::ImageFormat::Png).unwrap();
    ImageData::new(bytes.into_inner())
}

#[tokio::test]
#[cfg(target_os = "linux")]
async fn a_thousand_waiting_jobs_weigh_little() {
    let dir = tempfile::tempdir().unwrap();
    for store in [Store::in_memory().unwrap(), Store::open(dir.path()).unwrap()] {
        let worker = Worker::over(store, TestGenerator::new(), JOBS, Retention::default()).await;
        worker.occupy().await;
        let (before, init_image) = (resident(), picture());
        for n in 0..JOBS {
            let common = Operation::generate(format!("job {n}")).common().unwrap().clone();
            let init_image = init_image.clone();
            worker.accept(Operation::ImageTransform(ImageTransform {
                common,
                init_image,
                ..ImageTransform::default()
            }));
        }
        let grown = resident().saturating_sub(before) / MIB;
        println!("{JOBS} jobs weigh {grown} MiB");
        assert!(grown < 100, "{JOBS} jobs weigh {grown} MiB");
        assert_eq!(worker.router.queue_usage().0, JOBS);
        worker.gate.open();
    }
}
