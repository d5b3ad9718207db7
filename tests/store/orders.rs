//! Orders, and what was answered to requests that named themselves.

use std::sync::Arc;

use storekeeper::domain::ids::{MovementId, OrderId};
use storekeeper::domain::order::OrderStatus;
use storekeeper::domain::stock::{Action, Move, Reason};
use storekeeper::domain::timestamp::Timestamp;
use storekeeper::persistence::StoreError;
use storekeeper::persistence::entry::{Entry, NewMovement, Remember};
use storekeeper::persistence::records::{IdempotencyKey, Order, OrderFilter, Remembered, StoredResponse};
use uuid::Uuid;

use crate::shop::{Shop, new_user, page};

async fn listed(shop: &Shop, filter: &OrderFilter, limit: u32) -> Vec<OrderId> {
    let mut ids = Vec::new();
    let mut after = None;
    loop {
        let page = shop.store.list_orders(filter, &page(after.as_deref(), limit)).await.expect("a page");
        ids.extend(page.rows.iter().map(|order| order.id));
        assert!(page.rows.iter().all(|order| !order.lines.is_empty()), "each with its lines");
        after = page.next;
        if after.is_none() {
            return ids;
        }
    }
}

pub(crate) async fn an_order_comes_back_as_it_was_placed(shop: &Shop) {
    let (lamp, table) = (shop.stocked("L-1", 10).await, shop.stocked("T-1", 10).await);
    let cart = shop.cart(&[(&table, 2), (&lamp, 1)]).await;
    let order = shop.check_out(&cart, new_user()).await;
    assert_eq!(shop.store.order(order.id).await.expect("a read"), Some(order.clone()));
    shop.wait(5);
    shop.first_transition(&order, OrderStatus::Confirmed).await;
    let wanted = Order {
        status: OrderStatus::Confirmed,
        sequence: 2,
        payment_reference: Some("payment 1".to_owned()),
        updated_at: shop.now(),
        ..order
    };
    assert_eq!(shop.store.order(wanted.id).await.expect("a read"), Some(wanted));
    assert_eq!(shop.store.order(OrderId(Uuid::now_v7())).await.expect("a read"), None);
}

pub(crate) async fn orders_are_listed_newest_first(shop: &Shop) {
    let lamp = shop.stocked("L-1", 100).await;
    let (ann, bob) = (new_user(), new_user());
    let mut placed = Vec::new();
    for user in [ann, bob, ann, ann, bob] {
        let cart = shop.cart(&[(&lamp, 1)]).await;
        placed.push(shop.check_out(&cart, user).await);
    }
    shop.first_transition(&placed[2], OrderStatus::Cancelled).await;
    let ids = |numbers: &[usize]| numbers.iter().map(|number| placed[*number].id).collect::<Vec<_>>();
    for limit in [1, 2, 5, 100] {
        assert_eq!(listed(shop, &OrderFilter::default(), limit).await, ids(&[4, 3, 2, 1, 0]), "pages of {limit}");
        let of_ann = OrderFilter { user: Some(ann), status: None };
        assert_eq!(listed(shop, &of_ann, limit).await, ids(&[3, 2, 0]));
        let cancelled = OrderFilter { user: None, status: Some(OrderStatus::Cancelled) };
        assert_eq!(listed(shop, &cancelled, limit).await, ids(&[2]));
        let both = OrderFilter { user: Some(ann), status: Some(OrderStatus::Pending) };
        assert_eq!(listed(shop, &both, limit).await, ids(&[3, 0]));
    }
    let answer = shop.store.list_orders(&OrderFilter::default(), &page(Some("nonsense"), 1)).await;
    assert!(matches!(answer, Err(StoreError::InvalidCursor)), "{answer:?}");
}

pub(crate) async fn pending_orders_are_found_by_age(shop: &Shop) {
    let lamp = shop.stocked("L-1", 100).await;
    let mut placed = Vec::new();
    for _ in 0..4 {
        let cart = shop.cart(&[(&lamp, 1)]).await;
        placed.push(shop.check_out(&cart, new_user()).await);
        shop.wait(10);
    }
    shop.first_transition(&placed[1], OrderStatus::Confirmed).await;
    let before_last = placed[3].created_at;
    let found =
        async |before, after, limit| shop.store.orders_pending_since(before, after, limit).await.expect("a read");
    let [first, third, last] = [0, 2, 3].map(|number: usize| (placed[number].created_at, placed[number].id));
    let first_of_all = (Timestamp(0), OrderId(Uuid::nil()));
    let old = found(before_last, first_of_all, 10).await;
    assert_eq!(old, [first, third], "neither the confirmed one nor one of that very moment");
    assert_eq!(found(shop.now(), first_of_all, 1).await, [first]);
    assert_eq!(found(shop.now(), first, 1).await, [third]);
    assert_eq!(found(shop.now(), third, 10).await, [last]);
    assert_eq!(found(shop.now(), last, 10).await, []);
}

pub(crate) async fn an_answer_is_remembered_for_its_time(shop: &Shop) {
    let lamp = shop.stocked("L-1", 5).await;
    let key = IdempotencyKey { scope: "user 1".to_owned(), key: "first try".to_owned() };
    let headers = vec![("location".to_owned(), "/orders/1".to_owned()), ("etag".to_owned(), "\"2\"".to_owned())];
    let response = StoredResponse { status: 201, headers, body: r#"{"id":"1"}"#.to_owned() };
    let rendered = response.clone();
    let receipt = NewMovement {
        id: MovementId(Uuid::now_v7()),
        inventory: lamp.inventory,
        stock_move: Move { action: Action::In, reason: Reason::Receipt, units: 1 },
        cart: None,
        order: None,
        reference: None,
        actor: "test".into(),
    };
    shop.write(Entry {
        movements: vec![receipt],
        remember: Some(Remember {
            key: key.clone(),
            fingerprint: [8; 32],
            render: Arc::new(move |_| rendered.clone()),
        }),
        ..Entry::default()
    })
    .await;

    let written = shop.now();
    let wanted = Remembered { fingerprint: [8; 32], response };
    assert_eq!(shop.store.remembered(&key, written).await.expect("a read"), Some(wanted));
    let later = Timestamp(written.0 + 1);
    assert_eq!(shop.store.remembered(&key, later).await.expect("a read"), None, "from before the time asked for");
    let other_scope = IdempotencyKey { scope: "user 2".to_owned(), ..key.clone() };
    assert_eq!(shop.store.remembered(&other_scope, written).await.expect("a read"), None);
}
