//! A cluster of three masters: the two keys of a cart may be on two of them.

use std::collections::HashSet;
use std::net::TcpListener;
use std::process::Command;

use crate::redis::Server;
use crate::shop::{Shop, lives_in, shows, until};

/// Ports of the loopback that nobody has.
fn free_ports(count: usize) -> Vec<u16> {
    let listeners: Vec<_> = (0..count).map(|_| TcpListener::bind("127.0.0.1:0").expect("a port")).collect();
    listeners.iter().map(|listener| listener.local_addr().expect("an address").port()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_shows_carts_on_all_its_nodes() {
    let ports = free_ports(6);
    let nodes: Vec<Server> = (0..3).map(|node| Server::of_a_cluster(ports[node], ports[node + 3])).collect();
    let hosts: Vec<String> = ports[..3].iter().map(|port| format!("127.0.0.1:{port}")).collect();
    let made = Command::new("redis-cli").args(["--cluster", "create"]).args(&hosts).arg("--cluster-yes").output();
    let made = made.expect("redis-cli runs");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stdout));
    for node in &nodes {
        until("the cluster is whole", async || node.ask(&["CLUSTER", "INFO"]).contains("cluster_state:ok")).await;
    }

    // Two of them are enough to find the third.
    let shop = Shop::open(&format!("redis+cluster://{},{}", hosts[0], hosts[1]), |_| {}).await;
    shop.until_redis_is("up").await;
    let lamp = shop.stock(1_000).await;
    let mut sessions = Vec::new();
    for quantity in 1..=12 {
        sessions.push(shop.add(None, lamp, quantity).await);
    }
    let slots: HashSet<String> =
        sessions.iter().map(|id| nodes[0].ask(&["CLUSTER", "KEYSLOT", &format!("cart:{id}")])).collect();
    assert!(slots.len() > 1, "they are not all in one place");
    for session in &sessions {
        let cart = shop.cart(*session).await;
        until("it is shown", async || shows(&nodes[2], &cart)).await;
    }
    shop.clear(sessions[0]).await;
    until("no key is left", async || lives_in(&nodes[1], sessions[0]) == [-2, -2]).await;

    // One node after the other loses what it had.
    for node in &nodes {
        node.ask(&["FLUSHALL"]);
        for session in &sessions {
            let cart = shop.cart(*session).await;
            until("it is shown again", async || shows(&nodes[0], &cart)).await;
        }
    }
    shop.stop().await;
}
