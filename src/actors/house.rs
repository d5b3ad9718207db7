//! All actors of a server: how they are put together, watched, and sent home.

use std::sync::Arc;
use std::time::Duration;

use actix_rt::ArbiterHandle;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::messaging::amqp::{AmqpBus, AmqpOptions};
use crate::messaging::bus::{Consumer, EventBus, LocalBus};
use crate::messaging::mail::Templates;
use crate::messaging::smtp::SmtpOptions;
use crate::observability::metrics::Metrics;
use crate::persistence::SharedStore;
use crate::persistence::clock::Clock;
use crate::persistence::forget::Retention;
use crate::persistence::redis::RedisOptions;

use super::announcer::{Announcer, AnnouncerParts};
use super::cart_change::CartParts;
use super::carts::Carts;
use super::catalogue::Catalogue;
use super::checkout::CheckoutParts;
use super::consumers::{CartConsumer, KeptDeadLetters, MailConsumer, StockConsumer};
use super::delivery::{Delivery, RetryRules};
use super::faults::Faults;
use super::inventories::Inventories;
use super::inventory::InventoryParts;
use super::journal::{JournalHandle, JournalParts};
use super::journal_metrics::JournalMetrics;
use super::mailer::{MailRoom, Mailer, MailerHandle};
use super::mirror::Mirror;
use super::orders::OrdersHandle;
use super::periodic::PeriodicHandle;
use super::registry::Registry;
use super::relay::{HalfTold, Placing, Relay, RelayHandle};
use super::roster::Roster;
use super::shop::{Shop, ShopParts, ShopRules};
use super::shown::Boards;
use super::supervision::{ActorKind, Policy};
use super::sweeper::{Sweeper, SweeperHandle, SweeperParts};

/// How often it is looked whether the actors that nobody asks are alive.
const WATCH_PERIOD: Duration = Duration::from_millis(500);
/// Idle actors are looked for at each so manieth look: every five seconds.
const IDLE_TICKS: u32 = 10;
/// How often it is looked whether everything has been done, when the server stops.
const DRAIN_PERIOD: Duration = Duration::from_millis(5);

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
    /// How long events may give way to orders that are being placed.
    pub event_delay_max: Duration,
    /// After how long without a message an actor is put away.
    pub idle_ttl: Duration,
    /// After how long an unconfirmed order is cancelled; `None` is never.
    pub order_pending_ttl: Option<Duration>,
    /// When dead actors are started again.
    pub supervision: Policy,
    /// For how long things are kept.
    pub retention: Retention,
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
    /// Where carts are mirrored; `None` is nowhere.
    pub redis: Option<RedisOptions>,
    /// The broker that carries the events; `None` is the bus inside the program.
    pub broker: Option<AmqpOptions>,
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
    /// Where the actors count.
    pub metrics: Metrics,
}

/// What actors had begun and not done when they had to end.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Unfinished {
    /// Messages of carts, inventories, orders and the journal.
    pub messages: i64,
    /// Mails that were on their way to the mail server.
    pub mails: usize,
}

/// All actors of a server.
pub struct House {
    shop: Shop,
    bus: Arc<dyn EventBus>,
    broker: Option<Arc<AmqpBus>>,
    mail: Arc<MailRoom>,
    news: News,
    relay: RelayHandle,
    mailer: MailerHandle,
    sweeper: SweeperHandle,
    inventories: Inventories,
    carts: Carts,
    orders: OrdersHandle,
    journal: JournalHandle,
    mirror: Mirror,
    watch: CancellationToken,
    idle_ttl: Duration,
}

