//! Flags: which interfaces of other programs `serve` answers to.

use clap::Args;
use sd_http::Faces;

/// The interfaces of other programs that are switched off.
#[derive(Debug, Args)]
pub(crate) struct FacesArgs {
    /// Do not answer at the addresses of OpenAI's images API, /v1/images.
    #[arg(long, env = "SD_WORKER_NO_OPENAI")]
    pub(crate) no_openai: bool,
    /// Do not answer at the addresses of A1111's API, /sdapi.
    #[arg(long, env = "SD_WORKER_NO_A1111")]
    pub(crate) no_a1111: bool,
}

impl FacesArgs {
    pub(crate) fn faces(&self) -> Faces {
        Faces { openai: !self.no_openai, a1111: !self.no_a1111 }
    }
}
