//! A small shop: customers, stock and orders behind HTTP, on SQLite or PostgreSQL.
//!
//! ```console
//! $ DATABASE_URL=sqlite:shop.db cargo run -p shop
//! $ DATABASE_URL=postgres://user:password@localhost/shop cargo run -p shop
//! ```
//!
//! - Each command is a decision of an aggregate, executed by a repository: `customer`, `stock`, `order`.
//! - A process manager reserves stock for each order, and confirms or rejects it: `fulfilment`.
//! - A projection keeps a table of orders: `order_list`.
//! - Requests, a live stream of orders, and metrics: `http`.
//!
//! `ADDRESS` is the address to listen on. The factory reads `CIPHER_KEY`, which encrypts the events,
//! `COMPRESSOR_TOPIC`, which compresses them, and `IS_SNAPSHOTTING_ENABLED`.

mod customer;
mod fulfilment;
mod http;
mod order;
mod order_list;
mod stock;

use std::{env, error::Error, io::Write, sync::Arc};

use es_persistence::{StopHandle, prelude::*};
use metrics_exporter_prometheus::PrometheusBuilder;
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
};

use crate::{
    fulfilment::Fulfilment,
    http::Shop,
    order::OrderEvent,
    order_list::{ORDER_LIST, OrderList},
};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let metrics = PrometheusBuilder::new().install_recorder()?;

    let factory = Arc::new(InfrastructureFactory::construct("shop")?);
    let store = EventStore::new(factory.process_recorder().await?, factory.mapper()?);
    let customers = Repository::new(store.clone());
    let (stock, mut orders) = (customers.repository(), customers.repository());
    if let Some(snapshots) = factory.snapshot_store().await? {
        orders = orders.snapshots(snapshots, SnapshotPolicy::every(50));
    }

    let fulfilment = Fulfilment { orders: orders.clone(), stock: stock.clone() };
    let mut fulfilment = Processor::for_events("fulfilment", &store, &store, fulfilment)
        .topics(&[OrderEvent::PLACED])
        .spawn()?;
    let projector = factory.projector(OrderList).await?;
    let mut order_list = Processor::with_consumer(ORDER_LIST, store.recorder().clone(), projector)
        .topics(OrderEvent::TOPICS)
        .spawn()?;

    let stop = StopHandle::new();
    let progress = [fulfilment.progress(), order_list.progress()];
    let shop = Shop {
        factory: Arc::clone(&factory),
        customers,
        stock,
        orders,
        progress,
        metrics,
        stop: stop.clone(),
    };
    let listener = TcpListener::bind(env::var("ADDRESS").as_deref().unwrap_or("127.0.0.1:8080")).await?;
    writeln!(std::io::stdout(), "listening on {}", listener.local_addr()?)?;
    let mut terminated = signal(SignalKind::terminate())?;
    let server = axum::serve(listener, http::routes(shop)).with_graceful_shutdown(async move {
        terminated.recv().await;
        stop.stop(); // ends the streams, for which the server waits
    });

    tokio::select! {
        result = server => result?,
        result = fulfilment.join() => result?, // a processor that cannot go on ends the program
        result = order_list.join() => result?,
    }
    fulfilment.stop();
    order_list.stop();
    tokio::try_join!(fulfilment.join(), order_list.join())?;
    Ok(factory.close().await?)
}
