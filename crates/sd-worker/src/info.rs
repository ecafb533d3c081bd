//! `sd-worker info`: what this build and this machine can do.

use crate::exit::Failure;

pub(crate) fn run() -> Result<(), Failure> {
    let features = sd_inference::accelerators().join(", ");
    println!("sd-worker {}", env!("CARGO_PKG_VERSION"));
    println!("accelerators: {}", if features.is_empty() { "none" } else { &features });
    println!("threads: {}", rayon::current_num_threads());
    println!("{}", sd_inference::cpu_kernels_report());
    Ok(())
}
