//! Personal values and sealed events of both languages in one database, with one key store: each reads those
//! of the other and erases a subject, whose values and events are then erased for both. `python/personal.py`
//! is the Python half.

use std::{path::Path, process::Stdio, sync::Arc};

use anyhow::{Context, Result, ensure};
use es_persistence::{
    DynApplicationRecorder, Event, EventRange, EventStore, Expected,
    crypto::KeyRing,
    factory::InfrastructureFactory,
    personal::{Personal, PostgresKeyStore, SqliteKeyStore, Subject, SubjectKeys},
    transcode::JsonTranscoder,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, json};
use sqlx::{
    PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use uuid::Uuid;

use crate::{
    configuration::{Codecs, Configuration, Datastore, Language, PythonVersion},
    database::Database,
    process::{python, within_limit},
};

/// The ring that wraps the keys of the subjects.
const RING: &str = "7:S7dWXcSV2xZeweJ0QSsbXuJxSvvS9SN+L6rBY9rcy0Q=";

/// The subjects of the orders: the same number of orders is from each language.
const SUBJECTS: [&str; 4] = ["customer-1", "Müller 🦀", "customer-1", "customer-3"];

#[derive(Clone, Debug, Event)]
#[event(topic = "shop:Order.Placed")]
struct Placed {
    originator_topic: String,
    item: String,
    buyer: Personal<String>,
    address: Personal<Address>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Address {
    street: String,
    #[serde(with = "es_persistence::transcode::serde_with::As::<es_persistence::transcode::Registered>")]
    id: Uuid,
}

/// The customer of an order, in an event that is sealed as a whole.
#[derive(Clone, Debug, Event)]
#[event(topic = "shop:Customer.Registered", subject = customer, erased = Self::erased)]
struct Registered {
    originator_topic: String,
    customer: String,
    name: Option<String>,
}

impl Registered {
    fn new(customer: &str, name: Option<String>) -> Self {
        Self { originator_topic: "shop:Customer".to_owned(), customer: customer.to_owned(), name }
    }

    fn erased(customer: Subject) -> Self {
        Self::new(customer.as_str(), None)
    }
}

/// An order of either language, as it is passed to Python.
#[derive(Clone, Debug, Serialize)]
struct Order {
    #[serde(with = "uuid::serde::simple")]
    id: Uuid,
    /// The aggregate of its customer.
    customer: Uuid,
    item: String,
    subject: &'static str,
    buyer: String,
    street: String,
}

/// The findings of Python.
#[derive(Debug, Deserialize)]
struct Findings {
    orders: Vec<Json>,
    /// Subject, person or program, and time in ISO 8601.
    erasures: Vec<[String; 3]>,
    refused: Vec<String>,
}

/// The steps of Python, in this order.
#[derive(Debug, Default, Serialize)]
struct Task<'a> {
    place: &'a [Order],
    erase: &'a [&'static str],
    /// The ids of orders and of their customers.
    read: Vec<[Uuid; 2]>,
    refuse: &'a [Order],
}

/// Returns a readable name of the comparison.
pub(crate) fn name(version: PythonVersion, datastore: Datastore) -> String {
    format!("personal values, {datastore}, Python {version}")
}

/// Compares the values. Returns their number.
pub(crate) async fn compare(
    version: PythonVersion,
    datastore: Datastore,
    environments: &Path,
) -> Result<usize> {
    let database = Database::create(datastore, environments).await?;
    let compared = Comparison::new(version, datastore, environments, &database)?.run().await;
    database.remove().await?;
    compared
}

struct Comparison<'a> {
    version: PythonVersion,
    environments: &'a Path,
    settings: Vec<(&'static str, String)>,
}

impl<'a> Comparison<'a> {
    fn new(
        python: PythonVersion,
        datastore: Datastore,
        environments: &'a Path,
        database: &Database,
    ) -> Result<Self> {
        // Version 9.1 has no key ring for events.
        let codecs = if python == PythonVersion::V9_1 { Codecs::Plain } else { Codecs::KeyRing };
        let configuration = Configuration { python, datastore, codecs, tables_by: Language::Rust };
        let settings = configuration.settings().into_iter().map(|(name, value)| (name, value.to_owned()));
        let mut settings: Vec<_> = settings.chain(database.settings()?).collect();
        settings.push(("KEYS", RING.to_owned()));
        if let Database::Sqlite(directory) = database {
            settings.push(("SQLITE_DBNAME", directory.join("shop.db").display().to_string()));
            settings.push(("KEYS_SQLITE", directory.join("keys.db").display().to_string()));
        }
        Ok(Self { version: python, environments, settings })
    }

