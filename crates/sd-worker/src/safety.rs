//! What `serve`'s tokens, TLS and limits come to.

use std::time::Duration;

use sd_http::{AllowedHosts, ApiConfig, ApiToken, CorsOrigins, ServerConfig, TlsFiles, Tokens, TokensFile};

use crate::args::safety::SafetyArgs;
use crate::exit::Failure;

/// How often files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The transport's settings, and the files that they come from.
pub(crate) struct Safety {
    pub(crate) api: ApiConfig,
    pub(crate) server: ServerConfig,
    files: Files,
}

#[derive(Default)]
struct Files {
    tokens: Option<TokensFile>,
    tls: Option<TlsFiles>,
}

impl SafetyArgs {
    /// Reads the files and checks that everything fits together.
    pub(crate) fn resolve(&self) -> Result<Safety, Failure> {
        let mut files = Files::default();
        let tokens = match (&self.token, &self.tokens_file) {
            (Some(token), _) => {
                let token = ApiToken::new(token.reveal())
                    .map_err(|error| Failure::refused(format!("--token: {error}")))?;
                Some(Tokens::single(token))
            }
            (None, Some(path)) => {
                let file = TokensFile::open(path)
                    .map_err(|error| Failure::refused(format!("--tokens-file: {error}")))?;
                if file.is_open_to_others() {
                    tracing::warn!(
                        file = %path.display(),
                        "others than its owner may read or change the tokens: chmod 600 it"
                    );
                }
                Some(files.tokens.insert(file).tokens())
            }
            (None, None) => None,
        };
        let tls = match (&self.tls_cert, &self.tls_key) {
            (Some(cert), Some(key)) => {
                let opened =
                    TlsFiles::open(cert, key).map_err(|error| Failure::refused(format!("TLS: {error}")))?;
                Some(files.tls.insert(opened).tls())
            }
            _ => None,
        };
        let cors = CorsOrigins::new(self.cors_origin.iter().map(String::as_str))
            .map_err(|error| Failure::refused(format!("--cors-origin: {error}")))?;
        if cors.is_any() && tokens.is_none() {
            let message = "--cors-origin: `*` without a token would let every page that is open on this machine use the worker";
            return Err(Failure::refused(message));
        }
        if self.max_part > self.max_body {
            let (part, body) = (self.max_part, self.max_body);
            return Err(Failure::refused(format!("--max-part: {part} is more than --max-body, {body}")));
        }
        Ok(Safety {
            api: ApiConfig {
                tokens,
                cors,
                hosts: AllowedHosts::local_and(self.allowed_host.iter().cloned()),
                max_body_bytes: self.max_body,
                max_bodies_bytes: self.max_bodies,
                max_part_bytes: self.max_part,
                body_timeout: self.body_timeout,
                ..ApiConfig::default()
            },
            server: ServerConfig {
                max_connections: self.max_connections as usize,
                header_timeout: self.header_timeout,
                write_timeout: self.write_timeout,
                tls,
                ..ServerConfig::default()
            },
            files,
        })
    }
}

impl Safety {
    /// Settings for the transport, and a task that follows the files for as long as it is polled.
    pub(crate) fn split(self) -> (ApiConfig, ServerConfig, impl Future<Output = ()> + Send + 'static) {
        (self.api, self.server, self.files.follow())
    }
}

impl Files {
    async fn follow(mut self) {
        if self.tokens.is_none() && self.tls.is_none() {
            return;
        }
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let looked = tokio::task::spawn_blocking(move || {
                self.look();
                self
            });
            match looked.await {
                Ok(files) => self = files,
                Err(error) => {
                    tracing::error!(%error, "tokens and certificates are no longer followed");
                    return;
                }
            }
        }
    }

    fn look(&mut self) {
        if let Some(tokens) = &mut self.tokens {
            match tokens.refresh() {
                Ok(true) => tracing::info!("the tokens are read again"),
                Ok(false) => {}
                Err(error) => tracing::error!(%error, "the tokens stay as they were"),
            }
        }
        if let Some(tls) = &mut self.tls {
            match tls.refresh() {
                Ok(true) => tracing::info!("the certificate is read again"),
                Ok(false) => {}
                Err(error) => tracing::error!(%error, "the certificate stays as it was"),
            }
        }
    }
}
