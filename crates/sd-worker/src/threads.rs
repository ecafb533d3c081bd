//! The one pool of threads that compute.

use sd_inference::machine::available_threads;

use crate::exit::Failure;

/// Keeps candle from starting a pool of its own. Call it before anything else.
///
/// candle spreads element-wise operations on large tensors over threads that it starts for itself: one for each
/// core of the machine, whatever affinity, quota and `--threads` say. What is worth spreading runs on sd-kernels.
#[allow(unsafe_code)]
pub(crate) fn keep_to_one_pool() {
    // SAFETY: no other thread exists yet that could read the environment meanwhile.
    unsafe { std::env::set_var("CANDLE_NUM_THREADS", "1") };
}

/// Starts the pool: `wanted` threads, or one for each core that this process may use.
pub(crate) fn start(wanted: Option<u16>) -> Result<(), Failure> {
    let threads = wanted.map_or_else(|| available_threads().count, usize::from);
    if wanted.is_none() && std::env::var_os("RAYON_NUM_THREADS").is_some() {
        tracing::warn!("RAYON_NUM_THREADS is not followed; --threads or SD_WORKER_THREADS sets the threads");
    }
    rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .thread_name(|index| format!("compute-{index}"))
        .build_global()
        .map_err(|error| Failure::failed(format!("{threads} threads cannot be started: {error}")))
}

/// How many threads compute, and why.
pub(crate) fn explain(wanted: Option<u16>) -> String {
    match wanted {
        Some(threads) => format!("{threads}: --threads (by itself {})", available_threads()),
        None => available_threads().to_string(),
    }
}
