//! All actors of a server: how they are put together, watched, and sent home.

use std::sync::Arc;
use std::time::{Duration, Instant};

use actix_rt::ArbiterHandle;
use tokio_util::sync::CancellationToken;

use crate::messaging::bus::{EventBus, LocalBus};
use crate::messaging::mail::Templates;
use crate::messaging::smtp::SmtpOptions;
use crate::persistence::SharedStore;
use crate::persistence::clock::Clock;

use super::cart_change::CartParts;
use super::carts::Carts;
use super::catalogue::Catalogue;
use super::checkout::CheckoutParts;
use super::consumers::{CartConsumer, KeptDeadLetters, MailConsumer, StockConsumer};
use super::delivery::{Delivery, RetryRules};
use super::inventories::Inventories;
use super::inventory::InventoryParts;
use super::journal::{JournalHandle, JournalParts};
use super::mailer::{MailRoom, MailerHandle, MailerParts};
use super::orders::OrdersHandle;
use super::registry::Registry;
use super::relay::{RelayHandle, RelayParts};
use super::shop::{Shop, ShopRules};
use super::sweeper::{SweeperHandle, SweeperParts};

/// How often it is looked whether the actors that nobody asks are alive.
const WATCH_PERIOD: Duration = Duration::from_millis(500);
/// How often it is looked whether everything has been done, when the server stops.
const DRAIN_PERIOD: Duration = Duration::from_millis(5);
/// Places in the mailboxes that take no commands.
const UNCOUNTED: u32 = 1;

/// How much may wait, and how long things are kept.
#[derive(Debug, Clone, Copy)]
pub struct HouseLimits {
    /// Messages that may wait for one product's stock.
    pub inventory_mailbox: u32,
    /// Messages that may wait for one cart.
    pub cart_mailbox: u32,
    /// Checkouts and changes of orders that may wait or run.
    pub orders_mailbox: u32,
    /// Entries that may wait for the journal or be written.
    pub journal_mailbox: u32,
    /// Entries of one transaction at most.
    pub journal_batch_max: usize,
    /// After how long without a message an actor is put away.
    pub idle_ttl: Duration,
    /// After how long an unconfirmed order is cancelled; `None` is never.
    pub order_pending_ttl: Option<Duration>,
}

/// What the actors are made of.
pub struct HouseParts {
    /// The database.
    pub store: SharedStore,
    /// The time that decides.
    pub clock: Clock,
    /// The rules of the shop.
    pub rules: ShopRules,
    /// How much may wait.
    pub limits: HouseLimits,
    /// The texts of mails.
    pub templates: Templates,
    /// Who mails come from.
    pub mail_sender: String,
    /// The mail server, and when a mail is tried again; `None` keeps mails.
    pub mail_server: Option<(SmtpOptions, RetryRules)>,
    /// Where actors live: threads of the actix system, all on one tokio runtime.
    pub arbiters: Arc<[ArbiterHandle]>,
    /// The runtime that everything runs on.
    pub runtime: tokio::runtime::Handle,
}

/// All actors of a server.
pub struct House {
    shop: Shop,
    bus: Arc<dyn EventBus>,
    mail: Arc<MailRoom>,
    relay: RelayHandle,
    mailer: MailerHandle,
    sweeper: SweeperHandle,
    inventories: Inventories,
    carts: Carts,
    orders: OrdersHandle,
    journal: JournalHandle,
    watch: CancellationToken,
}

impl House {
    /// Puts the actors together and starts those that work by themselves. To be called on the runtime.
    #[must_use]
    pub fn open(parts: HouseParts) -> Self {
        let HouseParts { store, clock, rules, limits, templates, mail_sender, mail_server, arbiters, runtime } = parts;
        let stock = Arc::new(Registry::new(Arc::clone(&arbiters), limits.inventory_mailbox));
        let journal = JournalHandle::new(
            Arc::new(Registry::new(Arc::clone(&arbiters), limits.journal_mailbox)),
            JournalParts {
                store: Arc::clone(&store),
                inventories: Arc::clone(&stock),
                batch_max: limits.journal_batch_max,
                committing: Arc::default(),
            },
        );
        let inventories =
            Inventories::new(InventoryParts { store: Arc::clone(&store), journal: journal.clone(), registry: stock });
        let catalogue = Arc::new(Catalogue::new(Arc::clone(&store)));
        let carts = Carts::new(CartParts {
            store: Arc::clone(&store),
            clock: clock.clone(),
            journal: journal.clone(),
            inventories: inventories.clone(),
            catalogue: Arc::clone(&catalogue),
            rules,
            registry: Arc::new(Registry::new(Arc::clone(&arbiters), limits.cart_mailbox)),
        });
        let mail = Arc::new(MailRoom::new(templates, mail_sender, mail_server.is_none()));
        let mailer = mailer(&store, &clock, &arbiters, mail_server);
        let bus = local_bus(&store, &clock, &mail, &mailer, &carts, &inventories);
        let relay = RelayHandle::new(
            Arc::new(Registry::new(Arc::clone(&arbiters), UNCOUNTED)),
            RelayParts {
                store: Arc::clone(&store),
                clock: clock.clone(),
                bus: Arc::clone(&bus),
                running: Arc::default(),
            },
        );
        let orders = OrdersHandle::new(
            Arc::new(Registry::new(Arc::clone(&arbiters), limits.orders_mailbox)),
            CheckoutParts {
                store: Arc::clone(&store),
                clock: clock.clone(),
                journal: journal.clone(),
                carts: carts.clone(),
                catalogue: Arc::clone(&catalogue),
                mail: Arc::clone(&mail),
                relay: relay.clone(),
                rules,
            },
        );
        let sweeper = SweeperHandle::new(
            Arc::new(Registry::new(arbiters, UNCOUNTED)),
            SweeperParts {
                store,
                clock,
                carts: carts.clone(),
                inventories: inventories.clone(),
                orders: orders.clone(),
                order_pending_ttl: limits.order_pending_ttl,
                idle_ttl: limits.idle_ttl,
            },
        );
        let shop =
            Shop::new(rules, runtime, catalogue, carts.clone(), inventories.clone(), orders.clone(), mailer.clone());
        let watch = CancellationToken::new();
        tokio::spawn(watch_over(watch.clone(), relay.clone(), mailer.clone(), sweeper.clone()));
        Self { shop, bus, mail, relay, mailer, sweeper, inventories, carts, orders, journal, watch }
    }

