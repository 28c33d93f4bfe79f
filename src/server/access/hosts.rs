//! The names that the server answers to. A site whose name is made to point here (DNS
//! rebinding) is known by the name in the Host header.

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::HOST;
use axum::http::uri::Authority;
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::server::error::ApiError;
use crate::server::settings::Settings;

/// Names besides addresses and those of this machine.
pub struct Hosts(HashSet<String>);

impl Hosts {
    pub fn new(settings: &Settings) -> Self {
        let given = settings.allow_hosts.iter().map(|host| host_of(host));
        let given = given.chain([settings.host.as_str()]).map(plain);
        Hosts(given.chain(own_name()).collect())
    }

    /// Whether the names in `request` are the server's. HTTP/1.0 clients may give none;
    /// browsers always do.
    fn allow_all(&self, request: &Request) -> bool {
        let target = request.uri().authority().map(Authority::as_str);
        let headers = request.headers().get_all(HOST).iter();
        let named = headers
            .map(|host| host.to_str().unwrap_or(""))
            .chain(target);
        named.into_iter().all(|host| self.allow(host))
    }

    /// Whether a client may call the server `host`, with or without a port.
    pub fn allow(&self, host: &str) -> bool {
        let name = plain(host_of(host));
        let address = name
            .strip_prefix('[')
            .and_then(|name| name.strip_suffix(']'));
        if address.unwrap_or(&name).parse::<IpAddr>().is_ok() {
            return true;
        }
        // `.internal` is what containers call their host.
        let local = name == "localhost"
            || [".localhost", ".internal"].iter().any(|end| {
                name.strip_suffix(end)
                    .is_some_and(|before| !before.is_empty())
            });
        local || self.0.contains(&name)
    }
}

/// `host` without its port.
fn host_of(host: &str) -> &str {
    let is_port = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    match host.rsplit_once(':') {
        // The colons of an address of the sixth version are within brackets.
        Some((name, port)) if is_port(port) && (!name.contains(':') || name.ends_with(']')) => name,
        _ => host,
    }
}

/// A name in the one form that is compared.
fn plain(name: &str) -> String {
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}

/// What this machine calls itself.
fn own_name() -> Option<String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    let name = plain(name.trim());
    (!name.is_empty() && name != "(none)").then_some(name)
}

/// Refuses a request that calls the server by a name that is not its own.
pub async fn demand(State(hosts): State<Arc<Hosts>>, request: Request, next: Next) -> Response {
    if hosts.allow_all(&request) {
        return next.run(request).await;
    }
    let message = "this server does not go by that name (--allow-host adds one)";
    ApiError::new(StatusCode::FORBIDDEN, message).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_own_names_are_answered_to() {
        let hosts = Hosts::new(&Settings {
            host: "127.0.0.1".into(),
            allow_hosts: vec!["Pictures.example:8443".into()],
            ..Settings::default()
        });
        let mine = [
            "127.0.0.1",
            "127.0.0.1:7860",
            "[::1]:7860",
            "[::1]",
            "10.0.0.7",
            "localhost",
            "LOCALHOST:1",
            "localhost.",
            "a.localhost",
            "host.docker.internal:7860",
            "pictures.example",
            "PICTURES.EXAMPLE.:80",
        ];
        for host in mine {
            assert!(hosts.allow(host), "{host}");
        }
        let others = [
            "",
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.nip.io",
            ".localhost",
            ".internal",
            "internal",
            "pictures.example.evil",
            "evil.example:127.0.0.1",
            "localhost@evil.example",
            "[::1].evil.example",
            "localhost:evil",
        ];
        for host in others {
            assert!(!hosts.allow(host), "{host}");
        }
    }
}
