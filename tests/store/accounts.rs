//! Accounts, codes, refresh tokens and profiles.

use storekeeper::domain::ids::{ProfileId, UserId};
use storekeeper::domain::timestamp::Timestamp;
use storekeeper::domain::user::{AccountStatus, EmailAddress, Role};
use storekeeper::persistence::StoreError;
use storekeeper::persistence::records::{
    Account, CodePurpose, CodeTry, EmailFilter, EmailStatus, LoginTry, NewCode, NewRefreshToken, Profile, ProfilePatch,
};
use uuid::Uuid;

use crate::shop::{Shop, new_user, page};

const RIGHT: [u8; 32] = [1; 32];
const WRONG: [u8; 32] = [2; 32];

fn account(shop: &Shop, email: &str, role: Role) -> (Account, Profile) {
    let account = Account {
        id: new_user(),
        email: EmailAddress::parse(email).expect("an address"),
        name: "Ann Lee".to_owned(),
        role,
        status: AccountStatus::Active,
        verified: false,
        password_hash: "$argon2id$1".to_owned(),
        created_at: shop.now(),
    };
    let profile = Profile {
        id: ProfileId(Uuid::now_v7()),
        user: account.id,
        email: email.to_owned(),
        name: account.name.clone(),
        address: Some("Elm Street 1".to_owned()),
        phone: None,
        created_at: shop.now(),
        updated_at: shop.now(),
    };
    (account, profile)
}

async fn registered(shop: &Shop, email: &str, role: Role) -> UserId {
    let (account, profile) = account(shop, email, role);
    shop.store.register(&account, &profile, None).await.expect("a new account");
    account.id
}

fn code(shop: &Shop, user: UserId, purpose: CodePurpose, hash: [u8; 32]) -> NewCode {
    NewCode { user, purpose, hash, expires_at: Timestamp(shop.now().0 + 60_000_000) }
}

async fn with_code(shop: &Shop, purpose: CodePurpose) -> UserId {
    let user = registered(shop, "ann@example.org", Role::User).await;
    let mail = shop.mail("ann@example.org", EmailStatus::Queued);
    shop.store.put_code(&code(shop, user, purpose, RIGHT), &mail).await.expect("a code");
    user
}

fn token(shop: &Shop, hash: u8, user: UserId) -> NewRefreshToken {
    let family = Uuid::now_v7();
    let expires_at = Timestamp(shop.now().0 + 60_000_000);
    NewRefreshToken { hash: [hash; 32], family, user, created_at: shop.now(), expires_at }
}

/// Exchanges a token for the one of the next hash.
async fn rotate(shop: &Shop, hash: u8, successor: u8) -> Option<UserId> {
    let expires_at = Timestamp(shop.now().0 + 60_000_000);
    shop.store.rotate_refresh_token(&[hash; 32], &[successor; 32], shop.now(), expires_at).await.expect("an answer")
}

fn refused_by(answer: Result<impl std::fmt::Debug, StoreError>) -> String {
    match answer {
        Err(StoreError::Constraint(rule)) => rule,
        other => panic!("not refused by a rule: {other:?}"),
    }
}

pub(crate) async fn an_account_is_made_whole_or_not_at_all(shop: &Shop) {
    let (first, profile) = account(shop, "ann@example.org", Role::User);
    let mail = shop.mail("ann@example.org", EmailStatus::Queued);
    let first_code = code(shop, first.id, CodePurpose::VerifyEmail, RIGHT);
    shop.store.register(&first, &profile, Some((&first_code, &mail))).await.expect("a new account");

    let (second, second_profile) = account(shop, "Ann@example.org", Role::Admin);
    let second_mail = shop.mail("ann@example.org", EmailStatus::Queued);
    let second_code = code(shop, second.id, CodePurpose::VerifyEmail, RIGHT);
    let answer = shop.store.register(&second, &second_profile, Some((&second_code, &second_mail))).await;
    assert_eq!(refused_by(answer), "users_email_unique");

    assert!(shop.store.account(second.id).await.expect("a read").is_none());
    assert!(shop.store.profile_of(second.id).await.expect("a read").is_none());
    let mails = shop.store.list_emails(&EmailFilter::default(), &page(None, 10)).await.expect("a list");
    assert_eq!(mails.rows.iter().map(|kept| kept.mail.id).collect::<Vec<_>>(), [mail.id]);
    assert!(!shop.store.has_admin().await.expect("a read"));
}

