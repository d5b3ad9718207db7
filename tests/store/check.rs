//! Sound books pass, and each fault is found by its rule, which names it.

use storekeeper::domain::cart::{Cart, CartState};
use storekeeper::domain::order::OrderStatus;
use storekeeper::domain::timestamp::Timestamp;
use storekeeper::persistence::records::{EmailStatus, Order};

use crate::shop::{Shop, Stocked, new_user, page};

/// What the books of a busy shop have that a fault may name.
struct Busy {
    lamp: Stocked,
    /// Identifiers of the lamp's ledger rows, the oldest first.
    lamp_rows: Vec<String>,
    open: Cart,
    confirmed: Order,
    cancelled: Order,
}

/// A shop in which everything that can happen has happened.
async fn busy(shop: &Shop) -> Busy {
    let (lamp, table) = (shop.stocked("L-1", 100).await, shop.stocked("T-1", 50).await);
    shop.receive(&lamp, 20).await;
    let cart = shop.cart(&[(&lamp, 5), (&table, 6)]).await;
    let cart = shop.set(&cart, &table, 2).await;
    let confirmed = shop.check_out(&cart, new_user()).await;
    shop.first_transition(&confirmed, OrderStatus::Confirmed).await;
    shop.wait(1);
    let cart = shop.cart(&[(&table, 7)]).await;
    let cancelled = shop.check_out(&cart, new_user()).await;
    shop.first_transition(&cancelled, OrderStatus::Cancelled).await;
    shop.wait(1);
    let cart = shop.cart(&[(&table, 1)]).await;
    shop.check_out(&cart, new_user()).await;
    let cart = shop.cart(&[(&lamp, 8), (&table, 9)]).await;
    shop.end(&cart, CartState::Cleared).await;
    let cart = shop.cart(&[(&lamp, 10), (&table, 11)]).await;
    let cart = shop.set(&cart, &lamp, 0).await;
    shop.wait(900);
    shop.end(&cart, CartState::Expired).await;
    let open = shop.cart(&[(&lamp, 3), (&table, 4)]).await;
    let letter = [("m1".to_owned(), shop.mail("ann@example.org", EmailStatus::Captured))];
    shop.store.keep_mails_once("send-email", &letter, shop.now()).await.expect("a mail");

    let history = shop.store.movements(lamp.inventory, &page(None, 100)).await.expect("a page");
    let lamp_rows = history.rows.iter().rev().map(|row| row.id.to_string()).collect();
    Busy { lamp, lamp_rows, open, confirmed, cancelled }
}

/// The rules that are broken and what breaks them. A rule is named by its first words.
async fn broken(shop: &Shop, rules: &[&'static str]) -> Vec<(&'static str, Vec<String>)> {
    let verdicts = shop.store.check().await.expect("verdicts");
    let mut found = Vec::new();
    for verdict in verdicts.into_iter().filter(|verdict| verdict.broken_count > 0) {
        let rule = rules.iter().find(|rule| verdict.rule.starts_with(**rule));
        let rule = rule.unwrap_or_else(|| panic!("another rule is broken: {verdict:?}"));
        assert_eq!(verdict.broken_count, i64::try_from(verdict.broken.len()).expect("few"));
        found.push((*rule, verdict.broken));
    }
    found
}

/// Breaks a busy shop's books and expects that these rules are broken by these, and no others.
async fn expect(shop: &Shop, fault: &'static str, wanted: &[(&'static str, &[String])]) {
    shop.corrupt(fault).await;
    let rules: Vec<&'static str> = wanted.iter().map(|(rule, _)| *rule).collect();
    let mut found = broken(shop, &rules).await;
    found.sort();
    let mut wanted: Vec<(&str, Vec<String>)> = wanted
        .iter()
        .map(|(rule, ids)| {
            let mut ids = ids.to_vec();
            ids.sort();
            (*rule, ids)
        })
        .collect();
    wanted.sort();
    assert_eq!(found, wanted, "{fault}");
}

const BALANCE_RANGE: &str = "in every balance";
const ROW_RANGE: &str = "after every ledger row";
const DEMAND: &str = "what orders have and open carts hold";
const SUMS: &str = "the ledger rows of an inventory sum";
const NUMBERS: &str = "the ledger rows of an inventory are numbered";
const CHAIN: &str = "a ledger row's balance";
const POINTERS: &str = "a ledger row points";
const REASONS: &str = "a ledger row changes";
const HELD: &str = "what an inventory has held";
const STANDING: &str = "a hold stands as its cart does";
const ENDED_ONCE: &str = "a hold has ended once";
const ONE_ORDER: &str = "an ordered cart has one order";
const TOTALS: &str = "an order's total";
const SALES: &str = "what an order sold";
const RESTOCKED: &str = "a cancelled order is back in stock";
const CHANGES: &str = "an order has its changes";
const ONCE: &str = "a change is in the outbox once";

