//! `es trackers`.

use es_core::ApplicationRecorder;

use crate::{
    arguments::Trackers,
    color::Color,
    configuration::Settings,
    database::Database,
    failure::{Exit, Failure},
    lag::Lag,
    output::{Cell, Format, Output, table},
    target::is_position_elsewhere,
};

pub(crate) async fn run(arguments: &Trackers, color: Color) -> Result<Exit, Failure> {
    let connection = &arguments.connection;
    let database = Database::of(connection)?;
    // The positions are read first: a consumer that processes meanwhile is not ahead of the log.
    let mut trackers = database.catalog().await?.trackers().await?;
    let head = match &arguments.upstream {
        None => head(&database).await?,
        Some(upstream) => {
            head(&Database::open(Settings::find(Some(upstream), &connection.sources)?)?).await?
        }
    };
    let wanted = &arguments.consumers;
    if let Some(missing) = wanted.iter().find(|name| trackers.iter().all(|tracker| tracker.name != **name)) {
        return Err(Failure::not_found(format!("consumer {missing:?} has no position")));
    }
    // The positions of copies are those of another log.
    let is_wanted =
        |name: &String| wanted.contains(name) || wanted.is_empty() && !is_position_elsewhere(name);
    trackers.retain(|tracker| is_wanted(&tracker.name));
    let lags: Vec<_> = trackers.iter().map(|tracker| Lag::new(tracker, head)).collect();
    let is_bad = |lag: &Lag<'_>| lag.is_ahead() || arguments.max_lag.is_some_and(|max| lag.lag > max);
    let mut output = Output::new();
    match arguments.formatting.format {
        Format::Json => lags.iter().try_for_each(|lag| output.json(lag))?,
        Format::Text => {
            let row = |lag: &Lag<'_>| {
                let note = if lag.is_ahead() {
                    "ahead of the log"
                } else if is_bad(lag) {
                    "behind"
                } else {
                    ""
                };
                vec![
                    Cell::text_of(&lag.tracker.name),
                    Cell::number(lag.tracker.position),
                    Cell::number(lag.lag),
                    Cell::text_of(note),
                ]
            };
            let rows: Vec<_> = lags.iter().map(row).collect();
            table(&mut output, color, &["CONSUMER", "POSITION", "LAG", ""], &rows)?;
        }
    }
    output.flush()?;
    Ok(if lags.iter().any(is_bad) { Exit::Findings } else { Exit::Success })
}

async fn head(database: &Database) -> Result<i64, Failure> {
    let head = database.log().await?.max_notification_id().await?.unwrap_or(0);
    database.close().await?;
    Ok(head)
}