pub(crate) async fn accounts_are_found_by_address_and_id(shop: &Shop) {
    let (admin, profile) = account(shop, "root@example.org", Role::Admin);
    shop.store.register(&admin, &profile, None).await.expect("a new account");
    let by_id = shop.store.account(admin.id).await.expect("a read").expect("the account");
    let by_address = shop.store.account_by_email(&admin.email).await.expect("a read").expect("the account");
    for kept in [by_id, by_address] {
        assert_eq!((kept.id, kept.email, kept.name), (admin.id, admin.email.clone(), admin.name.clone()));
        assert_eq!((kept.role, kept.status, kept.verified), (Role::Admin, AccountStatus::Active, false));
        assert_eq!((kept.password_hash, kept.created_at), (admin.password_hash.clone(), admin.created_at));
    }
    assert!(shop.store.has_admin().await.expect("a read"));
    assert!(shop.store.account(new_user()).await.expect("a read").is_none());
    assert_eq!(shop.store.profile_of(admin.id).await.expect("a read"), Some(profile.clone()));
    assert_eq!(shop.store.profile(profile.id).await.expect("a read"), Some(profile));
}

pub(crate) async fn the_right_code_works_once(shop: &Shop) {
    let user = with_code(shop, CodePurpose::VerifyEmail).await;
    let other_purpose = shop.store.reset_password(user, &RIGHT, "new", shop.now()).await.expect("an answer");
    assert_eq!(other_purpose, CodeTry::Refused, "a code is good for one purpose");
    assert_eq!(shop.store.verify_email(user, &WRONG, shop.now()).await.expect("an answer"), CodeTry::Refused);
    assert!(!shop.store.account(user).await.expect("a read").expect("the account").verified);
    assert_eq!(shop.store.verify_email(user, &RIGHT, shop.now()).await.expect("an answer"), CodeTry::Accepted);
    assert!(shop.store.account(user).await.expect("a read").expect("the account").verified);
    assert_eq!(shop.store.verify_email(user, &RIGHT, shop.now()).await.expect("an answer"), CodeTry::Refused);
}

pub(crate) async fn a_code_dies_of_wrong_tries_and_of_age(shop: &Shop) {
    let user = with_code(shop, CodePurpose::VerifyEmail).await;
    for _ in 0..5 {
        assert_eq!(shop.store.verify_email(user, &WRONG, shop.now()).await.expect("an answer"), CodeTry::Refused);
    }
    assert_eq!(shop.store.verify_email(user, &RIGHT, shop.now()).await.expect("an answer"), CodeTry::Refused);

    let mail = shop.mail("ann@example.org", EmailStatus::Queued);
    shop.store.put_code(&code(shop, user, CodePurpose::VerifyEmail, RIGHT), &mail).await.expect("a code");
    for _ in 0..4 {
        assert_eq!(shop.store.verify_email(user, &WRONG, shop.now()).await.expect("an answer"), CodeTry::Refused);
    }
    shop.wait(60);
    assert_eq!(shop.store.verify_email(user, &RIGHT, shop.now()).await.expect("an answer"), CodeTry::Refused);
    let in_time = Timestamp(shop.now().0 - 1);
    assert_eq!(shop.store.verify_email(user, &RIGHT, in_time).await.expect("an answer"), CodeTry::Accepted);
}

