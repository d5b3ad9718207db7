//! What keeps the store itself in order.

use std::sync::Arc;
use std::time::Duration;

use storekeeper::domain::cart::CartState;
use storekeeper::domain::ids::MovementId;
use storekeeper::domain::order::OrderStatus;
use storekeeper::domain::stock::{Action, Move, Reason};
use storekeeper::domain::timestamp::Timestamp;
use storekeeper::messaging::order_events;
use storekeeper::persistence::StoreError;
use storekeeper::persistence::census::Census;
use storekeeper::persistence::entry::{ConsumedMessage, Entry, NewMovement, Remember};
use storekeeper::persistence::forget::{CutOffs, Retention};
use storekeeper::persistence::records::{
    CodePurpose, CodeTry, DeadLetter, EmailStatus, IdempotencyKey, LoginTry, NewCode, NewRefreshToken, Order,
    StoredResponse,
};
use uuid::Uuid;

use crate::shop::{START, Shop, Stocked, new_user};

fn named(key: &str) -> IdempotencyKey {
    IdempotencyKey { scope: "user".to_owned(), key: key.to_owned() }
}

/// Receives a unit by a request and a message of that name.
async fn receive(shop: &Shop, stock: &Stocked, name: &str) {
    let movement = NewMovement {
        id: MovementId(Uuid::now_v7()),
        inventory: stock.inventory,
        stock_move: Move { action: Action::In, reason: Reason::Receipt, units: 1 },
        cart: None,
        order: None,
        reference: None,
        actor: "test".into(),
    };
    let response = |_: &_| StoredResponse { status: 200, headers: Vec::new(), body: "{}".to_owned() };
    shop.write(Entry {
        movements: vec![movement],
        remember: Some(Remember { key: named(name), fingerprint: [0; 32], render: Arc::new(response) }),
        message: Some(ConsumedMessage { queue: "update-inventory", id: name.to_owned() }),
        ..Entry::default()
    })
    .await;
}

/// Lends a code and a refresh token that end now.
async fn lend(shop: &Shop) {
    let mail = shop.mail("ann@example.org", EmailStatus::Captured);
    let (user, expires_at, hash) = (new_user(), shop.now(), [1; 32]);
    let code = NewCode { user, purpose: CodePurpose::VerifyEmail, hash, expires_at };
    shop.store.put_code(&code, &mail).await.expect("a code");
    let token = NewRefreshToken { hash, family: Uuid::now_v7(), user, created_at: START, expires_at };
    shop.store.insert_refresh_token(&token).await.expect("a token");
}

const DAY: Duration = Duration::from_secs(24 * 3600);
const MICROSECOND: Duration = Duration::from_micros(1);
/// Each thing has a time of its own. Codes and refresh tokens have a day after their end.
const KEPT: Retention = Retention {
    captured_mails: DAY.saturating_mul(2),
    sent_mails: DAY.saturating_mul(3),
    logins: DAY.saturating_mul(4),
    idempotency_keys: DAY.saturating_mul(5),
    message_ids: DAY.saturating_mul(6),
    published_events: DAY.saturating_mul(7),
    dead_letters: DAY.saturating_mul(8),
    journal_batches: DAY.saturating_mul(9),
};
const FOR_EVER: Retention = {
    let all = Duration::from_secs(u64::MAX);
    Retention {
        captured_mails: all,
        sent_mails: all,
        logins: all,
        idempotency_keys: all,
        message_ids: all,
        published_events: all,
        dead_letters: all,
        journal_batches: all,
    }
};

/// Forgets events that were published before a time, and nothing else.
pub(crate) fn events_before(published_events: Timestamp) -> CutOffs {
    CutOffs { published_events, expired: Timestamp(i64::MIN), ..FOR_EVER.cut_offs(Timestamp(0)) }
}

/// Forgets until nothing is left to forget; gives how many rows that were.
async fn forget(shop: &Shop, retention: &Retention) -> u64 {
    let mut rows = 0;
    loop {
        let forgotten = shop.store.forget(&retention.cut_offs(shop.now())).await.expect("an answer");
        rows += forgotten.rows;
        if !forgotten.is_more_left {
            return rows;
        }
    }
}

async fn place(shop: &Shop, stock: &Stocked) -> Order {
    let cart = shop.cart(&[(stock, 1)]).await;
    shop.check_out(&cart, new_user()).await
}

