//! `es show`.

use std::pin::pin;

use es_core::{AggregateRecorderExt, EventRange};
use futures_util::TryStreamExt;

use crate::{
    arguments::Show,
    color::Color,
    database::Database,
    failure::{Exit, Failure},
};

pub(crate) async fn run(arguments: &Show, color: Color) -> Result<Exit, Failure> {
    let database = Database::of(&arguments.connection)?;
    let log = database.log().await?;
    let mut writer = arguments.formatting.writer(database.state_decoder()?, color).expanded();
    let range = arguments.at.map_or(EventRange::all(), |version| EventRange::all().up_to(version));
    let mut last_version = None;
    {
        let mut events = pin!(log.stream_events(arguments.originator_id, range));
        while let Some(event) = events.try_next().await? {
            writer.write(None, &event)?;
            last_version = Some(event.originator_version);
        }
    }
    database.close().await?;
    let exit = writer.finish()?;
    let originator = arguments.originator_id;
    match (last_version, arguments.at) {
        (None, _) => Err(Failure::not_found(format!("no events of aggregate {originator}"))),
        (Some(last), Some(version)) if last < version => Err(Failure::not_found(format!(
            "aggregate {originator} has no version {version}: the last is {last}"
        ))),
        _ => Ok(exit),
    }
}
