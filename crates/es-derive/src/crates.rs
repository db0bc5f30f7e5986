//! The paths of the library in generated code.

use proc_macro_crate::{FoundCrate, crate_name};
use proc_macro2::Span;
use syn::{Error, Ident, Path, Result, parse_quote};

const FACADE: &str = "es-persistence";
const CORE: &str = "es-core";
const TRANSCODE: &str = "es-transcode";
const PERSONAL: &str = "es-personal";

/// The paths that generated code starts from.
pub(crate) struct Crates {
    /// The path of `Event` and the items that it uses.
    pub(crate) core: Path,
    /// The crate that has them all, if one was named.
    facade: Option<Path>,
}

impl Crates {
    /// `named` by `#[event(crate = …)]`, or else found among the dependencies.
    ///
    /// Single crates come before the facade: a crate that is found may be a dev-dependency, which the library
    /// itself does not have, and the facade is more likely to be one.
    pub(crate) fn find(named: Option<Path>) -> Result<Self> {
        if let Some(facade) = named {
            return Ok(Self { core: facade.clone(), facade: Some(facade) });
        }
        let core = dependency(CORE).or_else(|| dependency(FACADE)).ok_or_else(|| missing(FACADE, CORE))?;
        Ok(Self { core, facade: None })
    }

    /// The path of `Registered` and `serde_with`.
    pub(crate) fn transcode(&self) -> Result<Path> {
        self.part(TRANSCODE, "transcode")
    }

    /// The path of personal values.
    pub(crate) fn personal(&self) -> Result<Path> {
        self.part(PERSONAL, "personal")
    }

    /// The path of a package that is a module of the facade.
    fn part(&self, package: &str, module: &str) -> Result<Path> {
        let module = Ident::new(module, Span::call_site());
        if let Some(facade) = &self.facade {
            return Ok(parse_quote!(#facade::#module));
        }
        let of_facade = || dependency(FACADE).map(|facade| parse_quote!(#facade::#module));
        dependency(package).or_else(of_facade).ok_or_else(|| missing(FACADE, package))
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
