//! TLS, from files of the usual kind, read again when they change.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use sha2::{Digest, Sha256};
use tokio_rustls::TlsAcceptor;

/// The certificate that the worker shows. Cloning shares it.
#[derive(Clone)]
pub struct Tls(Arc<RwLock<Arc<ServerConfig>>>);

impl Tls {
    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        let config = self.0.read().unwrap_or_else(PoisonError::into_inner);
        TlsAcceptor::from(Arc::clone(&*config))
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tls(..)")
    }
}

/// Certificate and key in files, in PEM.
#[derive(Debug)]
pub struct TlsFiles {
    cert: PathBuf,
    key: PathBuf,
    tls: Tls,
    seen: [u8; 32],
}

/// What is wrong with certificate or key.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A file cannot be read.
    #[error("{}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A file holds something else.
    #[error("{}: {reason}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is missing or broken.
        reason: String,
    },
    /// The two do not belong together, or cannot be used.
    #[error("certificate {} and key {}: {source}", cert.display(), key.display())]
    Pair {
        /// The file of the certificate.
        cert: PathBuf,
        /// The file of the key.
        key: PathBuf,
        /// What is wrong.
        source: rustls::Error,
    },
}

impl TlsFiles {
    /// Reads a certificate, with those that it is signed by if there are any, and its private key (PKCS #8, PKCS #1 or
    /// SEC1).
    pub fn open(cert: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Result<Self, TlsError> {
        let (cert, key) = (cert.into(), key.into());
        let (cert_pem, key_pem) = (read(&cert)?, read(&key)?);
        let config = configure((&cert, &cert_pem), (&key, &key_pem))?;
        let tls = Tls(Arc::new(RwLock::new(Arc::new(config))));
        Ok(Self { seen: digest(&cert_pem, &key_pem), cert, key, tls })
    }

    /// For [`Server::bind`](crate::Server::bind).
    pub fn tls(&self) -> Tls {
        self.tls.clone()
    }

    /// Looks whether the files have changed, and takes them for new connections if so. Gives whether they did. After an
    /// error the certificate stays as it was, and the same fault is told once.
    pub fn refresh(&mut self) -> Result<bool, TlsError> {
        let pems = read(&self.cert).and_then(|cert| Ok((cert, read(&self.key)?)));
        let seen = match &pems {
            Ok((cert, key)) => digest(cert, key),
            Err(_) => digest(b"", b""),
        };
        if self.seen == seen {
            return Ok(false);
        }
        self.seen = seen;
        let (cert, key) = pems?;
        let config = configure((&self.cert, &cert), (&self.key, &key))?;
        *self.tls.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(config);
        Ok(true)
    }
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|source| TlsError::Read { path: path.to_owned(), source })
}

fn digest(cert: &[u8], key: &[u8]) -> [u8; 32] {
    Sha256::new().chain_update(Sha256::digest(cert)).chain_update(Sha256::digest(key)).finalize().into()
}

fn configure(cert: (&Path, &[u8]), key: (&Path, &[u8])) -> Result<ServerConfig, TlsError> {
    let ((cert_path, cert), (key_path, key)) = (cert, key);
    let content = |path: &Path, reason: String| TlsError::Content { path: path.to_owned(), reason };
    let chain: Vec<_> = CertificateDer::pem_slice_iter(cert)
        .collect::<Result<_, _>>()
        .map_err(|error| content(cert_path, format!("is no PEM: {error}")))?;
    if chain.is_empty() {
        return Err(content(cert_path, "holds no certificate (-----BEGIN CERTIFICATE-----)".into()));
    }
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| {
        content(
            key_path,
            match error {
                rustls::pki_types::pem::Error::NoItemsFound => {
                    "holds no private key (-----BEGIN PRIVATE KEY-----), or one behind a passphrase".into()
                }
                error => format!("is no PEM: {error}"),
            },
        )
    })?;
    let pair = |source| TlsError::Pair { cert: cert_path.to_owned(), key: key_path.to_owned(), source };
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(pair)?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(pair)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}