pub(crate) async fn a_new_code_replaces_the_old_one(shop: &Shop) {
    let user = with_code(shop, CodePurpose::VerifyEmail).await;
    let mail = shop.mail("ann@example.org", EmailStatus::Queued);
    shop.store.put_code(&code(shop, user, CodePurpose::VerifyEmail, [9; 32]), &mail).await.expect("a code");
    assert_eq!(shop.store.verify_email(user, &RIGHT, shop.now()).await.expect("an answer"), CodeTry::Refused);
    assert_eq!(shop.store.verify_email(user, &[9; 32], shop.now()).await.expect("an answer"), CodeTry::Accepted);
}

pub(crate) async fn a_new_password_ends_the_refresh_tokens(shop: &Shop) {
    let user = with_code(shop, CodePurpose::ResetPassword).await;
    let other = registered(shop, "bob@example.org", Role::User).await;
    shop.store.insert_refresh_token(&token(shop, 1, user)).await.expect("a token");
    shop.store.insert_refresh_token(&token(shop, 5, other)).await.expect("a token");
    let answer = shop.store.reset_password(user, &RIGHT, "$argon2id$2", shop.now()).await.expect("an answer");
    assert_eq!(answer, CodeTry::Accepted);
    let kept = shop.store.account(user).await.expect("a read").expect("the account");
    assert_eq!(kept.password_hash, "$argon2id$2");
    assert_eq!(rotate(shop, 1, 2).await, None);
    assert_eq!(rotate(shop, 5, 6).await, Some(other), "another user's token lives");
}

pub(crate) async fn a_refresh_token_is_spent_for_its_successor(shop: &Shop) {
    let user = registered(shop, "ann@example.org", Role::User).await;
    shop.store.insert_refresh_token(&token(shop, 1, user)).await.expect("a token");
    assert_eq!(rotate(shop, 1, 2).await, Some(user));
    assert_eq!(rotate(shop, 2, 3).await, Some(user));
    assert_eq!(rotate(shop, 8, 9).await, None, "nobody made that one");
}

pub(crate) async fn a_refresh_token_used_twice_ends_its_family(shop: &Shop) {
    let user = registered(shop, "ann@example.org", Role::User).await;
    shop.store.insert_refresh_token(&token(shop, 1, user)).await.expect("a token");
    shop.store.insert_refresh_token(&token(shop, 11, user)).await.expect("a token of another sign-in");
    assert_eq!(rotate(shop, 1, 2).await, Some(user));
    assert_eq!(rotate(shop, 1, 3).await, None, "spent before");
    assert_eq!(rotate(shop, 2, 4).await, None, "its successor has ended with it");
    assert_eq!(rotate(shop, 3, 5).await, None, "nothing came of the second use");
    assert_eq!(rotate(shop, 11, 12).await, Some(user), "another family lives");
}

pub(crate) async fn an_ended_or_old_refresh_token_is_refused(shop: &Shop) {
    let user = registered(shop, "ann@example.org", Role::User).await;
    shop.store.insert_refresh_token(&token(shop, 1, user)).await.expect("a token");
    shop.store.insert_refresh_token(&token(shop, 11, user)).await.expect("a token");
    assert_eq!(rotate(shop, 1, 2).await, Some(user));
    shop.store.end_refresh_family(&[1; 32]).await.expect("an end");
    assert_eq!(rotate(shop, 2, 3).await, None, "the family has ended");
    shop.store.end_refresh_family(&[99; 32]).await.expect("nothing to end");
    shop.wait(60);
    assert_eq!(rotate(shop, 11, 12).await, None, "its time is over");
}

