//! The role of a process in a scenario.

use std::fmt;

use clap::ValueEnum;

/// The same for both languages, but for the last turn, which is for Rust.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Role {
    /// Makes the bank's tables and opens the accounts.
    OpenBank,
    /// Makes the ledger's tables.
    OpenLedger,
    /// Takes turns in crediting the accounts, never further ahead of the other side than a few turns.
    Write,
    /// Takes one more turn when the writers have ended: only this side notifies subscribers of it.
    LastTurn,
    /// Reads the bank's log while it is written, until it ends.
    Follow,
    /// Books the bank's notifications in the ledger, each with its position, until the log ends.
    Process,
    /// Tells everything that is recorded.
    Report,
}

impl fmt::Display for Role {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // None of them is skipped.
        let value = self.to_possible_value();
        formatter.write_str(value.as_ref().map_or("", clap::builder::PossibleValue::get_name))
    }
}
