//! Answers to "401, please log in": HTTP Basic (RFC 7617) and the token scheme of the distribution specification.

use std::str::FromStr;

use http_auth::{ChallengeRef, parse_challenges};
use reqwest::Url;
use reqwest::header::{HeaderMap, WWW_AUTHENTICATE};

use super::endpoint::{Access, Endpoint};
use super::error::Fault;

/// What a registry wants to see.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Challenge {
    /// Name and password with every request.
    Basic,
    /// A token that this place gives.
    Token(Realm),
}

/// What is sent with every request to one repository.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Login {
    Basic { user: String, password: String },
    Token(String),
}

/// Where tokens are given, and what one should be for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Realm {
    pub url: Url,
    service: Option<String>,
    scopes: Vec<String>,
}

impl Realm {
    /// The address that answers a GET with a token (distribution specification of tokens, "Requesting a Token").
    pub(super) fn with_query(&self) -> Url {
        let mut url = self.url.clone();
        let mut query = url.query_pairs_mut();
        if let Some(service) = &self.service {
            query.append_pair("service", service);
        }
        for scope in &self.scopes {
            query.append_pair("scope", scope);
        }
        drop(query);
        url
    }

    /// The form that a POST sends to turn a refresh token into one for this use (RFC 6749, section 6).
    pub(super) fn refresh_form(&self, refresh_token: &str) -> String {
        let service = self.service.as_deref().unwrap_or_default();
        let scope = self.scopes.join(" ");
        let mut form = Url::from_str("form:").map_err(|_| ());
        if let Ok(form) = &mut form {
            form.query_pairs_mut().extend_pairs([
                ("grant_type", "refresh_token"),
                ("service", service),
                ("client_id", "kiln"),
                ("scope", &scope),
                ("refresh_token", refresh_token),
            ]);
        }
        form.ok().and_then(|form| form.query().map(str::to_owned)).unwrap_or_default()
    }
}

/// The challenge among the headers of a 401; a token is preferred.
pub(super) fn challenge(headers: &HeaderMap, endpoint: &Endpoint) -> Result<Challenge, Fault> {
    let mut basic = false;
    for header in headers.get_all(WWW_AUTHENTICATE) {
        let text = header.to_str().map_err(|_| Fault::Login("`WWW-Authenticate` has other characters than ASCII"))?;
        for challenge in parse_challenges(text).map_err(|_| Fault::Login("`WWW-Authenticate` cannot be read"))? {
            if challenge.scheme.eq_ignore_ascii_case("bearer") {
                return realm(&challenge, endpoint).map(Challenge::Token);
            }
            basic |= challenge.scheme.eq_ignore_ascii_case("basic");
        }
    }
    match basic {
        true => Ok(Challenge::Basic),
        false => Err(Fault::Login("`WWW-Authenticate` has neither `Basic` nor `Bearer`")),
    }
}

fn realm(challenge: &ChallengeRef<'_>, endpoint: &Endpoint) -> Result<Realm, Fault> {
    let parameter = |name: &str| {
        let mut parameters = challenge.params.iter();
        parameters.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.to_unescaped())
    };
    let realm = parameter("realm").unwrap_or_default();
    let url = Url::parse(&realm).map_err(|_| Fault::Login("the `realm` is no URL"))?;
    // Else whoever can answer for the realm gets the password.
    if url.scheme() != "https" && (endpoint.tls || url.scheme() != "http") {
        return Err(Fault::Login("the `realm` is not on https"));
    }
    let told = parameter("scope").unwrap_or_default();
    let own = endpoint.scope();
    let mut scopes: Vec<String> = told.split(' ').filter(|scope| !scope.is_empty()).map(String::from).collect();
    match endpoint.access {
        Access::Pull if scopes.is_empty() => scopes.push(own),
        Access::Pull => {}
        // The first question only reads, but what is told for it would not do for the next.
        Access::Push => {
            let for_this = format!("repository:{}:", endpoint.repository);
            scopes.retain(|scope| !scope.starts_with(&for_this));
            scopes.insert(0, own);
        }
    }
    Ok(Realm { url, service: parameter("service"), scopes })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(header: &str, tls: bool) -> Result<Challenge, Fault> {
        read_for(Access::Pull, header, tls)
    }

    fn read_for(access: Access, header: &str, tls: bool) -> Result<Challenge, Fault> {
        let endpoint =
            Endpoint { tls, host: "r.example".into(), login: "r.example".into(), repository: "a/b".into(), access };
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
        let Ok(Challenge::Token(realm)) = read(header, true) else { panic!("no token") };
        let url = realm.with_query();
        assert_eq!(url.as_str(), "https://auth.example/token?service=a%26b&scope=repository%3Aa%2Fb%3Apull");
        assert_eq!(read("Basic realm=\"x\"", true).unwrap(), Challenge::Basic);
    }

    #[test]
    fn a_push_asks_for_more_than_the_first_question_needs() {
        let header = "Bearer realm=\"https://auth.example/token\",scope=\"repository:a/b:pull repository:c:pull\"";
        let Ok(Challenge::Token(realm)) = read_for(Access::Push, header, true) else { panic!("no token") };
        assert_eq!(realm.scopes, ["repository:a/b:pull,push", "repository:c:pull"]);
        let form = realm.refresh_form("s&cret");
        assert!(form.starts_with("grant_type=refresh_token&service=&client_id=kiln&scope=repository%3A"), "{form}");
        assert!(form.ends_with("&refresh_token=s%26cret"), "{form}");
    }
}
