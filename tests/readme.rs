//! The documents against the program: the README's walk is run as it stands there, and the page of the settings is
//! the one that the program prints. Needs bash, curl and jq, as the README says.
#![expect(clippy::expect_used, reason = "a test fails where it stands")]

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use storekeeper::config::settings;

const README: &str = include_str!("../README.md");
const ADDRESS_IN_README: &str = "http://127.0.0.1:8081";

/// A server that ends with the test.
struct Server {
    process: Child,
    address: String,
}

impl Server {
    /// Starts one in `folder` as the README says, but on a free port.
    fn start(folder: &std::path::Path) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_storekeeper"));
        command.current_dir(folder).env_clear().envs(settings_in_readme()).env("BIND", "127.0.0.1:0");
        let mut process = command.stdout(Stdio::piped()).spawn().expect("the server starts");
        let mut said = String::new();
        BufReader::new(process.stdout.take().expect("its output")).read_line(&mut said).expect("a line");
        let (_, address) = said.split_once("http://").expect("an address");
        Self { process, address: format!("http://{}", address.trim()) }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

/// The variables of the README's line that starts the server for the walk.
fn settings_in_readme() -> Vec<(&'static str, &'static str)> {
    let line = README.lines().find(|line| line.trim_start().starts_with("ADMIN_EMAIL=")).expect("the line");
    line.split_whitespace().filter_map(|word| word.split_once('=')).collect()
}

fn walk() -> &'static str {
    let (_, rest) = README.split_once("```sh\n").expect("a walk");
    rest.split_once("```").expect("its end").0
}

#[test]
fn the_walk_ends_with_an_order_a_mail_and_less_stock() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = Server::start(folder.path());
    assert!(walk().contains(ADDRESS_IN_README));
    let script = format!("set -euo pipefail\n{}", walk().replace(ADDRESS_IN_README, &server.address));
    let output = Command::new("bash").args(["-c", &script]).output().expect("bash runs");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));

    let mut answers = serde_json::Deserializer::from_str(&said).into_iter::<serde_json::Value>().map_while(Result::ok);
    let mut next = || answers.next().expect("one more answer");
    assert_eq!(next()["user"]["email"], "ann@example.org", "registered");
    assert!(next()["message"].is_string(), "verified");
    let stock = |stock: &serde_json::Value| ["quantity", "onHand", "held"].map(|name| stock[name].as_i64());
    assert_eq!(stock(&next()), [Some(98), Some(100), Some(2)], "held");
    let order = next();
    assert_eq!(order["status"], "PENDING");
    assert_eq!(order["grandTotal"].as_f64(), Some(99.8));
    assert_eq!(order["orderItems"][0]["quantity"], 2);
    assert_eq!(stock(&next()), [Some(98), Some(98), Some(0)], "sold");
    let mail = answers.find(|mail| mail["subject"].is_string()).expect("the confirmation");
    let id = order["id"].as_str().expect("an id");
    assert!(mail["subject"].as_str().is_some_and(|subject| subject.contains(id)), "{mail}");
    assert!(mail["body"].as_str().is_some_and(|body| body.contains("99.80 USD")), "{mail}");
}

#[test]
fn the_page_of_the_settings_is_the_programs() {
    let page = include_str!("../docs/configuration.md");
    assert!(page == settings::page(), "out of step; write it with: cargo run -- settings > docs/configuration.md");
}
