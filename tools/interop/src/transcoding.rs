//! The transcoders of both languages on random values: the same bytes, and the same values from them.
//!
//! Version 9.1 writes blanks and escapes, so its bytes differ; they must be read as the same values.

#[path = "../../../crates/es-transcode/tests/support/values.rs"]
#[allow(clippy::unwrap_used, reason = "it is written for tests: what it unwraps is within its bounds")]
mod values;

use std::{collections::BTreeSet, fs, marker::PhantomData, path::Path};

use anyhow::{Context, Result, ensure};
use es_persistence::{
    Transcoder,
    transcode::{JsonTranscoder, Value},
};
use proptest::{
    strategy::{Strategy, ValueTree},
    test_runner::{Config, RngSeed, TestRunner},
};
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use crate::{
    bank::transcoder,
    configuration::PythonVersion,
    plain,
    process::{python, within_limit},
};

const VALUES: usize = 3_000;
/// Levels of the deepest value; random ones have up to 6. In plain JSON a map takes three, of which
/// serde_json reads 127.
const DEPTH: usize = 60;

/// A line that is sent to Python, and its response.
#[derive(Debug, Deserialize, Serialize)]
struct Line {
    /// The value in plain JSON.
    value: Json,
    /// The encoded bytes in hexadecimal.
    encoded: String,
}

/// Returns a readable name of the comparison.
pub(crate) fn name(version: PythonVersion) -> String {
    format!("transcoders, Python {version}")
}

/// Compares the transcoders. Returns the number of compared values.
pub(crate) async fn compare(version: PythonVersion, environments: &Path, seed: u64) -> Result<usize> {
    let transcoder = transcoder();
    let mut values = random_values(seed)?;
    values.push(deep());
    let sent = values.iter().map(|value| line(&transcoder, value)).collect::<Result<Vec<_>>>()?;
    let path = environments.join(format!("values-{}", std::process::id()));
    let lines = sent.iter().map(serde_json::to_string).collect::<Result<Vec<_>, _>>()?;
    fs::write(&path, lines.join("\n")).with_context(|| format!("cannot write {}", path.display()))?;
    let mut command = python(environments, version, "transcoding.py");
    command.arg(&path).kill_on_drop(true).stderr(std::process::Stdio::inherit());
    let output = within_limit("Python", command.output()).await;
    fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
    let output = output?.context("cannot run Python")?;
    ensure!(output.status.success(), "Python failed: {}", output.status);

    let answers = String::from_utf8(output.stdout)?;
    ensure!(answers.lines().count() == sent.len(), "Python has not answered each value");
    for (sent, answer) in sent.iter().zip(answers.lines()) {
        check(&transcoder, version, sent, &serde_json::from_str(answer)?)?;
    }
    Ok(sent.len())
}

fn check(transcoder: &JsonTranscoder, version: PythonVersion, sent: &Line, answer: &Line) -> Result<()> {
    let Line { value, encoded } = sent;
    ensure!(*value == answer.value, "Python reads {} from {encoded}, which was {value}", answer.value);
    let is_same_style = version == PythonVersion::V9_5;
    ensure!(
        !is_same_style || *encoded == answer.encoded,
        "{value} is {encoded} to Rust and {} to Python",
        answer.encoded
    );
    let read = transcoder.decode(PhantomData::<Value>, &bytes(&answer.encoded)?)?;
    let read = plain::value(&read);
    ensure!(*value == read, "Rust reads {read} from {}, which was {value}", answer.encoded);
    Ok(())
}

fn random_values(seed: u64) -> Result<Vec<Value>> {
    let config = Config { rng_seed: RngSeed::Fixed(seed), ..Config::default() };
    let mut runner = TestRunner::new(config);
    let strategy = values::value();
    (0..VALUES)
        .map(|_| match strategy.new_tree(&mut runner) {
            Ok(tree) => Ok(with_each_key_once(tree.current())),
            Err(reason) => anyhow::bail!("no value can be made: {reason}"),
        })
        .collect()
}

/// Lists and maps within each other, deeper than random ones.
fn deep() -> Value {
    (0..DEPTH).fold(Value::Null, |inner, level| match level % 2 {
        0 => Value::List(vec![inner]),
        _ => Value::Map(vec![("inner".to_owned(), inner)]),
    })
}

/// A Python dictionary has each key once.
fn with_each_key_once(value: Value) -> Value {
    match value {
        Value::List(values) => Value::List(values.into_iter().map(with_each_key_once).collect()),
        Value::Map(entries) => {
            let mut keys = BTreeSet::new();
            let once = entries.into_iter().filter(|(key, _)| keys.insert(key.clone()));
            let mut once: Vec<_> = once.map(|(key, value)| (key, with_each_key_once(value))).collect();
            if once.len() == 2 && once.iter().all(|(key, _)| key == "_type_" || key == "_data_") {
                // Would be read as a registered value.
                once.truncate(1);
            }
            Value::Map(once)
        }
        plain => plain,
    }
}

fn line(transcoder: &JsonTranscoder, value: &Value) -> Result<Line> {
    let mut encoded = Vec::new();
    transcoder.encode(value, &mut encoded)?;
    let encoded = encoded.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(Line { value: plain::value(value), encoded })
}

fn bytes(hexadecimal: &str) -> Result<Vec<u8>> {
    let digits = hexadecimal.as_bytes().chunks(2);
    digits.map(|pair| Ok(u8::from_str_radix(str::from_utf8(pair)?, 16)?)).collect()
}
