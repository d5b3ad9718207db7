//! `/users`: profiles (name and addresses), and what administrators decide about accounts.

use actix_web::{HttpRequest, web};
use serde::Serialize;
use uuid::Uuid;

use crate::domain::ids::{ProfileId, UserId};
use crate::domain::timestamp::Timestamp;
use crate::domain::user::{AccountStatus, Role};
use crate::persistence::StoreError;
use crate::persistence::records::{Account, Profile, ProfilePatch};

use super::body::Body;
use super::caller::Caller;
use super::fields::Fields;
use super::problem::{Code, Problem};
use super::rules::{Email, Id, OneOf, Text};
use super::state::State;
use super::{Answer, json, location, path_id};

/// What a user's name may be.
pub(crate) const NAME: Text = Text::line(3, 255);
const ADDRESS: Text = Text::lines(1, 1000);
const PHONE: Text = Text::line(1, 32);

/// By which id a path names a user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum KnownBy {
    Profile,
    Account,
}

const KNOWN_BY: [(KnownBy, &str); 2] = [(KnownBy::Profile, "id"), (KnownBy::Account, "authUserId")];

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ProfileDocument<'a> {
    id: ProfileId,
    auth_user_id: UserId,
    email: &'a str,
    name: &'a str,
    address: Option<&'a str>,
    phone: Option<&'a str>,
    created_at: Timestamp,
    updated_at: Timestamp,
}

impl<'a> ProfileDocument<'a> {
    fn of(profile: &'a Profile) -> Self {
        Self {
            id: profile.id,
            auth_user_id: profile.user,
            email: &profile.email,
            name: &profile.name,
            address: profile.address.as_deref(),
            phone: profile.phone.as_deref(),
            created_at: profile.created_at,
            updated_at: profile.updated_at,
        }
    }
}

/// A user as an administrator has changed them.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct AccountDocument<'a> {
    id: Option<ProfileId>,
    auth_user_id: UserId,
    email: &'a str,
    name: &'a str,
    role: &'static str,
    status: &'static str,
    verified: bool,
}

/// `POST /users`: makes the profile of an account that has none.
pub(crate) async fn create(state: State, request: HttpRequest, payload: web::Payload) -> Answer {
    Caller::admin(&state, &request).await?;
    let body = Body::read(&request, payload).await?;
    let mut fields = body.fields()?;
    let read = (
        fields.required("authUserId", Id::<UserId>::new()),
        fields.required("name", NAME),
        fields.required("email", Email),
        fields.optional("address", ADDRESS),
        fields.optional("phone", PHONE),
    );
    let (user, name, email, address, phone) = fields.finish(read)?;
    let now = state.clock.now();
    let email = email.to_string();
    let id = ProfileId(Uuid::now_v7());
    let profile = Profile { id, user, email, name, address, phone, created_at: now, updated_at: now };
    let answer = json::created(&ProfileDocument::of(&profile), location(&request, &format!("/users/{id}")));
    state.read(|store| async move { store.account(user).await }).await?.ok_or_else(unknown)?;
    state.write(|store| async move { store.insert_profile(&profile).await }).await?;
    Ok(answer)
}

/// `GET /users/{id}`: one's own; an administrator sees all. `?field=authUserId` takes the account's id.
pub(crate) async fn show(state: State, request: HttpRequest) -> Answer {
    let caller = Caller::user(&state, &request).await?;
    let known_by = known_by(&request)?;
    let profile = find(&state, &request, known_by).await?;
    let profile = profile.filter(|profile| caller.is_admin() || profile.user == caller.user).ok_or_else(unknown)?;
    Ok(json::ok(&ProfileDocument::of(&profile)))
}

/// `PATCH /users/{id}`: changes what the body names; null removes.
pub(crate) async fn change(state: State, request: HttpRequest, payload: web::Payload) -> Answer {
    let caller = Caller::user(&state, &request).await?;
    let body = Body::read(&request, payload).await?;
    let mut fields = body.fields()?;
    let read = (fields.optional("name", NAME), fields.removable("address", ADDRESS), fields.removable("phone", PHONE));
    let (name, address, phone) = fields.finish(read)?;
    let known_by = known_by(&request)?;
    let profile = find(&state, &request, known_by).await?;
    let profile = profile.filter(|profile| caller.is_admin() || profile.user == caller.user).ok_or_else(unknown)?;
    let (patch, now, id) = (ProfilePatch { name, address, phone }, state.clock.now(), profile.id);
    let changed = state.write(|store| async move { store.patch_profile(id, &patch, now).await }).await?;
    Ok(json::ok(&ProfileDocument::of(&changed.ok_or_else(unknown)?)))
}

/// `PUT /users/{id}/role`.
pub(crate) async fn set_role(state: State, request: HttpRequest, payload: web::Payload) -> Answer {
    Caller::admin(&state, &request).await?;
    let body = Body::read(&request, payload).await?;
    let mut fields = body.fields()?;
    let role = fields.required("role", OneOf(&Role::NAMES));
    let role = fields.finish(role)?;
    set(&state, &request, Decision::Role(role)).await
}

/// `PUT /users/{id}/status`: a suspended user's tokens stop working.
pub(crate) async fn set_status(state: State, request: HttpRequest, payload: web::Payload) -> Answer {
    Caller::admin(&state, &request).await?;
    let body = Body::read(&request, payload).await?;
    let mut fields = body.fields()?;
    let status = fields.required("status", OneOf(&AccountStatus::NAMES));
    let status = fields.finish(status)?;
    set(&state, &request, Decision::Status(status)).await
}

/// What an administrator decides about an account.
#[derive(Debug, Clone, Copy)]
enum Decision {
    Role(Role),
    Status(AccountStatus),
}

async fn set(state: &State, request: &HttpRequest, decision: Decision) -> Answer {
    let known_by = known_by(request)?;
    let profile = find(state, request, known_by).await?;
    let user = match (&profile, known_by) {
        (Some(profile), _) => profile.user,
        // An account may be without a profile.
        (None, KnownBy::Account) => path_id(request, "id").ok_or_else(unknown)?,
        (None, KnownBy::Profile) => return Err(unknown()),
    };
    let shared = State::clone(state);
    let decided = state.write(|store| async move {
        let decided: Result<Option<Account>, StoreError> = match decision {
            Decision::Role(role) => store.set_role(user, role).await,
            Decision::Status(status) => store.set_account_status(user, status).await,
        };
        shared.standings.changed(user);
        decided
    });
    let account = decided.await?.ok_or_else(unknown)?;
    Ok(json::ok(&AccountDocument {
        id: profile.map(|profile| profile.id),
        auth_user_id: account.id,
        email: account.email.as_str(),
        name: &account.name,
        role: account.role.name(),
        status: account.status.name(),
        verified: account.verified,
    }))
}

fn known_by(request: &HttpRequest) -> Result<KnownBy, Problem> {
    let mut fields = Fields::of_query(request.query_string());
    let field = fields.optional("field", OneOf(&KNOWN_BY));
    Ok(fields.finish(field)?.unwrap_or(KnownBy::Profile))
}

async fn find(state: &State, request: &HttpRequest, known_by: KnownBy) -> Result<Option<Profile>, Problem> {
    let Some(id) = path_id::<ProfileId>(request, "id") else { return Ok(None) };
    state
        .read(|store| async move {
            match known_by {
                KnownBy::Profile => store.profile(id).await,
                KnownBy::Account => store.profile_of(UserId(id.0)).await,
            }
        })
        .await
}

fn unknown() -> Problem {
    Problem::new(Code::UserNotFound, "there is no such user")
}
