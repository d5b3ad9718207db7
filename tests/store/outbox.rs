//! Changes of orders on their way out, messages on their way in.

use std::time::Duration;

use storekeeper::domain::ids::OrderId;
use storekeeper::domain::order::OrderStatus;
use storekeeper::domain::timestamp::Timestamp;
use storekeeper::persistence::StoreError;
use storekeeper::persistence::records::{DeadLetter, EmailFilter, EmailStatus, OutboxRecord};

use crate::shop::{Shop, Stocked, TRACEPARENT, new_user, page};

async fn placed(shop: &Shop, stock: &Stocked) -> OrderId {
    let cart = shop.cart(&[(stock, 1)]).await;
    shop.check_out(&cart, new_user()).await.id
}

/// Claims for a minute.
async fn claim(shop: &Shop, limit: u32) -> Vec<OutboxRecord> {
    let lease_until = shop.now().plus(Duration::from_secs(60));
    shop.store.claim_changes(shop.now(), lease_until, limit).await.expect("a claim")
}

/// Which changes of which orders these are.
fn told(changes: &[OutboxRecord]) -> Vec<(OrderId, i64)> {
    changes.iter().map(|change| (change.order, change.sequence)).collect()
}

fn positions(changes: &[OutboxRecord]) -> Vec<i64> {
    changes.iter().map(|change| change.position).collect()
}

pub(crate) async fn changes_are_claimed_order_by_order(shop: &Shop) {
    let lamp = shop.stocked("L-1", 100).await;
    assert_eq!(claim(shop, 10).await, []);
    assert_eq!(shop.store.outbox_lag().await.expect("a read"), (0, None));
    let oldest = shop.now();
    let (first, second) = (placed(shop, &lamp).await, placed(shop, &lamp).await);
    shop.wait(1);
    let first_order = shop.store.order(first).await.expect("a read").expect("the order");
    shop.first_transition(&first_order, OrderStatus::Cancelled).await;
    assert_eq!(shop.store.outbox_lag().await.expect("a read"), (7, Some(oldest)), "a placed order is three events");

    let claimed = claim(shop, 1).await;
    let placing = OutboxRecord {
        position: claimed[0].position,
        order: first,
        sequence: 1,
        from: None,
        to: OrderStatus::Pending,
        at: oldest,
        traceparent: Some(TRACEPARENT.to_owned()),
    };
    let cancelling = OutboxRecord {
        position: claimed[1].position,
        sequence: 2,
        from: Some(OrderStatus::Pending),
        to: OrderStatus::Cancelled,
        at: shop.now(),
        ..placing.clone()
    };
    assert_eq!(claimed, [placing, cancelling], "all that waits of the oldest order, in the order written");
    assert!(claimed[0].position < claimed[1].position);

    assert_eq!(told(&claim(shop, 10).await), [(second, 1)]);
    assert_eq!(claim(shop, 10).await, [], "all is claimed");
    shop.wait(60);
    assert_eq!(claim(shop, 100).await.len(), 3, "a claim that was not kept ends");
}

pub(crate) async fn an_order_with_a_claimed_change_is_left_out(shop: &Shop) {
    let lamp = shop.stocked("L-1", 100).await;
    let first = placed(shop, &lamp).await;
    let claimed = claim(shop, 10).await;
    let order = shop.store.order(first).await.expect("a read").expect("the order");
    shop.first_transition(&order, OrderStatus::Confirmed).await;
    let second = placed(shop, &lamp).await;
    assert_eq!(told(&claim(shop, 10).await), [(second, 1)], "the first order's new change waits");
    assert_eq!(claim(shop, 10).await, [], "the one before it is still on its way");
    shop.store.mark_published(&positions(&claimed), shop.now()).await.expect("a mark");
    assert_eq!(told(&claim(shop, 10).await), [(first, 2)]);
}

