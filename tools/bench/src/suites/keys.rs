//! Key rings and personal values compared with the plain cipher, and personal values also with plain ones:
//! alone, through a mapper, and through event stores in memory and on SQLite.

use std::{
    fmt,
    hint::black_box,
    num::NonZeroUsize,
    path::Path,
    slice,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use bigdecimal::BigDecimal;
use es_core::{
    AggregateRecorder, Cipher, DomainEvent, EventContext, EventRange, EventStore, Expected, Mapper, Topic,
};
use es_crypto::{AesCipher, AesKey, EnvelopeAlgorithm, KeyRing};
use es_derive::Event;
use es_personal::{MemoryKeyStore, Personal, Subject, SubjectKeys};
use es_popo::PopoApplicationRecorder;
use es_sqlite::SqliteOptions;
use es_transcode::JsonTranscoder;
use time::{OffsetDateTime, macros::datetime};
use uuid::Uuid;

use crate::{
    bench::Bench,
    plan::Plan,
    report::Measure,
    system::{BoxFuture, RepeatedCall, Sample, System},
};

const RING: &str = "key ring";
const XAES: &str = "key ring, XAES-256-GCM";
const CIPHER: &str = "AesCipher";
const PERSONAL: &str = "personal value";
const PLAIN: &str = "plain value";
/// The bytes of a short state, of that in the documentation of es-crypto, of a large one, and of a snapshot.
const SIZES: [usize; 4] = [200, 341, 2_048, 16_384];
/// Many rounds, as for the mapper.
const ROUNDS: usize = 501;
/// The most that a key ring takes, as a multiple of the cipher.
const RING_TARGET: f64 = 1.05;
/// The most that an event with a personal value takes, as a multiple of the event with a plain value whose
/// state the cipher encrypts.
const PERSONAL_TARGET: f64 = 1.5;
/// The events of a loaded aggregate.
const LOADED: usize = 10;

#[derive(Clone, Debug, PartialEq, Event)]
#[event(topic = "shop:Order")]
enum OrderEvent {
    Placed {
        #[event(registered)]
        product_id: Uuid,
        #[event(registered)]
        delivered_at: OffsetDateTime,
        #[event(registered)]
        price: BigDecimal,
        buyer: String,
    },
    /// The same with a personal value.
    PlacedByPerson {
        #[event(registered)]
        product_id: Uuid,
        #[event(registered)]
        delivered_at: OffsetDateTime,
        #[event(registered)]
        price: BigDecimal,
        buyer: Personal<String>,
    },
}

/// A mapper and its event.
#[derive(Clone)]
struct Variant {
    name: &'static str,
    mapper: Mapper<JsonTranscoder>,
    event: OrderEvent,
}

pub(crate) async fn run(bench: &mut Bench, directory: &Path) -> Result<()> {
    let key = AesKey::random(32)?;
    let ring = |algorithm| KeyRing::builder().key(1, key.clone()).algorithm(algorithm).build();
    let (ring, xaes) = (ring(EnvelopeAlgorithm::Aes256Gcm)?, ring(EnvelopeAlgorithm::Xaes256Gcm)?);
    let cipher = AesCipher::new(&key);
    for size in SIZES {
        alone(bench, size, [(RING, &ring), (CIPHER, &cipher), (XAES, &xaes)]).await?;
    }
    let plain = Variant { name: PLAIN, mapper: Mapper::new(JsonTranscoder::new()), event: placed() };
    let with_cipher = |name, cipher: &dyn Fn(Mapper<JsonTranscoder>) -> Mapper<JsonTranscoder>| Variant {
        name,
        mapper: cipher(plain.mapper.clone()),
        event: placed(),
    };
    let ring = with_cipher(RING, &|mapper| mapper.with_cipher(ring.clone()));
    let cipher = with_cipher(CIPHER, &|mapper| mapper.with_cipher(AesCipher::new(&key)));
    let personal = Variant { name: PERSONAL, mapper: personal_mapper()?, event: placed_by_person() };
    compared(bench, "keys", RING_TARGET, &[ring, cipher.clone()], directory).await?;
    compared(bench, "keys, personal value", PERSONAL_TARGET, &[personal, cipher, plain], directory).await
}

/// Measures ciphers without a mapper. A key ring authenticates its event as associated data, of which the
/// cipher has none.
async fn alone(bench: &mut Bench, size: usize, ciphers: [(&'static str, &dyn Cipher); 3]) -> Result<()> {
    let topic = Topic::from_static("bank:Account.Opened");
    let context = &EventContext { originator_id: Uuid::nil(), originator_version: 1, topic: &topic };
    let text = vec![b'x'; size];
    let times = bench.scale.pick(1_000, 10);
    let plan = |what: &str| {
        let plan = Plan::new(format!("keys {what}, {size} B"), ROUNDS);
        plan.compare(CIPHER, Measure::Time).subject(XAES).compare(CIPHER, Measure::Time)
    };
    bench
        .measure(plan("seal"), async || {
            Ok(ciphers
                .iter()
                .map(|(name, cipher)| {
                    let text = &text;
                    RepeatedCall::boxed(*name, times, move || {
                        let mut sealed = Vec::new();
                        cipher.encrypt(context, black_box(text), &mut sealed).map(|()| sealed)
                    })
                })
                .collect())
        })
        .await?;
    bench
        .measure(plan("open"), async || {
            ciphers
                .iter()
                .map(|(name, cipher)| {
                    let mut sealed = Vec::new();
                    cipher.encrypt(context, &text, &mut sealed)?;
                    Ok(RepeatedCall::boxed(*name, times, move || {
                        let mut opened = Vec::new();
                        cipher.decrypt(context, black_box(&sealed), &mut opened).map(|()| opened)
                    }))
                })
                .collect()
        })
        .await
}

/// Compares the first variant with the others; the target is a multiple of the second.
async fn compared(
    bench: &mut Bench,
    name: &str,
    target: f64,
    variants: &[Variant],
    directory: &Path,
) -> Result<()> {
    for variant in variants {
        // Loads the key of the personal value.
        variant.mapper.write_events(slice::from_ref(&variant.domain_event())).await?;
    }
    let plan = |what: &str, rounds| {
        let plan = Plan::new(format!("{name} {what}"), rounds).within(target, variants[1].name);
        variants[2..].iter().fold(plan, |plan, other| plan.compare(other.name, Measure::Time))
    };
    let times = bench.scale.pick(200, 10);
    bench
        .measure(plan("encode", ROUNDS), async || {
            let encode = |variant: &Variant| {
                let (mapper, event) = (variant.mapper.clone(), variant.domain_event());
                RepeatedCall::boxed(variant.name, times, move || mapper.to_stored_event(black_box(&event)))
            };
            Ok(variants.iter().map(encode).collect())
        })
        .await?;
    bench
        .measure(plan("decode", ROUNDS), async || {
            let decode = |variant: &Variant| {
                let mapper = variant.mapper.clone();
                let stored = mapper.to_stored_event(&variant.domain_event())?;
                ensure!(mapper.to_domain_event::<OrderEvent>(&stored)?.payload == variant.event);
                Ok(RepeatedCall::boxed(variant.name, times, move || {
                    mapper.to_domain_event::<OrderEvent>(black_box(&stored))
                }))
            };
            variants.iter().map(decode).collect()
        })
        .await?;
    for call in [Call::Put, Call::Get] {
        let times = bench.scale.pick(200, 2);
        bench
            .measure(plan(&format!("{call}, memory"), 151), async || {
                let system =
                    |variant| StoreCalls::boxed(PopoApplicationRecorder::new(), variant, call, times);
                Ok(variants.iter().map(system).collect())
            })
            .await?;
        let times = bench.scale.pick(if call == Call::Put { 20 } else { 200 }, 2);
        bench
            .measure(plan(&format!("{call}, SQLite"), 51), async || {
                let mut systems: Vec<Box<dyn System>> = Vec::new();
                for variant in variants {
                    let path = directory.join(format!("{name} {call} {}.db", variant.name));
                    let recorder = SqliteOptions::new(path).open().await?.application_recorder().await?;
                    systems.push(StoreCalls::boxed(recorder, variant, call, times));
                }
                Ok(systems)
            })
            .await?;
    }
    Ok(())
}

/// A call of an event store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Call {
    /// Records one event.
    Put,
    /// Loads an aggregate.
    Get,
}

/// Calls of an event store, one after the other.
struct StoreCalls<R> {
    name: &'static str,
    store: EventStore<R, JsonTranscoder>,
    event: OrderEvent,
    call: Call,
    times: usize,
}

impl<R: AggregateRecorder + 'static> StoreCalls<R> {
    fn boxed(recorder: R, variant: &Variant, call: Call, times: usize) -> Box<dyn System> {
        let store = EventStore::new(recorder, variant.mapper.clone());
        Box::new(Self { name: variant.name, store, event: variant.event.clone(), call, times })
    }

    async fn round(&self) -> Result<Sample> {
        let events = match self.call {
            Call::Put => 1,
            Call::Get => LOADED,
        };
        let mut event = domain_event(self.event.clone());
        let loaded = Uuid::now_v7();
        if self.call == Call::Get {
            self.store.append(loaded, Expected::New, vec![self.event.clone(); LOADED]).await?;
        }
        let start = Instant::now();
        for _ in 0..self.times {
            match self.call {
                Call::Put => {
                    event.originator_id = Uuid::now_v7();
                    self.store.put(slice::from_ref(&event)).await?;
                }
                Call::Get => {
                    let found = self.store.get::<OrderEvent>(loaded, EventRange::all()).await?;
                    ensure!(found.len() == LOADED, "{} events were loaded", found.len());
                }
            }
        }
        let (events, elapsed) = (events * self.times, start.elapsed());
        Ok(Sample { events, elapsed, latency: None, mebibytes: None })
    }
}

impl<R: AggregateRecorder + 'static> System for StoreCalls<R> {
    fn name(&self) -> &str {
        self.name
    }

    fn round(&mut self) -> BoxFuture<'_, Sample> {
        Box::pin(Self::round(self))
    }
}

