//! What the mirror is to show of a cart.

use std::time::Duration;

use ::redis::{Script, ScriptInvocation};
use serde::Serialize;

use crate::domain::cart::{Cart, CartState};
use crate::domain::ids::{CartKey, CartSessionId, InventoryId};
use crate::domain::timestamp::Timestamp;

/// For how many milliseconds the version of a cart that has ended is remembered: no write is under way for so long.
const REMEMBERED_FOR_MS: u64 = 300_000;

/// What the mirror is to show of a cart at one version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CartImage {
    id: CartSessionId,
    version: i64,
    /// How long it lives yet, milliseconds; 0 when it has ended, or is over.
    life_ms: u64,
    /// It has ended, and no version is newer. (One that is over may have been renewed since it was read.)
    has_ended: bool,
    /// Field and value of each line.
    lines: Vec<(String, String)>,
}

/// A line's value.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct LineDocument {
    quantity: i64,
    inventory_id: InventoryId,
}

impl CartImage {
    /// What is to be shown at `now` of a cart as the database has it. Of one that has ended, or is over, nothing.
    #[must_use]
    pub fn of(cart: &Cart, now: Timestamp) -> Self {
        let left = if cart.state == CartState::Open { cart.expires_at.since(now) } else { Duration::ZERO };
        let life_ms = u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
        let shown = cart.lines.iter().filter(|_| life_ms > 0).filter_map(|line| {
            let document = LineDocument { quantity: line.quantity, inventory_id: line.inventory };
            // Numbers and identifiers are always JSON.
            Some((line.product.to_string(), serde_json::to_string(&document).ok()?))
        });
        let has_ended = cart.state != CartState::Open;
        Self { id: cart.id, version: cart.version, life_ms, has_ended, lines: shown.collect() }
    }

    /// Whose it is.
    #[must_use]
    pub fn key(&self) -> CartKey {
        self.id.key
    }

    /// What one server is told to show. `wrong`: a shown version that the database says is none.
    pub(super) fn all<'a>(images: &[Self], script: &'a Script, wrong: &str) -> ScriptInvocation<'a> {
        let mut invocation = script.prepare_invoke();
        invocation.arg(REMEMBERED_FOR_MS).arg(wrong);
        for image in images {
            let id = image.id.to_string();
            let session = format!("session:{id}");
            let ended = version_key(&session);
            invocation.key(format!("cart:{id}")).key(session).key(ended);
            invocation.arg(image.version);
            if image.has_ended {
                invocation.arg(-1)
            } else {
                invocation.arg(image.life_ms)
            };
            invocation.arg(2 * image.lines.len());
            for (field, value) in &image.lines {
                invocation.arg(field).arg(value);
            }
        }
        invocation
    }

    /// What a cluster is told of the hash of the lines. `wrong`: a remembered version that the database says is none.
    pub(super) fn cart<'a>(&self, script: &'a Script, wrong: &str) -> ScriptInvocation<'a> {
        let mut invocation = self.pair(script, &format!("cart:{}", self.id), wrong);
        invocation.arg("hash");
        for (field, value) in &self.lines {
            invocation.arg(field).arg(value);
        }
        invocation
    }

    /// What a cluster is told of the session's version.
    pub(super) fn session<'a>(&self, script: &'a Script, wrong: &str) -> ScriptInvocation<'a> {
        let mut invocation = self.pair(script, &format!("session:{}", self.id), wrong);
        invocation.arg("text").arg(self.version);
        invocation
    }

    /// A key and the one that remembers its version.
    fn pair<'a>(&self, script: &'a Script, key: &str, wrong: &str) -> ScriptInvocation<'a> {
        let mut invocation = script.prepare_invoke();
        invocation.key(key).key(version_key(key));
        invocation.arg(self.version).arg(self.life_ms).arg(self.life_ms.saturating_add(REMEMBERED_FOR_MS)).arg(wrong);
        invocation
    }
}

/// The key that remembers a key's version. What stands in braces decides on the slot of a cluster.
fn version_key(key: &str) -> String {
    format!("{{{key}}}:version")
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::domain::cart::{CartLine, HoldState};
    use crate::domain::ids::ProductId;

    fn cart(state: CartState) -> Cart {
        let id = CartSessionId { key: CartKey(Uuid::nil()), secret: [1; 16] };
        let (product, inventory) = (ProductId(Uuid::from_u128(1)), InventoryId(Uuid::from_u128(2)));
        let line = CartLine { number: 1, product, inventory, quantity: 3, state: HoldState::Open };
        let (created_at, expires_at) = (Timestamp(0), Timestamp(900_000_000));
        Cart { id, state, version: 4, created_at, expires_at, lines: vec![line] }
    }

    #[test]
    fn an_open_cart_is_shown_for_as_long_as_it_lives() {
        let image = CartImage::of(&cart(CartState::Open), Timestamp(1_500));
        assert_eq!(image.life_ms, 899_998);
        let [(field, value)] = &image.lines[..] else { panic!("one line: {image:?}") };
        assert_eq!(field, "00000000-0000-0000-0000-000000000001");
        assert_eq!(value, r#"{"quantity":3,"inventoryId":"00000000-0000-0000-0000-000000000002"}"#);
    }

    #[test]
    fn of_a_cart_that_is_over_nothing_is_shown() {
        for (state, now) in [(CartState::Open, 900_000_000), (CartState::Ordered, 0), (CartState::Expired, 0)] {
            let image = CartImage::of(&cart(state), Timestamp(now));
            assert_eq!((image.life_ms, image.lines.len(), image.version), (0, 0, 4), "{state:?}");
        }
    }
}
