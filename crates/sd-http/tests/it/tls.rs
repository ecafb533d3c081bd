//! TLS, as a client meets it that was written by others.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject};
use rustls::{ClientConfig, RootCertStore, crypto::ring};
use sd_http::{ServerConfig, TlsFiles};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::support::{Setup, Worker, raw};

struct Files {
    _folder: TempDir,
    cert: PathBuf,
    key: PathBuf,
}

impl Files {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let files = Self {
            cert: folder.path().join("cert.pem"),
            key: folder.path().join("key.pem"),
            _folder: folder,
        };
        files.renew();
        files
    }

    /// Another certificate in the same files.
    fn renew(&self) {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        std::fs::write(&self.cert, made.cert.pem()).unwrap();
        std::fs::write(&self.key, made.signing_key.serialize_pem()).unwrap();
    }

    fn certificate(&self) -> CertificateDer<'static> {
        CertificateDer::from_pem_file(&self.cert).unwrap()
    }

    async fn worker(&self, header_timeout: Duration) -> (Worker, TlsFiles) {
        let files = TlsFiles::open(&self.cert, &self.key).unwrap();
        let server = ServerConfig { tls: Some(files.tls()), header_timeout, ..ServerConfig::default() };
        (Worker::with(Setup { server, ..Setup::default() }).await, files)
    }
}

const LONG: Duration = Duration::from_secs(30);

/// A client that trusts this certificate alone.
async fn connect(
    addr: SocketAddr,
    trusted: CertificateDer<'static>,
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(trusted).unwrap();
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let socket = TcpStream::connect(addr).await?;
    TlsConnector::from(Arc::new(config)).connect(ServerName::try_from("localhost").unwrap(), socket).await
}

async fn ask(mut stream: TlsStream<TcpStream>, path: &str) -> String {
    let head = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("the end is announced, not cut");
    answer
}

#[tokio::test]
async fn requests_and_streams_go_over_tls() {
    let files = Files::new();
    let (worker, _tls) = files.worker(LONG).await;
    let stream = connect(worker.addr, files.certificate()).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
    let answer = ask(stream, "/health").await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");

    let accepted = worker.router.submit(operations_contract::Operation::generate("a cat")).unwrap();
    let stream = connect(worker.addr, files.certificate()).await.unwrap();
    let story = ask(stream, &format!("/v1/jobs/{}/stream", accepted.job_id)).await;
    assert!(story.contains("data: [DONE]\n\n"), "{story}");
}

#[tokio::test]
async fn who_trusts_another_certificate_does_not_connect() {
    let (files, other) = (Files::new(), Files::new());
    let (worker, _tls) = files.worker(LONG).await;
    let error = connect(worker.addr, other.certificate()).await.unwrap_err();
    assert!(error.to_string().contains("certificate"), "{error}");
    assert!(connect(worker.addr, files.certificate()).await.is_ok());
}

#[tokio::test]
async fn a_renewed_certificate_is_shown_and_a_broken_one_is_not() {
    let files = Files::new();
    let (worker, mut tls) = files.worker(LONG).await;
    let before = files.certificate();
    assert!(!tls.refresh().unwrap());
    std::fs::write(&files.key, "no key").unwrap();
    assert!(tls.refresh().unwrap_err().to_string().contains("holds no private key"));
    assert!(!tls.refresh().unwrap(), "the same fault is told once");
    assert!(connect(worker.addr, before.clone()).await.is_ok(), "the old one stays");
    files.renew();
    assert!(tls.refresh().unwrap());
    assert!(connect(worker.addr, before).await.is_err());
    assert!(connect(worker.addr, files.certificate()).await.is_ok());
}

#[tokio::test]
async fn plain_http_is_told_that_this_is_tls() {
    let (worker, _tls) = Files::new().worker(LONG).await;
    let answer = raw(worker.addr, b"GET /health HTTP/1.1\r\nhost: w\r\n\r\n").await;
    assert!(
        answer.starts_with("HTTP/1.1 400 ") && answer.ends_with("This port speaks TLS: use https.\n"),
        "{answer}"
    );
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.contains(&format!("content-length: {}", body.len())), "{answer}");
}

#[tokio::test]
async fn a_handshake_that_does_not_come_ends_the_connection() {
    let (worker, _tls) = Files::new().worker(Duration::from_millis(100)).await;
    for begun in [&b""[..], b"\x16\x03\x01", b"\x16nonsense that is no record at all"] {
        let answer = raw(worker.addr, begun).await;
        assert!(!answer.contains("HTTP/"), "{answer}");
    }
}

#[tokio::test]
async fn wrong_files_are_told_by_name_and_reason() {
    let (files, other) = (Files::new(), Files::new());
    let missing = files.cert.with_file_name("none.pem");
    for (cert, key, told) in [
        (&missing, &files.key, "none.pem: "),
        (&files.cert, &missing, "none.pem: "),
        (&files.key, &files.key, "key.pem: holds no certificate"),
        (&files.cert, &files.cert, "cert.pem: holds no private key"),
        (&files.cert, &other.key, "cert.pem and key "),
    ] {
        let error = TlsFiles::open(cert, key).unwrap_err().to_string();
        assert!(error.contains(told), "{error}");
    }
}
