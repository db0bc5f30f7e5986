//! `es topics`.

use crate::{
    arguments::Topics,
    color::Color,
    database::Database,
    failure::{Exit, Failure},
    output::{Cell, Format, Output, size, table},
};

pub(crate) async fn run(arguments: &Topics, color: Color) -> Result<Exit, Failure> {
    let topics = Database::of(&arguments.connection)?.catalog().await?.topics(i64::MIN).await?;
    let mut output = Output::new();
    match arguments.formatting.format {
        Format::Json => topics.iter().try_for_each(|topic| output.json(topic))?,
        Format::Text => {
            let row = |topic: &crate::catalog::TopicCount| {
                vec![
                    Cell::text_of(&topic.topic),
                    Cell::number(topic.count),
                    Cell::number(topic.first_id),
                    Cell::number(topic.last_id),
                    Cell::number(size(topic.bytes)),
                ]
            };
            let rows: Vec<_> = topics.iter().map(row).collect();
            table(&mut output, color, &["TOPIC", "EVENTS", "FIRST", "LAST", "SIZE"], &rows)?;
        }
    }
    output.flush()?;
    Ok(Exit::Success)
}