pub(crate) async fn a_balance_out_of_range_is_found(shop: &Shop) {
    let lamp = busy(shop).await.lamp.inventory.to_string();
    let fault = "UPDATE inventories SET held = on_hand + 1 WHERE sku = 'L-1'";
    let lamp = [lamp];
    expect(shop, fault, &[(BALANCE_RANGE, &lamp), (SUMS, &lamp), (HELD, &lamp)]).await;
}

pub(crate) async fn a_row_out_of_range_is_found(shop: &Shop) {
    let rows = busy(shop).await.lamp_rows;
    let fault = "UPDATE movements SET held = on_hand + 1 WHERE seq = 2 \
                 AND inventory_id = (SELECT id FROM inventories WHERE sku = 'L-1')";
    expect(shop, fault, &[(ROW_RANGE, &rows[1..2]), (CHAIN, &rows[1..3])]).await;
}

pub(crate) async fn more_demand_than_supply_is_found(shop: &Shop) {
    let busy = busy(shop).await;
    let fault = "UPDATE holds SET quantity = 1000 WHERE state = 'open' \
                 AND inventory_id = (SELECT id FROM inventories WHERE sku = 'L-1')";
    let (lamp, cart) = ([busy.lamp.inventory.to_string()], [busy.open.id.key.to_string()]);
    expect(shop, fault, &[(DEMAND, &lamp), (HELD, &lamp), (ENDED_ONCE, &cart)]).await;
}

pub(crate) async fn a_balance_beside_its_ledger_is_found(shop: &Shop) {
    let lamp = [busy(shop).await.lamp.inventory.to_string()];
    expect(shop, "UPDATE inventories SET on_hand = on_hand + 1 WHERE sku = 'L-1'", &[(SUMS, &lamp)]).await;
}

pub(crate) async fn a_wrong_last_number_is_found(shop: &Shop) {
    let lamp = [busy(shop).await.lamp.inventory.to_string()];
    expect(shop, "UPDATE inventories SET seq = seq + 1 WHERE sku = 'L-1'", &[(NUMBERS, &lamp)]).await;
}

pub(crate) async fn a_gap_in_the_numbers_is_found(shop: &Shop) {
    let lamp = [busy(shop).await.lamp.inventory.to_string()];
    let fault = "UPDATE movements SET seq = seq + 1 WHERE id = \
                     (SELECT last_movement FROM inventories WHERE sku = 'L-1'); \
                 UPDATE inventories SET seq = seq + 1 WHERE sku = 'L-1'";
    expect(shop, fault, &[(NUMBERS, &lamp)]).await;
}

pub(crate) async fn a_broken_chain_is_found(shop: &Shop) {
    let rows = busy(shop).await.lamp_rows;
    let fault = "UPDATE movements SET on_hand = on_hand + 1 WHERE seq = 4 \
                 AND inventory_id = (SELECT id FROM inventories WHERE sku = 'L-1')";
    expect(shop, fault, &[(CHAIN, &rows[3..5])]).await;
}

pub(crate) async fn a_wrong_pointer_is_found(shop: &Shop) {
    let busy = busy(shop).await;
    let fault = "UPDATE movements SET previous = (SELECT previous FROM movements earlier WHERE earlier.id = \
                     movements.previous) WHERE id = (SELECT last_movement FROM inventories WHERE sku = 'L-1')";
    let last = busy.lamp_rows.last().cloned().expect("rows");
    expect(shop, fault, &[(POINTERS, std::slice::from_ref(&last))]).await;
    let fault = "UPDATE inventories SET last_movement = (SELECT previous FROM movements WHERE id = last_movement) \
                 WHERE sku = 'L-1'";
    expect(shop, fault, &[(POINTERS, &[last, busy.lamp.inventory.to_string()])]).await;
}

pub(crate) async fn a_row_that_does_not_do_what_it_says_is_found(shop: &Shop) {
    let rows = busy(shop).await.lamp_rows;
    let fault = "UPDATE movements SET units = units + 1 WHERE reason = 'receipt'";
    expect(shop, fault, &[(REASONS, &rows[1..2])]).await;
}