    /// What the layer above asks.
    #[must_use]
    pub fn shop(&self) -> &Shop {
        &self.shop
    }

    /// Where messages may be handed in.
    #[must_use]
    pub fn bus(&self) -> &Arc<dyn EventBus> {
        &self.bus
    }

    /// Sends mails.
    #[must_use]
    pub fn mailer(&self) -> &MailerHandle {
        &self.mailer
    }

    /// Makes mails.
    #[must_use]
    pub fn mail(&self) -> &Arc<MailRoom> {
        &self.mail
    }

    /// Waits until everything that was begun is done, publishes what is in the outbox, and sends the actors home.
    /// Gives how many messages were not done at `deadline`.
    pub async fn close(&self, deadline: Instant) -> i64 {
        self.watch.cancel();
        self.sweeper.stop();
        self.mailer.stop();
        let depth = || {
            self.orders.registry().counters().depth()
                + self.carts.registry().counters().depth()
                + self.inventories.registry().counters().depth()
                + self.journal.counters().depth()
        };
        while depth() > 0 && Instant::now() < deadline {
            tokio::time::sleep(DRAIN_PERIOD).await;
        }
        let left = depth();
        let rest = tokio::time::Instant::from_std(deadline);
        if tokio::time::timeout_at(rest, self.relay.flush()).await.is_err() {
            tracing::warn!("events are left in the outbox; they go out at the next start");
        }
        self.relay.stop();
        self.mailer.finish(deadline).await;
        self.carts.registry().clear();
        self.inventories.registry().clear();
        left
    }
}

/// The mailer; it sends to the server that is configured, and the server is watched.
fn mailer(
    store: &SharedStore,
    clock: &Clock,
    arbiters: &Arc<[ArbiterHandle]>,
    server: Option<(SmtpOptions, RetryRules)>,
) -> MailerHandle {
    let delivery = server.map(|(smtp, rules)| {
        let delivery = Arc::new(Delivery::new(Arc::clone(store), clock.clone(), smtp, rules));
        tokio::spawn({
            let delivery = Arc::clone(&delivery);
            async move { delivery.watch().await }
        });
        delivery
    });
    let residence = Arc::new(Registry::new(Arc::clone(arbiters), UNCOUNTED));
    MailerHandle::new(residence, MailerParts { store: Arc::clone(store), clock: clock.clone(), delivery })
}

fn local_bus(
    store: &SharedStore,
    clock: &Clock,
    mail: &Arc<MailRoom>,
    mailer: &MailerHandle,
    carts: &Carts,
    inventories: &Inventories,
) -> Arc<dyn EventBus> {
    let (store, clock) = (Arc::clone(store), clock.clone());
    let mails = MailConsumer {
        store: Arc::clone(&store),
        clock: clock.clone(),
        mail: Arc::clone(mail),
        mailer: mailer.clone(),
    };
    Arc::new(LocalBus::new(
        vec![
            Arc::new(mails),
            Arc::new(CartConsumer { carts: carts.clone() }),
            Arc::new(StockConsumer { inventories: inventories.clone() }),
        ],
        Arc::new(KeptDeadLetters { store, clock }),
    ))
}

/// Sees to it that the actors which work by themselves are alive: nobody else would notice their death.
async fn watch_over(end: CancellationToken, relay: RelayHandle, mailer: MailerHandle, sweeper: SweeperHandle) {
    let mut tick = tokio::time::interval(WATCH_PERIOD);
    loop {
        tokio::select! {
            () = end.cancelled() => return,
            _ = tick.tick() => {
                relay.ensure();
                mailer.ensure();
                sweeper.ensure();
            }
        }
    }
}
