//! `es verify`.

use std::pin::pin;

use es_core::{
    AggregateRecorderExt, ApplicationRecorder, ErrorKind, EventRange, Segment, StoredEvent, uuid::Uuid,
};
use futures_util::TryStreamExt;
use serde::Serialize;

use crate::{
    arguments::Verify,
    catalog::{Catalog, Gap, SnapshotFault},
    color::Color,
    configuration::Settings,
    database::Database,
    digest::Chain,
    failure::{Exit, Failure, chain},
    output::{Format, Output, printable},
    progress::Progress,
    salvage::{Part, SalvagingReader},
    state::StateDecoder,
    target::is_position_elsewhere,
};

/// The number of aggregates whose snapshots are read by one query for their ids.
const ORIGINATORS: usize = 1_000;

/// The thing that a finding is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Check {
    /// The files, pages and indexes of the database.
    Database,
    /// A row of the log, or its state.
    Event,
    /// A notification id.
    Id,
    /// The versions of an aggregate.
    Version,
    Tracker,
    Snapshot,
    /// The expected digest.
    Digest,
}

/// A finding as JSON.
#[derive(Serialize)]
struct Finding<'a> {
    finding: Check,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<i64>,
    message: &'a str,
}

/// The result as JSON.
#[derive(Serialize)]
struct Summary {
    events: u64,
    last_id: i64,
    snapshots: u64,
    trackers: u64,
    findings: u64,
    digest: String,
    digest_with_ids: String,
    /// A check that could not be made.
    #[serde(skip_serializing_if = "Option::is_none")]
    not_checked: Option<String>,
}

/// The output, and the number of findings.
struct Report {
    output: Output,
    format: Format,
    color: Color,
    findings: u64,
    /// True if the database is damaged, which is then the cause of failures to read it.
    is_damaged: bool,
}

pub(crate) async fn run(arguments: &Verify, color: Color) -> Result<Exit, Failure> {
    let database = Database::of(&arguments.connection)?;
    let mut catalog = database.catalog().await?;
    let format = arguments.formatting.format;
    let mut report = Report { output: Output::new(), format, color, findings: 0, is_damaged: false };
    let not_checked = verify_database(&mut catalog, &mut report).await?;
    let trackers = verify_trackers(arguments, &database, &mut catalog, &mut report).await?;
    let decoder = database.state_decoder()?;
    let decode = |event: &StoredEvent| if arguments.raw { Ok(()) } else { decoder.object(event).map(drop) };
    let log = verify_log(arguments, &database, &decoder, &mut report).await?;
    let (first, findings) = (arguments.first_version, &mut report);
    let gaps =
        catalog.gaps(first, |gap| findings.add(Check::Version, None, &describe_gap(&gap, first))).await;
    report.found_unless_ok(Check::Version, gaps)?;
    let snapshots = verify_snapshots(&database, &mut catalog, &mut report, decode).await?;
    let summary = Summary {
        events: log.events,
        last_id: log.last_id,
        snapshots,
        trackers,
        digest: log.chain.contents(),
        digest_with_ids: log.chain.positions(),
        findings: report.findings,
        not_checked,
    };
    if let Some(expected) = &arguments.expect_digest
        && ![&summary.digest, &summary.digest_with_ids].contains(&expected)
    {
        let message = format!("the digest is {}, not {}", summary.digest, printable(expected));
        report.add(Check::Digest, None, &message)?;
    }
    let findings = report.findings;
    report.finish(Summary { findings, ..summary })
}

/// The extent and the digests of a log.
#[derive(Default)]
struct LogFacts {
    events: u64,
    last_id: i64,
    chain: Chain,
}

/// Verifies the database by its own means; returns what could not be checked.
async fn verify_database(catalog: &mut Catalog, report: &mut Report) -> Result<Option<String>, Failure> {
    let integrity = catalog.integrity().await?;
    integrity.damage.iter().try_for_each(|damage| report.add(Check::Database, None, damage))?;
    Ok(integrity.not_checked)
}