pub(crate) async fn a_wrong_sum_held_is_found(shop: &Shop) {
    let lamp = [busy(shop).await.lamp.inventory.to_string()];
    let fault = "UPDATE inventories SET held = held + 1 WHERE sku = 'L-1'";
    expect(shop, fault, &[(SUMS, &lamp), (HELD, &lamp)]).await;
}

pub(crate) async fn an_open_hold_of_an_ended_cart_is_found(shop: &Shop) {
    let cart = busy(shop).await.open.id.key;
    let fault = "UPDATE cart_sessions SET state = 'cleared' WHERE state = 'open'";
    expect(shop, fault, &[(STANDING, &[format!("{cart}/1"), format!("{cart}/2")])]).await;
}

pub(crate) async fn a_hold_that_did_not_end_as_the_ledger_says_is_found(shop: &Shop) {
    let cart = [busy(shop).await.confirmed.cart.key.to_string()];
    let fault = "UPDATE holds SET state = 'released' WHERE cart_key = \
                 (SELECT cart_key FROM orders WHERE status = 'CONFIRMED')";
    expect(shop, fault, &[(ENDED_ONCE, &cart)]).await;
}

pub(crate) async fn a_second_release_is_found(shop: &Shop) {
    let busy = busy(shop).await;
    let fault = "UPDATE movements SET reason = 'hold_released', action = 'IN', units = -held_change, \
                     on_hand_change = 0, held_change = -held_change \
                 WHERE seq = 3 AND inventory_id = (SELECT id FROM inventories WHERE sku = 'L-1')";
    let (lamp, cart) = ([busy.lamp.inventory.to_string()], [busy.confirmed.cart.key.to_string()]);
    let row = &busy.lamp_rows[2..3];
    expect(shop, fault, &[(SUMS, &lamp), (CHAIN, row), (REASONS, row), (ENDED_ONCE, &cart)]).await;
}

pub(crate) async fn an_ordered_cart_without_its_order_is_found(shop: &Shop) {
    let cart = busy(shop).await.open.id.key;
    let fault = "UPDATE cart_sessions SET state = 'ordered' WHERE state = 'open'";
    let lines = [format!("{cart}/1"), format!("{cart}/2")];
    expect(shop, fault, &[(STANDING, &lines), (ONE_ORDER, &[cart.to_string()])]).await;
}

pub(crate) async fn a_wrong_total_is_found(shop: &Shop) {
    let busy = busy(shop).await;
    let fault = "UPDATE orders SET subtotal = subtotal + 1, grand_total = grand_total + 1 WHERE status = 'CONFIRMED'";
    expect(shop, fault, &[(TOTALS, &[busy.confirmed.id.to_string()])]).await;
    let fault = "UPDATE order_items SET price = price + 1 WHERE order_id = \
                 (SELECT id FROM orders WHERE status = 'CANCELLED')";
    expect(shop, fault, &[(TOTALS, &[busy.confirmed.id.to_string(), busy.cancelled.id.to_string()])]).await;
}

pub(crate) async fn a_sale_that_is_not_in_the_ledger_is_found(shop: &Shop) {
    let order = [busy(shop).await.confirmed.id.to_string()];
    let fault = "UPDATE order_items SET quantity = quantity + 1, total = total + price WHERE position = 0 \
                     AND order_id = (SELECT id FROM orders WHERE status = 'CONFIRMED'); \
                 UPDATE orders SET subtotal = subtotal + 1000, grand_total = grand_total + 1000 \
                     WHERE status = 'CONFIRMED'";
    expect(shop, fault, &[(SALES, &order)]).await;
}

pub(crate) async fn a_cancelled_order_that_is_not_back_is_found(shop: &Shop) {
    let busy = busy(shop).await;
    shop.corrupt("UPDATE orders SET status = 'PENDING' WHERE status = 'CANCELLED'").await;
    let fault = "UPDATE orders SET status = 'CANCELLED' WHERE status = 'CONFIRMED'";
    // Others were told something else of both.
    let both = [busy.confirmed.id.to_string(), busy.cancelled.id.to_string()];
    expect(shop, fault, &[(RESTOCKED, &both), (CHANGES, &both)]).await;
}

pub(crate) async fn a_missing_change_is_found(shop: &Shop) {
    let busy = busy(shop).await;
    let (confirmed, cancelled) = (busy.confirmed.id.to_string(), busy.cancelled.id.to_string());
    let fault =
        "DELETE FROM outbox WHERE sequence = 1 AND order_id = (SELECT id FROM orders WHERE status = 'CONFIRMED')";
    expect(shop, fault, &[(CHANGES, std::slice::from_ref(&confirmed))]).await;
    let fault =
        "DELETE FROM outbox WHERE sequence = 2 AND order_id = (SELECT id FROM orders WHERE status = 'CANCELLED')";
    expect(shop, fault, &[(CHANGES, &[confirmed, cancelled])]).await;
}

