//! Stock records and the ledger.

use storekeeper::domain::ids::{InventoryId, ProductId};
use storekeeper::domain::stock::{Action, Balance, Reason};
use storekeeper::persistence::StoreError;
use storekeeper::persistence::records::{Inventory, Listed};
use uuid::Uuid;

use crate::shop::{Shop, new_user, page};

pub(crate) async fn a_product_has_one_inventory(shop: &Shop) {
    let lamp = shop.product("L-1", "Lamp", 1_999);
    shop.store.insert_product(&lamp, None).await.expect("a new product");
    shop.wait(1);
    let stock = shop.stock_of(&lamp, 12);
    shop.store.insert_inventory(&stock).await.expect("a new inventory");

    let kept = shop.store.product(lamp.id).await.expect("a read").expect("the product");
    assert_eq!((kept.inventory, kept.version, kept.updated_at), (Some(stock.id), 2, shop.now()));
    let wanted = Inventory {
        id: stock.id,
        product: lamp.id,
        sku: "L-1".to_owned(),
        balance: Balance { on_hand: 12, held: 0, seq: 1 },
        updated_at: shop.now(),
    };
    assert_eq!(shop.store.inventory(stock.id).await.expect("a read"), Some(wanted));

    let again = shop.store.insert_inventory(&shop.stock_of(&lamp, 1)).await;
    assert!(matches!(&again, Err(StoreError::Constraint(rule)) if rule == "inventories_product_unique"), "{again:?}");
    let kept = shop.store.product(lamp.id).await.expect("a read").expect("the product");
    assert_eq!((kept.inventory, kept.version), (Some(stock.id), 2));
}

pub(crate) async fn stock_of_no_product_is_refused(shop: &Shop) {
    let mut stock = shop.stock_of(&shop.product("L-1", "Lamp", 1), 1);
    stock.product = ProductId(Uuid::now_v7());
    let answer = shop.store.insert_inventory(&stock).await;
    assert!(matches!(&answer, Err(StoreError::Constraint(rule)) if rule == "inventories_product_exists"), "{answer:?}");
    assert_eq!(shop.store.inventory(stock.id).await.expect("a read"), None);
}

pub(crate) async fn a_history_is_paged_from_the_newest(shop: &Shop) {
    let lamp = shop.stocked("L-1", 10).await;
    let table = shop.stocked("T-1", 10).await;
    for units in 1..=6 {
        shop.receive(&lamp, units).await;
        shop.receive(&table, 100).await;
    }
    let mut seen = Vec::new();
    let mut after: Option<String> = None;
    for rows in [3, 3, 1] {
        let listed = shop.store.movements(lamp.inventory, &page(after.as_deref(), 3)).await.expect("a page");
        assert_eq!(listed.rows.len(), rows);
        seen.extend(listed.rows.iter().map(|row| (row.seq, row.units, row.on_hand)));
        after = listed.next;
        // What is new since does not shift the pages.
        shop.receive(&lamp, 50).await;
    }
    assert_eq!(after, None);
    assert_eq!(seen, [(7, 6, 31), (6, 5, 25), (5, 4, 20), (4, 3, 16), (3, 2, 13), (2, 1, 11), (1, 10, 10)]);

    let of_lamp = shop.store.movements(lamp.inventory, &page(None, 1)).await.expect("a page").next.expect("more");
    let answer = shop.store.movements(table.inventory, &page(Some(&of_lamp), 1)).await;
    assert!(matches!(answer, Err(StoreError::InvalidCursor)), "{answer:?}");
    let nobody = shop.store.movements(InventoryId(Uuid::now_v7()), &page(None, 1)).await.expect("a page");
    assert_eq!(nobody, Listed { rows: Vec::new(), next: None });
}

pub(crate) async fn a_history_names_cart_and_order(shop: &Shop) {
    let lamp = shop.stocked("L-1", 10).await;
    let cart = shop.cart(&[(&lamp, 4)]).await;
    let order = shop.check_out(&cart, new_user()).await;
    let listed = shop.store.movements(lamp.inventory, &page(None, 10)).await.expect("a page");
    let [sale, hold, initial] = &listed.rows[..] else { panic!("three rows: {listed:?}") };
    assert_eq!(
        (sale.reason, sale.action, sale.cart, sale.order),
        (Reason::Sale, Action::Out, Some(cart.id), Some(order.id))
    );
    assert_eq!((sale.change.on_hand, sale.change.held, sale.on_hand, sale.held), (-4, -4, 6, 0));
    assert_eq!((hold.reason, hold.cart, hold.order), (Reason::Hold, Some(cart.id), None));
    assert_eq!((hold.change.on_hand, hold.change.held, hold.on_hand, hold.held), (0, 4, 10, 4));
    assert_eq!((initial.reason, initial.action, initial.cart), (Reason::Initial, Action::In, None));
    assert_eq!((initial.actor.as_str(), initial.at, initial.units), ("test", shop.now(), 10));
}
