//! The settings of a database: from a URL, the environment, a `.env` file, or a context of the configuration
//! file.

use std::{
    collections::{BTreeMap, HashMap},
    fmt, fs,
    path::{Path, PathBuf},
};

use serde::Deserialize;

use crate::{arguments::Sources, failure::Failure};

/// The variables that locate a database, without the secrets. A URL replaces all of them.
const LOCATION: [&str; 10] = [
    "DATABASE_URL",
    "PERSISTENCE_MODULE",
    "INFRASTRUCTURE_FACTORY",
    "SQLITE_DBNAME",
    "POSTGRES_DBNAME",
    "POSTGRES_HOST",
    "POSTGRES_PORT",
    "POSTGRES_READ_HOST",
    "POSTGRES_READ_PORT",
    "POSTGRES_USER",
];

/// The variables of the process that a context uses if it has none of its own.
const SECRETS: [&str; 4] = ["CIPHER_KEY", "CIPHER_KEYS", "PERSONAL_KEYS_URL", "POSTGRES_PASSWORD"];

/// The variables of one database, as the factory reads them. `Debug` shows no values.
#[derive(Clone)]
pub(crate) struct Settings {
    pub(crate) application: String,
    variables: BTreeMap<String, String>,
}

/// The configuration file.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Configuration {
    #[serde(default)]
    contexts: BTreeMap<String, Context>,
}

/// A named database of the configuration file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Context {
    database: Option<String>,
    application: Option<String>,
    env_file: Option<PathBuf>,
    #[serde(default)]
    settings: BTreeMap<String, String>,
}

impl Settings {
    /// Finds the settings of a database: of a URL, of a context, or, without either, of the environment.
    pub(crate) fn find(database: Option<&str>, sources: &Sources) -> Result<Self, Failure> {
        match database {
            Some(context) if !context.contains(':') => Self::of_context(context, sources),
            _ => Self::of_environment(database, sources),
        }
    }

    fn of_environment(url: Option<&str>, sources: &Sources) -> Result<Self, Failure> {
        let mut variables = match &sources.env_file {
            Some(path) => read_env_file(path)?,
            None if Path::new(".env").exists() => read_env_file(Path::new(".env"))?,
            None => BTreeMap::new(),
        };
        // The process has precedence over the file, as with other tools.
        variables.extend(
            std::env::vars_os()
                .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?))),
        );
        let application = sources.application.clone().unwrap_or_default();
        let mut settings = Self { application, variables };
        match url {
            Some(url) => settings.locate(url)?,
            None if LOCATION[..3].iter().all(|name| settings.get(name).is_none()) => {
                return Err(Failure::usage("no database is named").with_hint(
                    "pass --database sqlite:PATH, postgres://USER@HOST/DBNAME or a context, or set DATABASE_URL",
                ));
            }
            None => {}
        }
        Ok(settings)
    }

    fn of_context(name: &str, sources: &Sources) -> Result<Self, Failure> {
        let Some(path) = configuration_path(sources) else {
            return Err(unknown_context(name, None, &Configuration::default()));
        };
        let mut configuration = Configuration::read(&path)?;
        let Some(context) = configuration.contexts.remove(name) else {
            return Err(unknown_context(name, Some(&path), &configuration));
        };
        let mut variables = match &context.env_file {
            // A relative path begins at the configuration file.
            Some(file) => read_env_file(&path.parent().unwrap_or(Path::new("")).join(file))?,
            None => BTreeMap::new(),
        };
        variables.extend(context.settings);
        if let Some(database) = context.database {
            variables.insert("DATABASE_URL".to_owned(), database);
        }
        let application = sources.application.clone().or(context.application).unwrap_or_default();
        let mut settings = Self { application, variables };
        for secret in SECRETS {
            for name in settings.candidates(secret) {
                if settings.get(secret).is_none()
                    && let Ok(value) = std::env::var(&name)
                {
                    settings.variables.insert(name, value);
                }
            }
        }
        Ok(settings)
    }

    /// Replaces the location by a URL of the command line, which must not have a password.
    fn locate(&mut self, url: &str) -> Result<(), Failure> {
        let user = user_information(url);
        if user.is_some_and(|user| user.contains(':')) {
            return Err(Failure::usage(
                "the URL of a database on the command line must not have a password: other \
                 users of the machine can read it",
            )
            .with_hint("set POSTGRES_PASSWORD, or use a context with an env-file"));
        }
        for name in LOCATION {
            // The user of the environment applies to a URL without one.
            if name != "POSTGRES_USER" || user.is_some_and(|user| !user.is_empty()) {
                self.candidates(name).iter().for_each(|name| drop(self.variables.remove(name)));
            }
        }
        self.variables.insert("DATABASE_URL".to_owned(), url.to_owned());
        Ok(())
    }

    /// Returns a setting, the application's own before the common one.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        let found = self.candidates(name).iter().find_map(|name| self.variables.get(name));
        found.map(String::as_str).filter(|value| !value.is_empty())
    }

    /// Sets a setting, also if the application has one of its own.
    pub(crate) fn set(&mut self, name: &str, value: impl Into<String>) {
        self.candidates(name).iter().for_each(|name| drop(self.variables.remove(name)));
        self.variables.insert(name.to_owned(), value.into());
    }

    /// The names that a setting is looked up by, in order.
    fn candidates(&self, name: &str) -> Vec<String> {
        let own =
            (!self.application.is_empty()).then(|| format!("{}_{name}", self.application.to_uppercase()));
        own.into_iter().chain([name.to_owned()]).collect()
    }

    pub(crate) fn variables(&self) -> impl Iterator<Item = (String, String)> {
        self.variables.clone().into_iter()
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings").field("application", &self.application).finish_non_exhaustive()
    }
}

