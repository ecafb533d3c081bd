//! Secrets that clients send, and whom they stand for.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use http::HeaderMap;
use http::header::AUTHORIZATION;
use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};

use crate::caller::{Caller, Scopes};

/// A secret that clients send as `Authorization: Bearer ...`. It is kept as its SHA-256 alone: neither a log nor a
/// dump of the memory tells it.
#[derive(Clone)]
pub struct ApiToken([u8; 32]);

/// The token could not be sent in a header, or is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a token is one or more visible ASCII characters")]
pub struct InvalidToken;

impl ApiToken {
    /// Takes a token: visible ASCII, at least one character.
    pub fn new(token: impl AsRef<str>) -> Result<Self, InvalidToken> {
        let token = token.as_ref();
        let visible = !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic());
        if visible { Ok(Self::digest(token.as_bytes())) } else { Err(InvalidToken) }
    }

    fn digest(token: &[u8]) -> Self {
        Self(Sha256::digest(token).into())
    }

    /// In a time that depends on neither of the two.
    pub(crate) fn is(&self, other: &Self) -> Choice {
        self.0.ct_eq(&other.0)
    }
}

impl fmt::Debug for ApiToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiToken(..)")
    }
}

/// One token and whom it stands for.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) token: ApiToken,
    pub(crate) caller: Caller,
}

/// The tokens that open the worker. Cloning shares them, and they can be replaced while requests come in.
#[derive(Clone)]
pub struct Tokens(Arc<RwLock<Arc<[Entry]>>>);

impl Tokens {
    /// One token for everything, whose holder needs no name.
    pub fn single(token: ApiToken) -> Self {
        Self::of(vec![Entry { token, caller: Caller::new(None, Scopes::ALL) }])
    }

    pub(crate) fn of(entries: Vec<Entry>) -> Self {
        Self(Arc::new(RwLock::new(entries.into())))
    }

    pub(crate) fn replace(&self, entries: Vec<Entry>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = entries.into();
    }

    fn entries(&self) -> Arc<[Entry]> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whom the request's token stands for. All tokens are compared whichever fits, so that the time tells nothing of
    /// them.
    pub(crate) fn caller(&self, headers: &HeaderMap) -> Option<Caller> {
        let given = headers.get(AUTHORIZATION)?.as_bytes();
        let (scheme, given) = given.split_at_checked("Bearer ".len())?;
        if !scheme.eq_ignore_ascii_case(b"Bearer ") {
            return None;
        }
        let given = ApiToken::digest(given);
        let entries = self.entries();
        let mut found = None;
        for entry in entries.iter() {
            if bool::from(entry.token.is(&given)) {
                found = Some(&entry.caller);
            }
        }
        found.cloned()
    }
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tokens({})", self.entries().len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn admits_the_very_token_only() {
        let tokens = Tokens::single(ApiToken::new("s3cret").unwrap());
        let admits = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(AUTHORIZATION, value.parse().unwrap());
            tokens.caller(&headers).is_some()
        };
        assert!(admits("Bearer s3cret"));
        assert!(admits("bearer s3cret"));
        for wrong in ["Bearer s3cre", "Bearer s3crett", "Bearer ", "Basic s3cret", "s3cret", "Bearer"] {
            assert!(!admits(wrong), "{wrong}");
        }
        assert!(tokens.caller(&HeaderMap::new()).is_none());
    }

    #[test]
    fn is_never_printed_and_never_empty() {
        let token = ApiToken::new("s3cret").unwrap();
        assert_eq!(format!("{token:?} {:?}", Tokens::single(token.clone())), "ApiToken(..) Tokens(1)");
        assert_eq!(ApiToken::new("").unwrap_err(), InvalidToken);
        assert_eq!(ApiToken::new("a b").unwrap_err(), InvalidToken);
    }
}
