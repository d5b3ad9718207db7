//! The products that carts and checkouts ask for again and again, kept in memory.
//!
//! What is kept may be a moment old where another node has changed it; a checkout names the product's version, so an
//! old price is shown at worst and never sold.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use dashmap::DashMap;

use crate::domain::ids::ProductId;
use crate::domain::product::Product;
use crate::persistence::{SharedStore, StoreError};

/// Products kept at most; beyond, an arbitrary one makes room.
const PRODUCTS_MAX: usize = 100_000;

/// The catalogue as the actors read it.
pub struct Catalogue {
    store: SharedStore,
    products: DashMap<ProductId, Arc<Product>>,
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
        let changes = self.changes.load(Ordering::Acquire);
        let Some(product) = self.store.product(id).await?.map(Arc::new) else { return Ok(None) };
        if self.products.len() >= PRODUCTS_MAX {
            let any = self.products.iter().next().map(|entry| *entry.key());
            any.and_then(|any| self.products.remove(&any));
        }
        self.products.insert(id, Arc::clone(&product));
        if self.changes.load(Ordering::Acquire) != changes {
            self.products.remove(&id);
        }
        Ok(Some(product))
    }

    /// A product that is in memory.
    #[must_use]
    pub fn kept(&self, id: ProductId) -> Option<Arc<Product>> {
        self.products.get(&id).map(|product| Arc::clone(&product))
    }

    /// A product has changed: it is read anew by the next who asks.
    pub fn changed(&self, id: ProductId) {
        self.changes.fetch_add(1, Ordering::AcqRel);
        self.products.remove(&id);
    }
}
