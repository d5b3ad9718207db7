//! `/auth`: accounts, codes by mail, and tokens.
//!
//! Whether an address has an account is told by registering alone: a wrong sign-in takes as long and says the same
//! without one, and requests for codes are always accepted.

use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::http::header;
use actix_web::{HttpRequest, HttpResponse, web};
use serde::Serialize;
use uuid::Uuid;

use crate::actors::command::AppliedOutcome;
use crate::domain::ids::{EmailId, ProfileId, UserId};
use crate::domain::timestamp::Timestamp;
use crate::domain::user::{AccountStatus, EmailAddress, Role};
use crate::messaging::mail::MailText;
use crate::persistence::records::{
    Account, CodePurpose, CodeTry, LoginTry, NewCode, NewEmail, NewRefreshToken, Profile,
};

use super::Answer;
use super::body::Body;
use super::caller::{Caller, bad_token};
use super::json::{self, Message};
use super::problem::{Code, Problem};
use super::rules::{Email, Secret};
use super::secrets::{mailed_code, refresh_token};
use super::state::{AppState, State};
use super::users::NAME;

/// How long a mailed code is good.
const CODE_LIFE: Duration = Duration::from_secs(24 * 3600);
/// The part of the shop that these mails come from.
const MAIL_SOURCE: &str = "auth";
/// Characters of a client's name that are kept.
const USER_AGENT_CHARACTERS_MAX: usize = 255;

const NEW_PASSWORD: Secret = Secret(8, 128);
const PASSWORD: Secret = Secret(1, 128);
const CODE: Secret = Secret(1, 64);
const TOKEN: Secret = Secret(1, 4096);

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct WithUser<'a> {
    message: &'static str,
    user: UserDocument<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct UserDocument<'a> {
    id: UserId,
    email: &'a str,
    name: &'a str,
    role: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    verified: Option<bool>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SignedIn {
    access_token: String,
    refresh_token: String,
    token_type: &'static str,
    /// Seconds.
    expires_in: u64,
}

/// `POST /auth/register`: makes an account and its profile, and mails a verification code.
pub(crate) async fn register(state: State, request: HttpRequest, payload: web::Payload) -> Answer {
    let body = Body::read(&request, payload).await?;
    let mut fields = body.fields()?;
    let read =
        (fields.required("email", Email), fields.required("password", NEW_PASSWORD), fields.required("name", NAME));
    let (email, password, name) = fields.finish(read)?;
    // Looked up first, to save the hash; a race is decided by the store.
    let taken = email.clone();
    if state.read(|store| async move { store.account_by_email(&taken).await }).await?.is_some() {
        return Err(Problem::new(Code::EmailTaken, "there is an account with this e-mail address"));
    }
    let password_hash = state.passwords.hash(password).await?;
    let now = state.clock.now();
    let account = Account {
        id: UserId(Uuid::now_v7()),
        email,
        name,
        role: Role::User,
        status: AccountStatus::Active,
        verified: false,
        password_hash,
        created_at: now,
    };
    let document = WithUser {
        message: "Registered. A code to verify the e-mail address has been mailed",
        user: UserDocument {
            id: account.id,
            email: account.email.as_str(),
            name: &account.name,
            role: account.role.name(),
            status: Some(account.status.name()),
            verified: Some(account.verified),
        },
    };
    let answer = json::json(StatusCode::CREATED, &document);
    let profile = profile_of(&account);
    let (code, mail) = code_by_mail(&state, &account, CodePurpose::VerifyEmail, now)?;
    state.write(|store| async move { store.register(&account, &profile, Some((&code, &mail))).await }).await?;
    state.shop.mail_queued();
    Ok(answer)
}

fn profile_of(account: &Account) -> Profile {
    Profile {
        id: ProfileId(Uuid::now_v7()),
        user: account.id,
        email: account.email.to_string(),
        name: account.name.clone(),
        address: None,
        phone: None,
        created_at: account.created_at,
        updated_at: account.created_at,
    }
}

/// A new code for an account, and the mail that carries it.
fn code_by_mail(
    state: &AppState,
    account: &Account,
    purpose: CodePurpose,
    now: Timestamp,
) -> Result<(NewCode, NewEmail), Problem> {
    let code = mailed_code().map_err(|error| failed(&error, "a code could not be made"))?;
    let text = match purpose {
        CodePurpose::VerifyEmail => state.templates.verification(&account.name, &code),
        CodePurpose::ResetPassword => state.templates.password_reset(&account.name, &code),
    };
    let MailText { subject, text, html } = text.map_err(|error| failed(&error, "a mail could not be written"))?;
    let mail = NewEmail {
        id: EmailId(Uuid::now_v7()),
        sender: state.settings.mail_sender.clone(),
        recipient: account.email.to_string(),
        subject,
        body: text,
        html: Some(html),
        source: MAIL_SOURCE.to_owned(),
        status: state.new_mail_status(),
        created_at: now,
    };
    let hash = code_hash(state, account.id, purpose, &code);
    Ok((NewCode { user: account.id, purpose, hash, expires_at: now.plus(CODE_LIFE) }, mail))
}

