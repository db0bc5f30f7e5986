//! `es schema print` and `es schema check`.

use serde::Serialize;

use crate::{
    arguments::{Schema, SchemaCheck, SchemaPrint},
    configuration::Settings,
    database::Database,
    failure::{Exit, Failure, chain},
    output::{Format, Output, printable},
    schema::statements,
};

/// The state of a table, as JSON.
#[derive(Serialize)]
struct Status {
    table: String,
    exists: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
}

pub(crate) async fn run(command: &Schema) -> Result<Exit, Failure> {
    match command {
        Schema::Print(arguments) => print(arguments),
        Schema::Check(arguments) => check(arguments).await,
    }
}

fn print(arguments: &SchemaPrint) -> Result<Exit, Failure> {
    let connection = &arguments.connection;
    let settings = Settings::find(connection.database.as_deref(), &connection.sources)?;
    let database = Database::open_for_writing(&settings)?;
    let mut output = Output::new();
    output.line(statements(database.environment()).trim_end())?;
    output.flush()?;
    Ok(Exit::Success)
}

async fn check(arguments: &SchemaCheck) -> Result<Exit, Failure> {
    let database = Database::of(&arguments.connection)?;
    let mut catalog = database.catalog().await?;
    let (tables, problems) = (catalog.tables().await?, catalog.problems()?);
    let mut output = Output::new();
    let mut is_suitable = true;
    let opened = database.open_tables().await;
    for (index, (((table, exists), problem), opened)) in
        tables.into_iter().zip(problems).zip(opened).enumerate()
    {
        let problem = match opened {
            // A missing table of positions or snapshots is created by the first program that needs it.
            _ if !exists => (index == 0).then(|| "is missing".to_owned()),
            Err(error) => Some(chain(&error)),
            Ok(()) => problem,
        };
        is_suitable &= problem.is_none();
        let status = Status { table: printable(&table), exists, problem };
        match arguments.formatting.format {
            Format::Json => output.json(&status)?,
            Format::Text => {
                let result = match &status.problem {
                    Some(problem) => problem,
                    None if exists => "is suitable",
                    None => "is missing; it is created when it is needed",
                };
                output.line(&format!("{}  {result}", status.table))?;
            }
        }
    }
    output.flush()?;
    Ok(if is_suitable { Exit::Success } else { Exit::Findings })
}