pub(crate) async fn a_misnumbered_change_is_found(shop: &Shop) {
    let order = [busy(shop).await.cancelled.id.to_string()];
    let fault = "UPDATE outbox SET sequence = 3 WHERE sequence = 2 AND order_id = \
                 (SELECT id FROM orders WHERE status = 'CANCELLED')";
    expect(shop, fault, &[(CHANGES, &order)]).await;
}

pub(crate) async fn a_change_to_another_status_is_found(shop: &Shop) {
    let order = [busy(shop).await.cancelled.id.to_string()];
    let fault = "UPDATE outbox SET to_status = 'SHIPPED' WHERE sequence = 2 AND order_id = \
                 (SELECT id FROM orders WHERE status = 'CANCELLED')";
    expect(shop, fault, &[(CHANGES, &order)]).await;
}

pub(crate) async fn a_change_from_another_status_is_found(shop: &Shop) {
    let order = [busy(shop).await.cancelled.id.to_string()];
    let fault = "UPDATE outbox SET from_status = 'SHIPPED' WHERE sequence = 2 AND order_id = \
                 (SELECT id FROM orders WHERE status = 'CANCELLED')";
    expect(shop, fault, &[(CHANGES, &order)]).await;
}

pub(crate) async fn a_change_of_no_order_is_found(shop: &Shop) {
    let busy = busy(shop).await;
    let fault = "UPDATE outbox SET order_id = (SELECT cart_key FROM orders WHERE status = 'CANCELLED') \
                 WHERE sequence = 2 AND order_id = (SELECT id FROM orders WHERE status = 'CANCELLED')";
    let (order, nobody) = ([busy.cancelled.id.to_string()], [format!("{}/2", busy.cancelled.cart.key)]);
    expect(shop, fault, &[(CHANGES, &order), (ONCE, &nobody)]).await;
}

/// A busy shop whose changes of orders are told, and of which the first three were removed after their time: the confirmed
/// order's two and the placing of the cancelled one.
async fn with_removed_changes(shop: &Shop) -> Busy {
    let busy = busy(shop).await;
    shop.publish_all().await;
    shop.corrupt("UPDATE outbox SET published_at = CASE WHEN position <= 3 THEN 1 ELSE 3 END").await;
    let forgotten = shop.store.forget(&crate::upkeep::events_before(Timestamp(2))).await.expect("removed");
    assert_eq!(forgotten.rows, 3);
    busy
}

pub(crate) async fn removed_changes_are_not_missed(shop: &Shop) {
    with_removed_changes(shop).await;
    expect(shop, "SELECT 1", &[]).await;
}

pub(crate) async fn a_gap_in_what_is_left_of_an_order_is_found(shop: &Shop) {
    let cancelled = [with_removed_changes(shop).await.cancelled.id.to_string()];
    // Its second change goes on being there, and the fourth; the third is not.
    let fault = "UPDATE orders SET sequence = 4 WHERE status = 'CANCELLED'; \
                 INSERT INTO outbox (order_id, sequence, from_status, to_status, at) \
                     SELECT id, 4, 'CONFIRMED', 'CANCELLED', updated_at FROM orders WHERE status = 'CANCELLED'";
    expect(shop, fault, &[(CHANGES, &cancelled)]).await;
}

pub(crate) async fn a_last_change_that_is_not_told_is_found(shop: &Shop) {
    let cancelled = [with_removed_changes(shop).await.cancelled.id.to_string()];
    // From after what was removed: nobody has removed it in order.
    shop.corrupt("UPDATE orders SET updated_at = updated_at + 1 WHERE status = 'CANCELLED'").await;
    let fault = "DELETE FROM outbox WHERE order_id = (SELECT id FROM orders WHERE status = 'CANCELLED')";
    expect(shop, fault, &[(CHANGES, &cancelled)]).await;
}

pub(crate) async fn an_empty_outbox_hides_nothing(shop: &Shop) {
    with_removed_changes(shop).await;
    shop.corrupt("DELETE FROM outbox").await;
    let missed = broken(shop, &[CHANGES]).await;
    assert_eq!(missed.first().map(|(_, orders)| orders.len()), Some(1), "the order from after what was removed");
}

pub(crate) async fn sound_books_pass(shop: &Shop) {
    busy(shop).await;
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