pub(crate) async fn a_claim_given_back_ends_at_once(shop: &Shop) {
    let lamp = shop.stocked("L-1", 100).await;
    let (first, second) = (placed(shop, &lamp).await, placed(shop, &lamp).await);
    let order = shop.store.order(first).await.expect("a read").expect("the order");
    shop.first_transition(&order, OrderStatus::Confirmed).await;
    let lease_until = shop.now().plus(Duration::from_secs(60));
    let claimed = claim(shop, 10).await;
    let of_first: Vec<i64> =
        claimed.iter().filter(|change| change.order == first).map(|change| change.position).collect();
    shop.store.mark_published(&of_first[..1], shop.now()).await.expect("a mark");

    shop.store.release_changes(&[], lease_until).await.expect("nothing to give back");
    let lease_of_another = lease_until.plus(Duration::from_secs(1));
    shop.store.release_changes(&positions(&claimed), lease_of_another).await.expect("no claim of that time");
    assert_eq!(claim(shop, 10).await, [], "the claim is not another's to end");

    shop.store.release_changes(&of_first, lease_until).await.expect("given back");
    let again = claim(shop, 10).await;
    assert_eq!(told(&again), [(first, 2)], "what is not published, and no other order");
    assert_eq!(positions(&again), of_first[1..]);

    // A relay that is late gives back what has become another's claim since: of the same changes, of another time.
    shop.wait(60);
    let lease_until_now = shop.now().plus(Duration::from_secs(60));
    assert_eq!(claim(shop, 10).await.len(), 2, "both claims were over");
    shop.store.release_changes(&positions(&claimed), lease_until).await.expect("nothing of it is left");
    assert_eq!(claim(shop, 10).await, []);
    shop.store.release_changes(&positions(&claimed), lease_until_now).await.expect("given back");
    assert_eq!(told(&claim(shop, 10).await), [(second, 1), (first, 2)]);
}

pub(crate) async fn published_changes_are_gone(shop: &Shop) {
    let lamp = shop.stocked("L-1", 100).await;
    placed(shop, &lamp).await;
    let claimed = claim(shop, 10).await;
    shop.store.mark_published(&[], shop.now()).await.expect("nothing to mark");
    shop.store.mark_published(&positions(&claimed), shop.now()).await.expect("a mark");
    shop.wait(3600);
    assert_eq!(claim(shop, 10).await, []);
    assert_eq!(shop.store.outbox_lag().await.expect("a read"), (0, None));
}

pub(crate) async fn a_mail_is_kept_once_a_message(shop: &Shop) {
    let mail = || shop.mail("ann@example.org", EmailStatus::Captured);
    let first = [("m1".to_owned(), mail()), ("m2".to_owned(), mail())];
    assert_eq!(shop.store.keep_mails_once("send-email", &first, shop.now()).await.expect("kept"), 2);
    let again = [("m2".to_owned(), mail()), ("m3".to_owned(), mail()), ("m3".to_owned(), mail())];
    assert_eq!(shop.store.keep_mails_once("send-email", &again, shop.now()).await.expect("kept"), 1);
    assert_eq!(shop.store.keep_mails_once("send-email", &[], shop.now()).await.expect("nothing"), 0);
    let same_mail = shop.store.keep_mails_once("other", &first[..1], shop.now()).await;
    assert!(matches!(&same_mail, Err(StoreError::Constraint(rule)) if rule == "emails_pkey"), "{same_mail:?}");
    assert!(!shop.store.is_consumed("other", "m1").await.expect("a read"), "its message is not marked either");
    for (queue, message, known) in
        [("send-email", "m1", true), ("send-email", "m4", false), ("clear-cart", "m1", false)]
    {
        assert_eq!(shop.store.is_consumed(queue, message).await.expect("a read"), known, "{queue} {message}");
    }
    let kept = shop.store.list_emails(&EmailFilter::default(), &page(None, 10)).await.expect("a list");
    assert_eq!(kept.rows.len(), 3);
}

pub(crate) async fn a_dead_letter_is_kept(shop: &Shop) {
    let letter = |message_id: &str, reason: &str, at: Timestamp| DeadLetter {
        queue: "update-inventory".to_owned(),
        message_id: message_id.to_owned(),
        payload: "{".to_owned(),
        reason: reason.to_owned(),
        at,
    };
    let first = letter("m1", "unreadable", shop.now());
    shop.store.bury(&first).await.expect("buried");
    shop.wait(1);
    let second = letter("m2", "unreadable", shop.now());
    shop.store.bury(&second).await.expect("buried");
    assert_eq!(shop.store.dead_letters("update-inventory").await.expect("a list"), [second.clone(), first]);
    shop.wait(1);
    let again = letter("m1", "still unreadable", shop.now());
    shop.store.bury(&again).await.expect("buried");
    assert_eq!(shop.store.dead_letters("update-inventory").await.expect("a list"), [again, second]);
    assert_eq!(shop.store.dead_letters("send-email").await.expect("a list"), []);
}