    async fn run(&self) -> Result<usize> {
        let orders: Vec<Order> =
            SUBJECTS.iter().enumerate().map(|(index, subject)| order(index, subject)).collect();
        let (ours, theirs) = orders.split_at(orders.len() / 2);
        let mut expected: Vec<Json> = orders.iter().map(|order| shown(order, false)).collect();

        let shop = Shop::open(&self.settings).await?;
        for order in ours {
            shop.place(order).await?;
            shop.register(order).await?;
        }
        let read: Vec<_> = orders.iter().map(|order| [order.id, order.customer]).collect();
        let findings = self.python(&Task { place: theirs, read: read.clone(), ..Task::default() }).await?;
        ensure!(findings.orders == expected, "Python reads {:?}, expected {expected:?}", findings.orders);
        shop.expect(&orders, &expected).await?;

        // Python erases a subject with values of Rust, and Rust one with values of Python.
        let [_, by_python, _, by_rust] = SUBJECTS;
        let task = Task { erase: &[by_python], read: read.clone(), refuse: &ours[1..], ..Task::default() };
        let findings = self.python(&task).await?;
        expected[1] = shown(&orders[1], true);
        ensure!(findings.orders == expected, "Python reads {:?} after its erasure", findings.orders);
        ensure!(findings.refused.len() == 2, "Python refuses {:?} of an erased subject", findings.refused);
        shop.close().await?;
        // Another process has no keys in memory.
        let shop = Shop::open(&self.settings).await?;
        shop.expect(&orders, &expected).await?;
        let refused = order(9, by_python);
        ensure!(shop.place(&refused).await.is_err(), "Rust stores a value of an erased subject");
        ensure!(shop.register(&refused).await.is_err(), "Rust stores an event of an erased subject");
        let erasure = shop.erasure(by_python).await?;
        ensure!(findings.erasures == [erasure.clone()], "Rust reads {erasure:?}, of {:?}", findings.erasures);

        shop.keys.erase(Subject::new(by_rust)?, "rust").await?;
        // A repeated erasure is the first one.
        let findings = self.python(&Task { erase: &[by_rust], read, ..Task::default() }).await?;
        expected[3] = shown(&orders[3], true);
        ensure!(findings.orders == expected, "Python reads {:?} after Rust's erasure", findings.orders);
        let erasure = shop.erasure(by_rust).await?;
        ensure!(erasure[1] == "rust" && findings.erasures == [erasure.clone()], "{erasure:?} is not Rust's");
        shop.expect(&orders, &expected).await?;
        shop.close().await?;
        Ok(3 * orders.len())
    }

    async fn python(&self, task: &Task<'_>) -> Result<Findings> {
        let mut command = python(self.environments, self.version, "personal.py");
        command
            .arg(serde_json::to_string(task)?)
            .envs(self.settings.iter().map(|(name, value)| (name, value)));
        command.kill_on_drop(true).stderr(Stdio::inherit());
        let output = within_limit("Python", command.output()).await?.context("cannot run Python")?;
        ensure!(output.status.success(), "Python failed: {}", output.status);
        Ok(serde_json::from_slice(&output.stdout)?)
    }
}

/// The application in Rust.
struct Shop {
    factory: InfrastructureFactory,
    store: EventStore<Arc<dyn DynApplicationRecorder>, JsonTranscoder>,
    keys: SubjectKeys,
    pool: Option<PgPool>,
}