impl House {
    /// Puts the actors together and starts those that work by themselves. To be called on the runtime.
    #[must_use]
    pub fn open(parts: HouseParts) -> Self {
        let faults = Faults::of_environment();
        let HouseParts { store, clock, rules, limits, redis, broker, templates, .. } = parts;
        let HouseParts { mail_sender, mail_server, arbiters, runtime, metrics, .. } = parts;
        let built = Builder { store, clock, arbiters, limits, metrics, faults };
        let announcer = Arc::<Announcer>::default();
        let mirror =
            redis.map_or_else(Mirror::off, |redis| Mirror::open(redis, Arc::clone(&built.store), built.clock.clone()));
        let (inventories, journal) = built.stock(&announcer, &mirror);
        let catalogue = Catalogue::open(Arc::clone(&built.store));
        let carts = built.carts(&inventories, &journal, &catalogue, &mirror, rules);
        let mail = Arc::new(MailRoom::new(templates, mail_sender, mail_server.is_none()));
        let mailer = built.mailer(mail_server);
        let consumers = consumers(&built.store, &built.clock, &mail, &mailer, &carts, &inventories);
        let (bus, broker) = bus(broker.as_ref(), consumers, &built.store, &built.clock);
        let relay = built.relay(&bus);
        let orders = OrdersHandle::new(
            built.only_one(ActorKind::Orders, limits.orders_mailbox),
            CheckoutParts::new(carts.clone(), Arc::clone(&mail), relay.clone()),
        );
        let sweeper = built.sweeper(&carts, &orders);
        let roster = Roster::new(vec![
            Arc::clone(carts.registry()) as _,
            Arc::clone(inventories.registry()) as _,
            Arc::clone(journal.registry()) as _,
            Arc::clone(mailer.registry()) as _,
            Arc::clone(orders.registry()) as _,
            Arc::clone(relay.registry()) as _,
            Arc::clone(sweeper.registry()) as _,
        ]);
        let shop = Shop::new(ShopParts {
            rules,
            runtime,
            catalogue,
            carts: carts.clone(),
            inventories: inventories.clone(),
            orders: orders.clone(),
            mailer: mailer.clone(),
            roster,
            #[cfg(feature = "fault-injection")]
            faults: built.faults.clone(),
        });
        let parts = AnnouncerParts { store: built.store, clock: built.clock, bus: Arc::clone(&bus) };
        let (news, watch) = (News { announcer, parts }, CancellationToken::new());
        let house = Self {
            shop,
            bus,
            broker,
            mail,
            news,
            relay,
            mailer,
            sweeper,
            inventories,
            carts,
            orders,
            journal,
            mirror,
            watch,
            idle_ttl: limits.idle_ttl,
        };
        house.set_going();
        house
    }