pub(crate) async fn the_last_active_admin_stays(shop: &Shop) {
    let ann = registered(shop, "ann@example.org", Role::Admin).await;
    let bob = registered(shop, "bob@example.org", Role::User).await;
    assert_eq!(refused_by(shop.store.set_role(ann, Role::User).await), "last_admin");
    assert_eq!(refused_by(shop.store.set_account_status(ann, AccountStatus::Suspended).await), "last_admin");
    let raised = shop.store.set_role(bob, Role::Admin).await.expect("an answer").expect("the account");
    assert_eq!(raised.role, Role::Admin);
    let suspended = shop.store.set_account_status(bob, AccountStatus::Suspended).await.expect("an answer");
    assert_eq!(suspended.expect("the account").status, AccountStatus::Suspended);
    assert_eq!(refused_by(shop.store.set_role(ann, Role::User).await), "last_admin", "the other one is suspended");
    shop.store.set_account_status(bob, AccountStatus::Active).await.expect("an answer");
    let lowered = shop.store.set_role(ann, Role::User).await.expect("an answer").expect("the account");
    assert_eq!(lowered.role, Role::User);
    assert_eq!(shop.store.account(ann).await.expect("a read").expect("the account").role, Role::User);
    assert!(shop.store.set_role(new_user(), Role::User).await.expect("an answer").is_none());
    assert!(shop.store.set_account_status(new_user(), AccountStatus::Active).await.expect("an answer").is_none());
}

pub(crate) async fn a_suspended_user_loses_the_refresh_tokens(shop: &Shop) {
    let user = registered(shop, "ann@example.org", Role::User).await;
    shop.store.insert_refresh_token(&token(shop, 1, user)).await.expect("a token");
    shop.store.set_account_status(user, AccountStatus::Suspended).await.expect("an answer");
    shop.store.set_account_status(user, AccountStatus::Active).await.expect("an answer");
    assert_eq!(rotate(shop, 1, 2).await, None);
}

pub(crate) async fn a_profile_changes_what_it_is_told_to(shop: &Shop) {
    let (_, profile) = account(shop, "ann@example.org", Role::User);
    shop.store.insert_profile(&profile).await.expect("a profile");
    let again = Profile { id: ProfileId(Uuid::now_v7()), ..profile.clone() };
    assert_eq!(refused_by(shop.store.insert_profile(&again).await), "profiles_user_unique");

    shop.wait(1);
    let patch = ProfilePatch { name: Some("Ann Kay".to_owned()), address: Some(None), phone: None };
    let patched = shop.store.patch_profile(profile.id, &patch, shop.now()).await.expect("an answer");
    let wanted =
        Profile { name: "Ann Kay".to_owned(), address: None, phone: None, updated_at: shop.now(), ..profile.clone() };
    assert_eq!(patched, Some(wanted.clone()));
    let patch = ProfilePatch { name: None, address: None, phone: Some(Some("+1 555".to_owned())) };
    shop.store.patch_profile(profile.id, &patch, shop.now()).await.expect("an answer");
    let wanted = Profile { phone: Some("+1 555".to_owned()), ..wanted };
    assert_eq!(shop.store.profile(profile.id).await.expect("a read"), Some(wanted));
    let nobody = ProfileId(Uuid::now_v7());
    assert_eq!(shop.store.patch_profile(nobody, &patch, shop.now()).await.expect("an answer"), None);
}

pub(crate) async fn the_first_secret_stays(shop: &Shop) {
    assert_eq!(shop.store.secret("token key", [1; 32]).await.expect("a secret"), [1; 32]);
    assert_eq!(shop.store.secret("token key", [2; 32]).await.expect("a secret"), [1; 32]);
    assert_eq!(shop.store.secret("fingerprints", [3; 32]).await.expect("a secret"), [3; 32]);
}

pub(crate) async fn a_login_is_kept(shop: &Shop) {
    let login = LoginTry {
        email: "ann@example.org".to_owned(),
        user: None,
        outcome: "invalid_credentials",
        address: "192.0.2.1".to_owned(),
        user_agent: None,
        at: shop.now(),
    };
    shop.store.record_login(&login).await.expect("a login");
    assert_eq!(shop.number("SELECT count(*) FROM logins WHERE email = 'ann@example.org' AND user_id IS NULL").await, 1);
}
