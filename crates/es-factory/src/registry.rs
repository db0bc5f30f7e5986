//! The names by which an environment selects backends, ciphers and compressors.

use std::{collections::BTreeMap, fmt, sync::Arc};

use es_core::{Cipher, Compressor, PersistenceError};

use crate::{Backend, Environment, PasswordProvider};

/// The cipher with several keys, and its class in Python.
const KEY_RING: [&str; 2] = ["key-ring", "es_key_ring:KeyRingCipher"];

/// The names by which an environment selects backends, ciphers and compressors.
///
/// A value like any other, without global state: a program that adds parts of its own makes a
/// [`standard`](Self::standard) registry, registers them, and gives it to the
/// [builder](crate::InfrastructureFactory::builder). A registered name replaces the part that had it.
///
/// ```
/// use std::sync::Arc;
/// use es_core::{Compressor, PersistenceError};
/// use es_factory::{InfrastructureFactory, Registry};
///
/// #[derive(Debug)]
/// struct Verbatim;
///
/// impl Compressor for Verbatim {
///     fn compress(&self, data: &[u8], out: &mut Vec<u8>) -> Result<(), PersistenceError> {
///         out.extend_from_slice(data);
///         Ok(())
///     }
///     fn decompress(&self, data: &[u8], out: &mut Vec<u8>) -> Result<(), PersistenceError> {
///         out.extend_from_slice(data);
///         Ok(())
///     }
/// }
///
/// let mut registry = Registry::standard();
/// registry.register_compressor("verbatim", |_environment| Ok(Arc::new(Verbatim)));
/// let factory = InfrastructureFactory::builder("Bank")
///     .environment([("COMPRESSOR_TOPIC", "verbatim")])
///     .registry(registry)
///     .build()?;
/// assert!(factory.compressor()?.is_some());
/// # Ok::<(), PersistenceError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Registry {
    backends: Names<dyn Backend>,
    ciphers: Names<dyn Cipher>,
    compressors: Names<dyn Compressor>,
    password_providers: Names<dyn PasswordProvider>,
}

impl Registry {
    /// The parts of this library that are compiled in. It also has the names of the others, so that an error
    /// can name the feature that has them.
    pub fn standard() -> Self {
        let mut registry = Self {
            backends: Names::new("backend"),
            ciphers: Names::new("cipher"),
            compressors: Names::new("compressor"),
            password_providers: Names::new("password provider"),
        };
        registry.add_backends();
        registry.add_codecs();
        registry
    }

    /// Makes a backend available as `PERSISTENCE_MODULE=name`.
    pub fn register_backend(
        &mut self,
        name: impl Into<String>,
        construct: impl Fn(&Environment) -> Result<Arc<dyn Backend>, PersistenceError> + Send + Sync + 'static,
    ) {
        self.backends.register(name, construct);
    }

    /// Makes a cipher available as `CIPHER_TOPIC=name`. The function reads its key, and any other
    /// setting, from the environment.
    pub fn register_cipher(
        &mut self,
        name: impl Into<String>,
        construct: impl Fn(&Environment) -> Result<Arc<dyn Cipher>, PersistenceError> + Send + Sync + 'static,
    ) {
        self.ciphers.register(name, construct);
    }

    /// Makes a compressor available as `COMPRESSOR_TOPIC=name`.
    pub fn register_compressor(
        &mut self,
        name: impl Into<String>,
        construct: impl Fn(&Environment) -> Result<Arc<dyn Compressor>, PersistenceError> + Send + Sync + 'static,
    ) {
        self.compressors.register(name, construct);
    }

    /// Makes a password provider available as `POSTGRES_GET_PASSWORD_TOPIC=name`. The function reads its
    /// settings from the environment.
    pub fn register_password_provider(
        &mut self,
        name: impl Into<String>,
        construct: impl Fn(&Environment) -> Result<Arc<dyn PasswordProvider>, PersistenceError>
        + Send
        + Sync
        + 'static,
    ) {
        self.password_providers.register(name, construct);
    }

    pub(crate) fn password_provider(
        &self,
        environment: &Environment,
    ) -> Option<Result<Arc<dyn PasswordProvider>, PersistenceError>> {
        const KEY: &str = "POSTGRES_GET_PASSWORD_TOPIC";
        Some(self.password_providers.construct(KEY, environment.get(KEY)?, environment))
    }

