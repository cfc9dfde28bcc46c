//! Answers to "401, please log in": HTTP Basic (RFC 7617) and the token scheme of the distribution specification.

use http_auth::{ChallengeRef, parse_challenges};
use reqwest::Url;
use reqwest::header::{HeaderMap, WWW_AUTHENTICATE};

use super::endpoint::Endpoint;
use super::error::Fault;
use crate::oci::credentials::Credentials;

/// What a registry wants to see.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Challenge {
    /// Name and password with every request.
    Basic,
    /// A token that this address gives.
    Token(Url),
}

/// What is sent with every request to one repository.
#[derive(Clone)]
pub(super) enum Login {
    Basic(Credentials),
    Token(String),
}

/// The challenge among the headers of a 401; a token is preferred.
pub(super) fn challenge(headers: &HeaderMap, endpoint: &Endpoint) -> Result<Challenge, Fault> {
    let mut basic = false;
    for header in headers.get_all(WWW_AUTHENTICATE) {
        let text = header.to_str().map_err(|_| Fault::Login("`WWW-Authenticate` has other characters than ASCII"))?;
        for challenge in parse_challenges(text).map_err(|_| Fault::Login("`WWW-Authenticate` cannot be read"))? {
            if challenge.scheme.eq_ignore_ascii_case("bearer") {
                return token_url(&challenge, endpoint).map(Challenge::Token);
            }
            basic |= challenge.scheme.eq_ignore_ascii_case("basic");
        }
    }
    match basic {
        true => Ok(Challenge::Basic),
        false => Err(Fault::Login("`WWW-Authenticate` has neither `Basic` nor `Bearer`")),
    }
}

fn token_url(challenge: &ChallengeRef<'_>, endpoint: &Endpoint) -> Result<Url, Fault> {
    let parameter = |name: &str| {
        let mut parameters = challenge.params.iter();
        parameters.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.to_unescaped())
    };
    let realm = parameter("realm").unwrap_or_default();
    let mut url = Url::parse(&realm).map_err(|_| Fault::Login("the `realm` is no URL"))?;
    // Else whoever can answer for the realm gets the password.
    if url.scheme() != "https" && (endpoint.tls || url.scheme() != "http") {
        return Err(Fault::Login("the `realm` is not on https"));
    }
    let scope = parameter("scope").unwrap_or_else(|| format!("repository:{}:pull", endpoint.repository));
    let mut query = url.query_pairs_mut();
    if let Some(service) = parameter("service") {
        query.append_pair("service", &service);
    }
    query.append_pair("scope", &scope);
    drop(query);
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(header: &str, tls: bool) -> Result<Challenge, Fault> {
        let endpoint = Endpoint { tls, host: "r.example".into(), login: "r.example".into(), repository: "a/b".into() };
        let mut headers = HeaderMap::new();
        headers.insert(WWW_AUTHENTICATE, header.parse().unwrap());
        challenge(&headers, &endpoint)
    }

    #[test]
    fn a_challenge_that_cannot_be_followed_is_refused() {
        for header in ["", "Digest realm=\"x\"", "Bearer", "Bearer realm=\"x\"", "Bearer realm=\"file:///etc/passwd\""]
        {
            assert!(matches!(read(header, true), Err(Fault::Login(_))), "{header}");
        }
    }

    #[test]
    fn a_password_never_goes_from_https_to_http() {
        let header = "Bearer realm=\"http://auth.example/token\"";
        assert!(matches!(read(header, true), Err(Fault::Login(_))));
        assert!(read(header, false).is_ok());
    }

    #[test]
    fn service_and_scope_become_a_query() {
        let header = "Basic realm=\"x\", Bearer realm=\"https://auth.example/token\",service=\"a&b\"";
        let Ok(Challenge::Token(url)) = read(header, true) else { panic!("no token") };
        assert_eq!(url.as_str(), "https://auth.example/token?service=a%26b&scope=repository%3Aa%2Fb%3Apull");
        assert_eq!(read("Basic realm=\"x\"", true).unwrap(), Challenge::Basic);
    }
}
