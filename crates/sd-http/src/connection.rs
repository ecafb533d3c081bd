//! One connection, from its first byte to its last.

use std::future::poll_fn;
use std::pin::Pin;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;

use crate::api::Api;

/// What a client may still send after the last answer, before the connection is cut.
const LINGER_BYTES: u64 = 64 << 20;
const LINGER: Duration = Duration::from_secs(2);

/// Serves requests until the client goes, breaks the rules, or `stop` becomes true: then after the current request.
pub(crate) async fn serve(
    socket: TcpStream,
    api: Api,
    header_timeout: Duration,
    stop: watch::Receiver<bool>,
) {
    let service = service_fn(move |request| {
        let api = api.clone();
        Box::pin(async move { Ok::<_, std::convert::Infallible>(api.handle(request).await) })
    });
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(header_timeout)
        .serve_connection(TokioIo::new(socket), service);
    let ended = tokio::select! {
        served = poll_fn(|cx| connection.poll_without_shutdown(cx)) => Some(served),
        () = stopped(stop) => None,
    };
    let served = match ended {
        Some(served) => served,
        None => {
            Pin::new(&mut connection).graceful_shutdown();
            poll_fn(|cx| connection.poll_without_shutdown(cx)).await
        }
    };
    match served {
        Ok(()) => linger(connection.into_parts().io.into_inner()).await,
        Err(error) => tracing::debug!(%error, "a connection ended"),
    }
}

async fn stopped(mut stop: watch::Receiver<bool>) {
    if stop.wait_for(|stop| *stop).await.is_err() {
        // The server is gone without a word; its tasks are about to be aborted.
        std::future::pending::<()>().await;
    }
}

/// Closes the sending side and reads on for a while. A socket that is closed while data arrive resets the connection,
/// and a client that is still sending a body that was refused would lose the answer that says so.
async fn linger(mut socket: TcpStream) {
    if socket.shutdown().await.is_err() {
        return;
    }
    let mut rest = socket.take(LINGER_BYTES);
    let mut scratch = [0; 16 << 10];
    let discard = async { while matches!(rest.read(&mut scratch).await, Ok(count) if count > 0) {} };
    let _cut_short = tokio::time::timeout(LINGER, discard).await;
}
