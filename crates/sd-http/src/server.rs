//! The listening socket.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use operations_contract::{ErrorBody, ErrorCode, ErrorDetail};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use crate::api::Api;
use crate::config::ServerConfig;
use crate::connection;

/// A bound server that accepts nothing yet.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    local_addr: SocketAddr,
    api: Api,
    config: ServerConfig,
}

/// The server could not be set up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// Others than this machine could connect, and nothing would keep them out.
    #[error("{0} can be reached from other machines: set a token, or listen on a loopback address")]
    TokenRequired(SocketAddr),
    /// The address cannot be used.
    #[error("cannot listen on {addr}: {source}")]
    Bind {
        /// The address.
        addr: SocketAddr,
        /// Why not.
        source: io::Error,
    },
}

impl Server {
    /// Binds the address (port 0: any free one). Without a token only loopback addresses are accepted.
    pub async fn bind(addr: SocketAddr, api: Api, config: ServerConfig) -> Result<Self, ServeError> {
        if !addr.ip().to_canonical().is_loopback() && api.config().tokens.is_none() {
            return Err(ServeError::TokenRequired(addr));
        }
        let bound = async {
            let listener = TcpListener::bind(addr).await?;
            let local_addr = listener.local_addr()?;
            Ok((listener, local_addr))
        };
        let (listener, local_addr) = bound.await.map_err(|source| ServeError::Bind { addr, source })?;
        Ok(Self { listener, local_addr, api, config })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Serves until `stop` is ready. Then accepts no more, lets open requests and streams end within the configured
    /// grace, and cuts off the rest.
    ///
    /// To end streams with their terminators, shut the router down and wait for the engine first, then stop this.
    pub async fn serve(self, stop: impl Future<Output = ()>) {
        let Self { listener, api, config, .. } = self;
        let config = Arc::new(config);
        let places = Arc::new(Semaphore::new(config.max_connections.clamp(1, Semaphore::MAX_PERMITS)));
        let (stop_sender, stop_receiver) = watch::channel(false);
        let mut connections = JoinSet::new();
        let mut stop = pin!(stop);
        loop {
            let socket = tokio::select! {
                () = &mut stop => break,
                Some(_) = connections.join_next() => continue,
                accepted = listener.accept() => match accepted {
                    Ok((socket, _)) => socket,
                    Err(error) => {
                        tracing::warn!(%error, "cannot accept a connection");
                        pause_after(&error).await;
                        continue;
                    }
                },
            };
            // Events are small and wanted at once.
            let _without_it_too = socket.set_nodelay(true);
            match Arc::clone(&places).try_acquire_owned() {
                Ok(place) => {
                    let (api, config, stop) = (api.clone(), Arc::clone(&config), stop_receiver.clone());
                    connections.spawn(async move {
                        connection::serve(socket, api, &config, stop).await;
                        drop(place);
                    });
                }
                // It could not be said within TLS before a handshake, which is work.
                Err(_) if config.tls.is_some() => drop(socket),
                Err(_) => turn_away(socket),
            }
        }
        drop(listener);
        stop_sender.send_replace(true);
        let all_ended = async { while connections.join_next().await.is_some() {} };
        if tokio::time::timeout(config.grace, all_ended).await.is_err() {
            tracing::warn!(open = connections.len(), "connections did not end in time and are cut off");
            connections.shutdown().await;
        }
    }
}

/// A connection that broke before it was accepted is nobody's concern; being out of file descriptors passes with time.
async fn pause_after(error: &io::Error) {
    if !matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset) {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Says why and closes, without waiting for a client that does not read.
fn turn_away(mut socket: TcpStream) {
    let error = ErrorDetail::new(ErrorCode::QueueFull, "too many connections");
    let body = serde_json::to_string(&ErrorBody { error }).unwrap_or_default();
    let answer = format!(
        "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\
         retry-after: 1\r\nconnection: close\r\n\r\n{body}",
        body.len()
    );
    tokio::spawn(async move {
        let said = async {
            socket.write_all(answer.as_bytes()).await?;
            socket.shutdown().await
        };
        let _or_not = tokio::time::timeout(Duration::from_secs(1), said).await;
    });
}
