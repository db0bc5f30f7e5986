//! The commands, each in a file of its own.

mod copy;
mod export;
mod generate;
mod import;
mod info;
mod keys;
mod log;
mod projections;
mod schema;
mod segments;
mod show;
mod top;
mod topics;
mod track;
mod trackers;
mod verify;

use crate::{
    arguments::{Arguments, Command},
    color::Color,
    failure::{Exit, Failure},
};

pub(crate) async fn run(arguments: Arguments, color: Color) -> Result<Exit, Failure> {
    match arguments.command {
        Command::Info(arguments) => info::run(&arguments, color).await,
        Command::Log(arguments) => log::run(&arguments, color).await,
        Command::Show(arguments) => show::run(&arguments, color).await,
        Command::Topics(arguments) => topics::run(&arguments, color).await,
        Command::Top(arguments) => top::run(&arguments, color).await,
        Command::Trackers(arguments) => trackers::run(&arguments, color).await,
        #[cfg(feature = "ui")]
        Command::Ui(arguments) => crate::ui::run(&arguments).await,
        Command::Verify(arguments) => verify::run(&arguments, color).await,
        Command::Copy(arguments) => copy::run(&arguments).await,
        Command::Export(arguments) => export::run(&arguments).await,
        Command::Import(arguments) => import::run(&arguments).await,
        Command::Track(command) => track::run(&command, color).await,
        Command::Projections(command) => projections::run(&command, color).await,
        Command::Segments(command) => segments::run(&command, color).await,
        Command::Schema(command) => schema::run(&command).await,
        Command::Keys(command) => keys::run(&command, color).await,
        Command::Completions(arguments) => generate::completions(&arguments),
        Command::Man(arguments) => generate::man(&arguments),
    }
}
