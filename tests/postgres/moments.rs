//! The hard moments of one batch: what was seen too early, two changes of one row, takes beside gives.

use std::sync::Arc;

use sqlx::Connection;
use storekeeper::domain::stock::Balance;
use storekeeper::persistence::entry::{ConsumedMessage, Done, Refusal, Remember};
use storekeeper::persistence::records::{IdempotencyKey, StoredResponse};
use storekeeper::persistence::{CommitError, StoreError};

use crate::node::{Node, moved, new_cart, refusal, resized};
use crate::server::{Database, connect};

fn balance(on_hand: i64, held: i64, seq: i64) -> Balance {
    Balance { on_hand, held, seq }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stale_release_is_refused() {
    let database = Database::new();
    let (here, elsewhere) = (Node::on(&database.url).await, Node::on(&database.url).await);
    let stock = here.stock(10).await;
    let seen = here.cart(&stock, 5).await;
    let (now, smaller) = resized(&seen, &stock, 3, here.clock.now());
    elsewhere.write(smaller).await;

    // All five back, as one server saw them. As deltas that fits: ten on hand, none of them missing.
    let (_, release) = resized(&seen, &stock, 0, here.clock.now());
    assert_eq!(refusal(&here.decided(vec![release]).await[0]), Some(&Refusal::SessionChanged));
    // The same with the session as it is, but the hold as it was.
    let (_, mut release) = resized(&seen, &stock, 0, here.clock.now());
    let (_, fitting) = resized(&now, &stock, 0, here.clock.now());
    release.session = fitting.session;
    assert_eq!(refusal(&here.decided(vec![release]).await[0]), Some(&Refusal::HoldChanged));
    assert_eq!(here.balance(&stock).await, balance(10, 3, 3));
    here.write(fitting).await;
    assert_eq!(here.balance(&stock).await, balance(10, 0, 4));
    here.assert_in_order().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_changes_of_one_row_in_one_statement_both_count() {
    let database = Database::new();
    let node = Node::on(&database.url).await;
    let (lamp, shade) = (node.stock(10).await, node.stock(10).await);
    let now = node.clock.now();
    let mut entries: Vec<_> = [1, 2, 3].map(|units| new_cart(&lamp, units, now).1).into();
    entries.extend([moved(&lamp, 7), moved(&shade, -4), moved(&lamp, 1), moved(&shade, -5)]);
    let done = node.decided(entries).await;
    assert!(done.iter().all(|done| matches!(done, Done::Applied(_))), "{done:?}");
    assert_eq!(node.balance(&lamp).await, balance(18, 6, 6));
    assert_eq!(node.balance(&shade).await, balance(1, 0, 3));
    node.assert_in_order().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_comes_in_hides_nothing_that_goes_out_in_the_same_batch() {
    let database = Database::new();
    let node = Node::on(&database.url).await;
    let stock = node.stock(5).await;
    let done = node.decided(vec![moved(&stock, 3), moved(&stock, -6), moved(&stock, -5)]).await;
    assert!(matches!(done[0], Done::Applied(_)), "{done:?}");
    let refused = Refusal::InsufficientStock { inventory: stock.inventory, available: 5 };
    assert_eq!(refusal(&done[1]), Some(&refused), "as a sum it would fit");
    assert!(matches!(done[2], Done::Applied(_)), "{done:?}");
    assert_eq!(node.balance(&stock).await, balance(3, 0, 3));
    node.assert_in_order().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_schema_itself_forbids_what_no_plan_would_do() {
    let database = Database::new();
    let node = Node::on(&database.url).await;
    let stock = node.stock(5).await;
    let mut past = connect(&database.url).await.expect("the database");
    for (statement, rule) in [
        ("UPDATE inventories SET held = 6", "inventories_never_oversold"),
        ("UPDATE inventories SET on_hand = -1", "inventories_never_oversold"),
        ("UPDATE movements SET held = -1", "movements_never_oversold"),
        ("UPDATE movements SET previous = id", "movements_chain"),
    ] {
        let error = sqlx::query(statement).execute(&mut past).await.expect_err(statement);
        assert_eq!(error.as_database_error().and_then(|answer| answer.constraint()), Some(rule));
    }
    past.close().await.expect("closed");
    assert_eq!(node.balance(&stock).await, balance(5, 0, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_one_name_on_two_servers_one_is_done() {
    let database = Database::new();
    let nodes = [Node::on(&database.url).await, Node::on(&database.url).await];
    let (stock, other) = (nodes[0].stock(0).await, nodes[0].stock(0).await);
    for round in 0..20 {
        // Different stock, so that no lock brings the two in order before the name does.
        let named = |stock, kind: &str| {
            let mut entry = moved(stock, 1);
            if kind == "request" {
                let key = IdempotencyKey { scope: "user".to_owned(), key: format!("key {round}") };
                let response = |_: &_| StoredResponse { status: 200, headers: Vec::new(), body: "{}".to_owned() };
                entry.remember = Some(Remember { key, fingerprint: [0; 32], render: Arc::new(response) });
            } else {
                entry.message = Some(ConsumedMessage { queue: "update-inventory", id: format!("message {round}") });
            }
            entry
        };
        for (kind, wanted) in [("request", Refusal::KeyKnown), ("message", Refusal::MessageKnown)] {
            let (first, second) =
                tokio::join!(nodes[0].decided(vec![named(&stock, kind)]), nodes[1].decided(vec![named(&other, kind)]),);
            let refused: Vec<_> = [&first[0], &second[0]].into_iter().filter_map(refusal).collect();
            assert_eq!(refused, [&wanted], "{kind} {round}");
        }
    }
    let done = nodes[0].balance(&stock).await.on_hand + nodes[0].balance(&other).await.on_hand;
    assert_eq!(done, 40);
    nodes[0].assert_in_order().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_text_that_no_column_takes_is_told_as_a_rule() {
    let database = Database::new();
    let node = Node::on(&database.url).await;
    let stock = node.stock(5).await;
    let mut unfit = moved(&stock, 1);
    unfit.movements[0].reference = Some("nul\0".to_owned());
    // As a rule, so that the journal looks for the one entry in its batch.
    let refused = node.commit(vec![moved(&stock, 1), unfit]).await;
    let Err(CommitError::NotCommitted(StoreError::Constraint(rule))) = refused else { panic!("{refused:?}") };
    assert_eq!(rule, "unfit_data");
    node.write(moved(&stock, 1)).await;
    assert_eq!(node.balance(&stock).await, balance(6, 0, 2));
}
