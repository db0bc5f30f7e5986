//! `es completions` and `es man`.

use std::io;

use clap::CommandFactory;

use crate::{
    arguments::{Arguments, Completions, Man},
    failure::{Exit, Failure},
};

pub(crate) fn completions(arguments: &Completions) -> Result<Exit, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut Arguments::command(), "es", &mut script);
    io::Write::write_all(&mut io::stdout(), &script)?;
    Ok(Exit::Success)
}

pub(crate) fn man(arguments: &Man) -> Result<Exit, Failure> {
    let directory = &arguments.directory;
    clap_mangen::generate_to(Arguments::command(), directory)
        .map_err(|error| Failure::new(format!("cannot write to {directory:?}: {error}")))?;
    Ok(Exit::Success)
}