    pub(crate) fn backend(&self, environment: &Environment) -> Result<Arc<dyn Backend>, PersistenceError> {
        const KEYS: [&str; 2] = ["PERSISTENCE_MODULE", "INFRASTRUCTURE_FACTORY"];
        let chosen = KEYS.into_iter().find_map(|key| Some((key, environment.get(key)?)));
        let (key, name) = chosen.unwrap_or((KEYS[0], "memory"));
        let backend = self.backends.construct(key, name, environment)?;
        if chosen.is_none() {
            tracing::warn!(
                setting = KEYS[0],
                "no datastore is set: events are kept in memory and end with the process"
            );
        }
        Ok(backend)
    }

    /// Returns the name of the cipher that an environment selects.
    fn cipher_name(environment: &Environment) -> Option<&str> {
        let is_set = |key| environment.get(key).is_some();
        match environment.get("CIPHER_TOPIC") {
            Some(name) => Some(name),
            None if is_set("CIPHER_KEYS") || is_set("CIPHER_KEYS_FILE") => Some(KEY_RING[0]),
            None => is_set("CIPHER_KEY").then_some("aes"),
        }
    }

    /// Returns whether an environment selects a key ring.
    #[cfg(feature = "aes")]
    pub(crate) fn is_key_ring(environment: &Environment) -> bool {
        Self::cipher_name(environment).is_some_and(|name| KEY_RING.contains(&name))
    }

    pub(crate) fn cipher(
        &self,
        environment: &Environment,
    ) -> Result<Option<Arc<dyn Cipher>>, PersistenceError> {
        let Some(name) = Self::cipher_name(environment) else { return Ok(None) };
        self.ciphers.construct("CIPHER_TOPIC", name, environment).map(Some)
    }

    pub(crate) fn compressor(
        &self,
        environment: &Environment,
    ) -> Result<Option<Arc<dyn Compressor>>, PersistenceError> {
        let Some(name) = environment.get("COMPRESSOR_TOPIC") else { return Ok(None) };
        self.compressors.construct("COMPRESSOR_TOPIC", name, environment).map(Some)
    }

    fn add_backends(&mut self) {
        const POPO: [&str; 4] = ["memory", "popo", "eventsourcing.popo", "eventsourcing.popo:Factory"];
        const SQLITE: [&str; 3] = ["sqlite", "eventsourcing.sqlite", "eventsourcing.sqlite:Factory"];
        const POSTGRES: [&str; 3] = ["postgres", "eventsourcing.postgres", "eventsourcing.postgres:Factory"];
        #[cfg(feature = "popo")]
        self.backends.register_all(POPO, |_| Ok(Arc::new(es_popo::PopoDatastore::new())));
        #[cfg(not(feature = "popo"))]
        self.backends.lacks(POPO, "popo");
        #[cfg(feature = "sqlite")]
        self.backends
            .register_all(SQLITE, |environment| Ok(Arc::new(crate::sqlite::Sqlite::new(environment)?)));
        #[cfg(not(feature = "sqlite"))]
        self.backends.lacks(SQLITE, "sqlite");
        #[cfg(feature = "postgres")]
        self.backends
            .register_all(POSTGRES, |environment| Ok(Arc::new(crate::postgres::Postgres::new(environment)?)));
        #[cfg(not(feature = "postgres"))]
        self.backends.lacks(POSTGRES, "postgres");
    }

