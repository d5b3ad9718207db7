//! `/admin/actors`: every actor of this server, how it does, and the order to restart one.

use std::cmp::Reverse;
use std::time::{Duration, SystemTime};

use actix_web::http::StatusCode;
use actix_web::{HttpRequest, web};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::actors::command::AppliedOutcome;
use crate::actors::roster::{ActorSort, ActorView, KindSummary, Rank, RosterPage};
use crate::actors::supervision::{ActorKind, ONLY};
use crate::domain::timestamp::Timestamp;

use super::body::Body;
use super::caller::Caller;
use super::fields::Fields;
use super::lists;
use super::problem::{Code, Problem};
use super::rules::OneOf;
use super::state::State;
use super::{Answer, json};

const KINDS: [(ActorKind, &str); ActorKind::ALL.len()] = {
    let mut kinds = [(ActorKind::Cart, ""); ActorKind::ALL.len()];
    let mut place = 0;
    while place < kinds.len() {
        kinds[place] = (ActorKind::ALL[place], ActorKind::ALL[place].name());
        place += 1;
    }
    kinds
};
/// How lists are sorted.
const SORTS: [(ActorSort, &str); 3] =
    [(ActorSort::Depth, "-depth"), (ActorSort::Processed, "-processed"), (ActorSort::Kind, "kind")];

/// The list of the actors.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct RosterDocument {
    summary: Vec<KindDocument>,
    data: Vec<ActorDocument>,
    next_cursor: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct KindDocument {
    kind: &'static str,
    live: i64,
    depth: i64,
    processed: u64,
    failed: u64,
    rejected: u64,
    restarts: u64,
    panics: u64,
    errors: u64,
    kills: u64,
    quarantined: i64,
}

impl KindDocument {
    fn of(summary: &KindSummary) -> Self {
        let KindSummary { kind, live, depth, processed, failed, rejected, .. } = *summary;
        let KindSummary { restarts, panics, errors, kills, quarantined, .. } = *summary;
        let kind = kind.name();
        Self { kind, live, depth, processed, failed, rejected, restarts, panics, errors, kills, quarantined }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ActorDocument {
    kind: &'static str,
    id: String,
    node: String,
    state: &'static str,
    mailbox: MailboxDocument,
    processed: u64,
    failed: u64,
    rejected: u64,
    restarts: u32,
    last_error: Option<String>,
    latency_ms: LatencyDocument,
    started_at: Timestamp,
    last_message_at: Option<Timestamp>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct MailboxDocument {
    depth: u32,
    capacity: u32,
    high_water: u32,
    /// Milliseconds; null when nothing waits or is at work.
    oldest_age_ms: Option<u64>,
}

/// Milliseconds; null when no message has been done.
#[derive(Serialize)]
struct LatencyDocument {
    p50: Option<f64>,
    p99: Option<f64>,
    max: Option<f64>,
}

impl ActorDocument {
    fn of(view: ActorView, node: &str) -> Self {
        let ActorView { identity, state, gauge } = view;
        let milliseconds = |span: Duration| span.as_secs_f64() * 1_000.0;
        let latency = gauge.latency;
        Self {
            kind: identity.kind.name(),
            id: identity.to_string(),
            node: node.to_owned(),
            state: state.name(),
            mailbox: MailboxDocument {
                depth: gauge.depth,
                capacity: gauge.capacity,
                high_water: gauge.high_water,
                oldest_age_ms: gauge.oldest_age.map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX)),
            },
            processed: gauge.processed,
            failed: gauge.failed,
            rejected: gauge.rejected,
            restarts: gauge.restarts,
            last_error: gauge.last_error.as_deref().map(str::to_owned),
            latency_ms: LatencyDocument {
                p50: latency.map(|latency| milliseconds(latency.p50)),
                p99: latency.map(|latency| milliseconds(latency.p99)),
                max: latency.map(|latency| milliseconds(latency.max)),
            },
            started_at: timestamp(gauge.started_at),
            last_message_at: gauge.last_message_at.map(timestamp),
        }
    }
}

/// An actor that was told to end.
#[derive(Serialize)]
struct RestartedDocument {
    kind: &'static str,
    id: String,
    state: &'static str,
}

/// Where a page of the list ended.
#[derive(Serialize, Deserialize)]
struct Cursor {
    list: String,
    value: u64,
    kind: String,
    row: Option<Uuid>,
}

impl Cursor {
    /// The list that a sort makes.
    fn list(sort: ActorSort) -> String {
        let name = SORTS.iter().find(|(of, _)| *of == sort).map_or("", |(_, name)| name);
        format!("actors {name}")
    }

