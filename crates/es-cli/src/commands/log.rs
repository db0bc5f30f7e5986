//! `es log`.

use std::{pin::pin, time::Duration};

use es_core::{ApplicationRecorder, ApplicationRecorderExt, NotificationSelection, Topic};
use futures_util::TryStreamExt;

use crate::{
    arguments::{Log, Position},
    color::Color,
    database::Database,
    failure::{Exit, Failure},
    record::EventWriter,
};

/// The interval of reads at the end of a followed log. A followed event is printed within twice this time.
const POLL_INTERVAL: Duration = Duration::from_millis(40);

pub(crate) async fn run(arguments: &Log, color: Color) -> Result<Exit, Failure> {
    let database = Database::of(&arguments.connection)?;
    let log = database.log().await?;
    let mut writer = arguments.formatting.writer(database.state_decoder()?, color);
    let topics: Vec<_> = arguments.topics.iter().map(|topic| Topic::from_stored(topic.as_str())).collect();
    let head = log.max_notification_id().await?.unwrap_or(0);
    let after = match arguments.after {
        Position::Id(id) => id,
        Position::End => head,
    };
    if arguments.follow {
        follow(&log, after, topics, arguments.limit, &mut writer).await?;
    } else {
        // Events that are recorded meanwhile are not read: the output is one state of the log.
        let stop = arguments.until.unwrap_or(head).min(head);
        let limit = arguments.limit.unwrap_or(usize::MAX);
        let selection = NotificationSelection::new(limit).after(after).stop(stop).topics(topics);
        let mut notifications = pin!(log.stream_notifications(selection));
        while let Some(notification) = notifications.try_next().await? {
            writer.write(Some(notification.id), &notification.event)?;
        }
    }
    database.close().await?;
    writer.finish()
}

/// Prints recorded events, and then live ones, until the process is interrupted or `limit` is reached.
async fn follow(
    log: &(impl ApplicationRecorder + Clone),
    after: i64,
    topics: Vec<Topic>,
    limit: Option<usize>,
    writer: &mut EventWriter,
) -> Result<(), Failure> {
    let mut remaining = limit.unwrap_or(usize::MAX);
    let mut subscription = log.subscribe(after, topics).poll_interval(POLL_INTERVAL);
    while remaining > 0 {
        let Some(page) = subscription.next_page().await? else { break };
        for notification in page.notifications.iter().take(remaining) {
            writer.write(Some(notification.id), &notification.event)?;
        }
        remaining = remaining.saturating_sub(page.notifications.len());
        writer.output.flush()?;
    }
    Ok(())
}