impl Variant {
    fn domain_event(&self) -> DomainEvent<OrderEvent> {
        domain_event(self.event.clone())
    }
}

fn domain_event(event: OrderEvent) -> DomainEvent<OrderEvent> {
    DomainEvent::at(Uuid::from_u128(1), 1, datetime!(2024-02-29 12:35:00.000123 UTC), event)
}

const PRODUCT: Uuid = Uuid::from_u128(0x1234_5678_9abc_4def_8123_4567_89ab_cdef);
const DELIVERED_AT: OffsetDateTime = datetime!(2024-02-29 12:34:56.789012 UTC);
const BUYER: &str = "Ada Lovelace, 12 St James's Square, London SW1Y 4JH";

fn placed() -> OrderEvent {
    OrderEvent::Placed {
        product_id: PRODUCT,
        delivered_at: DELIVERED_AT,
        price: BigDecimal::new(123_456.into(), 2),
        buyer: BUYER.to_owned(),
    }
}

fn placed_by_person() -> OrderEvent {
    OrderEvent::PlacedByPerson {
        product_id: PRODUCT,
        delivered_at: DELIVERED_AT,
        price: BigDecimal::new(123_456.into(), 2),
        buyer: Personal::new(Subject::from(Uuid::from_u128(7)), BUYER.to_owned()),
    }
}

/// A mapper whose keys stay in memory for the whole run.
fn personal_mapper() -> Result<Mapper<JsonTranscoder>> {
    const HOUR: Duration = Duration::from_secs(3_600);
    let ring = KeyRing::builder().key(1, AesKey::random(32)?).build()?;
    let capacity = NonZeroUsize::MIN.saturating_add(9);
    let keys = SubjectKeys::with_cache(MemoryKeyStore::new(), ring, capacity, HOUR);
    let mut transcoder = JsonTranscoder::new();
    keys.register::<String>(&mut transcoder);
    Ok(Mapper::new(transcoder))
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Put => "put",
            Self::Get => "get",
        })
    }
}
