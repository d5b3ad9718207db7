//! Kept mails.

use std::time::Duration;

use storekeeper::domain::ids::EmailId;
use storekeeper::domain::timestamp::Timestamp;
use storekeeper::persistence::StoreError;
use storekeeper::persistence::records::{Email, EmailFilter, EmailStatus, FailedTry};

use crate::shop::{Shop, page};

async fn kept(shop: &Shop, recipient: &str, status: EmailStatus) -> EmailId {
    let mail = shop.mail(recipient, status);
    shop.store.insert_email(&mail).await.expect("a mail");
    mail.id
}

/// Claims for a minute.
async fn claim(shop: &Shop, limit: u32) -> Vec<Email> {
    let lease_until = shop.now().plus(Duration::from_secs(60));
    shop.store.claim_emails(shop.now(), lease_until, limit).await.expect("a claim")
}

fn ids(mails: &[Email]) -> Vec<EmailId> {
    mails.iter().map(|kept| kept.mail.id).collect()
}

async fn only(shop: &Shop) -> Email {
    let mut listed = shop.store.list_emails(&EmailFilter::default(), &page(None, 2)).await.expect("a list");
    assert_eq!(listed.rows.len(), 1);
    listed.rows.remove(0)
}

pub(crate) async fn mails_are_listed_newest_first(shop: &Shop) {
    let whole = shop.mail("ann@example.org", EmailStatus::Captured);
    shop.store.insert_email(&whole).await.expect("a mail");
    let wanted = Email { mail: whole.clone(), attempts: 0, unanswered: 0, last_error: None, sent_at: None };
    assert_eq!(only(shop).await, wanted);

    let queued = kept(shop, "bob@example.org", EmailStatus::Queued).await;
    let last = kept(shop, "ann@example.org", EmailStatus::Queued).await;
    let list = async |filter: EmailFilter| {
        let mut found = Vec::new();
        let mut after = None;
        loop {
            let listed = shop.store.list_emails(&filter, &page(after.as_deref(), 1)).await.expect("a page");
            found.extend(ids(&listed.rows));
            after = listed.next;
            if after.is_none() {
                return found;
            }
        }
    };
    assert_eq!(list(EmailFilter::default()).await, [last, queued, whole.id]);
    let to_ann = EmailFilter { recipient: Some("ann@example.org".to_owned()), ..EmailFilter::default() };
    assert_eq!(list(to_ann.clone()).await, [last, whole.id]);
    assert_eq!(list(EmailFilter { status: Some(EmailStatus::Queued), ..to_ann }).await, [last]);
    assert_eq!(list(EmailFilter { source: Some("auth".to_owned()), ..EmailFilter::default() }).await.len(), 3);
    assert_eq!(list(EmailFilter { source: Some("orders".to_owned()), ..EmailFilter::default() }).await, []);
    let answer = shop.store.list_emails(&EmailFilter::default(), &page(Some("x"), 1)).await;
    assert!(matches!(answer, Err(StoreError::InvalidCursor)), "{answer:?}");
}

pub(crate) async fn a_due_mail_is_claimed_by_one(shop: &Shop) {
    kept(shop, "captured@example.org", EmailStatus::Captured).await;
    assert_eq!(claim(shop, 10).await, []);
    let first = kept(shop, "a@example.org", EmailStatus::Queued).await;
    let second = kept(shop, "b@example.org", EmailStatus::Queued).await;
    let third = kept(shop, "c@example.org", EmailStatus::Queued).await;
    let claimed = claim(shop, 2).await;
    assert_eq!(ids(&claimed), [first, second]);
    assert_eq!(claimed[0].attempts, 1);
    assert_eq!(ids(&claim(shop, 2).await), [third]);
    assert_eq!(claim(shop, 2).await, []);
    shop.wait(60);
    let again = claim(shop, 10).await;
    assert_eq!(ids(&again), [first, second, third], "a claim that was not kept ends");
    assert_eq!(again[2].attempts, 2);
}

