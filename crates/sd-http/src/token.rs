//! The bearer token.

use std::fmt;

use http::HeaderMap;
use http::header::AUTHORIZATION;
use subtle::ConstantTimeEq;

/// A secret that clients send as `Authorization: Bearer ...`. It never appears in logs.
#[derive(Clone)]
pub struct ApiToken(Box<str>);

/// The token could not be sent in a header, or is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a token is one or more visible ASCII characters")]
pub struct InvalidToken;

impl ApiToken {
    /// Takes a token: visible ASCII, at least one character.
    pub fn new(token: impl Into<String>) -> Result<Self, InvalidToken> {
        let token = token.into();
        let visible = !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic());
        if visible { Ok(Self(token.into())) } else { Err(InvalidToken) }
    }

    /// Whether the request carries it. The time this takes tells the token's length at most.
    pub(crate) fn admits(&self, headers: &HeaderMap) -> bool {
        let Some(value) = headers.get(AUTHORIZATION) else { return false };
        let Some((scheme, given)) = value.as_bytes().split_at_checked("Bearer ".len()) else { return false };
        scheme.eq_ignore_ascii_case(b"Bearer ") && self.0.as_bytes().ct_eq(given).into()
    }
}

impl fmt::Debug for ApiToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiToken(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn admits_the_very_token_only() {
        let token = ApiToken::new("s3cret").unwrap();
        let admits = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(AUTHORIZATION, value.parse().unwrap());
            token.admits(&headers)
        };
        assert!(admits("Bearer s3cret"));
        assert!(admits("bearer s3cret"));
        for wrong in ["Bearer s3cre", "Bearer s3crett", "Bearer ", "Basic s3cret", "s3cret", "Bearer"] {
            assert!(!admits(wrong), "{wrong}");
        }
        assert!(!token.admits(&HeaderMap::new()));
    }

    #[test]
    fn is_never_printed_and_never_empty() {
        assert_eq!(format!("{:?}", ApiToken::new("s3cret").unwrap()), "ApiToken(..)");
        assert_eq!(ApiToken::new("").unwrap_err(), InvalidToken);
        assert_eq!(ApiToken::new("a b").unwrap_err(), InvalidToken);
    }
}
