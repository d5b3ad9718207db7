//! Batches: handed in again when nobody knows what became of them.

use std::sync::Arc;

use storekeeper::domain::cart::{CartState, HoldState, LineChange};
use storekeeper::domain::ids::MovementId;
use storekeeper::domain::stock::Move;
use storekeeper::persistence::CommitError;
use storekeeper::persistence::entry::{Done, Entry, NewMovement, SessionAction, SessionChange, Work};
use uuid::Uuid;

use crate::shop::{Shop, Stocked};

/// The clearing of a cart with one line, as it was seen when it had one change.
async fn clearing(shop: &Shop, stock: &Stocked) -> Work {
    let cart = shop.cart(&[(stock, 2)]).await;
    let release = NewMovement {
        id: MovementId(Uuid::now_v7()),
        inventory: stock.inventory,
        stock_move: Move::release(2),
        cart: Some(cart.id.key),
        order: None,
        reference: None,
        actor: "test".into(),
    };
    let end = SessionAction::End { seen: cart.version, state: CartState::Cleared };
    Work::Write(Arc::new(Entry {
        session: Some(SessionChange { key: cart.id.key, action: end }),
        lines: cart.lines.iter().map(|line| LineChange::End(*line)).collect(),
        line_end: Some(HoldState::Released),
        movements: vec![release],
        ..Entry::default()
    }))
}

pub(crate) async fn a_committed_batch_is_known_when_it_comes_again(shop: &Shop) {
    let stock = shop.stocked("L-1", 10).await;
    let (batch, works) = (Uuid::now_v7(), [clearing(shop, &stock).await]);
    let first = shop.store.commit(batch, &works).await.expect("a commit");
    assert!(matches!(first.done[..], [Done::Applied(_)]), "{first:?}");
    // Nothing of it fits any more, just because it was done.
    for _ in 0..2 {
        let again = shop.store.commit(batch, &works).await;
        assert!(matches!(again, Err(CommitError::AlreadyCommitted)), "{again:?}");
    }
}

pub(crate) async fn a_batch_that_was_not_committed_can_come_again(shop: &Shop) {
    let stock = shop.stocked("L-1", 10).await;
    let clearing = clearing(shop, &stock).await;
    shop.store.commit(Uuid::now_v7(), std::slice::from_ref(&clearing)).await.expect("a commit");
    let batch = Uuid::now_v7();
    for _ in 0..2 {
        let refused = shop.store.commit(batch, std::slice::from_ref(&clearing)).await.expect("an answer");
        assert!(matches!(refused.done[..], [Done::Refused(_)]), "{refused:?}");
    }
    let receipt = Work::Load(stock.inventory);
    let loaded = shop.store.commit(batch, &[clearing, receipt]).await.expect("an answer");
    assert!(matches!(loaded.done[..], [Done::Refused(_), Done::Loaded(Some(_))]), "{loaded:?}");
}
