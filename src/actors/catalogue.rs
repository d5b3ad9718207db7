//! The products that carts and checkouts ask for again and again, kept in memory.
//!
//! What is kept may be a moment old where another server has changed it, and where others may, it is kept for a moment
//! only; a checkout names the product's version, so an old price is shown at worst and never sold.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use dashmap::DashMap;

use crate::domain::ids::ProductId;
use crate::domain::product::Product;
use crate::persistence::{SharedStore, StoreError};

/// Products kept at most; beyond, an arbitrary one makes room.
const PRODUCTS_MAX: usize = 100_000;
/// How long a product is kept where other servers may change it.
const SHARED_AGE_MAX: Duration = Duration::from_secs(1);

/// The catalogue as the actors read it.
pub struct Catalogue {
    store: SharedStore,
    /// The products, and when each was asked for at the store.
    products: DashMap<ProductId, (Arc<Product>, Instant)>,
    /// Grows with every change, so that what was read before a change is not kept after it.
    changes: AtomicU64,
}

impl Catalogue {
    /// Nothing kept yet.
    #[must_use]
    pub fn new(store: SharedStore) -> Self {
        Self { store, products: DashMap::new(), changes: AtomicU64::new(0) }
    }

    /// A product, from memory or from the store.
    ///
    /// # Errors
    /// What the store says.
    pub async fn product(&self, id: ProductId) -> Result<Option<Arc<Product>>, StoreError> {
        if let Some(product) = self.kept(id) {
            return Ok(Some(product));
        }
        let (changes, since) = (self.changes.load(Ordering::Acquire), Instant::now());
        let Some(product) = self.store.product(id).await?.map(Arc::new) else { return Ok(None) };
        if self.products.len() >= PRODUCTS_MAX {
            let any = self.products.iter().next().map(|entry| *entry.key());
            any.and_then(|any| self.products.remove(&any));
        }
        self.products.insert(id, (Arc::clone(&product), since));
        if self.changes.load(Ordering::Acquire) != changes {
            self.products.remove(&id);
        }
        Ok(Some(product))
    }

    /// A product that is in memory, and not too old.
    #[must_use]
    pub fn kept(&self, id: ProductId) -> Option<Arc<Product>> {
        let kept = self.products.get(&id)?;
        let (product, since) = &*kept;
        let old = self.store.is_shared() && since.elapsed() > SHARED_AGE_MAX;
        (!old).then(|| Arc::clone(product))
    }

    /// A product has changed: it is read anew by the next who asks.
    pub fn changed(&self, id: ProductId) {
        self.changes.fetch_add(1, Ordering::AcqRel);
        self.products.remove(&id);
    }
}
