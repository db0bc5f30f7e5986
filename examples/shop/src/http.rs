//! Requests, the live stream of orders, health and metrics.

use std::{fmt::Display, sync::Arc, time::Duration};

use axum::{
    Json, Router,
    extract::{Path, Query, State},
    http::{HeaderMap, StatusCode},
    response::{
        IntoResponse, Response,
        sse::{self, Sse},
    },
    routing::{get, post, put},
};
use es_persistence::{
    DynProcessRecorder, StopHandle,
    prelude::*,
    process::{ProcessorState, Progress},
};
use futures_util::{Stream, StreamExt};
use metrics_exporter_prometheus::PrometheusHandle;
use serde::{Deserialize, Serialize};

use crate::{
    customer::Customer,
    order::{Order, OrderEvent},
    order_list::{ORDER_LIST, OrderRow},
    stock::Stock,
};

/// A repository on the datastore that the environment selects.
pub(crate) type Aggregates<A> = Repository<A, Arc<dyn DynProcessRecorder>, JsonTranscoder>;

#[derive(Clone)]
pub(crate) struct Shop {
    pub(crate) factory: Arc<InfrastructureFactory>,
    pub(crate) customers: Aggregates<Customer>,
    pub(crate) stock: Aggregates<Stock>,
    pub(crate) orders: Aggregates<Order>,
    pub(crate) progress: [Progress; 2],
    pub(crate) metrics: PrometheusHandle,
    /// Ends the streams.
    pub(crate) stop: StopHandle,
}

pub(crate) fn routes(shop: Shop) -> Router {
    Router::new()
        .route("/customers/{id}", put(register_customer))
        .route("/stock/{item}", post(add_stock).get(show_stock))
        .route("/orders/{id}", put(place_order))
        .route("/orders", get(list_orders))
        .route("/events", get(follow_orders))
        .route("/health", get(health))
        .route("/metrics", get(async |State(shop): State<Shop>| shop.metrics.render()))
        .with_state(shop)
}

/// The response to a command: the position of its events in the log, if it had any.
#[derive(Serialize)]
struct Accepted {
    position: Option<i64>,
}

impl Accepted {
    fn after(ids: &[i64]) -> Json<Self> {
        Json(Self { position: ids.last().copied() })
    }
}

#[derive(Deserialize)]
struct NewCustomer {
    name: String,
}

async fn register_customer(
    State(shop): State<Shop>,
    Path(id): Path<Uuid>,
    headers: HeaderMap,
    Json(NewCustomer { name }): Json<NewCustomer>,
) -> Result<Json<Accepted>, Failure> {
    let ids = shop.customers.execute(id, metadata(&headers), |customer| customer.register(&name)).await?;
    Ok(Accepted::after(&ids))
}

#[derive(Deserialize)]
struct NewStock {
    pieces: u32,
}

async fn add_stock(
    State(shop): State<Shop>,
    Path(item): Path<String>,
    headers: HeaderMap,
    Json(NewStock { pieces }): Json<NewStock>,
) -> Result<Json<Accepted>, Failure> {
    let ids = shop.stock.execute(Stock::id(&item), metadata(&headers), |stock| stock.add(pieces)).await?;
    Ok(Accepted::after(&ids))
}

async fn show_stock(State(shop): State<Shop>, Path(item): Path<String>) -> Result<String, Failure> {
    Ok(shop.stock.load(Stock::id(&item)).await?.state.pieces.to_string())
}

#[derive(Deserialize)]
struct NewOrder {
    customer: Uuid,
    item: String,
    pieces: u32,
}

async fn place_order(
    State(shop): State<Shop>,
    Path(id): Path<Uuid>,
    headers: HeaderMap,
    Json(NewOrder { customer, item, pieces }): Json<NewOrder>,
) -> Result<(StatusCode, Json<Accepted>), Failure> {
    if !shop.customers.load(customer).await?.exists() {
        return Err(Failure::Refused("the customer is not registered".to_owned()));
    }
    let metadata = metadata(&headers).with_actor(customer.to_string());
    let ids = shop.orders.execute(id, metadata, |order| order.place(customer, &item, pieces)).await?;
    metrics::counter!("shop_orders_total").increment(1);
    Ok((StatusCode::ACCEPTED, Accepted::after(&ids)))
}

#[derive(Deserialize)]
struct AtLeast {
    /// The position of an event whose effect the response shows.
    #[serde(default)]
    position: i64,
}

async fn list_orders(
    State(shop): State<Shop>,
    Query(AtLeast { position }): Query<AtLeast>,
) -> Result<Json<Vec<OrderRow>>, Failure> {
    shop.orders.store().recorder().wait(ORDER_LIST, position, Duration::from_secs(5)).await?;
    Ok(Json(shop.factory.query(OrderRow::newest(100)).await?))
}

/// An event of an order, for clients.
#[derive(Serialize)]
struct OrderMessage {
    order: Uuid,
    correlation_id: Option<String>,
    #[serde(flatten)]
    event: OrderEvent,
}

/// Streams the events of all orders after `Last-Event-ID`, first recorded and then live ones.
async fn follow_orders(
    State(shop): State<Shop>,
    headers: HeaderMap,
) -> Sse<impl Stream<Item = Result<sse::Event, PersistenceError>>> {
    let position = text(&headers, "last-event-id").and_then(|id| id.parse().ok()).unwrap_or(0);
    let events = shop.orders.store().subscribe::<OrderEvent>().after(position).stopped_by(shop.stop);
    let messages = events.into_stream().map(|notification| {
        let notification = notification?;
        let message = OrderMessage {
            order: notification.event.originator_id,
            correlation_id: notification.event.metadata.correlation_id().map(str::to_owned),
            event: notification.event.payload,
        };
        let event = sse::Event::default().id(notification.id.to_string());
        event.json_data(message).map_err(|error| PersistenceError::data("not JSON").with_source(error))
    });
    Sse::new(messages).keep_alive(sse::KeepAlive::default())
}

async fn health(State(shop): State<Shop>) -> (StatusCode, String) {
    let states = shop.progress.map(|progress| progress.state());
    let is_healthy = states.iter().all(|state| *state == ProcessorState::Running);
    let status = if is_healthy { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, format!("{states:?}"))
}

/// The metadata of a command: the id of its request.
fn metadata(headers: &HeaderMap) -> Metadata {
    let id = text(headers, "x-request-id").map_or_else(|| Uuid::now_v7().to_string(), str::to_owned);
    Metadata::new().with_correlation_id(id)
}

fn text<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name)?.to_str().ok()
}

/// The failure of a request.
enum Failure {
    Refused(String),
    Persistence(PersistenceError),
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let error = match self {
            Self::Refused(reason) => return (StatusCode::CONFLICT, reason).into_response(),
            Self::Persistence(error) => error,
        };
        tracing::error!(%error, "a request failed");
        let may_succeed_later = error.is_transient() || error.is_conflict() || error.is_outcome_unknown();
        if may_succeed_later { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::INTERNAL_SERVER_ERROR }
            .into_response()
    }
}

impl<E: Display> From<CommandError<E>> for Failure {
    fn from(error: CommandError<E>) -> Self {
        match error {
            CommandError::Rejected(refusal) => Self::Refused(refusal.to_string()),
            CommandError::Persistence(error) => Self::Persistence(error),
        }
    }
}

impl From<PersistenceError> for Failure {
    fn from(error: PersistenceError) -> Self {
        Self::Persistence(error)
    }
}
