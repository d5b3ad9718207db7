//! Sound books pass, and each fault is found by its rule.

use storekeeper::domain::cart::CartState;
use storekeeper::domain::order::OrderStatus;

use crate::shop::{Shop, new_user};

/// A shop in which everything that can happen has happened.
async fn busy_shop(shop: &Shop) {
    let (lamp, table) = (shop.stocked("L-1", 100).await, shop.stocked("T-1", 50).await);
    shop.receive(&lamp, 20).await;
    shop.cart(&[(&lamp, 3), (&table, 4)]).await;
    let cart = shop.cart(&[(&lamp, 5), (&table, 6)]).await;
    let cart = shop.set(&cart, &table, 2).await;
    let order = shop.check_out(&cart, new_user()).await;
    shop.first_transition(&order, OrderStatus::Confirmed).await;
    let cart = shop.cart(&[(&table, 7)]).await;
    let order = shop.check_out(&cart, new_user()).await;
    shop.first_transition(&order, OrderStatus::Cancelled).await;
    let cart = shop.cart(&[(&lamp, 8), (&table, 9)]).await;
    shop.end(&cart, CartState::Cleared).await;
    let cart = shop.cart(&[(&lamp, 10), (&table, 11)]).await;
    let cart = shop.set(&cart, &lamp, 0).await;
    shop.wait(900);
    shop.end(&cart, CartState::Expired).await;
}

pub(crate) async fn sound_books_pass(shop: &Shop) {
    busy_shop(shop).await;
    let verdicts = shop.store.check().await.expect("verdicts");
    for verdict in &verdicts {
        assert_eq!((verdict.broken_count, verdict.broken.len()), (0, 0), "{verdict:?}");
        assert!(verdict.checked > 0, "{verdict:?}");
    }
    let invariants: Vec<u8> = verdicts.iter().map(|verdict| verdict.invariant).collect();
    for invariant in 1..=5 {
        assert!(invariants.contains(&invariant), "invariant {invariant}");
    }
}
