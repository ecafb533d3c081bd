//! HTTP transport of sd-worker on hyper: routes, SSE, tokens, TLS, limits.
//!
//! [`Api`] is a value that turns a request into a response; it holds the [`JobRouter`](sd_engine::JobRouter) and never
//! the engine. Tests and other servers call [`Api::handle`] without a socket; [`Server`] puts it on one.
//!
//! ```
//! use http_body_util::{BodyExt, Empty};
//! use hyper::{Request, body::Bytes};
//! use sd_engine::{JobRegistry, JobRouter, ModelBoard, RequestQueue};
//! use sd_http::{Api, ApiConfig, Server, ServerConfig};
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let (queue, _receiver) = RequestQueue::new(16); // the receiver goes to a GenerationEngine
//! let router = JobRouter::new(queue, JobRegistry::in_memory()?, ModelBoard::new());
//! let api = Api::new(router, ApiConfig::default());
//!
//! // Without a socket:
//! let response = api.handle(Request::get("/ready").body(Empty::<Bytes>::new())?).await;
//! assert_eq!(response.status(), 503); // nobody has loaded a model yet
//! let body = response.into_body().collect().await?.to_bytes();
//! assert!(body.starts_with(br#"{"error":{"code":"not_ready""#));
//!
//! // On one, until the future given to `serve` is ready:
//! let server = Server::bind("127.0.0.1:0".parse()?, api, ServerConfig::default()).await?;
//! println!("listening on {}", server.local_addr());
//! server.serve(async {}).await;
//! # Ok(()) }
//! ```

mod a1111;
mod accept;
mod api;
mod blocking;
mod body;
mod caller;
mod config;
mod connection;
mod cors;
mod error;
mod faces;
mod frames;
mod gate;
mod handlers;
mod headers;
mod idempotency;
mod intake;
mod metrics;
mod multipart;
mod openai;
pub mod openapi;
mod patient;
mod query;
mod request_id;
mod route;
mod server;
mod sse;
mod submission;
mod tls;
mod token;
mod tokens_file;
mod trace;
mod views;
mod wait;

pub use api::Api;
pub use body::ResponseBody;
pub use config::{ApiConfig, ServerConfig};
pub use cors::{CorsOrigins, InvalidOrigin};
pub use faces::Faces;
pub use gate::AllowedHosts;
pub use metrics::{METRICS, Metrics, MetricsError};
pub use server::{ServeError, Server};
pub use tls::{Tls, TlsError, TlsFiles};
pub use token::{ApiToken, InvalidToken, Tokens};
pub use tokens_file::{TokensFile, TokensFileError};
