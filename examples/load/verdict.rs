//! After a load: what the server says of its books.

use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use serde_json::Value;

use crate::api::{Api, Item};
use crate::scenarios::People;
use crate::server::Server;

/// Products whose ledger is read here, the most wanted ones; `storekeeper check` reads all.
const LEDGERS: usize = 5;
/// Rows of a page.
const PAGE: usize = 100;

/// Asks for the verdict, prints it, and stops a server of our own; whether all is right.
pub(crate) async fn of(api: &Api, people: &People, mut server: Server) -> bool {
    let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
    let (orders, units) = (count(&people.orders), count(&people.units));
    println!("\nverdict");
    if let Some(memory) = server.memory_kb() {
        println!("        the server has {} MiB", memory / 1_024);
    }
    println!(
        "        {orders} orders of {units} units were acknowledged, {} times was sold out",
        count(&people.sold_out)
    );
    let (mut sold, mut held, mut oversold) = (0, 0, 0);
    for item in &people.items {
        let level = api.get(&format!("/inventories/{}", item.inventory)).await;
        let (on_hand, now_held) = (number(&level, "onHand"), number(&level, "held"));
        sold += item.stock - on_hand;
        held += now_held;
        oversold += u64::from(on_hand < 0 || now_held < 0 || now_held > on_hand);
    }
    let stock: i64 = people.items.iter().map(|item| item.stock).sum();
    let mut right = tell(oversold == 0 && sold + held <= stock, &format!("{sold} sold and {held} held of {stock}"));
    let acknowledged = i64::try_from(units).unwrap_or(i64::MAX);
    right &= tell(acknowledged <= sold, &format!("{sold} sold, and no fewer than the {acknowledged} acknowledged"));
    let mut rows = 0;
    for item in people.items.iter().take(LEDGERS) {
        match ledger(api, item).await {
            Ok(read) => rows += read,
            Err(fault) => right &= tell(false, &fault),
        }
    }
    right &= tell(rows > 0, &format!("{rows} rows of the ledger, each beginning where the one before ended"));
    let faults = people.faults.lock().unwrap_or_else(PoisonError::into_inner).clone();
    right &= tell(faults.is_empty(), &format!("answers that no shop should give: {faults:?}"));
    if let Some(stopped) = server.stop() {
        right &= tell(stopped, "the server stops in order");
    }
    match server.check() {
        Some(checked) => right &= tell(checked, "storekeeper check"),
        None => println!("  -     storekeeper check was not asked: neither DATABASE_URL nor DATA_DIR is set"),
    }
    right
}

fn tell(right: bool, what: &str) -> bool {
    println!("  {}  {what}", if right { "ok  " } else { "BAD " });
    right
}

/// Reads the ledger of a product from the newest row to the first; gives how many there are.
async fn ledger(api: &Api, item: &Item) -> Result<usize, String> {
    let path = format!("/inventories/{}/details?limit={PAGE}", item.inventory);
    let (mut rows, mut after, mut cursor) = (0, None::<(i64, i64)>, String::new());
    loop {
        let page = api.get(&format!("{path}{cursor}")).await;
        for row in page["histories"]["data"].as_array().expect("a list") {
            let (seq, quantity) = (number(row, "seq"), number(row, "newQuantity"));
            if after.is_some_and(|after| after != (seq + 1, quantity)) {
                return Err(format!("the ledger of {} is broken after row {seq}", item.inventory));
            }
            after = Some((seq, number(row, "lastQuantity")));
            rows += 1;
        }
        match page["histories"]["nextCursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None if after == Some((1, 0)) => return Ok(rows),
            None => return Err(format!("the ledger of {} does not begin with nothing", item.inventory)),
        }
    }
}

fn number(document: &Value, member: &str) -> i64 {
    document[member].as_i64().unwrap_or_else(|| panic!("no number {member} in {document}"))
}