/// One of each thing that is kept for a time.
async fn one_of_each(shop: &Shop) {
    let lamp = shop.stocked("L-1", 5).await;
    for status in [EmailStatus::Captured, EmailStatus::Sent, EmailStatus::Failed, EmailStatus::Queued] {
        shop.store.insert_email(&shop.mail("ann@example.org", status)).await.expect("a mail");
    }
    let login = LoginTry {
        email: "ann@example.org".to_owned(),
        user: None,
        outcome: "signed_in",
        address: "192.0.2.1".to_owned(),
        user_agent: None,
        at: shop.now(),
    };
    shop.store.record_login(&login).await.expect("a login");
    receive(shop, &lamp, "a request and a message").await;
    let order = place(shop, &lamp).await;
    shop.first_transition(&order, OrderStatus::Confirmed).await;
    shop.publish_all().await;
    let letter = DeadLetter {
        queue: "update-inventory".to_owned(),
        message_id: "m1".to_owned(),
        payload: "{".to_owned(),
        reason: "unreadable".to_owned(),
        at: shop.now(),
    };
    shop.store.bury(&letter).await.expect("buried");
    lend(shop).await;
}

pub(crate) async fn each_thing_is_forgotten_after_its_time(shop: &Shop) {
    one_of_each(shop).await;
    let mut passed = Duration::ZERO;
    for (kept, count, before, after) in [
        (DAY, "SELECT (SELECT count(*) FROM codes) + (SELECT count(*) FROM refresh_tokens)", 2, 0),
        (KEPT.captured_mails, "SELECT count(*) FROM emails WHERE status = 'CAPTURED'", 2, 0),
        (KEPT.sent_mails, "SELECT count(*) FROM emails WHERE status IN ('SENT', 'FAILED')", 2, 0),
        (KEPT.logins, "SELECT count(*) FROM logins", 1, 0),
        (KEPT.idempotency_keys, "SELECT count(*) FROM idempotency_keys", 1, 0),
        (KEPT.message_ids, "SELECT count(*) FROM consumed_messages", 1, 0),
        // The newest one stays.
        (KEPT.published_events, "SELECT count(*) FROM outbox", 2, 1),
        (KEPT.dead_letters, "SELECT count(*) FROM dead_letters", 1, 0),
        // One receipt, one cart, one order, one change of it.
        (KEPT.journal_batches, "SELECT count(*) FROM journal_batches", 4, 0),
    ] {
        shop.clock.advance(kept - passed);
        forget(shop, &KEPT).await;
        assert_eq!(shop.number(count).await, before, "not before its time is over: {count}");
        shop.clock.advance(MICROSECOND);
        let rows = forget(shop, &KEPT).await;
        assert_eq!(shop.number(count).await, after, "{count}");
        assert_eq!(i64::try_from(rows), Ok(before - after), "and nothing else with it: {count}");
        passed = kept + MICROSECOND;
    }
    shop.clock.advance(DAY.saturating_mul(10_000));
    assert_eq!(forget(shop, &KEPT).await, 0);
    assert_eq!(shop.number("SELECT count(*) FROM emails WHERE status = 'QUEUED'").await, 1, "it is still to be sent");
    assert_eq!(shop.store.remembered(&named("a request and a message"), START).await.expect("a read"), None);
    let on_hand = "SELECT on_hand FROM inventories";
    assert_eq!(shop.number(on_hand).await, 5, "one came in, one was sold: what was done stays done");
    shop.assert_in_order().await;
}

pub(crate) async fn many_things_are_forgotten_few_at_a_time(shop: &Shop) {
    const MANY: usize = 1_200;
    let mail = |number| (format!("m{number}"), shop.mail("ann@example.org", EmailStatus::Captured));
    let mails: Vec<_> = (0..MANY).map(mail).collect();
    shop.store.keep_mails_once("send-email", &mails, shop.now()).await.expect("kept");
    shop.clock.advance(DAY.saturating_mul(30));
    let first = shop.store.forget(&KEPT.cut_offs(shop.now())).await.expect("an answer");
    assert!(first.is_more_left && first.rows < MANY as u64, "{first:?}");
    assert_eq!(first.rows + forget(shop, &KEPT).await, 2 * MANY as u64, "mails and the marks of their messages");
}

pub(crate) async fn a_change_that_is_not_told_stays_and_all_behind_it(shop: &Shop) {
    let lamp = shop.stocked("L-1", 100).await;
    place(shop, &lamp).await;
    shop.publish_all().await;
    let waiting = place(shop, &lamp).await;
    let lease_until = shop.now().plus(DAY);
    let claimed = shop.store.claim_changes(shop.now(), lease_until, 1).await.expect("a claim");
    place(shop, &lamp).await;
    shop.publish_all().await;

    shop.clock.advance(DAY.saturating_mul(5_000));
    assert_eq!(forget(shop, &KEPT).await, 1 + 6, "the first order, and all batches");
    assert_eq!(shop.number("SELECT count(*) FROM outbox").await, 2);
    shop.assert_in_order().await;

    assert!(claimed.len() == 1 && claimed[0].order == waiting.id, "{claimed:?}");
    shop.store.mark_published(&[claimed[0].position], shop.now()).await.expect("a mark");
    shop.clock.advance(KEPT.published_events);
    assert_eq!(forget(shop, &KEPT).await, 0, "it was published just now");
    shop.clock.advance(MICROSECOND);
    assert_eq!(forget(shop, &KEPT).await, 1, "all but the newest one");
    shop.assert_in_order().await;
    place(shop, &lamp).await;
    shop.assert_in_order().await;
    assert_eq!(shop.number("SELECT count(*) FROM outbox WHERE published_at IS NULL").await, 1);
}

