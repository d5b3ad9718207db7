//! The products that carts and checkouts ask for again and again, kept in memory.
//!
//! What is kept may be a moment old where another server has changed it: where others may, the database is asked again
//! and again which products they have changed, and what it does not say so of is kept. As long as it can not be asked, a
//! product is kept for a moment only. A checkout names the product's version, so an old price is shown at worst and never
//! sold.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use dashmap::DashMap;

use crate::domain::ids::ProductId;
use crate::domain::product::Product;
use crate::persistence::{ProductsMark, SharedStore, StoreError};

/// Products kept at most; beyond, an arbitrary one makes room.
const PRODUCTS_MAX: usize = 100_000;
/// How old what is kept may be where other servers may change it.
const SHARED_AGE_MAX: Duration = Duration::from_secs(1);
/// How often the database is asked what they have changed, as long as somebody asks for products.
const LOOK_PERIOD: Duration = Duration::from_millis(250);
/// How long a product is kept, whatever the database says: somebody may have deleted it, or changed it with triggers off.
const KEPT_AGE_MAX: Duration = Duration::from_secs(60);

/// The catalogue as the actors read it.
pub struct Catalogue {
    store: SharedStore,
    /// The products, and when each was asked for at the store.
    products: DashMap<ProductId, (Arc<Product>, Instant)>,
    /// Grows with every change, so that what was read before a change is not kept after it.
    changes: AtomicU64,
    /// Whether somebody has asked for a product since the last look at what others have changed.
    asked: AtomicBool,
    /// When that look began, in milliseconds since `born`: what is kept was not changed before.
    looked_ms: AtomicU64,
    born: Instant,
}

impl Catalogue {
    /// Nothing kept yet. To be called on the runtime.
    #[must_use]
    pub fn open(store: SharedStore) -> Arc<Self> {
        let is_shared = store.is_shared();
        let catalogue = Arc::new(Self {
            store,
            products: DashMap::new(),
            changes: AtomicU64::new(0),
            asked: AtomicBool::new(false),
            looked_ms: AtomicU64::new(0),
            born: Instant::now(),
        });
        if is_shared {
            tokio::spawn(look_again_and_again(Arc::downgrade(&catalogue)));
        }
        catalogue
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
        (!self.store.is_shared() || self.is_current(*since)).then(|| Arc::clone(product))
    }

    /// Whether what was read at `since` still counts: it was read a moment ago, or looked after a moment ago.
    fn is_current(&self, since: Instant) -> bool {
        if !self.asked.load(Ordering::Relaxed) {
            self.asked.store(true, Ordering::Relaxed);
        }
        let age = since.elapsed();
        let looked = Duration::from_millis(self.looked_ms.load(Ordering::Acquire));
        age <= SHARED_AGE_MAX || (age <= KEPT_AGE_MAX && self.born.elapsed().saturating_sub(looked) <= SHARED_AGE_MAX)
    }

    /// Forgets what others have changed since `mark`, and all when that is not known. Gives where the next look goes on.
    async fn look(&self, mark: Option<ProductsMark>) -> Result<ProductsMark, StoreError> {
        let began = self.born.elapsed();
        let found = self.store.changed_products(mark).await?;
        match found.ids.filter(|_| mark.is_some()) {
            Some(ids) => ids.into_iter().for_each(|id| self.changed(id)),
            None => {
                self.changes.fetch_add(1, Ordering::AcqRel);
                self.products.clear();
            }
        }
        self.looked_ms.store(u64::try_from(began.as_millis()).unwrap_or(0), Ordering::Release);
        Ok(found.mark)
    }

    /// A product has changed: it is read anew by the next who asks.
    pub fn changed(&self, id: ProductId) {
        self.changes.fetch_add(1, Ordering::AcqRel);
        self.products.remove(&id);
    }
}

/// Looks what others have changed, as long as the catalogue is there.
async fn look_again_and_again(catalogue: Weak<Catalogue>) {
    let mut mark = None;
    loop {
        let Some(catalogue) = catalogue.upgrade() else { return };
        if mark.is_none() || catalogue.asked.swap(false, Ordering::Relaxed) {
            match catalogue.look(mark).await {
                Ok(next) => mark = Some(next),
                Err(error) => {
                    let error = &error as &dyn std::error::Error;
                    tracing::debug!(error, "what others have changed of the products is not known");
                }
            }
        }
        drop(catalogue);
        tokio::time::sleep(LOOK_PERIOD).await;
    }
}