impl Configuration {
    fn read(path: &Path) -> Result<Self, Failure> {
        let text = fs::read_to_string(path)
            .map_err(|error| Failure::usage(format!("cannot read the configuration {path:?}: {error}")))?;
        // The message has no excerpt and no value, which could be a secret.
        toml::from_str(&text).map_err(|error| {
            let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
            let line = before.matches('\n').count() + 1;
            let message = error.message();
            let message = if message.starts_with("invalid") { "the value has another type" } else { message };
            Failure::usage(format!("configuration {path:?}, line {line}: {message}"))
        })
    }
}

/// Returns the part of a URL before the host, if there is one.
fn user_information(url: &str) -> Option<&str> {
    let (_, rest) = url.split_once("://")?;
    let authority = rest.split(['/', '?']).next()?;
    authority.rsplit_once('@').map(|(user, _)| user)
}

fn configuration_path(sources: &Sources) -> Option<PathBuf> {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let named = sources.config.clone().or_else(|| variable("ES_CONFIG"));
    named.or_else(|| {
        let directory = variable("XDG_CONFIG_HOME").or_else(|| Some(variable("HOME")?.join(".config")))?;
        Some(directory.join("es/config.toml")).filter(|path| path.exists())
    })
}

fn unknown_context(name: &str, path: Option<&Path>, configuration: &Configuration) -> Failure {
    if Path::new(name).exists() {
        let failure = Failure::usage(format!("{name:?} is neither a URL nor a context"));
        return failure.with_hint(format!("a file of SQLite is `sqlite:{name}`"));
    }
    let Some(path) = path else {
        let failure =
            Failure::usage(format!("context {name:?} is not known: there is no configuration file"));
        return failure
            .with_hint("a database is a URL, sqlite:PATH or postgres://USER@HOST/DBNAME, or a context");
    };
    let failure = Failure::usage(format!("context {name:?} is not in the configuration {path:?}"));
    let known: Vec<_> = configuration.contexts.keys().map(String::as_str).collect();
    failure.with_hint(match known.as_slice() {
        [] => "it has no contexts".to_owned(),
        known => format!("its contexts are {}", known.join(", ")),
    })
}

fn read_env_file(path: &Path) -> Result<BTreeMap<String, String>, Failure> {
    let entries = dotenvy::from_path_iter(path);
    let entries = entries.map_err(|error| Failure::usage(format!("cannot read {path:?}: {error}")))?;
    // The error of a line would show it, with a secret perhaps.
    let variables: HashMap<_, _> = entries
        .collect::<Result<_, _>>()
        .map_err(|_| Failure::usage(format!("{path:?} has a line that is not NAME=value")))?;
    Ok(variables.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(variables: &[(&str, &str)]) -> Settings {
        let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Settings { application: "Bank".to_owned(), variables: variables.collect() }
    }

    #[test]
    fn a_url_replaces_the_location_and_keeps_the_secrets() {
        let mut settings = settings(&[
            ("BANK_PERSISTENCE_MODULE", "sqlite"),
            ("SQLITE_DBNAME", "bank.db"),
            ("POSTGRES_USER", "bank"),
            ("POSTGRES_PASSWORD", "secret"),
        ]);
        settings.locate("postgres://localhost/bank").unwrap();
        assert_eq!(settings.get("DATABASE_URL"), Some("postgres://localhost/bank"));
        assert_eq!(settings.get("PERSISTENCE_MODULE"), None);
        assert_eq!(settings.get("SQLITE_DBNAME"), None);
        assert_eq!(settings.get("POSTGRES_USER"), Some("bank"), "the URL has no user");
        assert_eq!(settings.get("POSTGRES_PASSWORD"), Some("secret"));
        settings.locate("postgres://other@localhost/bank").unwrap();
        assert_eq!(settings.get("POSTGRES_USER"), None);
    }

    #[test]
    fn a_url_with_a_password_is_refused_without_its_text() {
        for url in ["postgres://me:secret@localhost/bank", "postgres://:secret@localhost"] {
            let refused = settings(&[]).locate(url).unwrap_err();
            assert!(!format!("{refused:?}").contains("secret"), "{refused:?}");
        }
        assert!(settings(&[]).locate("postgres://[::1]:5432/bank").is_ok(), "a colon before the port");
    }
}
