//! Cart sessions and their lines.

use storekeeper::domain::cart::{Cart, CartState, HoldState};
use storekeeper::domain::ids::CartKey;
use storekeeper::domain::timestamp::Timestamp;
use storekeeper::persistence::records::KeptCart;
use uuid::Uuid;

use crate::shop::{Shop, new_user};

async fn kept(shop: &Shop, cart: &Cart) -> KeptCart {
    shop.store.cart(cart.id.key).await.expect("a read").expect("the cart")
}

/// The lines of a cart as they are kept, by quantity and state.
async fn lines(shop: &Shop, cart: &Cart) -> Vec<(i64, HoldState)> {
    kept(shop, cart).await.cart.lines.iter().map(|line| (line.quantity, line.state)).collect()
}

pub(crate) async fn a_cart_shows_its_open_lines(shop: &Shop) {
    let (lamp, table) = (shop.stocked("L-1", 10).await, shop.stocked("T-1", 10).await);
    let cart = shop.cart(&[(&lamp, 1), (&table, 2)]).await;
    assert_eq!(kept(shop, &cart).await, KeptCart { cart: cart.clone(), order: None });
    let cart = shop.set(&cart, &table, 5).await;
    let cart = shop.set(&cart, &lamp, 0).await;
    assert_eq!(kept(shop, &cart).await, KeptCart { cart: cart.clone(), order: None });
    assert_eq!(cart.lines.len(), 1);
    let empty = shop.set(&cart, &table, 0).await;
    assert_eq!(kept(shop, &empty).await, KeptCart { cart: empty, order: None }, "open with nothing in it");
    assert_eq!(shop.store.cart(CartKey(Uuid::now_v7())).await.expect("a read"), None);
}

pub(crate) async fn an_ended_cart_shows_what_ended_with_it(shop: &Shop) {
    let (lamp, table) = (shop.stocked("L-1", 100).await, shop.stocked("T-1", 100).await);
    let ordered = shop.cart(&[(&lamp, 1), (&table, 2)]).await;
    let ordered = shop.set(&ordered, &lamp, 0).await;
    let order = shop.check_out(&ordered, new_user()).await;
    assert_eq!(lines(shop, &ordered).await, [(2, HoldState::Sold)]);
    let after = kept(shop, &ordered).await;
    assert_eq!((after.order, after.cart.state), (Some(order.id), CartState::Ordered));
    assert_eq!(after.cart.version, ordered.version + 1);

    let cleared = shop.cart(&[(&lamp, 3), (&table, 4)]).await;
    shop.end(&cleared, CartState::Cleared).await;
    assert_eq!(lines(shop, &cleared).await, [(3, HoldState::Released), (4, HoldState::Released)]);

    let expired = shop.cart(&[(&table, 6), (&lamp, 5)]).await;
    let expired = shop.set(&expired, &table, 0).await;
    shop.wait(900);
    shop.end(&expired, CartState::Expired).await;
    assert_eq!(lines(shop, &expired).await, [(5, HoldState::Expired)]);
    assert_eq!(kept(shop, &expired).await.order, None);
}

pub(crate) async fn carts_are_due_when_their_time_is_over(shop: &Shop) {
    let lamp = shop.stocked("L-1", 100).await;
    let first = shop.cart(&[(&lamp, 1)]).await;
    let cleared = shop.cart(&[(&lamp, 2)]).await;
    shop.end(&cleared, CartState::Cleared).await;
    shop.wait(60);
    let second = shop.cart(&[(&lamp, 3)]).await;
    let second = shop.set(&second, &lamp, 4).await;
    shop.wait(60);
    let third = shop.cart(&[(&lamp, 5)]).await;

    let first_of_all = (Timestamp(0), CartKey(Uuid::nil()));
    let due = async |limit| shop.store.carts_due(shop.now(), first_of_all, limit).await.expect("a read");
    shop.wait(779);
    assert_eq!(due(10).await, []);
    shop.wait(1);
    assert_eq!(due(10).await, std::slice::from_ref(&first));
    shop.wait(120);
    assert_eq!(due(10).await, [first.clone(), second.clone(), third.clone()]);
    assert_eq!(due(2).await, [first.clone(), second.clone()], "the longest over first, each with its lines");
    let behind =
        async |cart: &Cart| shop.store.carts_due(shop.now(), (cart.expires_at, cart.id.key), 1).await.expect("a read");
    assert_eq!(behind(&first).await, std::slice::from_ref(&second));
    assert_eq!(behind(&second).await, std::slice::from_ref(&third));
    assert_eq!(behind(&third).await, []);
}

pub(crate) async fn many_carts_are_read_at_once(shop: &Shop) {
    let (lamp, table) = (shop.stocked("L-1", 100).await, shop.stocked("T-1", 100).await);
    let open = shop.cart(&[(&lamp, 1), (&table, 2)]).await;
    let cleared = shop.cart(&[(&lamp, 3)]).await;
    shop.end(&cleared, CartState::Cleared).await;
    let other = shop.cart(&[(&lamp, 4)]).await;
    let keys = [open.id.key, CartKey(Uuid::now_v7()), cleared.id.key];
    let mut read = shop.store.carts(&keys).await.expect("a read");
    read.sort_by_key(|cart| cart.id.key);
    assert_eq!(read, [kept(shop, &open).await.cart, kept(shop, &cleared).await.cart]);
    assert!(!read.iter().any(|cart| cart.id == other.id) && read[1].state == CartState::Cleared);
    assert_eq!(shop.store.carts(&[]).await.expect("a read"), []);
}

pub(crate) async fn open_carts_are_read_page_by_page(shop: &Shop) {
    let (lamp, table) = (shop.stocked("L-1", 100).await, shop.stocked("T-1", 100).await);
    let mut open = Vec::new();
    for quantity in 1..=5 {
        open.push(shop.cart(&[(&lamp, quantity), (&table, 1)]).await);
        // Two of them end at the same moment.
        if quantity != 2 {
            shop.wait(1);
        }
    }
    let cleared = shop.cart(&[(&lamp, 3)]).await;
    shop.end(&cleared, CartState::Cleared).await;
    // Changed, the first one ends last.
    let first = open.remove(0);
    open.push(shop.set(&first, &lamp, 9).await);

    let mut read: Vec<Cart> = Vec::new();
    let mut after = (Timestamp(0), CartKey(Uuid::nil()));
    loop {
        let page = shop.store.open_carts(after, 2).await.expect("a read");
        let Some(last) = page.last() else { break };
        assert!(page.len() <= 2);
        after = (last.expires_at, last.id.key);
        read.extend(page);
    }
    assert_eq!(read, open);
}
