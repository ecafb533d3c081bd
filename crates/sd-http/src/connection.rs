//! One connection, from its first byte to its last.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;

use crate::api::Api;
use crate::config::ServerConfig;
use crate::patient::Patient;

/// What a client may still send after the last answer, before the connection is cut.
const LINGER_BYTES: u64 = 64 << 20;
const LINGER: Duration = Duration::from_secs(2);
/// What may lie in the kernel for a client beyond what is on its way: there each listener has a copy of its own, and four
/// megabytes of it by default.
#[cfg(target_os = "linux")]
const UNSENT_BYTES: u32 = 128 << 10;
/// The first byte of a TLS connection.
const HANDSHAKE: u8 = 0x16;
const THIS_IS_TLS: &str = "HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain\r\ncontent-length: 33\r\n\
    connection: close\r\n\r\nThis port speaks TLS: use https.\n";

/// Serves requests until the client goes, breaks the rules, or `stop` becomes true: then after the current request.
pub(crate) async fn serve(socket: TcpStream, api: Api, config: &ServerConfig, stop: watch::Receiver<bool>) {
    let Err(error) = prepared(socket, api, config, stop).await else { return };
    tracing::debug!(%error, "a connection ended");
}

async fn prepared(
    socket: TcpStream,
    api: Api,
    config: &ServerConfig,
    stop: watch::Receiver<bool>,
) -> io::Result<()> {
    give_up_on_the_silent(&socket, config.write_timeout);
    let Some(tls) = &config.tls else {
        return requests(Patient::new(socket, config.write_timeout), api, config, stop).await;
    };
    let shaken = async {
        let mut first = [0];
        if socket.peek(&mut first).await? == 1 && first != [HANDSHAKE] {
            let mut socket = Patient::new(socket, config.write_timeout);
            socket.write_all(THIS_IS_TLS.as_bytes()).await?;
            linger(socket).await;
            return Ok(None);
        }
        let socket = Patient::new(socket, config.write_timeout);
        tls.acceptor().accept(socket).await.map(Some)
    };
    match tokio::time::timeout(config.header_timeout, shaken).await {
        Ok(Ok(Some(socket))) => requests(socket, api, config, stop).await,
        Ok(Ok(None)) => Ok(()),
        Ok(Err(error)) => Err(error),
        Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "no handshake within the time")),
    }
}

/// A client that vanished without a word, or takes nothing of what lies ready for it in the kernel, is found out by the
/// kernel: there is nothing left to write here that could fail.
fn give_up_on_the_silent(socket: &TcpStream, write_timeout: Duration) {
    let socket = SockRef::from(socket);
    let keepalive = TcpKeepalive::new().with_time(Duration::from_secs(60));
    let _without_it_too = socket.set_tcp_keepalive(&keepalive);
    #[cfg(target_os = "linux")]
    {
        let _without_it_too = socket.set_tcp_user_timeout(Some(write_timeout));
        let _without_it_too = socket.set_tcp_notsent_lowat(UNSENT_BYTES);
    }
    #[cfg(not(target_os = "linux"))]
    let _only_while_writing = write_timeout;
}

async fn requests<S>(
    socket: S,
    api: Api,
    config: &ServerConfig,
    stop: watch::Receiver<bool>,
) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(move |request| {
        let api = api.clone();
        Box::pin(async move { Ok::<_, std::convert::Infallible>(api.handle(request).await) })
    });
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(config.header_timeout)
        .max_header_size(config.max_header_bytes)
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
    served.map_err(io::Error::other)?;
    linger(connection.into_parts().io.into_inner()).await;
    Ok(())
}

async fn stopped(mut stop: watch::Receiver<bool>) {
    if stop.wait_for(|stop| *stop).await.is_err() {
        // The server is gone without a word; its tasks are about to be aborted.
        std::future::pending::<()>().await;
    }
}

/// Closes the sending side and reads on for a while. A socket that is closed while data arrive resets the connection,
/// and a client that is still sending a body that was refused would lose the answer that says so.
async fn linger<S: AsyncRead + AsyncWrite + Unpin>(mut socket: S) {
    if socket.shutdown().await.is_err() {
        return;
    }
    let mut rest = socket.take(LINGER_BYTES);
    // Not a part of the task, where it would weigh while events are sent.
    let mut scratch = vec![0; 16 << 10];
    let discard = async { while matches!(rest.read(&mut scratch).await, Ok(count) if count > 0) {} };
    let _cut_short = tokio::time::timeout(LINGER, discard).await;
}
