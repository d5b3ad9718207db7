//! What is kept for a time only.

use std::time::Duration;

use storekeeper::domain::ids::EmailId;
use storekeeper::persistence::clock::Clock;
use storekeeper::persistence::records::{EmailFilter, EmailStatus, NewEmail, Page};
use uuid::Uuid;

use crate::support::{TestShop, until};

const DAY: Duration = Duration::from_secs(24 * 3600);
/// How long a look may take that waits for a sweep.
const PATIENCE: Duration = Duration::from_secs(20);

fn standing_clock() -> Clock {
    Clock::manual(Clock::system().now())
}

/// Keeps mails that nobody sends, each by a message of its own.
async fn keep(shop: &TestShop, count: usize) {
    let mail = |_| NewEmail {
        id: EmailId(Uuid::now_v7()),
        sender: "shop@example.org".to_owned(),
        recipient: "ann@example.org".to_owned(),
        subject: "Hello".to_owned(),
        body: "Text".to_owned(),
        html: None,
        source: "test".to_owned(),
        status: EmailStatus::Captured,
        created_at: shop.clock().now(),
    };
    let mails: Vec<_> = (0..count).map(|number| (Uuid::now_v7().to_string(), mail(number))).collect();
    shop.app.store().keep_mails_once("test", &mails, shop.clock().now()).await.expect("kept");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_kept_for_its_time_goes_while_the_shop_is_open() {
    let shop = TestShop::open_at(standing_clock(), |_| {}).await;
    // More than one look of the sweeper takes away.
    keep(&shop, 700).await;
    shop.clock().advance(30 * DAY + Duration::from_micros(1));
    keep(&shop, 3).await;
    // It looks when it begins, and every ten minutes.
    let shop = shop.restart().await;
    let (of_the_test, page) =
        (EmailFilter { source: Some("test".to_owned()), ..EmailFilter::default() }, Page { after: None, limit: 100 });
    let look = async || {
        let left = shop.app.store().list_emails(&of_the_test, &page).await.expect("a list").rows.len();
        (left == 3).then_some(())
    };
    until("the old mails are gone, and no others", PATIENCE, look).await;
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_is_given_back_for_as_long_as_it_is_kept() {
    let shop = TestShop::open_at(standing_clock(), |config| config.retention.idempotency_keys = 3 * DAY).await;
    let item = shop.api.item("5.00", 6).await;
    let buyer = shop.buyer().await;
    let session = shop.api.cart_with(&item, 6).await;
    let order = shop.api.checkout(&buyer, &session).send().await.expect_status(201).text("id");
    // Done again it would be refused.
    let cancel = || shop.api.cancel(&buyer, &order).key("cancel");
    let first = cancel().send().await.expect_status(200);
    shop.clock().advance(3 * DAY);
    let again = cancel().send().await.expect_status(200);
    assert!(again.is_replayed() && again.body == first.body, "{again:?}");
    shop.clock().advance(Duration::from_micros(1));
    cancel().send().await.expect_refusal(409, "invalid_transition");
    shop.stop().await;
}
