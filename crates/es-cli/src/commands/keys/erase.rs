//! `es keys erase`.

use es_factory::EnvironmentKeyStore;
use es_personal::{Erasure, KeyRecord, KeyStore, Subject, SubjectErased};
use serde::Serialize;
use time::format_description::well_known::Rfc3339;

use crate::{
    arguments::KeysErase,
    color::Color,
    configuration::Settings,
    confirmation::confirm,
    database::Database,
    erasure::{Mentions, Search},
    failure::{Exit, Failure},
    output::{Cell, Format, Output, printable, table},
};

/// The values of a subject in the states of one topic, as JSON.
#[derive(Serialize)]
struct Found {
    table: &'static str,
    topic: String,
    #[serde(flatten)]
    mentions: Mentions,
}

/// The record of a subject, as JSON.
#[derive(Serialize)]
struct Record<'a> {
    subject: &'a str,
    has_key: bool,
    erased_at: Option<String>,
    erased_by: Option<&'a str>,
    /// The number of states that cannot be decoded, and were not searched.
    unreadable: u64,
}

pub(super) async fn run(arguments: &KeysErase, color: Color) -> Result<Exit, Failure> {
    let KeysErase { connection, change, .. } = arguments;
    let subject = Subject::new(&arguments.subject).map_err(|error| Failure::usage(error.to_string()))?;
    let mut settings = Settings::find(connection.database.as_deref(), &connection.sources)?;
    // A mistyped URL is an error, and no store in which the subject is erased in vain.
    settings.set("CREATE_TABLE", "no");
    let database = match change.dry_run {
        true => Database::open(settings)?,
        false => Database::open_for_writing(&settings)?,
    };
    let store = database.subject_keys()?.ok_or_else(|| {
        Failure::usage("no key store is set")
            .with_hint("set PERSONAL_KEYS_URL to sqlite:PATH or postgres://…")
    })?;
    let before = record(&store, &subject).await?;
    let (found, unreadable) = search(&database, &subject).await?;
    let format = change.formatting.format;
    print_found(&found, format, color)?;
    if change.dry_run {
        print_record(&subject, before.as_ref(), unreadable, format)?;
        return Ok(Exit::Success);
    }
    let values: u64 = found.iter().map(|found| found.mentions.values).sum();
    confirm(
        &format!("erase data subject {subject}, and with its key {values} values, permanently"),
        change.yes,
    )?;
    let erased_by = erased_by(arguments);
    if !arguments.no_event {
        let erased = SubjectErased { subject: subject.clone(), erased_by: erased_by.clone() };
        database.record_erased(erased).await?;
    }
    let erasure = store.erase(Erasure::now(subject.clone(), erased_by)).await?;
    print_record(&subject, Some(&KeyRecord::Erased(erasure)), unreadable, format)?;
    database.close().await?;
    Ok(Exit::Success)
}

async fn record(store: &EnvironmentKeyStore, subject: &Subject) -> Result<Option<KeyRecord>, Failure> {
    Ok(store.select(std::slice::from_ref(subject)).await?.pop())
}

/// Returns the values of a subject, and the number of states that cannot be decoded.
async fn search(database: &Database, subject: &Subject) -> Result<(Vec<Found>, u64), Failure> {
    let decoder = database.state_decoder()?;
    let (mut found, mut unreadable) = (Vec::new(), 0);
    for (table, recorder) in database.states().await? {
        let search = Search::of(&recorder, &decoder, subject).await?;
        unreadable += search.unreadable;
        let row = |(topic, mentions)| Found { table, topic, mentions };
        found.extend(search.by_topic.into_iter().map(row));
    }
    Ok((found, unreadable))
}

/// The text of the record: who ordered the erasure, and why.
fn erased_by(arguments: &KeysErase) -> String {
    let user = || std::env::var("USER").ok().filter(|user| !user.is_empty());
    let by = arguments.by.clone().or_else(user).unwrap_or_else(|| "es".to_owned());
    match &arguments.reason {
        Some(reason) => format!("{by}: {reason}"),
        None => by,
    }
}

fn print_found(found: &[Found], format: Format, color: Color) -> Result<(), Failure> {
    let mut output = Output::new();
    match format {
        Format::Json => found.iter().try_for_each(|found| output.json(found))?,
        Format::Text => {
            let row = |Found { table, topic, mentions }: &Found| {
                let numbers = [mentions.states, mentions.values].map(Cell::number);
                [Cell::text_of(table), Cell::text_of(topic)].into_iter().chain(numbers).collect()
            };
            let rows: Vec<Vec<Cell>> = found.iter().map(row).collect();
            table(&mut output, color, &["TABLE", "TOPIC", "STATES", "VALUES"], &rows)?;
        }
    }
    output.flush()
}

fn print_record(
    subject: &Subject,
    record: Option<&KeyRecord>,
    unreadable: u64,
    format: Format,
) -> Result<(), Failure> {
    let erasure = match record {
        Some(KeyRecord::Erased(erasure)) => Some(erasure),
        _ => None,
    };
    let erased_at = erasure.map(|erasure| erasure.erased_at.format(&Rfc3339)).transpose();
    let erased_at = erased_at.map_err(|error| Failure::new(format!("the time of the erasure: {error}")))?;
    let erased_by = erasure.map(|erasure| erasure.erased_by.as_str());
    let has_key = matches!(record, Some(KeyRecord::Key(_)));
    let mut output = Output::new();
    match format {
        Format::Json => {
            let subject = subject.as_str();
            output.json(&Record { subject, has_key, erased_at, erased_by, unreadable })?;
        }
        Format::Text => {
            if unreadable > 0 {
                output.line(&format!("{unreadable} states cannot be decoded, and were not searched"))?;
            }
            let text = match (erased_at, erased_by) {
                (Some(at), Some(by)) => format!("is erased since {at} by {}", printable(by)),
                _ if has_key => "has a key".to_owned(),
                _ => "has no key".to_owned(),
            };
            output.line(&format!("data subject {subject} {text}"))?;
        }
    }
    output.flush()
}
