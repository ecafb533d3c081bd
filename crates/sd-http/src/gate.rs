//! Who gets in: the address that was called, the token, and the page that asks.

use std::net::IpAddr;

use http::header::{HOST, ORIGIN};
use http::{HeaderMap, Method, Request};
use operations_contract::ErrorCode;

use crate::api::Api;
use crate::caller::Caller;
use crate::error::ApiError;
use crate::route::Access;

/// Under which names the worker answers where there are no tokens.
///
/// A page whose own name is made to resolve to this machine is, to the browser, of the same origin as the worker; only
/// the name that it calls gives it away.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AllowedHosts(Option<Vec<String>>);

impl AllowedHosts {
    /// Under every name.
    pub fn any() -> Self {
        Self(None)
    }

    /// Under addresses in numbers, `localhost` and its subdomains, and these names.
    pub fn local_and(names: impl IntoIterator<Item = String>) -> Self {
        Self(Some(names.into_iter().map(|name| name.to_ascii_lowercase()).collect()))
    }

    fn contain(&self, host: &str) -> bool {
        let Some(names) = &self.0 else { return true };
        let host = host.to_ascii_lowercase();
        let number = host.trim_start_matches('[').trim_end_matches(']');
        number.parse::<IpAddr>().is_ok()
            || host == "localhost"
            || host.ends_with(".localhost")
            || names.contains(&host)
    }
}

/// Lets a request in, or tells why not.
pub(crate) fn admit<B>(api: &Api, request: &Request<B>, access: Access) -> Result<Caller, ApiError> {
    let config = api.config();
    let Some(tokens) = &config.tokens else {
        called_by_a_known_name(&config.hosts, request)?;
        not_sent_by_a_strange_page(api, request)?;
        return Ok(Caller::anybody());
    };
    let caller = match access {
        Access::Open => return Ok(Caller::nobody()),
        Access::Token | Access::Scope(_) => tokens.caller(request.headers()),
    };
    let caller =
        caller.ok_or_else(|| ApiError::new(ErrorCode::Unauthorized, "a valid bearer token is required"))?;
    if let Access::Scope(scope) = access {
        caller.must_have(scope)?;
    }
    Ok(caller)
}

fn called_by_a_known_name<B>(hosts: &AllowedHosts, request: &Request<B>) -> Result<(), ApiError> {
    match authority(request) {
        // Browsers always send one.
        None => Ok(()),
        Some(authority) if hosts.contain(without_port(authority)) => Ok(()),
        Some(_) => {
            let message =
                "the worker is not called by this name: use its address, localhost, or --allowed-host";
            Err(ApiError::new(ErrorCode::Forbidden, message))
        }
    }
}

/// Forms are sent to any address without the browser asking first, so that the worker has to look who sends them.
/// Where tokens are asked for there is no need: a browser adds none by itself.
fn not_sent_by_a_strange_page<B>(api: &Api, request: &Request<B>) -> Result<(), ApiError> {
    if matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS) {
        return Ok(());
    }
    let Some(origin) = origin(request.headers()) else { return Ok(()) };
    let own = origin.split_once("://").map(|(_, host)| host);
    let is_own = own.is_some() && own == authority(request);
    if is_own || api.config().cors.allows(origin) {
        return Ok(());
    }
    Err(ApiError::new(ErrorCode::Forbidden, "a page of another origin asks: --cors-origin allows some"))
}

pub(crate) fn origin(headers: &HeaderMap) -> Option<&str> {
    // What is no text is no origin that anyone allowed.
    headers.get(ORIGIN).map(|origin| origin.to_str().unwrap_or("?"))
}

fn authority<B>(request: &Request<B>) -> Option<&str> {
    let of_address = request.uri().authority().map(http::uri::Authority::as_str);
    of_address.or_else(|| request.headers().get(HOST).map(|host| host.to_str().unwrap_or("?")))
}

fn without_port(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) && !host.ends_with(':') => host,
        _ => authority,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn local_names_are_known_and_others_only_where_listed() {
        let hosts = AllowedHosts::local_and(["Draw.Example".into()]);
        for known in [
            "127.0.0.1:8600",
            "[::1]:8600",
            "[::1]",
            "192.0.2.7",
            "localhost:1",
            "a.localhost",
            "draw.example:443",
        ] {
            assert!(hosts.contain(without_port(known)), "{known}");
        }
        for strange in
            ["evil.example", "localhost.evil.example:8600", "127.0.0.1.evil.example", "", "?", ":80"]
        {
            assert!(!hosts.contain(without_port(strange)), "{strange}");
        }
        assert!(AllowedHosts::any().contain("evil.example"));
    }
}