fn failed(error: &(dyn std::error::Error + 'static), what: &'static str) -> Problem {
    tracing::error!(error, "{what}");
    Problem::internal(AppliedOutcome::No)
}

fn code_hash(state: &AppState, user: UserId, purpose: CodePurpose, code: &str) -> [u8; 32] {
    state.codes.of(&[user.0.as_bytes(), purpose.name().as_bytes(), code.as_bytes()])
}

async fn account_of(state: &AppState, email: EmailAddress) -> Result<Option<Account>, Problem> {
    state.read(|store| async move { store.account_by_email(&email).await }).await
}

fn invalid_code() -> Problem {
    Problem::new(Code::MailedCodeWrong, "the code is wrong, used, or its time is over; ask for a new one")
}

/// `POST /auth/verify-email`: confirms an address by the mailed code.
pub(crate) async fn verify_email(state: State, request: HttpRequest, payload: web::Payload) -> Answer {
    let body = Body::read(&request, payload).await?;
    let mut fields = body.fields()?;
    let read = (fields.required("email", Email), fields.required("code", CODE));
    let (email, code) = fields.finish(read)?;
    let account = account_of(&state, email).await?.ok_or_else(invalid_code)?;
    let hash = code_hash(&state, account.id, CodePurpose::VerifyEmail, &code);
    let now = state.clock.now();
    match state.write(|store| async move { store.verify_email(account.id, &hash, now).await }).await? {
        CodeTry::Accepted => Ok(json::ok(&Message { message: "The e-mail address is verified" })),
        CodeTry::Refused => Err(invalid_code()),
    }
}

/// `POST /auth/resend-verification`: mails a new code to an account that is not verified. Always accepted.
pub(crate) async fn resend_verification(state: State, request: HttpRequest, payload: web::Payload) -> Answer {
    let wants_one = |account: &Account| !account.verified;
    send_code(&state, &request, payload, CodePurpose::VerifyEmail, wants_one).await
}

/// `POST /auth/forgot-password`: mails a code to set a new password. Always accepted.
pub(crate) async fn forgot_password(state: State, request: HttpRequest, payload: web::Payload) -> Answer {
    let wants_one = |account: &Account| account.status == AccountStatus::Active;
    send_code(&state, &request, payload, CodePurpose::ResetPassword, wants_one).await
}

async fn send_code(
    state: &State,
    request: &HttpRequest,
    payload: web::Payload,
    purpose: CodePurpose,
    wants_one: fn(&Account) -> bool,
) -> Answer {
    let body = Body::read(request, payload).await?;
    let mut fields = body.fields()?;
    let email = fields.required("email", Email);
    let email = fields.finish(email)?;
    if let Some(account) = account_of(state, email).await?.filter(wants_one) {
        let (code, mail) = code_by_mail(state, &account, purpose, state.clock.now())?;
        state.write(|store| async move { store.put_code(&code, &mail).await }).await?;
        state.shop.mail_queued();
    }
    let message = "If there is such an account and it needs one, a code has been mailed";
    Ok(json::json(StatusCode::ACCEPTED, &Message { message }))
}

/// `POST /auth/reset-password`: sets a password by the mailed code, and ends all refresh tokens of the user.
pub(crate) async fn reset_password(state: State, request: HttpRequest, payload: web::Payload) -> Answer {
    let body = Body::read(&request, payload).await?;
    let mut fields = body.fields()?;
    let read =
        (fields.required("email", Email), fields.required("code", CODE), fields.required("password", NEW_PASSWORD));
    let (email, code, password) = fields.finish(read)?;
    let account = account_of(&state, email).await?;
    // Hashed for nobody too, so that both cases take the same time.
    let password_hash = state.passwords.hash(password).await?;
    let user = account.ok_or_else(invalid_code)?.id;
    let hash = code_hash(&state, user, CodePurpose::ResetPassword, &code);
    let now = state.clock.now();
    let reset = state.write(|store| async move { store.reset_password(user, &hash, &password_hash, now).await });
    match reset.await? {
        CodeTry::Accepted => Ok(json::ok(&Message { message: "The password is set" })),
        CodeTry::Refused => Err(invalid_code()),
    }
}

/// `POST /auth/login`.
pub(crate) async fn login(state: State, request: HttpRequest, payload: web::Payload) -> Answer {
    let body = Body::read(&request, payload).await?;
    let mut fields = body.fields()?;
    let read = (fields.required("email", Email), fields.required("password", PASSWORD));
    let (email, password) = fields.finish(read)?;
    let given = email.to_string();
    let account = account_of(&state, email).await?;
    let hash = account.as_ref().map(|account| account.password_hash.clone());
    let right = state.passwords.verify(password, hash).await?;
    let user = account.as_ref().map(|account| account.id);
    let signed_in = match account.filter(|_| right) {
        None => Err(Problem::new(Code::InvalidCredentials, "the e-mail address or the password is wrong")),
        Some(account) if account.status == AccountStatus::Suspended => {
            Err(Problem::new(Code::AccountSuspended, "an administrator has closed this account for now"))
        }
        Some(account) if !account.verified => {
            Err(Problem::new(Code::EmailNotVerified, "the e-mail address is not verified; the code was mailed to it"))
        }
        Some(account) => sign_in(&state, &account).await,
    };
    let outcome = match &signed_in {
        Ok(_) => "signed_in",
        Err(problem) => problem.code().name(),
    };
    let tried = login_try(&state, &request, given, user, outcome);
    state.write(|store| async move { store.record_login(&tried).await }).await?;
    signed_in
}

fn login_try(
    state: &AppState,
    request: &HttpRequest,
    email: String,
    user: Option<UserId>,
    outcome: &'static str,
) -> LoginTry {
    let named = request.headers().get(header::USER_AGENT);
    let user_agent = named.map(|value| {
        let text = String::from_utf8_lossy(value.as_bytes());
        text.chars().take(USER_AGENT_CHARACTERS_MAX).collect()
    });
    let address = request.peer_addr().map(|peer| peer.ip().to_string()).unwrap_or_default();
    LoginTry { email, user, outcome, address, user_agent, at: state.clock.now() }
}

async fn sign_in(state: &AppState, account: &Account) -> Answer {
    let refresh = refresh_token().map_err(|error| failed(&error, "a token could not be made"))?;
    let now = state.clock.now();
    let token = NewRefreshToken {
        hash: refresh_hash(state, &refresh),
        family: Uuid::now_v7(),
        user: account.id,
        created_at: now,
        expires_at: now.plus(state.settings.refresh_token_life),
    };
    state.write(|store| async move { store.insert_refresh_token(&token).await }).await?;
    tokens(state, account, refresh)
}

fn refresh_hash(state: &AppState, token: &str) -> [u8; 32] {
    state.refresh_tokens.of(&[token.as_bytes()])
}

fn tokens(state: &AppState, account: &Account, refresh_token: String) -> Answer {
    let access_token =
        state.tokens.issue(account, state.clock.now()).map_err(|error| failed(&error, "a token could not be made"))?;
    let expires_in = state.tokens.life().as_secs();
    Ok(json::ok(&SignedIn { access_token, refresh_token, token_type: "Bearer", expires_in }))
}

/// `POST /auth/refresh`: a new pair of tokens for a refresh token, which dies.
pub(crate) async fn refresh(state: State, request: HttpRequest, payload: web::Payload) -> Answer {
    let given = hash_of_given(&state, &request, payload).await?;
    let refresh = refresh_token().map_err(|error| failed(&error, "a token could not be made"))?;
    let successor = refresh_hash(&state, &refresh);
    let now = state.clock.now();
    let expires_at = now.plus(state.settings.refresh_token_life);
    let rotated =
        state.write(|store| async move { store.rotate_refresh_token(&given, &successor, now, expires_at).await });
    let user = rotated.await?.ok_or_else(bad_token)?;
    let account = state.read(|store| async move { store.account(user).await }).await?;
    let account = account.filter(|account| account.status == AccountStatus::Active).ok_or_else(bad_token)?;
    tokens(&state, &account, refresh)
}

/// `POST /auth/logout`: ends the refresh token and all that came of the same sign-in.
pub(crate) async fn logout(state: State, request: HttpRequest, payload: web::Payload) -> Answer {
    let given = hash_of_given(&state, &request, payload).await?;
    state.write(|store| async move { store.end_refresh_family(&given).await }).await?;
    Ok(HttpResponse::NoContent().finish())
}

async fn hash_of_given(state: &AppState, request: &HttpRequest, payload: web::Payload) -> Result<[u8; 32], Problem> {
    let body = Body::read(request, payload).await?;
    let mut fields = body.fields()?;
    let token = fields.required("refreshToken", TOKEN);
    Ok(refresh_hash(state, &fields.finish(token)?))
}

/// `POST /auth/verify-token`: whose token it is.
pub(crate) async fn verify_token(state: State, request: HttpRequest, payload: web::Payload) -> Answer {
    let body = Body::read(&request, payload).await?;
    let mut fields = body.fields()?;
    let token = fields.required("accessToken", TOKEN);
    let caller = Caller::of_token(&state, &fields.finish(token)?).await?;
    let user = UserDocument {
        id: caller.user,
        email: &caller.email,
        name: &caller.name,
        role: caller.role.name(),
        status: None,
        verified: None,
    };
    Ok(json::ok(&WithUser { message: "Authorized", user }))
}
