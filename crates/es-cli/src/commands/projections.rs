//! `es projections`.

use std::time::Duration;

use es_core::PersistenceError;
use es_factory::{ProjectionVersion, Projections as Versions, VersionState};
use serde::Serialize;

use crate::{
    arguments::{Change, Connection, Projections, ProjectionsList, ProjectionsSwitch},
    color::Color,
    configuration::Settings,
    confirmation::confirm,
    database::Database,
    failure::{Exit, Failure},
    output::{Cell, Format, Output, printable, table},
};

/// A version, as JSON.
#[derive(Serialize)]
struct Status<'a> {
    projection: &'a str,
    version: u32,
    state: &'a str,
    is_paused: bool,
    consumer: &'a str,
    position: i64,
    /// The position up to which the side effects are those of other versions.
    live_from: i64,
    replaces: Option<u32>,
}

/// A change, as JSON.
#[derive(Serialize)]
struct Report<'a> {
    projection: &'a str,
    change: &'a str,
    version: u32,
    is_applied: bool,
}

/// A change of a version.
#[derive(Clone, Copy)]
enum Action {
    Switch { max_lag: i64, wait: Option<Duration> },
    Rollback,
    Pause,
    Resume,
    Reset,
    Rebuild,
    Drop,
}

pub(crate) async fn run(command: &Projections, color: Color) -> Result<Exit, Failure> {
    let (action, target) = match command {
        Projections::List(arguments) => return list(arguments, color).await,
        Projections::Rollback(arguments) => {
            let versions = Database::of(&arguments.connection)?.projections();
            find(&versions.all().await?, &arguments.name)?;
            let active = versions.active(&arguments.name).await?;
            let previous = active.replaces.ok_or_else(|| {
                Failure::usage(format!("version {} has replaced no other version", active.version))
            })?;
            let target = (&*arguments.name, previous, &arguments.connection, &arguments.change);
            return change(Action::Rollback, target, color).await;
        }
        Projections::Switch(arguments) => {
            let ProjectionsSwitch { name, version, max_lag, wait, connection, change: options } = arguments;
            let action = Action::Switch { max_lag: *max_lag, wait: wait.map(Duration::from_secs) };
            return change(action, (name, *version, connection, options), color).await;
        }
        Projections::Pause(target) => (Action::Pause, target),
        Projections::Resume(target) => (Action::Resume, target),
        Projections::Reset(target) => (Action::Reset, target),
        Projections::Rebuild(target) => (Action::Rebuild, target),
        Projections::Drop(target) => (Action::Drop, target),
    };
    change(action, (&target.name, target.version, &target.connection, &target.change), color).await
}

async fn list(arguments: &ProjectionsList, color: Color) -> Result<Exit, Failure> {
    let mut versions = Database::of(&arguments.connection)?.projections().all().await?;
    arguments.names.iter().try_for_each(|name| find(&versions, name))?;
    versions.retain(|version| arguments.names.is_empty() || arguments.names.contains(&version.name));
    let mut output = Output::new();
    match arguments.formatting.format {
        Format::Json => versions.iter().try_for_each(|version| output.json(&status(version)))?,
        Format::Text => {
            let row = |version: &ProjectionVersion| {
                vec![
                    Cell::text_of(&version.name),
                    Cell::number(version.version),
                    Cell::text_of(version.state.as_str()),
                    Cell::text_of(if version.is_paused { "paused" } else { "" }),
                    Cell::text_of(&version.consumer_name),
                    Cell::number(version.position),
                    Cell::number(version.live_from),
                ]
            };
            let rows: Vec<_> = versions.iter().map(row).collect();
            let heads = ["PROJECTION", "VERSION", "STATE", "", "CONSUMER", "POSITION", "LIVE FROM"];
            table(&mut output, color, &heads, &rows)?;
        }
    }
    output.flush()?;
    Ok(Exit::Success)
}

/// Verifies a change, prints it, and makes it.
async fn change(
    action: Action,
    (name, version, connection, options): (&str, u32, &Connection, &Change),
    color: Color,
) -> Result<Exit, Failure> {
    let settings = Settings::find(connection.database.as_deref(), &connection.sources)?;
    let reading = Database::of(connection)?.projections();
    let versions = reading.all().await?;
    find(&versions, name)?;
    if let Action::Switch { max_lag, wait: None } = action {
        check_lag(&versions, name, version, max_lag)?;
    }
    // A version that is waited for need not have caught up yet.
    let verified = match action {
        Action::Switch { wait: Some(_), .. } => Action::Switch { max_lag: i64::MAX, wait: None },
        action => action,
    };
    verified.apply(&reading.dry_run(), name, version).await?;
    let (mut output, format) = (Output::new(), options.formatting.format);
    if format == Format::Text {
        let line = format!("{} {} {version}", action.name(), printable(name));
        output.line(&color.topic(&line))?;
        output.flush()?;
    }
    if !options.dry_run {
        confirm("change the projection", options.yes)?;
        action.apply(&Database::open_for_writing(&settings)?.projections(), name, version).await?;
    }
    if format == Format::Json {
        let change = action.name();
        output.json(&Report { projection: name, change, version, is_applied: !options.dry_run })?;
        output.flush()?;
    }
    Ok(Exit::Success)
}

impl Action {
    fn name(self) -> &'static str {
        match self {
            Self::Switch { .. } => "switch",
            Self::Rollback => "rollback",
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Reset => "reset",
            Self::Rebuild => "rebuild",
            Self::Drop => "drop",
        }
    }

    async fn apply(self, versions: &Versions, name: &str, version: u32) -> Result<(), PersistenceError> {
        match self {
            Self::Switch { wait: Some(wait), .. } => versions.catch_up_and_switch(name, version, wait).await,
            Self::Switch { max_lag, wait: None } => versions.switch(name, version, max_lag).await,
            Self::Rollback => versions.rollback(name).await,
            Self::Pause => versions.pause(name, version).await,
            Self::Resume => versions.resume(name, version).await,
            Self::Reset => versions.reset(name, version).await,
            Self::Rebuild => versions.rebuild(name, version).await,
            Self::Drop => versions.drop(name, version).await,
        }
    }
}

/// Verifies that a projection exists.
fn find(versions: &[ProjectionVersion], name: &str) -> Result<(), Failure> {
    match versions.iter().any(|version| version.name == name) {
        true => Ok(()),
        false => Err(Failure::not_found(format!("there is no projection {name:?}"))),
    }
}

/// Verifies that a version that is built is at most `max_lag` behind the active one.
fn check_lag(versions: &[ProjectionVersion], name: &str, version: u32, max_lag: i64) -> Result<(), Failure> {
    let mut versions = versions.iter().filter(|found| found.name == name);
    let target = versions.clone().find(|found| found.version == version);
    let active = versions.find(|found| found.state == VersionState::Active);
    let (Some(target), Some(active)) = (target, active) else { return Ok(()) };
    let lag = active.position.saturating_sub(target.position);
    if target.state != VersionState::Building || lag <= max_lag {
        return Ok(());
    }
    let message = format!("version {version} is {lag} notification ids behind version {}", active.version);
    Err(Failure::findings(message).with_hint("--wait waits for it, and pauses the active version meanwhile"))
}

fn status(version: &ProjectionVersion) -> Status<'_> {
    Status {
        projection: &version.name,
        version: version.version,
        state: version.state.as_str(),
        is_paused: version.is_paused,
        consumer: &version.consumer_name,
        position: version.position,
        live_from: version.live_from,
        replaces: version.replaces,
    }
}
