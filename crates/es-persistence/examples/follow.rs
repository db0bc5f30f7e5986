//! Follows a log live while other processes write to it.
//!
//! In one terminal:
//! ```console
//! $ cargo run --example follow
//! ```
//! and in another, as often as you like:
//! ```console
//! $ cargo run --example follow -- write "Hello from the other terminal"
//! ```
//! The first shows all recorded notifications, and then new ones as they are recorded. Stop it, write,
//! and start it with the last id that it showed (`-- after 3`): it continues there.
//!
//! Runs on a SQLite file in the temporary folder; the environment can override this: `SQLITE_DBNAME`,
//! or with `--features postgres` and `POSTGRES_DBNAME` and its like set,
//! `PERSISTENCE_MODULE=postgres`.
#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use std::{env, error::Error};

use es_persistence::{Event, Expected, PersistenceError, factory::InfrastructureFactory, uuid::Uuid};

#[derive(Clone, Debug, PartialEq, Event)]
#[event(topic = "notes:Note.Written")]
struct Written {
    text: String,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let factory = factory()?;
    let arguments: Vec<String> = env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => follow(&factory, 0).await?,
        ["after", position] => follow(&factory, position.parse()?).await?,
        ["write", text] => write(&factory, text).await?,
        _ => return Err("usage: follow [after ID | write TEXT]".into()),
    }
    Ok(factory.close().await?)
}

/// Shows the notes after a position, then those that are written from now on, until it is interrupted.
async fn follow(factory: &InfrastructureFactory, position: i64) -> Result<(), PersistenceError> {
    let store = factory.event_store().await?;
    println!("following the notes after {position}; stop with Ctrl-C");
    let mut notes = store.subscribe::<Written>().after(position);
    while let Some(notification) = notes.next().await? {
        let note = notification.event;
        println!("{:>5}  {}  {}", notification.id, note.timestamp, note.payload.text);
    }
    Ok(())
}

async fn write(factory: &InfrastructureFactory, text: &str) -> Result<(), PersistenceError> {
    let store = factory.event_store().await?;
    let note = Written { text: text.to_owned() };
    let ids = store.append(Uuid::now_v7(), Expected::New, [note]).await?;
    println!("written, notification ids {ids:?}");
    Ok(())
}

/// A factory for the environment; by default a SQLite file that the next start opens again.
fn factory() -> Result<InfrastructureFactory, PersistenceError> {
    let file = env::temp_dir().join("es-persistence-notes.db");
    let defaults = [
        ("PERSISTENCE_MODULE".to_owned(), "sqlite".to_owned()),
        ("SQLITE_DBNAME".to_owned(), file.display().to_string()),
    ];
    InfrastructureFactory::builder("notes").environment(defaults.into_iter().chain(env::vars())).build()
}
