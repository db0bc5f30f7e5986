//! Where generated code finds the library.

use proc_macro_crate::{FoundCrate, crate_name};
use proc_macro2::Span;
use syn::{Error, Ident, Path, Result, parse_quote};

const FACADE: &str = "es-persistence";
const CORE: &str = "es-core";
const TRANSCODE: &str = "es-transcode";

/// The paths that generated code starts from.
pub(crate) struct Crates {
    /// Where `Event` and what it is made of stand.
    pub(crate) core: Path,
    /// The crate that also has `transcode`, if it is one.
    facade: Option<Path>,
}

impl Crates {
    /// `named` by `#[event(crate = …)]`, or else found among the dependencies.
    pub(crate) fn find(named: Option<Path>) -> Result<Self> {
        if let Some(facade) = named.or_else(|| dependency(FACADE)) {
            return Ok(Self { core: facade.clone(), facade: Some(facade) });
        }
        let core = dependency(CORE).ok_or_else(|| missing(FACADE, CORE))?;
        Ok(Self { core, facade: None })
    }

    /// Where `Registered` and `serde_with` stand.
    pub(crate) fn transcode(&self) -> Result<Path> {
        match &self.facade {
            Some(facade) => Ok(parse_quote!(#facade::transcode)),
            None => dependency(TRANSCODE).ok_or_else(|| missing(FACADE, TRANSCODE)),
        }
    }
}

fn dependency(package: &str) -> Option<Path> {
    let name = match crate_name(package).ok()? {
        // The package's own examples and tests know it by name; so does the library itself where it
        // says `extern crate self as …`.
        FoundCrate::Itself => package.replace('-', "_"),
        FoundCrate::Name(name) => name,
    };
    let name = Ident::new(&name, Span::call_site());
    Some(parse_quote!(::#name))
}

fn missing(facade: &str, alone: &str) -> Error {
    Error::new(
        Span::call_site(),
        format!(
            "derive(Event) finds neither `{facade}` nor `{alone}` among the dependencies; \
             `#[event(crate = path::to::es_persistence)]` names one that is re-exported"
        ),
    )
}