pub(crate) async fn a_message_is_recognised_as_long_as_its_event_may_come_again(shop: &Shop) {
    let lamp = shop.stocked("L-1", 100).await;
    let order = place(shop, &lamp).await;
    let claimed = shop.store.claim_changes(shop.now(), shop.now(), 10).await.expect("a claim");
    let events = order_events::messages(&claimed[0], Some(&order)).expect("events");
    let message = events.into_iter().find(|event| event.queue == "send-email").expect("a mail's event").id;
    let mails = [(message.clone(), shop.mail("ann@example.org", EmailStatus::Captured))];
    shop.wait(1);
    shop.store.keep_mails_once("send-email", &mails, shop.now()).await.expect("kept");

    // Done, and not known to be published: the broker was away when it should have been said.
    shop.clock.advance(DAY.saturating_mul(100));
    forget(shop, &KEPT).await;
    assert!(shop.store.is_consumed("send-email", &message).await.expect("a read"), "it is sent again some day");
    shop.publish_all().await;
    forget(shop, &KEPT).await;
    assert!(!shop.store.is_consumed("send-email", &message).await.expect("a read"));
}

pub(crate) async fn the_books_are_right_with_orders_of_all_ages(shop: &Shop) {
    let lamp = shop.stocked("L-1", 100).await;
    let mut removed = 0;
    let mut placed: Vec<Order> = Vec::new();
    for day in 0..24 {
        placed.push(place(shop, &lamp).await);
        // Some change later, before or after what was written of them at first is gone; others never do.
        for (later, to) in [(3, OrderStatus::Confirmed), (9, OrderStatus::Cancelled)] {
            if let Some(order) = usize::checked_sub(day, later).filter(|number| number % 3 == later / 9) {
                shop.first_transition(&placed[order], to).await;
            }
        }
        if day % 2 == 0 {
            shop.publish_all().await;
        }
        shop.clock.advance(DAY);
        removed += forget(shop, &Retention { published_events: DAY.saturating_mul(5), ..FOR_EVER }).await;
        shop.assert_in_order().await;
    }
    assert!(removed > 24, "{removed} changes were removed");
    for (events, orders) in
        [("= 0", "old ones"), ("BETWEEN 1 AND sequence - 1", "old ones that changed late"), ("= sequence", "new ones")]
    {
        let query = "SELECT count(*) FROM orders WHERE (SELECT count(*) FROM outbox WHERE order_id = orders.id) ";
        let query: &'static str = format!("{query}{events}").leak();
        assert!(shop.number(query).await > 0, "among the orders are {orders}");
    }
}

pub(crate) async fn what_is_in_hand_is_counted(shop: &Shop) {
    let census = async || shop.store.census().await.expect("a count");
    assert_eq!(census().await, Census { open_carts: 0, open_holds: 0, held_units: 0, queued_mails: 0 });
    let (lamp, table) = (shop.stocked("L-1", 100).await, shop.stocked("T-1", 100).await);
    let ordered = shop.cart(&[(&lamp, 1), (&table, 2)]).await;
    shop.check_out(&ordered, new_user()).await;
    let cleared = shop.cart(&[(&lamp, 4)]).await;
    shop.end(&cleared, CartState::Cleared).await;
    shop.cart(&[(&lamp, 8), (&table, 16)]).await;
    let emptied = shop.cart(&[(&table, 32)]).await;
    shop.set(&emptied, &table, 0).await;
    for status in [EmailStatus::Queued, EmailStatus::Captured, EmailStatus::Sent, EmailStatus::Failed] {
        shop.store.insert_email(&shop.mail("ann@example.org", status)).await.expect("a mail");
    }
    assert_eq!(census().await, Census { open_carts: 2, open_holds: 2, held_units: 24, queued_mails: 1 });
}

pub(crate) async fn connections_are_counted(shop: &Shop) {
    shop.store.ping().await.expect("an answer");
    let pool = shop.store.pool_use();
    assert!(pool.most >= 1 && (1..=pool.most).contains(&(pool.in_use + pool.idle)), "{pool:?}");
}

pub(crate) async fn a_closed_store_refuses(shop: &Shop) {
    shop.store.ping().await.expect("an answer");
    shop.store.close().await;
    assert!(matches!(shop.store.ping().await, Err(StoreError::Unavailable(_))));
    let write = shop.store.verify_email(new_user(), &[0; 32], shop.now()).await;
    assert!(matches!(write, Err(StoreError::Unavailable(_))), "{write:?}");
    assert_ne!(write.ok(), Some(CodeTry::Refused));
}