/// Verifies that positions are within the log; returns their number.
async fn verify_trackers(
    arguments: &Verify,
    database: &Database,
    catalog: &mut Catalog,
    report: &mut Report,
) -> Result<u64, Failure> {
    if arguments.no_trackers {
        return Ok(0);
    }
    // The positions are read before the head: a consumer that processes meanwhile is not ahead of the log.
    let (partitioned, trackers) = match (catalog.partitioned().await, catalog.trackers().await) {
        (Ok(partitioned), Ok(trackers)) => (partitioned, trackers),
        (Err(failure), _) | (_, Err(failure)) => return report.found(Check::Tracker, failure).map(|()| 0),
    };
    let head = match &arguments.upstream {
        None => head(database).await,
        Some(upstream) => {
            head(&Database::open(Settings::find(Some(upstream), &arguments.connection.sources)?)?).await
        }
    };
    let head = match head {
        Ok(head) => head,
        // The same failure is a finding of the log.
        Err(failure) if failure.exit != Exit::Unavailable && arguments.upstream.is_none() => return Ok(0),
        Err(failure) => return Err(failure),
    };
    for tracker in trackers.iter().filter(|tracker| !is_position_elsewhere(&tracker.name)) {
        let problem = match tracker.position {
            position if position > head => format!("is after the end of the log, {head}"),
            // That of a segment that has processed nothing.
            Segment::UNSTARTED if tracker.is_of_segment(&partitioned) => continue,
            ..0 => "is negative".to_owned(),
            _ => continue,
        };
        let name = printable(&tracker.name);
        report.add(
            Check::Tracker,
            None,
            &format!("the position {} of consumer {name} {problem}", tracker.position),
        )?;
    }
    Ok(trackers.len() as u64)
}

async fn head(database: &Database) -> Result<i64, Failure> {
    Ok(database.log().await?.max_notification_id().await?.unwrap_or(0))
}

/// Reads the log, up to its end at the start.
async fn verify_log(
    arguments: &Verify,
    database: &Database,
    decoder: &StateDecoder,
    report: &mut Report,
) -> Result<LogFacts, Failure> {
    let mut facts = LogFacts::default();
    let opened = match database.log().await {
        Ok(log) => log.max_notification_id().await.map_err(Failure::from).map(|head| (log, head)),
        Err(failure) => Err(failure),
    };
    let (log, head) = match opened {
        Ok((log, head)) => (log, head.unwrap_or(0)),
        Err(failure) => return report.found(Check::Database, failure).map(|()| facts),
    };
    let progress = Progress::new("verifying", head);
    let mut reader = SalvagingReader::new(log, head);
    let mut previous = None;
    loop {
        let page = match reader.next().await {
            Ok(None) => return Ok(facts),
            Ok(Some(Part::Page(page))) => page,
            Ok(Some(Part::Unreadable(id, error))) => {
                // The error names the notification, as the finding does.
                let message = chain(&error);
                let message = message.strip_prefix(&format!("notification {id}: ")).unwrap_or(&message);
                report.add(Check::Event, Some(id), message)?;
                (facts.last_id, previous) = (id, Some(id));
                continue;
            }
            Err(error) if error.kind() == ErrorKind::Operational => return Err(error.into()),
            Err(error) => {
                let message =
                    format!("the log cannot be read after notification {}: {}", facts.last_id, chain(&error));
                return report.add(Check::Database, None, &message).map(|()| facts);
            }
        };
        for notification in &page {
            let (id, event) = (notification.id, &notification.event);
            if id < 1 {
                report.add(
                    Check::Id,
                    Some(id),
                    "it is not positive, so that readers do not find the event",
                )?;
            }
            if previous.is_some_and(|previous| id <= previous) {
                report.add(Check::Id, Some(id), "it is not greater than the id before it")?;
            }
            let decoded = if arguments.raw { Ok((&*event.state).into()) } else { decoder.object(event) };
            match decoded {
                Ok(state) => facts.chain.add(id, event, &state),
                Err(error) => {
                    facts.chain.add(id, event, &event.state);
                    report.add(
                        Check::Event,
                        Some(id),
                        &format!("{}: {}", described(event), chain(&error)),
                    )?;
                }
            }
            facts.events += 1;
            (facts.last_id, previous) = (id, Some(id));
        }
        progress.set(facts.last_id);
    }
}

