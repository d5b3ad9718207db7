//! What keeps the store itself in order.

use std::sync::Arc;

use storekeeper::domain::cart::CartState;
use storekeeper::domain::ids::MovementId;
use storekeeper::domain::stock::{Action, Move, Reason};
use storekeeper::persistence::StoreError;
use storekeeper::persistence::census::Census;
use storekeeper::persistence::entry::{ConsumedMessage, Entry, NewMovement, Remember};
use storekeeper::persistence::records::{
    CodePurpose, CodeTry, EmailStatus, IdempotencyKey, NewCode, NewRefreshToken, StoredResponse,
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

async fn lend(shop: &Shop, hash: u8) {
    let mail = shop.mail("ann@example.org", EmailStatus::Captured);
    let expires_at = shop.now();
    let code = NewCode { user: new_user(), purpose: CodePurpose::VerifyEmail, hash: [hash; 32], expires_at };
    shop.store.put_code(&code, &mail).await.expect("a code");
    let (hash, family, user) = ([hash; 32], Uuid::now_v7(), new_user());
    let token = NewRefreshToken { hash, family, user, created_at: START, expires_at };
    shop.store.insert_refresh_token(&token).await.expect("a token");
}

pub(crate) async fn what_is_old_is_forgotten(shop: &Shop) {
    let lamp = shop.stocked("L-1", 5).await;
    receive(shop, &lamp, "old").await;
    lend(shop, 1).await;
    shop.wait(60);
    let before = shop.now();
    receive(shop, &lamp, "new").await;
    lend(shop, 2).await;

    let old_rows = 5;
    assert_eq!(shop.store.forget(before).await.expect("an answer"), old_rows);
    assert_eq!(shop.store.forget(before).await.expect("an answer"), 0);
    for (name, known) in [("old", false), ("new", true)] {
        assert_eq!(shop.store.remembered(&named(name), START).await.expect("a read").is_some(), known, "{name}");
        assert_eq!(shop.store.is_consumed("update-inventory", name).await.expect("a read"), known, "{name}");
    }
    let left = "SELECT (SELECT count(*) FROM journal_batches) + (SELECT count(*) FROM codes) \
                + (SELECT count(*) FROM refresh_tokens)";
    assert_eq!(shop.number(left).await, 3);
    let inventory = shop.store.inventory(lamp.inventory).await.expect("a read").expect("the stock");
    assert_eq!(inventory.balance.on_hand, 7, "what was done stays done");
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
