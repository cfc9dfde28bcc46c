//! Connections: one client for each kind of registry, with the certificates and redirects that it may use.

use std::fs;

use reqwest::{Certificate, Client, redirect};

use super::endpoint::Endpoint;
use super::error::Fault;
use super::http::Http;

/// Content delivery networks redirect once or twice.
const REDIRECTS_MAX: usize = 5;

impl Http<'_> {
    pub(super) fn client(&self, endpoint: &Endpoint) -> Result<Client, Fault> {
        if self.options.offline {
            return Err(Fault::Offline);
        }
        let key = (endpoint.tls, endpoint.is_loopback());
        if let Some(client) = self.clients.borrow().get(&key) {
            return Ok(client.clone());
        }
        let client = self.build_client(endpoint)?;
        self.clients.borrow_mut().insert(key, client.clone());
        Ok(client)
    }

    fn build_client(&self, endpoint: &Endpoint) -> Result<Client, Fault> {
        let certificates = self.certificates()?;
        let builder = || {
            let builder = Client::builder()
                .user_agent(concat!("kiln/", env!("CARGO_PKG_VERSION")))
                .referer(false)
                .redirect(redirect::Policy::custom(follow));
            // A proxy has another idea of what this machine is.
            if endpoint.is_loopback() { builder.no_proxy() } else { builder }
        };
        let built = builder().tls_certs_merge(certificates.clone()).build();
        // A machine without any certificates can still use http.
        let built =
            if endpoint.tls { built } else { built.or_else(|_| builder().tls_certs_only(certificates).build()) };
        built.map_err(|error| Fault::Host(error.into()))
    }

    fn certificates(&self) -> Result<Vec<Certificate>, Fault> {
        let mut all = Vec::new();
        for path in &self.options.certificates {
            let fail = |source| Fault::Certificate { path: path.clone(), source };
            let pem = fs::read(path).map_err(|error| fail(error.into()))?;
            let found = Certificate::from_pem_bundle(&pem).map_err(|error| fail(error.into()))?;
            if found.is_empty() {
                return Err(fail("it holds none".into()));
            }
            all.extend(found);
        }
        Ok(all)
    }
}

fn follow(attempt: redirect::Attempt<'_>) -> redirect::Action {
    let was_secure = attempt.previous().last().is_some_and(|url| url.scheme() == "https");
    if attempt.previous().len() > REDIRECTS_MAX {
        attempt.error("too many redirects")
    } else if was_secure && attempt.url().scheme() != "https" {
        attempt.error("redirected from https to http")
    } else {
        attempt.follow()
    }
}
