//! `sd-worker info`: what this build and this machine can do.

use crate::exit::Failure;

/// The accelerator features that this program was built with.
pub(crate) fn features() -> Vec<&'static str> {
    [
        ("cuda", cfg!(feature = "cuda")),
        ("cudnn", cfg!(feature = "cudnn")),
        ("flash-attn", cfg!(feature = "flash-attn")),
        ("metal", cfg!(feature = "metal")),
        ("accelerate", cfg!(feature = "accelerate")),
    ]
    .into_iter()
    .filter_map(|(name, built)| built.then_some(name))
    .collect()
}

pub(crate) fn run() -> Result<(), Failure> {
    let features = features().join(", ");
    println!("sd-worker {}", env!("CARGO_PKG_VERSION"));
    println!("accelerators: {}", if features.is_empty() { "none" } else { &features });
    println!("threads: {}", rayon::current_num_threads());
    println!("{}", sd_inference::cpu_kernels_report());
    Ok(())
}