    fn behind(sort: ActorSort, rank: Rank) -> String {
        let Rank { value: Reverse(value), kind, row } = rank;
        let cursor = Self { list: Self::list(sort), value, kind: kind.name().to_owned(), row };
        URL_SAFE_NO_PAD.encode(serde_json::to_vec(&cursor).unwrap_or_default())
    }

    fn read(sort: ActorSort, text: &str) -> Option<Rank> {
        let cursor: Self = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(text).ok()?).ok()?;
        let kind = ActorKind::from_name(&cursor.kind)?;
        (cursor.list == Self::list(sort)).then_some(Rank { value: Reverse(cursor.value), kind, row: cursor.row })
    }
}

/// `GET /admin/actors`. It reads counters and asks no actor.
pub(crate) async fn list(state: State, request: HttpRequest) -> Answer {
    Caller::admin(&state, &request).await?;
    let mut fields = Fields::of_query(request.query_string());
    let read =
        (lists::page(&mut fields), fields.optional("kind", OneOf(&KINDS)), fields.optional("sort", OneOf(&SORTS)));
    let (page, kind, sort) = fields.finish(read)?;
    let sort = sort.unwrap_or(ActorSort::Depth);
    let after = match &page.after {
        Some(text) => Some(Cursor::read(sort, text).ok_or_else(bad_cursor)?),
        None => None,
    };
    let (roster, size) = (state.shop.roster().clone(), usize::try_from(page.limit).unwrap_or(usize::MAX));
    // A pass over all actors takes a while when there are very many; requests are not to wait for it.
    let looked = state.run_blocking(move || (roster.summary(), roster.page(kind, sort, after, size))).await;
    let (summary, RosterPage { actors, more_behind }) =
        looked.map_err(|problem| problem.applied(AppliedOutcome::No))?;
    let node = &state.settings.node;
    Ok(json::ok(&RosterDocument {
        summary: summary.iter().map(KindDocument::of).collect(),
        data: actors.into_iter().map(|view| ActorDocument::of(view, node)).collect(),
        next_cursor: more_behind.map(|rank| Cursor::behind(sort, rank)),
    }))
}

/// `GET /admin/actors/{kind}/{id}`.
pub(crate) async fn show(state: State, request: HttpRequest) -> Answer {
    Caller::admin(&state, &request).await?;
    let (kind, row) = named(&request).ok_or_else(unknown)?;
    let view = state.shop.roster().view(kind, row).ok_or_else(unknown)?;
    Ok(json::ok(&ActorDocument::of(view, &state.settings.node)))
}

/// `POST /admin/actors/{kind}/{id}/restart`: the actor ends at once, and comes back from the database with its next
/// message, also when it is quarantined.
pub(crate) async fn restart(state: State, request: HttpRequest, payload: web::Payload) -> Answer {
    Caller::admin(&state, &request).await?;
    // Nothing in it is asked for, but it is read as every body is.
    Body::read(&request, payload).await?;
    let (kind, row) = named(&request).ok_or_else(unknown)?;
    let after = state.shop.roster().restart(kind, row).ok_or_else(unknown)?;
    let id = request.match_info().query("id").to_owned();
    let document = RestartedDocument { kind: kind.name(), id, state: after.name() };
    Ok(json::json(StatusCode::ACCEPTED, &document))
}

/// The actor that the path names.
fn named(request: &HttpRequest) -> Option<(ActorKind, Option<Uuid>)> {
    let kind = ActorKind::from_name(request.match_info().get("kind")?)?;
    match request.match_info().get("id")? {
        ONLY => Some((kind, None)),
        id => Some((kind, Some(Uuid::try_parse(id).ok()?))),
    }
}

fn timestamp(at: SystemTime) -> Timestamp {
    let micros = at.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_micros());
    Timestamp(i64::try_from(micros).unwrap_or(i64::MAX))
}

fn bad_cursor() -> Problem {
    Problem::field("cursor", "must be the nextCursor of an answer to this list")
}

fn unknown() -> Problem {
    Problem::new(Code::ActorNotFound, "there is no such actor on this server now")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_one_of_its_list() {
        let rank = Rank { value: Reverse(7), kind: ActorKind::Inventory, row: Some(Uuid::from_u128(9)) };
        let text = Cursor::behind(ActorSort::Depth, rank);
        assert_eq!(Cursor::read(ActorSort::Depth, &text), Some(rank));
        assert_eq!(Cursor::read(ActorSort::Processed, &text), None);
        assert_eq!(Cursor::read(ActorSort::Depth, "nonsense"), None);
    }
}
