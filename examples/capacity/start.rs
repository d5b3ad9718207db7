//! How long a server takes until it is ready.

use std::time::{Duration, Instant};

use reqwest::{Client, StatusCode};

use crate::server::{Ground, Server};
use crate::{Arguments, fill, tell};

/// How often a server that is not ready is asked again.
const LOOK_PERIOD: Duration = Duration::from_millis(5);
/// How long it may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// Measures, prints, and gives whether all is right.
pub(crate) async fn measure(arguments: &Arguments) -> bool {
    let client = Client::builder().no_proxy().build().expect("a client");
    let ground = Ground::new(arguments.real).await;
    println!("start on {}", ground.place());
    // The first start makes the tables, the keys and the administrator.
    let (server, took) = ready(&client, ground).await;
    println!("{:>10.3} s  on nothing", took.as_secs_f64());
    let Some(mut ground) = server.leave() else { return tell(false, "the server stops in order") };
    fill(&ground, arguments.products).await;
    for _ in 0..arguments.starts {
        let (server, took) = ready(&client, ground).await;
        println!("{:>10.3} s  on {} products", took.as_secs_f64(), arguments.products);
        match server.leave() {
            Some(left) => ground = left,
            None => return tell(false, "the server stops in order"),
        }
    }
    tell(true, "each server was ready and stopped in order")
}

/// Starts a server; gives how long it took, from the start of the program to the answer that it is ready.
async fn ready(client: &Client, ground: Ground) -> (Server, Duration) {
    let begin = Instant::now();
    let server = Server::on(ground, Vec::new()).await;
    let url = format!("{}/health/ready", server.base());
    loop {
        let answer = client.get(&url).send().await.expect("the server answers");
        if answer.status() == StatusCode::OK {
            return (server, begin.elapsed());
        }
        assert!(begin.elapsed() < PATIENCE, "it is not ready: {}", answer.status());
        tokio::time::sleep(LOOK_PERIOD).await;
    }
}