/// A try that failed and left nothing open.
fn failed(attempt: i64, error: &str, retry_at: Option<Timestamp>) -> FailedTry {
    FailedTry { attempt, error: error.to_owned(), retry_at, unanswered: 0 }
}

pub(crate) async fn a_mail_is_tried_until_it_is_given_up(shop: &Shop) {
    let id = kept(shop, "a@example.org", EmailStatus::Queued).await;
    claim(shop, 1).await;
    let retry_at = shop.now().plus(Duration::from_secs(5));
    shop.store.email_failed(id, &failed(1, "refused", Some(retry_at))).await.expect("a mark");
    let waiting = only(shop).await;
    assert_eq!((waiting.mail.status, waiting.last_error.as_deref()), (EmailStatus::Queued, Some("refused")));
    shop.wait(4);
    assert_eq!(claim(shop, 1).await, []);
    shop.wait(1);
    assert_eq!(ids(&claim(shop, 1).await), [id]);
    shop.store.email_failed(id, &failed(1, "late", None)).await.expect("no mark");
    assert_eq!(only(shop).await.mail.status, EmailStatus::Queued, "an older try has no say");
    shop.store.email_done(id, false, shop.now()).await.expect("a mark");
    let sent = only(shop).await;
    assert_eq!((sent.mail.status, sent.attempts, sent.sent_at), (EmailStatus::Sent, 2, Some(shop.now())));
    shop.store.email_failed(id, &failed(2, "late", None)).await.expect("no mark");
    assert_eq!(only(shop).await, sent, "what is sent stays sent");

    let given_up = kept(shop, "b@example.org", EmailStatus::Queued).await;
    claim(shop, 1).await;
    shop.store.email_failed(given_up, &failed(1, "no such user", None)).await.expect("a mark");
    let captured = kept(shop, "c@example.org", EmailStatus::Queued).await;
    shop.store.email_done(captured, true, shop.now()).await.expect("a mark");
    shop.wait(3600);
    assert_eq!(claim(shop, 10).await, []);
    let listed = shop.store.list_emails(&EmailFilter::default(), &page(None, 2)).await.expect("a list");
    let states: Vec<_> = listed.rows.iter().map(|kept| (kept.mail.status, kept.sent_at)).collect();
    assert_eq!(states, [(EmailStatus::Captured, None), (EmailStatus::Failed, None)]);
    shop.store.email_done(given_up, false, shop.now()).await.expect("a mark");
    let listed = shop.store.list_emails(&EmailFilter::default(), &page(None, 2)).await.expect("a list");
    assert_eq!(listed.rows[1].mail.status, EmailStatus::Sent, "what a server took after all is sent");
}

pub(crate) async fn what_is_handed_over_is_unanswered_until_it_is_answered(shop: &Shop) {
    let id = kept(shop, "a@example.org", EmailStatus::Queued).await;
    let hand_over = async |attempt| {
        let lease_until = shop.now().plus(Duration::from_secs(120));
        shop.store.email_handed_over(id, attempt, lease_until).await.expect("a mark")
    };
    assert!(!hand_over(1).await, "nobody has claimed it");
    claim(shop, 1).await;
    assert!(hand_over(1).await);
    assert_eq!(only(shop).await.unanswered, 1);
    shop.wait(119);
    assert_eq!(claim(shop, 1).await, [], "the claim lasts longer now");
    shop.wait(1);
    assert_eq!(claim(shop, 1).await[0].unanswered, 1, "whoever follows knows of it");
    assert!(!hand_over(1).await, "the older try has lost it");
    assert!(hand_over(2).await);
    let answered = FailedTry { unanswered: 1, ..failed(2, "451 later", Some(shop.now())) };
    shop.store.email_failed(id, &answered).await.expect("a mark");
    assert_eq!(only(shop).await.unanswered, 1, "the second time was answered, the first was not");
}
