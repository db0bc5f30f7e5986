//! The mapper and its memory use, compared with three baselines:
//!
//! - serde_json writing and reading the same bytes,
//! - with codecs: serde_json and the same codecs called one after the other, which shows what the mapper
//!   adds,
//! - the mapper of the Python library.

use std::{borrow::Cow, hint::black_box, sync::Arc};

use anyhow::{Result, ensure};
use es_compress::{ZlibCompressor, ZstdCompressor};
use es_core::{Cipher, Compressor, DomainEvent, Mapper, StoredEvent};
use es_crypto::AesCipher;
use es_transcode::JsonTranscoder;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::{
    bench::Bench,
    child::{self, Job},
    machine,
    plan::Plan,
    report::Measure,
    system::{RepeatedCall, System},
    systems::{
        bare_json::{self, Text, Transferred},
        memory_use::MemoryUse,
        program::{Datastore, Program, Programs},
        python::{PYTHON_9_1, PYTHON_9_5},
    },
};

const OURS: &str = "mapper";
const BARE: &str = "serde_json";
const TEXT: &str = "serde_json, values ready as text";
const WITH_CODECS: &str = "serde_json, then the codecs";
const ALL_CODECS: &str = "JSON + zlib + AES-256";
/// Many rounds, of about a millisecond for each system: other load on the processor affects some of them,
/// and the median comes from the rest. Rounds longer than a time slice would always be affected.
const ROUNDS: usize = 501;

pub(crate) async fn run(bench: &mut Bench, programs: &Programs) -> Result<()> {
    json(bench, &programs.python).await?;
    let key = AesCipher::create_key(32)?;
    let choices = [
        ("JSON", Choice { compression: None, cipher_key: None }),
        ("JSON + zlib", Choice { compression: Some(Compression::Zlib), cipher_key: None }),
        ("JSON + zstd", Choice { compression: Some(Compression::Zstd), cipher_key: None }),
        ("JSON + AES-256", Choice { compression: None, cipher_key: Some(key.clone()) }),
        (ALL_CODECS, Choice { compression: Some(Compression::Zlib), cipher_key: Some(key) }),
    ];
    // Without codecs there are more comparisons: see above.
    for (name, choice) in choices.iter().skip(1) {
        with_codecs(bench, name, choice.codecs()?, choice.python(&programs.python)).await?;
    }
    for (name, choice) in choices {
        memory(bench, name, choice, &programs.python).await?;
    }
    Ok(())
}

async fn json(bench: &mut Bench, programs: &[Program]) -> Result<()> {
    let mapper = Mapper::new(JsonTranscoder::new());
    let event = bare_json::transferred();
    let stored = mapper.to_stored_event(&event)?;
    ensure!(stored.state == bare_json::write(&event)?, "the mapper and serde_json write different bytes");
    let text = Text::read(&stored.state)?;
    let times = bench.scale.pick(200, 100);
    let python = Python { programs, datastore: Datastore::Mapper { is_compressed: false, cipher_key: None } };
    let plan = |what| {
        Plan::new(format!("mapper {what}, JSON"), ROUNDS)
            .within(2.0, BARE)
            .faster(8.0, PYTHON_9_1)
            .faster(8.0, PYTHON_9_5)
            .compare(TEXT, Measure::Time)
    };
    bench
        .measure(plan("encode"), async || {
            let mut systems = vec![
                RepeatedCall::boxed(OURS, times, || mapper.to_stored_event(black_box(&event))),
                RepeatedCall::boxed(BARE, times, || bare_json::write(black_box(&event))),
                RepeatedCall::boxed(TEXT, times, || black_box(&text).write()),
            ];
            systems.extend(python.systems("encode", times / 10)?);
            Ok(systems)
        })
        .await?;
    bench
        .measure(plan("decode"), async || {
            let mut systems = vec![
                RepeatedCall::boxed(OURS, times, || {
                    mapper.to_domain_event::<Transferred>(black_box(&stored))
                }),
                RepeatedCall::boxed(BARE, times, || bare_json::read(black_box(&stored.state))),
                RepeatedCall::boxed(TEXT, times, || Text::read(black_box(&stored.state))),
            ];
            systems.extend(python.systems("decode", times / 10)?);
            Ok(systems)
        })
        .await
}

async fn with_codecs(
    bench: &mut Bench,
    name: &str,
    codecs: Codecs,
    python: Option<Python<'_>>,
) -> Result<()> {
    let mapper = codecs.mapper();
    let event = bare_json::transferred();
    let stored = mapper.to_stored_event(&event)?;
    ensure!(codecs.read(&stored)? == event, "the mapper and the codecs disagree");
    let times = bench.scale.pick(80, 80);
    let plan = |what: &str, times: f64| {
        let plan = Plan::new(format!("mapper {what}, {name}"), ROUNDS).within(1.15, WITH_CODECS);
        match &python {
            Some(_) if name == ALL_CODECS => {
                plan.faster(times, PYTHON_9_5).compare(PYTHON_9_1, Measure::Speed)
            }
            Some(_) => plan.compare(PYTHON_9_5, Measure::Speed).compare(PYTHON_9_1, Measure::Speed),
            None => plan,
        }
    };
    bench
        .measure(plan("encode", 2.5), async || {
            let mut systems = vec![
                RepeatedCall::boxed(OURS, times, || mapper.to_stored_event(black_box(&event))),
                RepeatedCall::boxed(WITH_CODECS, times, || codecs.write(black_box(&event), &stored)),
            ];
            if let Some(python) = &python {
                systems.extend(python.systems("encode", times / 2)?);
            }
            Ok(systems)
        })
        .await?;
    bench
        .measure(plan("decode", 4.0), async || {
            let mut systems = vec![
                RepeatedCall::boxed(OURS, times, || {
                    mapper.to_domain_event::<Transferred>(black_box(&stored))
                }),
                RepeatedCall::boxed(WITH_CODECS, times, || codecs.read(black_box(&stored))),
            ];
            if let Some(python) = &python {
                systems.extend(python.systems("decode", times / 4)?);
            }
            Ok(systems)
        })
        .await
}

