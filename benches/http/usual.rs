//! What the shop is compared with: a server of the same settings whose routes do nothing (`/empty`), one transaction a
//! request (`/transaction`), one conditional update (`/update`), or the rows of many requests at a time and nothing else
//! (`/rows` of holds, `/rows/order` of orders).
//!
//! A request's work is done on a runtime of its own, as the shop does its work: a pool's connections belong to the
//! runtime that opened them, and one that is shared by several workers' own runtimes stalls.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};

use actix_rt::System;
use actix_web::dev::ServerHandle;
use actix_web::{App, HttpResponse, HttpServer, web};
use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};
use storekeeper::domain::ids::ProductId;
use tokio::runtime::Runtime;
use uuid::Uuid;

use crate::support::Till;
use crate::support::rows::RowsAlone;

/// Connections that wait to be accepted, as the shop has them.
const BACKLOG: u32 = 4_096;

/// The server, which ends with it.
pub(crate) struct Usual {
    pub(crate) address: SocketAddr,
    handle: ServerHandle,
    thread: Option<JoinHandle<()>>,
}

/// A way to hold a unit.
pub(crate) type Way = Arc<dyn Fn(ProductId) -> BoxFuture<'static, ()> + Send + Sync>;

/// The way of a till.
pub(crate) fn way<S, T: Till<S>>(till: &Arc<T>) -> Way {
    let till = Arc::clone(till);
    Arc::new(move |product| {
        let till = Arc::clone(&till);
        Box::pin(async move { till.hold(product).await })
    })
}

/// What a route needs.
struct Doing {
    runtime: Arc<Runtime>,
    way: Way,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Wish {
    product_id: Uuid,
}

#[derive(Serialize)]
struct Done {
    message: &'static str,
}

impl Usual {
    pub(crate) fn start(
        workers: usize,
        runtime: &Arc<Runtime>,
        transaction: Way,
        update: Way,
        rows: Arc<RowsAlone>,
    ) -> Self {
        let doing = |way| web::Data::new(Doing { runtime: Arc::clone(runtime), way });
        let (transaction, update) = (doing(transaction), doing(update));
        let rows = web::Data::from(rows);
        let (told, started) = mpsc::channel();
        let thread = thread::spawn(move || {
            let server = HttpServer::new(move || {
                App::new()
                    .route("/empty", web::get().to(|| async { done() }))
                    .service(web::resource("/transaction").app_data(transaction.clone()).route(web::post().to(hold)))
                    .service(web::resource("/update").app_data(update.clone()).route(web::post().to(hold)))
                    .service(web::resource("/rows").app_data(rows.clone()).route(web::post().to(write)))
                    .service(web::resource("/rows/order").app_data(rows.clone()).route(web::post().to(order)))
            });
            let server = server.workers(workers).backlog(BACKLOG).shutdown_timeout(1).disable_signals();
            let server = server.bind(("127.0.0.1", 0)).expect("a port");
            let address = server.addrs()[0];
            let server = server.run();
            told.send((address, server.handle())).expect("somebody waits for it");
            System::new().block_on(server).expect("the server ends in order");
        });
        let (address, handle) = started.recv().expect("the server starts");
        Self { address, handle, thread: Some(thread) }
    }
}

impl Drop for Usual {
    fn drop(&mut self) {
        drop(self.handle.stop(false));
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

fn done() -> HttpResponse {
    HttpResponse::Ok().json(Done { message: "Done" })
}

async fn hold(doing: web::Data<Doing>, wish: web::Json<Wish>) -> HttpResponse {
    doing.runtime.spawn((doing.way)(ProductId(wish.product_id))).await.expect("the unit is held");
    done()
}

async fn write(rows: web::Data<RowsAlone>, wish: web::Json<Wish>) -> HttpResponse {
    rows.hold(ProductId(wish.product_id)).await;
    done()
}

async fn order(rows: web::Data<RowsAlone>, _: web::Json<serde_json::Value>) -> HttpResponse {
    rows.order().await;
    done()
}
