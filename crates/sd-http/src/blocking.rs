//! What waits for the store, away from the threads that serve everybody.

use operations_contract::ErrorCode;
use sd_engine::JobRouter;

use crate::api::Api;
use crate::error::ApiError;

impl Api {
    /// Asks the router on a thread that may wait.
    pub(crate) async fn blocking<T: Send + 'static>(
        &self,
        ask: impl FnOnce(&JobRouter) -> T + Send + 'static,
    ) -> Result<T, ApiError> {
        let router = self.router().clone();
        tokio::task::spawn_blocking(move || ask(&router)).await.map_err(|error| {
            tracing::error!(%error, "a request panicked");
            ApiError::new(ErrorCode::InferenceFailed, "the request could not be processed")
        })
    }
}
