//! `es export`.

use std::{
    io::{self, BufWriter, IsTerminal, Write},
    pin::pin,
};

use es_core::{ApplicationRecorder, ApplicationRecorderExt, NotificationSelection};
use futures_util::TryStreamExt;
use zstd::stream::write::Encoder;

use crate::{
    arguments::Export,
    database::Database,
    failure::{Exit, Failure},
    interchange::Interchange,
    progress::Progress,
};

/// The default level of zstd.
const LEVEL: i32 = 3;

pub(crate) async fn run(arguments: &Export) -> Result<Exit, Failure> {
    if io::stdout().is_terminal() {
        return Err(
            Failure::usage("an export is compressed").with_hint("redirect the output: es export > bank.es")
        );
    }
    let database = Database::of(&arguments.connection)?;
    let log = database.log().await?;
    let decoder = database.state_decoder()?;
    let head = log.max_notification_id().await?.unwrap_or(0);
    let progress = Progress::new("exporting", head);
    let mut output = Encoder::new(BufWriter::new(io::stdout().lock()), LEVEL)?;
    output.include_checksum(true)?;
    let mut output = BufWriter::new(output);
    write_line(&mut output, &Interchange::header())?;
    let mut interchange = Interchange::default();
    let selection = NotificationSelection::new(usize::MAX).after(arguments.after).stop(head);
    let mut notifications = pin!(log.stream_notifications(selection));
    while let Some(notification) = notifications.try_next().await? {
        let (id, event) = (notification.id, &notification.event);
        let state =
            decoder.plain(event).map_err(|error| error.with_context(format_args!("notification {id}")))?;
        write_line(&mut output, &interchange.record(id, event, &state))?;
        progress.set(id);
    }
    write_line(&mut output, &interchange.footer())?;
    let encoder = output.into_inner().map_err(io::IntoInnerError::into_error)?;
    encoder.finish()?.flush()?;
    Ok(Exit::Success)
}

fn write_line(output: &mut impl Write, line: &impl serde::Serialize) -> Result<(), Failure> {
    serde_json::to_writer(&mut *output, line)?;
    Ok(output.write_all(b"\n")?)
}
