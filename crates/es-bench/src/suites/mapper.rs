//! The mapper beside serde_json writing and reading the same bytes; with codecs, beside serde_json and the same codecs
//! called one after the other, which tells what the mapper adds.

use std::borrow::Cow;
use std::hint::black_box;
use std::sync::Arc;

use anyhow::{Result, ensure};
use es_compress::{ZlibCompressor, ZstdCompressor};
use es_core::{Cipher, Compressor, DomainEvent, Mapper, StoredEvent};
use es_crypto::AesCipher;
use es_transcode::JsonTranscoder;

use crate::bench::{Bench, Plan};
use crate::report::Measure;
use crate::systems::bare_json::{self, Text, Transferred};
use crate::workload::Repeated;

const OURS: &str = "mapper";
const BARE: &str = "serde_json";
const TEXT: &str = "serde_json, values ready as text";
const WITH_CODECS: &str = "serde_json, then the codecs";
const ROUNDS: usize = 31;

pub(crate) async fn run(bench: &mut Bench) -> Result<()> {
    json(bench).await?;
    let zlib = || Some(Arc::new(ZlibCompressor::new()) as _);
    let zstd = || Some(Arc::new(ZstdCompressor::new()) as _);
    let key = AesCipher::create_key(32)?;
    let aes = || -> Result<_> { Ok(Some(Arc::new(AesCipher::from_base64(&key)?) as _)) };
    with_codecs(bench, "JSON + zlib", Codecs { compressor: zlib(), cipher: None }).await?;
    with_codecs(bench, "JSON + zstd", Codecs { compressor: zstd(), cipher: None }).await?;
    with_codecs(bench, "JSON + AES-256", Codecs { compressor: None, cipher: aes()? }).await?;
    with_codecs(bench, "JSON + zlib + AES-256", Codecs { compressor: zlib(), cipher: aes()? }).await
}

async fn json(bench: &mut Bench) -> Result<()> {
    let mapper = Mapper::new(JsonTranscoder::new());
    let event = bare_json::transferred();
    let stored = mapper.to_stored_event(&event)?;
    ensure!(stored.state == bare_json::write(&event)?, "the mapper and serde_json write different bytes");
    let text = Text::read(&stored.state)?;
    let times = bench.scale.pick(20_000, 100);
    let plan = |what| {
        Plan::new(format!("mapper {what}, JSON"), ROUNDS).within(2.0, BARE).beside(TEXT, Measure::Time)
    };
    bench
        .compete(plan("encode"), async || {
            Ok(vec![
                Repeated::boxed(OURS, times, || mapper.to_stored_event(black_box(&event))),
                Repeated::boxed(BARE, times, || bare_json::write(black_box(&event))),
                Repeated::boxed(TEXT, times, || black_box(&text).write()),
            ])
        })
        .await?;
    bench
        .compete(plan("decode"), async || {
            Ok(vec![
                Repeated::boxed(OURS, times, || mapper.to_domain_event::<Transferred>(black_box(&stored))),
                Repeated::boxed(BARE, times, || bare_json::read(black_box(&stored.state))),
                Repeated::boxed(TEXT, times, || Text::read(black_box(&stored.state))),
            ])
        })
        .await
}

async fn with_codecs(bench: &mut Bench, name: &str, codecs: Codecs) -> Result<()> {
    let mapper = codecs.mapper();
    let event = bare_json::transferred();
    let stored = mapper.to_stored_event(&event)?;
    ensure!(codecs.read(&stored)? == event, "the mapper and the codecs are at odds");
    let times = bench.scale.pick(5_000, 100);
    let plan = |what| Plan::new(format!("mapper {what}, {name}"), ROUNDS).within(1.15, WITH_CODECS);
    bench
        .compete(plan("encode"), async || {
            Ok(vec![
                Repeated::boxed(OURS, times, || mapper.to_stored_event(black_box(&event))),
                Repeated::boxed(WITH_CODECS, times, || codecs.write(black_box(&event), &stored)),
            ])
        })
        .await?;
    bench
        .compete(plan("decode"), async || {
            Ok(vec![
                Repeated::boxed(OURS, times, || mapper.to_domain_event::<Transferred>(black_box(&stored))),
                Repeated::boxed(WITH_CODECS, times, || codecs.read(black_box(&stored))),
            ])
        })
        .await
}

/// What stands behind the transcoder.
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
            cipher.encrypt(&stored.place(), &state, &mut encrypted)?;
            state = encrypted;
        }
        Ok(state)
    }

    fn read(&self, stored: &StoredEvent) -> Result<DomainEvent<Transferred>> {
        let mut state = Cow::Borrowed(&*stored.state);
        if let Some(cipher) = &self.cipher {
            let mut decrypted = Vec::new();
            cipher.decrypt(&stored.place(), &state, &mut decrypted)?;
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
