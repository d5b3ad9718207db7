//! A message to one actor and its answer: through our registry, mailbox and gauge, which bound and count, beside a bare
//! actix address, which does neither. One sender, 64 and 512.
//!
//! `cargo bench --bench mailbox`. Prints round trips a second, and what ours makes of the bare one's.

#![expect(clippy::expect_used, clippy::print_stdout, reason = "a bench stops at a fault and prints")]

#[allow(dead_code, reason = "each bench has its part of it")]
#[path = "../support/mod.rs"]
mod support;

use std::cell::RefCell;
use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, Addr, Context, Handler, Message};
use actix_rt::{Arbiter, System};
use criterion::{Criterion, Throughput};
use storekeeper::actors::mailbox::Posted;
use storekeeper::actors::registry::Registry;
use storekeeper::actors::supervision::{ActorKind, Policy};
use storekeeper::domain::ids::InventoryId;
use tokio::sync::oneshot;
use uuid::Uuid;

use support::{SAMPLES, median, run, the};

const SENDERS: [u64; 3] = [1, 64, 512];
/// Messages that may wait.
const PLACES: u32 = 4_096;
const KEY: InventoryId = InventoryId(Uuid::nil());

/// An actor that answers.
struct Echo;

impl Actor for Echo {
    type Context = Context<Self>;
}

/// A question for it by our way.
struct Ask {
    reply: oneshot::Sender<()>,
}

impl Handler<Posted<Ask>> for Echo {
    type Result = ();

    fn handle(&mut self, posted: Posted<Ask>, _: &mut Self::Context) {
        let Posted { message, mut ticket } = posted;
        ticket.begin();
        assert!(message.reply.send(()).is_ok(), "the one who asked waits");
        ticket.done();
    }
}

/// A question for it by actix's.
struct Knock;

impl Message for Knock {
    type Result = ();
}

impl Handler<Knock> for Echo {
    type Result = ();

    fn handle(&mut self, _: Knock, _: &mut Self::Context) {}
}

async fn ask(registry: &Arc<Registry<InventoryId, Echo>>) {
    let (reply, answer) = oneshot::channel();
    assert!(registry.post(KEY, Ask { reply }, |_| Echo).is_ok(), "there is a place");
    answer.await.expect("an answer");
}

fn main() {
    let runtime =
        Arc::new(tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("the system gives a runtime"));
    let _system = System::with_tokio_rt(the(&runtime));
    let arbiter = Arbiter::with_tokio_rt(the(&runtime));
    let registry = Arc::new(Registry::new(ActorKind::Inventory, Policy::default(), [arbiter.handle()].into(), PLACES));
    let address: Addr<Echo> = Echo::start_in_arbiter(&arbiter.handle(), |_| Echo);
    let mut criterion = Criterion::default().configure_from_args().sample_size(SAMPLES).nresamples(1_000);
    let mut rows = Vec::new();
    for senders in SENDERS {
        let mut measure = |way: &str, one: &dyn Fn(u64) -> Duration| {
            let samples = RefCell::new(Vec::new());
            let mut group = criterion.benchmark_group(format!("mailbox/{way}"));
            group.throughput(Throughput::Elements(senders));
            group.bench_function(format!("{senders} senders"), |bencher| {
                bencher.iter_custom(|rounds| {
                    let took = one(rounds * senders);
                    samples.borrow_mut().push((rounds * senders) as f64 / took.as_secs_f64());
                    took
                });
            });
            group.finish();
            median(samples.into_inner())
        };
        let bare = measure("bare", &|count| {
            let address = address.clone();
            let knock = move |_| {
                let address = address.clone();
                async move { address.send(Knock).await.expect("an answer") }
            };
            runtime.block_on(run(senders, count, knock))
        });
        let ours = measure("ours", &|count| {
            let registry = Arc::clone(&registry);
            let question = move |_| {
                let registry = Arc::clone(&registry);
                async move { ask(&registry).await }
            };
            runtime.block_on(run(senders, count, question))
        });
        rows.extend(bare.zip(ours).map(|(bare, ours)| (senders, bare, ours)));
    }
    criterion.final_summary();
    println!("\nround trips a second         bare        ours   ratio");
    for (senders, bare, ours) in rows {
        println!("{:<20} {bare:>12.0} {ours:>11.0} {:>7.2}", format!("{senders} senders"), ours / bare);
    }
}