/// Measures encoding and decoding events one by one, including the memory that codecs keep for the next one.
async fn memory(bench: &mut Bench, name: &str, choice: Choice, programs: &[Program]) -> Result<()> {
    let times = bench.scale.pick(10_000, 100);
    let plan = Plan::new(format!("mapper memory, {name}"), 3);
    bench
        .measure(plan, async || {
            let python = choice.python(programs);
            let job = Job::Mapper(ChildJob { choice, times });
            let mut systems = vec![MemoryUse::boxed(OURS, times, job)];
            if let Some(Python { programs, datastore }) = python {
                let work = json!({"work": "encode_and_decode", "times": times / 10});
                for program in programs {
                    systems.push(program.memory_use(datastore.clone(), &work)?);
                }
            }
            Ok(systems)
        })
        .await
}

/// A process that uses a mapper.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct ChildJob {
    choice: Choice,
    times: usize,
}

impl ChildJob {
    pub(crate) async fn serve(self) -> Result<()> {
        let event = bare_json::transferred();
        child::serve(async || {
            let idle = machine::resident()?;
            let mapper = self.choice.codecs()?.mapper();
            for _ in 0..self.times {
                let stored = mapper.to_stored_event(&event)?;
                black_box(mapper.to_domain_event::<Transferred>(&stored)?);
            }
            machine::above(idle)
        })
        .await
    }
}

/// The codecs of the mapper, as processes pass them to each other.
#[derive(Clone, Debug, Deserialize, Serialize)]
struct Choice {
    compression: Option<Compression>,
    /// In base64.
    cipher_key: Option<String>,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
enum Compression {
    Zlib,
    Zstd,
}

impl Choice {
    fn codecs(&self) -> Result<Codecs> {
        let compressor: Option<Arc<dyn Compressor>> = match self.compression {
            Some(Compression::Zlib) => Some(Arc::new(ZlibCompressor::new())),
            Some(Compression::Zstd) => Some(Arc::new(ZstdCompressor::new())),
            None => None,
        };
        let cipher: Option<Arc<dyn Cipher>> = match &self.cipher_key {
            Some(key) => Some(Arc::new(AesCipher::from_base64(key)?)),
            None => None,
        };
        Ok(Codecs { compressor, cipher })
    }

    /// Returns the mapper of the Python library; `None` where it has no such codec: zstd.
    fn python<'a>(&self, programs: &'a [Program]) -> Option<Python<'a>> {
        let is_compressed = match self.compression {
            Some(Compression::Zstd) => return None,
            compression => compression.is_some(),
        };
        let datastore = Datastore::Mapper { is_compressed, cipher_key: self.cipher_key.clone() };
        Some(Python { programs, datastore })
    }
}

/// The mapper of the Python library, with the same codecs.
struct Python<'a> {
    programs: &'a [Program],
    datastore: Datastore,
}

impl Python<'_> {
    fn systems(&self, direction: &str, times: usize) -> Result<Vec<Box<dyn System>>> {
        let work = json!({"work": direction, "times": times});
        self.programs.iter().map(|program| program.boxed(self.datastore.clone(), &work)).collect()
    }
}

/// The codecs of a mapper.
struct Codecs {
    compressor: Option<Arc<dyn Compressor>>,
    cipher: Option<Arc<dyn Cipher>>,
}

impl Codecs {
    fn mapper(&self) -> Mapper<JsonTranscoder> {
        let mut mapper = Mapper::new(JsonTranscoder::new());
        if let Some(compressor) = &self.compressor {
            mapper = mapper.with_compressor(Arc::clone(compressor));
        }
        if let Some(cipher) = &self.cipher {
            mapper = mapper.with_cipher(Arc::clone(cipher));
        }
        mapper
    }

    fn write(&self, event: &DomainEvent<Transferred>, stored: &StoredEvent) -> Result<Vec<u8>> {
        let mut state = bare_json::write(event)?;
        if let Some(compressor) = &self.compressor {
            let mut compressed = Vec::with_capacity(state.len());
            compressor.compress(&state, &mut compressed)?;
            state = compressed;
        }
        if let Some(cipher) = &self.cipher {
            let mut encrypted = Vec::new();
            cipher.encrypt(&stored.context(), &state, &mut encrypted)?;
            state = encrypted;
        }
        Ok(state)
    }

    fn read(&self, stored: &StoredEvent) -> Result<DomainEvent<Transferred>> {
        let mut state = Cow::Borrowed(&*stored.state);
        if let Some(cipher) = &self.cipher {
            let mut decrypted = Vec::new();
            cipher.decrypt(&stored.context(), &state, &mut decrypted)?;
            state = Cow::Owned(decrypted);
        }
        if let Some(compressor) = &self.compressor {
            let mut decompressed = Vec::new();
            compressor.decompress(&state, &mut decompressed)?;
            state = Cow::Owned(decompressed);
        }
        let (timestamp, payload) = bare_json::read(&state)?;
        Ok(DomainEvent::at(stored.originator_id, stored.originator_version, timestamp, payload))
    }
}
