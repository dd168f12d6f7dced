//! By which proxy an API server is reached: what the file of connections says, else what the environment says, as for the
//! cluster's own client. `NO_PROXY` is looked at here; the client's library compares it with the proxy instead of the server.

use hyper_util::client::proxy::matcher::Matcher;
use kube::config::Config;
use maddock_bindings::api::types::ErrorKind;

use crate::capability::{ApiError, error_with_hint};
use crate::plugin::Environment;

/// Schemes of proxies that the client knows.
const SCHEMES: [&str; 3] = ["http", "https", "socks5"];

/// Puts the proxy into a configuration: `named` by the file of connections, or none.
///
/// # Errors
/// It is no proxy that can be used. What it says is not repeated: there may be a password in it.
pub(super) fn choose(config: &mut Config, named: Option<&str>, environment: &Environment) -> Result<(), ApiError> {
    let chosen = match named.filter(|url| !url.is_empty()) {
        Some(url) => Some(("proxy-url", url)),
        None => of_environment(config, environment),
    };
    config.proxy_url = None;
    let Some((origin, url)) = chosen else { return Ok(()) };
    let whole = if url.contains("://") { url.to_owned() } else { format!("http://{url}") };
    config.proxy_url = whole.parse().ok();
    let scheme = config.proxy_url.as_ref().filter(|url| url.host().is_some()).and_then(|url| url.scheme_str());
    if scheme.is_none_or(|scheme| !SCHEMES.contains(&scheme)) {
        return Err(error_with_hint(
            ErrorKind::InvalidInput,
            format!("`{origin}` names no proxy that can be used"),
            "it looks like `http://proxy.example.com:3128`; also `https` and `socks5`",
        ));
    }
    Ok(())
}

/// The variable that names a proxy for this server, and what it says.
fn of_environment<'a>(config: &Config, environment: &'a Environment) -> Option<(&'static str, &'a str)> {
    let server = &config.cluster_url;
    let host = server.host()?;
    let names = match server.scheme_str() {
        Some("http") => ["HTTP_PROXY", "http_proxy"],
        _ => ["HTTPS_PROXY", "https_proxy"],
    };
    let (name, url) = first(environment, names)?;
    let is_here = host == "localhost"
        || host.trim_matches(['[', ']']).parse().is_ok_and(|address: std::net::IpAddr| address.is_loopback());
    let spared = first(environment, ["NO_PROXY", "no_proxy"]).map(|(_, list)| without_ports(list, server.port_u16()));
    // It knows networks and domains, and asks nobody for an address.
    let matcher = Matcher::builder().http("http://proxy").https("http://proxy").no(spared.unwrap_or_default()).build();
    (!is_here && matcher.intercept(server).is_some()).then_some((name, url))
}

fn first<'a>(environment: &'a Environment, names: [&'static str; 2]) -> Option<(&'static str, &'a str)> {
    let set = names.map(|name| environment.get(name).map(|value| (name, value.trim())));
    set.into_iter().flatten().find(|(_, value)| !value.is_empty())
}

/// The entries that hold for this port, in the one spelling that is known.
fn without_ports(list: &str, port: Option<u16>) -> String {
    let entry = |entry: &str| {
        let host = match entry.rsplit_once(':') {
            Some((host, own)) if !host.contains(':') || host.ends_with(']') => {
                own.parse().is_ok_and(|own: u16| Some(own) == Some(port.unwrap_or(443))).then_some(host)
            }
            _ => Some(entry),
        };
        host.map(|host| host.strip_prefix("*.").unwrap_or(host).trim_matches(['[', ']']).to_owned())
    };
    let entries: Vec<String> =
        list.split(',').map(str::trim).filter(|part| !part.is_empty()).filter_map(entry).collect();
    entries.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn by(server: &str, named: Option<&str>, variables: &[(&str, &str)]) -> Result<Option<String>, ApiError> {
        let environment = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let mut config = Config::new(server.parse().unwrap());
        choose(&mut config, named, &environment)?;
        Ok(config.proxy_url.map(|url| url.to_string()))
    }

    #[test]
    fn a_proxy_of_the_environment_is_taken_unless_the_server_is_spared() {
        let through = Some("http://proxy:3128/".to_owned());
        for (server, no_proxy, expected) in [
            ("https://api.example.com:6443", "", &through),
            ("https://api.example.com:6443", "other.example.com,10.0.0.0/8", &through),
            ("https://api.example.com:6443", "proxy", &through),
            ("https://api.example.com:6443", "example.com", &None),
            ("https://api.example.com:6443", ".example.com", &None),
            ("https://api.example.com:6443", "a, *.example.com ,", &None),
            ("https://api.example.com:6443", "api.example.com:6443", &None),
            ("https://api.example.com:6443", "api.example.com:8443", &through),
            ("https://api.example.com:6443", "*", &None),
            ("https://notexample.com", "example.com", &through),
            ("https://10.1.2.3:6443", "10.0.0.0/8", &None),
            ("https://10.1.2.3:6443", "10.1.2.3:6443", &None),
            ("https://[2001:db8::1]:6443", "2001:db8::/32", &None),
            ("https://[2001:db8::1]:6443", "[2001:db8::1]:6443", &None),
            ("https://11.1.2.3:6443", "10.0.0.0/8", &through),
            ("https://localhost:6443", "", &None),
            ("https://127.0.0.1:6443", "", &None),
            ("https://[::1]:6443", "", &None),
            ("http://api.example.com:8080", "", &None),
        ] {
            let variables = [("HTTPS_PROXY", "proxy:3128"), ("NO_PROXY", no_proxy)];
            assert_eq!(by(server, None, &variables).unwrap(), *expected, "{server} without {no_proxy}");
            let lower = [("https_proxy", "proxy:3128"), ("no_proxy", no_proxy)];
            assert_eq!(by(server, None, &lower).unwrap(), *expected, "{server} without {no_proxy}");
        }
        let plain = [("HTTP_PROXY", "http://proxy:1")];
        assert_eq!(by("http://api:8080", None, &plain).unwrap().as_deref(), Some("http://proxy:1/"));
    }

    #[test]
    fn what_the_file_of_connections_names_comes_before_the_environment() {
        let variables = [("HTTPS_PROXY", "http://other:1"), ("NO_PROXY", "*")];
        for named in ["http://proxy:3128/", "https://proxy:3128/", "socks5://proxy:1080/"] {
            assert_eq!(by("https://api:6443", Some(named), &variables).unwrap().as_deref(), Some(named));
        }
    }

    #[test]
    fn what_is_no_proxy_is_refused_and_not_repeated() {
        for wrong in ["ftp://me:secret@proxy", "http://", "http://me:secret@", "not a secret proxy", "socks4://secret"]
        {
            let refused = by("https://api:6443", None, &[("HTTPS_PROXY", wrong)]).unwrap_err();
            assert!(refused.message.contains("HTTPS_PROXY"), "{refused:?}");
            assert!(!format!("{refused:?}").contains("secret"), "{refused:?}");
        }
    }
}
