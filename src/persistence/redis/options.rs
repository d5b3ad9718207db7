//! Where Redis is.

use std::fmt;

use ::redis::IntoConnectionInfo;

/// Nodes of a cluster that an address may name: it needs to name only those that are asked for the others.
const NODES_MAX: usize = 64;

/// Where Redis is: one server, or some nodes of a cluster.
#[derive(Clone, PartialEq, Eq)]
pub struct RedisOptions {
    /// Each one's address, 1 or more. Secrets: they may hold a password.
    pub(super) nodes: Vec<String>,
    /// Whether they are nodes of a cluster.
    pub(super) is_cluster: bool,
}

impl RedisOptions {
    /// Options, when `url` is an address that can be read:
    ///
    /// - `redis://user:password@host:port/number`, or `rediss://…` through TLS, or `redis+unix:///path?db=number`
    /// - `redis+cluster://user:password@host:port,host:port`, or `rediss+cluster://…` through TLS
    #[must_use]
    pub fn of(url: &str) -> Option<Self> {
        let (scheme, rest) = url.split_once("://")?;
        let options = match scheme {
            "redis" | "rediss" | "redis+unix" => Self { nodes: vec![url.to_owned()], is_cluster: false },
            "redis+cluster" => Self { nodes: nodes("redis", rest)?, is_cluster: true },
            "rediss+cluster" => Self { nodes: nodes("rediss", rest)?, is_cluster: true },
            _ => return None,
        };
        let readable = options.nodes.iter().all(|node| node.as_str().into_connection_info().is_ok());
        readable.then_some(options)
    }
}

impl fmt::Display for RedisOptions {
    /// Where it is, for people: without user and password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hosts = self.nodes.iter().filter_map(|node| node.as_str().into_connection_info().ok());
        let hosts: Vec<_> = hosts.map(|node| node.addr().to_string()).collect();
        write!(f, "{}{}", hosts.join(", "), if self.is_cluster { " (cluster)" } else { "" })
    }
}

/// The addresses of the nodes in `user:password@host:port,host:port`. A cluster has no databases to choose from.
fn nodes(scheme: &str, authority: &str) -> Option<Vec<String>> {
    let authority = authority.strip_suffix('/').unwrap_or(authority);
    let (credentials, hosts) = match authority.rsplit_once('@') {
        Some((credentials, hosts)) => (format!("{credentials}@"), hosts),
        None => (String::new(), authority),
    };
    let nodes: Vec<&str> = hosts.split(',').collect();
    let fits = nodes.len() <= NODES_MAX && !nodes.iter().any(|host| host.is_empty() || host.contains(['/', '?', '#']));
    fits.then(|| nodes.into_iter().map(|host| format!("{scheme}://{credentials}{host}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_and_clusters_are_told_apart_and_shown_without_secrets() {
        for (url, shown) in [
            ("redis://127.0.0.1", "127.0.0.1:6379"),
            ("redis://ann:secret@cache:6380/3", "cache:6380"),
            ("rediss://:secret@cache:6380", "cache:6380"),
            ("redis+unix:///run/redis.sock?db=2", "/run/redis.sock"),
            ("redis+cluster://one:7000", "one:7000 (cluster)"),
            ("redis+cluster://ann:se@cret@one:7000,two:7001/", "one:7000, two:7001 (cluster)"),
            ("rediss+cluster://[::1]:7000,two", "::1:7000, two:6379 (cluster)"),
        ] {
            let options = RedisOptions::of(url);
            assert_eq!(options.map(|options| options.to_string()).as_deref(), Some(shown), "{url}");
        }
    }

    #[test]
    fn other_addresses_are_refused() {
        let many = format!("redis+cluster://{}", vec!["host"; NODES_MAX + 1].join(","));
        for url in ["", "localhost:6379", "http://cache", "redis://", "redis://h:port", "redis://h/x", &many]
            .into_iter()
            .chain(["redis+cluster://", "redis+cluster://a,,b", "redis+cluster://a/1", "redis+cluster://a?db=1"])
        {
            assert!(RedisOptions::of(url).is_none(), "{url}");
        }
    }
}
