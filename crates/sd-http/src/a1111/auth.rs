//! Names and passwords: the web UI's clients send HTTP Basic. The password is the token; the name does not matter.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{AUTHORIZATION, HOST, HeaderValue};
use http::{HeaderMap, Request};

use crate::api::Api;
use crate::gate;

/// Writes `Basic name:token` as `Bearer token`, so that it is checked like all tokens.
///
/// Not for pages of other origins: a browser adds a name and a password that it was told once to whatever any page sends,
/// which it does with no other token.
pub(crate) fn take_basic_as_bearer<B>(api: &Api, request: &mut Request<B>) {
    let headers = request.headers_mut();
    let own = headers.get(HOST).and_then(|host| host.to_str().ok());
    let strange = gate::origin(headers).is_some_and(|origin| {
        let host = origin.split_once("://").map(|(_, host)| host);
        (host.is_none() || host != own) && !api.config().cors.allows(origin)
    });
    if !strange {
        rewrite(headers);
    }
}

fn rewrite(headers: &mut HeaderMap) {
    let Some(value) = headers.get(AUTHORIZATION) else { return };
    let Some((scheme, encoded)) = value.as_bytes().split_at_checked("Basic ".len()) else { return };
    if !scheme.eq_ignore_ascii_case(b"Basic ") {
        return;
    }
    let Ok(decoded) = STANDARD.decode(encoded.trim_ascii()) else { return };
    let Some(colon) = decoded.iter().position(|byte| *byte == b':') else { return };
    let bearer = [b"Bearer ", &decoded[colon + 1..]].concat();
    if let Ok(mut bearer) = HeaderValue::from_bytes(&bearer) {
        bearer.set_sensitive(true);
        headers.insert(AUTHORIZATION, bearer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_password_is_the_token() {
        let taken = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(AUTHORIZATION, value.parse().unwrap());
            rewrite(&mut headers);
            headers[AUTHORIZATION].to_str().unwrap().to_owned()
        };
        // `me:s3cret`, `me:a:b`, `:s3cret`
        assert_eq!(taken("Basic bWU6czNjcmV0"), "Bearer s3cret");
        assert_eq!(taken("basic bWU6YTpi"), "Bearer a:b");
        assert_eq!(taken("Basic OnMzY3JldA=="), "Bearer s3cret");
        for other in ["Bearer s3cret", "Basic *", "Basic bWU=", "Basic", "Digest x"] {
            assert_eq!(taken(other), other);
        }
    }
}