    /// Starts what works by itself.
    fn set_going(&self) {
        let watched = Watched {
            relay: self.relay.clone(),
            mailer: self.mailer.clone(),
            sweeper: self.sweeper.clone(),
            carts: self.carts.clone(),
            inventories: self.inventories.clone(),
            idle_ttl: self.idle_ttl,
        };
        tokio::spawn(watch_on(watched, self.watch.clone()));
        self.news.start(&self.watch);
        if let Some(broker) = &self.broker {
            tokio::spawn(wake_when_connected(self.watch.clone(), broker.connected(), self.relay.clone()));
        }
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

    /// The broker, when there is one.
    #[must_use]
    pub fn broker(&self) -> Option<&Arc<AmqpBus>> {
        self.broker.as_ref()
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

    /// Shows carts to other programs.
    #[must_use]
    pub fn mirror(&self) -> &Mirror {
        &self.mirror
    }

    /// Waits until everything that was begun is done, publishes what is in the outbox, and sends the actors home.
    /// Gives what was not done at `deadline`. Events that were not published are not among it: they are in the
    /// outbox, and go out at the next start or from another server.
    pub async fn close(&self, deadline: Instant) -> Unfinished {
        self.watch.cancel();
        self.sweeper.stop();
        self.mailer.stop_sending();
        if let Some(broker) = &self.broker {
            broker.stop_consuming(deadline).await;
        }
        while self.depth() > 0 && Instant::now() < deadline {
            tokio::time::sleep(DRAIN_PERIOD).await;
        }
        let messages = self.depth();
        let flush = async {
            self.relay.run_once().await;
            self.news.announcer.flush(&self.news.parts).await;
        };
        if timeout_at(deadline, flush).await.is_err() {
            tracing::warn!("events are left in the outbox; they go out at the next start");
        }
        self.relay.stop();
        let mails = self.mailer.finish(deadline).await;
        self.mirror.close(deadline).await;
        if let Some(broker) = &self.broker {
            broker.close(deadline).await;
        }
        self.carts.registry().clear();
        self.inventories.registry().clear();
        Unfinished { messages, mails }
    }

    /// How many messages wait or are at work.
    fn depth(&self) -> i64 {
        self.orders.registry().counters().depth()
            + self.carts.registry().counters().depth()
            + self.inventories.registry().counters().depth()
            + self.journal.registry().counters().depth()
    }
}

/// What all actors are built with.
struct Builder {
    store: SharedStore,
    clock: Clock,
    arbiters: Arc<[ArbiterHandle]>,
    limits: HouseLimits,
    metrics: Metrics,
    faults: Faults,
}

impl Builder {
    /// The registry of a kind of which there is one.
    fn only_one<A: actix::Actor<Context = actix::Context<A>>>(
        &self,
        kind: ActorKind,
        limit: u32,
    ) -> Arc<Registry<(), A>> {
        Arc::new(Registry::new(kind, self.limits.supervision.of_the_only_one(), Arc::clone(&self.arbiters), limit))
    }

    fn stock(&self, announcer: &Arc<Announcer>, mirror: &Mirror) -> (Inventories, JournalHandle) {
        let HouseLimits { supervision, inventory_mailbox, journal_mailbox, journal_batch_max, .. } = self.limits;
        let boards = Arc::<Boards>::default();
        let stock =
            Arc::new(Registry::new(ActorKind::Inventory, supervision, Arc::clone(&self.arbiters), inventory_mailbox));
        let parts = JournalParts {
            store: Arc::clone(&self.store),
            inventories: Arc::clone(&stock),
            announcer: Arc::clone(announcer),
            boards: Arc::clone(&boards),
            mirror: mirror.clone(),
            batch_max: journal_batch_max,
            committing: Arc::default(),
            telling: Arc::default(),
            pace: Arc::default(),
            metrics: JournalMetrics::new(&self.metrics),
            faults: self.faults.clone(),
        };
        let journal = JournalHandle::new(self.only_one(ActorKind::Journal, journal_mailbox), parts);
        let inventories = Inventories::new(InventoryParts {
            store: Arc::clone(&self.store),
            journal: journal.clone(),
            registry: stock,
            boards,
            faults: self.faults.clone(),
        });
        (inventories, journal)
    }

    fn carts(
        &self,
        inventories: &Inventories,
        journal: &JournalHandle,
        catalogue: &Arc<Catalogue>,
        mirror: &Mirror,
        rules: ShopRules,
    ) -> Carts {
        let HouseLimits { supervision, cart_mailbox, .. } = self.limits;
        Carts::new(CartParts {
            store: Arc::clone(&self.store),
            clock: self.clock.clone(),
            journal: journal.clone(),
            inventories: inventories.clone(),
            catalogue: Arc::clone(catalogue),
            mirror: mirror.clone(),
            rules,
            registry: Arc::new(Registry::new(ActorKind::Cart, supervision, Arc::clone(&self.arbiters), cart_mailbox)),
            opened: Arc::default(),
            faults: self.faults.clone(),
        })
    }

    fn mailer(&self, server: Option<(SmtpOptions, RetryRules)>) -> MailerHandle {
        let (store, clock, faults) = (&self.store, &self.clock, &self.faults);
        let delivery = server.map(|(smtp, rules)| {
            Arc::new(Delivery::new(Arc::clone(store), clock.clone(), smtp, rules, faults.clone()))
        });
        if let Some(delivery) = delivery.clone() {
            tokio::spawn(async move { delivery.watch().await });
        }
        self.periodic(Mailer { store: Arc::clone(store), clock: clock.clone(), delivery })
    }

    fn relay(&self, bus: &Arc<dyn EventBus>) -> RelayHandle {
        let (store, clock, bus) = (Arc::clone(&self.store), self.clock.clone(), Arc::clone(bus));
        let (placing, delay_max) = (Placing::new(), self.limits.event_delay_max);
        let (half_told, faults) = (HalfTold::default(), self.faults.clone());
        self.periodic(Relay { store, clock, bus, placing, delay_max, half_told, faults })
    }

    fn sweeper(&self, carts: &Carts, orders: &OrdersHandle) -> SweeperHandle {
        self.periodic(Sweeper::new(SweeperParts {
            store: Arc::clone(&self.store),
            clock: self.clock.clone(),
            carts: carts.clone(),
            orders: orders.clone(),
            order_pending_ttl: self.limits.order_pending_ttl,
            retention: self.limits.retention,
            more_to_forget: Arc::default(),
            faults: self.faults.clone(),
        }))
    }

    fn periodic<J: super::periodic::Job>(&self, job: J) -> PeriodicHandle<J> {
        PeriodicHandle::new(job, self.limits.supervision, Arc::clone(&self.arbiters), self.faults.clone())
    }
}

/// Who is told what is in stock, and what telling needs.
struct News {
    announcer: Arc<Announcer>,
    parts: AnnouncerParts,
}

impl News {
    fn start(&self, end: &CancellationToken) {
        tokio::spawn(Arc::clone(&self.announcer).run(self.parts.clone(), end.clone()));
    }
}

/// Who does the messages of this program's queues.
fn consumers(
    store: &SharedStore,
    clock: &Clock,
    mail: &Arc<MailRoom>,
    mailer: &MailerHandle,
    carts: &Carts,
    inventories: &Inventories,
) -> Vec<Arc<dyn Consumer>> {
    let mails =
        MailConsumer { store: Arc::clone(store), clock: clock.clone(), mail: Arc::clone(mail), mailer: mailer.clone() };
    vec![
        Arc::new(mails),
        Arc::new(CartConsumer { carts: carts.clone() }),
        Arc::new(StockConsumer { inventories: inventories.clone() }),
    ]
}

/// The bus: over the broker where there is one, else inside this program.
fn bus(
    broker: Option<&AmqpOptions>,
    consumers: Vec<Arc<dyn Consumer>>,
    store: &SharedStore,
    clock: &Clock,
) -> (Arc<dyn EventBus>, Option<Arc<AmqpBus>>) {
    match broker {
        Some(options) => {
            let broker = Arc::new(AmqpBus::start(options, consumers));
            (Arc::clone(&broker) as Arc<dyn EventBus>, Some(broker))
        }
        None => {
            let dead_letters = KeptDeadLetters { store: Arc::clone(store), clock: clock.clone() };
            (Arc::new(LocalBus::new(consumers, Arc::new(dead_letters))), None)
        }
    }
}

/// Wakes the relay whenever the broker is there again: events have waited for it.
async fn wake_when_connected(end: CancellationToken, mut connected: watch::Receiver<bool>, relay: RelayHandle) {
    while let Some(Ok(())) = end.run_until_cancelled(connected.changed()).await {
        if *connected.borrow_and_update() {
            relay.wake();
        }
    }
}

/// Watches until `end`: where that panics, from anew.
async fn watch_on(watched: Watched, end: CancellationToken) {
    while let Err(error) = tokio::spawn(watched.clone().watch(end.clone())).await {
        tracing::error!(%error, "who looks after the actors died; another begins");
        if end.run_until_cancelled(tokio::time::sleep(WATCH_PERIOD)).await.is_none() {
            return;
        }
    }
}

/// Whom somebody has to look after.
#[derive(Clone)]
struct Watched {
    relay: RelayHandle,
    mailer: MailerHandle,
    sweeper: SweeperHandle,
    carts: Carts,
    inventories: Inventories,
    idle_ttl: Duration,
}

impl Watched {
    /// Sees to it that the actors which work by themselves are alive: nobody else would notice their death. Now and then
    /// sends those home whom nobody asks, and ends those that hang.
    async fn watch(self, end: CancellationToken) {
        let mut tick = tokio::time::interval(WATCH_PERIOD);
        let mut ticks = 0_u32;
        while end.run_until_cancelled(tick.tick()).await.is_some() {
            self.relay.ensure();
            self.mailer.ensure();
            self.sweeper.ensure();
            if ticks.is_multiple_of(IDLE_TICKS) {
                self.carts.passivate_idle(self.idle_ttl);
                self.inventories.passivate_idle(self.idle_ttl);
            }
            ticks = ticks.wrapping_add(1);
        }
    }
}