/// Verifies the versions and the states of snapshots; returns their number.
async fn verify_snapshots(
    database: &Database,
    catalog: &mut Catalog,
    report: &mut Report,
    decode: impl Fn(&StoredEvent) -> Result<(), es_core::PersistenceError>,
) -> Result<u64, Failure> {
    if !catalog.has_snapshots().await? {
        return Ok(0);
    }
    let faults =
        catalog.snapshot_faults(|fault| report.add(Check::Snapshot, None, &describe_fault(&fault))).await;
    report.found_unless_ok(Check::Snapshot, faults)?;
    let recorder = database.snapshots().await?;
    let (mut snapshots, mut after) = (0, String::new());
    loop {
        let originators = match catalog.snapshot_originators(&after, ORIGINATORS).await {
            Ok(originators) => originators,
            Err(failure) => return report.found(Check::Snapshot, failure).map(|()| snapshots),
        };
        let Some(last) = originators.last() else { return Ok(snapshots) };
        after.clone_from(last);
        for originator in &originators {
            let Ok(id) = Uuid::try_parse(originator) else {
                let message = format!("originator {:?} is not a UUID", printable(originator));
                report.add(Check::Snapshot, None, &message)?;
                continue;
            };
            let mut events = pin!(recorder.stream_events(id, EventRange::all()));
            loop {
                let event = match events.try_next().await {
                    Ok(None) => break,
                    Ok(Some(event)) => event,
                    Err(error) if error.kind() == ErrorKind::Operational => return Err(error.into()),
                    Err(error) => {
                        report.add(
                            Check::Snapshot,
                            None,
                            &format!("snapshots of {id}: {}", chain(&error)),
                        )?;
                        break;
                    }
                };
                snapshots += 1;
                if let Err(error) = decode(&event) {
                    report.add(
                        Check::Snapshot,
                        None,
                        &format!("{}: {}", described(&event), chain(&error)),
                    )?;
                }
            }
        }
    }
}

fn described(event: &StoredEvent) -> String {
    format!("version {} of originator {}", event.originator_version, event.originator_id)
}

fn describe_gap(gap: &Gap, first: i64) -> String {
    let Gap { originator_id, version, previous } = gap;
    let originator = printable(originator_id);
    match previous {
        None => format!("originator {originator} begins with version {version}, not {first}"),
        Some(previous) if previous == version => {
            format!("originator {originator} has version {version} twice")
        }
        Some(previous) => format!("originator {originator} has no version between {previous} and {version}"),
    }
}

fn describe_fault(fault: &SnapshotFault) -> String {
    let SnapshotFault { originator_id, version, last } = fault;
    let originator = printable(originator_id);
    match last {
        None => format!("the snapshot of version {version} of originator {originator} has no events"),
        Some(last) => {
            format!(
                "the snapshot of version {version} of originator {originator} is after its last event, {last}"
            )
        }
    }
}

impl Report {
    /// Prints a finding.
    fn add(&mut self, finding: Check, id: Option<i64>, message: &str) -> Result<(), Failure> {
        self.findings += 1;
        self.is_damaged |= finding == Check::Database;
        match self.format {
            Format::Json => self.output.json(&Finding { finding, id, message }),
            Format::Text => {
                let id = id.map_or_else(String::new, |id| format!("notification {id}: "));
                let check = format!("{finding:?}").to_lowercase();
                self.output.line(&format!(
                    "{}  {id}{}",
                    self.color.bad(&format!("{check:<8}")),
                    printable(message)
                ))
            }
        }
    }

    /// Prints a failure as a finding, unless the database is not available.
    fn found(&mut self, check: Check, failure: Failure) -> Result<(), Failure> {
        if failure.exit == Exit::Unavailable || failure.is_output() {
            return Err(failure);
        }
        let check = if self.is_damaged { Check::Database } else { check };
        self.add(check, None, failure.message())
    }

    fn found_unless_ok(&mut self, check: Check, outcome: Result<(), Failure>) -> Result<(), Failure> {
        outcome.or_else(|failure| self.found(check, failure))
    }

    fn finish(mut self, summary: Summary) -> Result<Exit, Failure> {
        match self.format {
            Format::Json => self.output.json(&summary)?,
            Format::Text => {
                let Summary { events, last_id, snapshots, trackers, findings, .. } = summary;
                let mut entry = |name: &str, value: &str| {
                    self.output.line(&format!("{}  {value}", self.color.heading(&format!("{name:<15}"))))
                };
                entry(
                    "verified",
                    &format!(
                        "{events} events up to id {last_id}, {snapshots} snapshots, {trackers} consumers"
                    ),
                )?;
                if let Some(not_checked) = &summary.not_checked {
                    entry("not checked", not_checked)?;
                }
                entry("digest", &summary.digest)?;
                entry("digest with ids", &summary.digest_with_ids)?;
                entry("findings", &findings.to_string())?;
            }
        }
        self.output.flush()?;
        Ok(if summary.findings == 0 { Exit::Success } else { Exit::Findings })
    }
}