    fn add_codecs(&mut self) {
        const AES: [&str; 3] =
            ["aes", "eventsourcing.cipher:AESCipher", "eventsourcing.cryptography:AESCipher"];
        const ZLIB: [&str; 2] = ["zlib", "eventsourcing.compressor:ZlibCompressor"];
        const ZSTD: [&str; 1] = ["zstd"];
        #[cfg(feature = "aes")]
        self.ciphers.register_all(AES, |environment| {
            let key = environment.required("CIPHER_KEY")?;
            let cipher = es_crypto::AesCipher::from_base64(key);
            Ok(Arc::new(cipher.map_err(|error| environment.unusable("CIPHER_KEY", &error))?))
        });
        #[cfg(feature = "aes")]
        self.ciphers
            .register_all(KEY_RING, |environment| Ok(Arc::new(crate::key_ring::key_ring(environment)?)));
        #[cfg(not(feature = "aes"))]
        {
            self.ciphers.lacks(AES, "aes");
            self.ciphers.lacks(KEY_RING, "aes");
        }
        #[cfg(feature = "zlib")]
        self.compressors.register_all(ZLIB, |_| Ok(Arc::new(es_compress::ZlibCompressor::new())));
        #[cfg(not(feature = "zlib"))]
        self.compressors.lacks(ZLIB, "zlib");
        #[cfg(feature = "zstd")]
        self.compressors.register_all(ZSTD, |_| Ok(Arc::new(es_compress::ZstdCompressor::new())));
        #[cfg(not(feature = "zstd"))]
        self.compressors.lacks(ZSTD, "zstd");
    }
}

impl Default for Registry {
    fn default() -> Self {
        Self::standard()
    }
}

type Construct<P> = Arc<dyn Fn(&Environment) -> Result<Arc<P>, PersistenceError> + Send + Sync>;

/// The names of one sort of part.
struct Names<P: ?Sized> {
    sort: &'static str,
    entries: BTreeMap<String, Entry<P>>,
}

enum Entry<P: ?Sized> {
    Available(Construct<P>),
    /// A part of this library that is not compiled in, and the feature that has it.
    Lacking(&'static str),
}

impl<P: ?Sized> Names<P> {
    fn new(sort: &'static str) -> Self {
        Self { sort, entries: BTreeMap::new() }
    }

    fn register(
        &mut self,
        name: impl Into<String>,
        construct: impl Fn(&Environment) -> Result<Arc<P>, PersistenceError> + Send + Sync + 'static,
    ) {
        self.entries.insert(name.into(), Entry::Available(Arc::new(construct)));
    }

    #[allow(dead_code, reason = "unused when no part of this sort is compiled in")]
    fn register_all<const N: usize>(
        &mut self,
        names: [&str; N],
        construct: impl Fn(&Environment) -> Result<Arc<P>, PersistenceError> + Send + Sync + 'static,
    ) {
        let construct: Construct<P> = Arc::new(construct);
        for name in names {
            self.entries.insert(name.to_owned(), Entry::Available(construct.clone()));
        }
    }

    #[allow(dead_code, reason = "unused when every part of this sort is compiled in")]
    fn lacks<const N: usize>(&mut self, names: [&str; N], feature: &'static str) {
        for name in names {
            self.entries.insert(name.to_owned(), Entry::Lacking(feature));
        }
    }

    fn construct(
        &self,
        key: &str,
        name: &str,
        environment: &Environment,
    ) -> Result<Arc<P>, PersistenceError> {
        match self.entries.get(name) {
            Some(Entry::Available(construct)) => construct(environment),
            Some(Entry::Lacking(feature)) => Err(PersistenceError::not_supported(format!(
                "{} {name:?} is not compiled in: enable the feature `{feature}` of es-persistence or es-factory",
                self.sort
            ))),
            None => Err(environment.unreadable(key, name, &self.expected())),
        }
    }

    /// The available names, for an error.
    fn expected(&self) -> String {
        let available =
            |(name, entry): (&String, &Entry<P>)| matches!(entry, Entry::Available(_)).then(|| name.clone());
        let names: Vec<_> = self.entries.iter().filter_map(available).collect();
        match names.is_empty() {
            true => format!("the name of a {}, and none is registered", self.sort),
            false => format!("the name of a {}: {}", self.sort, names.join(", ")),
        }
    }
}

impl<P: ?Sized> Clone for Names<P> {
    fn clone(&self) -> Self {
        Self { sort: self.sort, entries: self.entries.clone() }
    }
}

impl<P: ?Sized> Clone for Entry<P> {
    fn clone(&self) -> Self {
        match self {
            Self::Available(construct) => Self::Available(construct.clone()),
            Self::Lacking(feature) => Self::Lacking(feature),
        }
    }
}

impl<P: ?Sized> fmt::Debug for Names<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.entries.keys()).finish()
    }
}
