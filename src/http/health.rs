//! `/health`: whether the process lives, and whether it can serve.

use std::time::Duration;

use actix_web::HttpResponse;
use serde::{Serialize, Serializer, ser::SerializeMap};

use crate::actors::command::AppliedOutcome;

use super::problem::{Code, Problem};
use super::state::State;
use super::{Answer, json};

/// How long the database may take to say that it is there.
const DATABASE_TIME_MAX: Duration = Duration::from_secs(1);

/// How a dependency does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum DependencyState {
    /// It answers.
    Up,
    /// It does not; what needs it waits.
    Degraded,
    /// It is not configured.
    Off,
}

/// The dependencies by name.
struct States(Vec<(&'static str, DependencyState)>);

impl Serialize for States {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, state) in &self.0 {
            map.serialize_entry(name, state)?;
        }
        map.end()
    }
}

#[derive(Serialize)]
struct Health {
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    dependencies: Option<States>,
}

/// `GET /health/live`: the process answers.
pub(crate) async fn live() -> HttpResponse {
    json::ok(&Health { status: "up", dependencies: None })
}

/// `GET /health/ready` and `GET /health`: 503 while the server stops and while the database does not answer.
pub(crate) async fn ready(state: State) -> Answer {
    let store = state.store.clone();
    let pinged = state.run(async move { tokio::time::timeout(DATABASE_TIME_MAX, store.ping()).await }).await;
    let database = matches!(pinged, Ok(Ok(Ok(()))));
    let mut states = vec![("database", if database { DependencyState::Up } else { DependencyState::Degraded })];
    states.extend((state.dependencies)());
    let states = States(states);
    let unready = |code, detail| Problem::new(code, detail).applied(AppliedOutcome::No).with("dependencies", &states);
    if state.connections.are_stopping() {
        Err(unready(Code::Stopping, "the server is stopping"))
    } else if database {
        Ok(json::ok(&Health { status: "up", dependencies: Some(states) }))
    } else {
        Err(unready(Code::Unavailable, "the database is not available"))
    }
}