impl Shop {
    async fn open(settings: &[(&'static str, String)]) -> Result<Self> {
        let setting = |name| settings.iter().find(|(known, _)| *known == name).map(|(_, value)| &**value);
        let ring = KeyRing::builder().keys(RING)?.build()?;
        let (keys, pool) = match setting("KEYS_SQLITE") {
            Some(path) => (SubjectKeys::new(SqliteKeyStore::open(path).await?, ring), None),
            None => {
                let required = |name| setting(name).with_context(|| format!("{name} is not set"));
                let options = PgConnectOptions::new_without_pgpass()
                    .host(required("POSTGRES_HOST")?)
                    .port(required("POSTGRES_PORT")?.parse()?)
                    .database(required("POSTGRES_DBNAME")?)
                    .username(required("POSTGRES_USER")?)
                    .password(required("POSTGRES_PASSWORD")?);
                let pool = PgPoolOptions::new().max_connections(2).connect_with(options).await?;
                (SubjectKeys::new(PostgresKeyStore::open(pool.clone()).await?, ring), Some(pool))
            }
        };
        let mut transcoder = JsonTranscoder::new();
        keys.register::<String>(&mut transcoder);
        keys.register::<Address>(&mut transcoder);
        keys.register_events(&mut transcoder);
        let environment = settings.iter().map(|(name, value)| (*name, value.as_str()));
        let factory =
            InfrastructureFactory::builder("Shop").environment(environment).transcoder(transcoder).build()?;
        let store = factory.event_store().await?;
        Ok(Self { factory, store, keys, pool })
    }

    async fn place(&self, order: &Order) -> Result<()> {
        let Order { id, item, subject, buyer, street, .. } = order.clone();
        let subject = Subject::new(subject)?;
        let placed = Placed {
            originator_topic: "shop:Order".to_owned(),
            item,
            buyer: Personal::new(subject.clone(), buyer),
            address: Personal::new(subject, Address { street, id }),
        };
        self.store.append(id, Expected::New, [placed]).await?;
        Ok(())
    }

    async fn register(&self, order: &Order) -> Result<()> {
        let registered = Registered::new(order.subject, Some(order.buyer.clone()));
        self.store.append(order.customer, Expected::New, [registered]).await?;
        Ok(())
    }

    /// Reads the orders, and compares them.
    async fn expect(&self, orders: &[Order], expected: &[Json]) -> Result<()> {
        for (order, expected) in orders.iter().zip(expected) {
            let placed = self.store.get::<Placed>(order.id, EventRange::all()).await?.pop();
            let Placed { item, buyer, address, .. } = placed.context("an order is missing")?.payload;
            let address_value =
                address.value().map(|Address { street, id }| json!({"street": street, "id": id.simple()}));
            let registered = self.store.get::<Registered>(order.customer, EventRange::all()).await?.pop();
            let Registered { customer, name, .. } = registered.context("a customer is missing")?.payload;
            let found = json!([
                item,
                [buyer.subject().as_str(), buyer.value()],
                [address.subject().as_str(), address_value],
                [customer, name]
            ]);
            ensure!(found == *expected, "Rust reads {found}, expected {expected}");
        }
        Ok(())
    }

    /// Returns the erasure as Python shows it.
    async fn erasure(&self, subject: &str) -> Result<[String; 3]> {
        let erasure = self.keys.erasure(&Subject::new(subject)?).await?.context("there is no erasure")?;
        let at = erasure.erased_at;
        let fraction = match at.microsecond() {
            0 => String::new(),
            microsecond => format!(".{microsecond:06}"),
        };
        let (hour, minute, second) = at.to_hms();
        let iso = format!("{}T{hour:02}:{minute:02}:{second:02}{fraction}+00:00", at.date());
        Ok([erasure.subject.to_string(), erasure.erased_by, iso])
    }

    async fn close(&self) -> Result<()> {
        if let Some(pool) = &self.pool {
            pool.close().await;
        }
        Ok(self.factory.close().await?)
    }
}

fn order(index: usize, subject: &'static str) -> Order {
    let id = Uuid::new_v5(&Uuid::NAMESPACE_URL, format!("/orders/{index}").as_bytes());
    let customer = Uuid::new_v5(&id, b"customer");
    let buyer = format!("\"Żółć\" \u{1F980} {index}");
    Order {
        id,
        customer,
        item: format!("item {index}"),
        subject,
        buyer,
        street: format!("{index} Rue de l'Église"),
    }
}

/// Returns an order as both languages show it.
fn shown(order: &Order, is_erased: bool) -> Json {
    let Order { id, item, subject, buyer, street, .. } = order;
    if is_erased {
        return json!([item, [subject, null], [subject, null], [subject, null]]);
    }
    json!([item, [subject, buyer], [subject, {"street": street, "id": id.simple()}], [subject, buyer]])
}
