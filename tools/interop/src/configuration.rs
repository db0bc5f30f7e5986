//! The configuration of a scenario: version, datastore, codecs, and the side that makes the tables.

use std::fmt;

/// A language that takes part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Language {
    Rust,
    Python,
}

/// A version of the Python library, with the packages that `python/requirements-<version>.txt` lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PythonVersion {
    V9_1,
    V9_5,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Datastore {
    Sqlite,
    Postgres,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Codecs {
    Plain,
    /// zlib, then AES of 128 bits, in Python by PyCryptodome.
    Pycryptodome,
    /// zlib, then AES of 256 bits, in Python by cryptography, which 9.5 has.
    Cryptography,
    /// zlib, then a key ring whose second key encrypts, in Python by the cipher of es-crypto.
    KeyRing,
}

/// One of them each.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Configuration {
    pub(crate) python: PythonVersion,
    pub(crate) datastore: Datastore,
    pub(crate) codecs: Codecs,
    pub(crate) tables_by: Language,
}

impl Configuration {
    /// All that there are.
    pub(crate) fn all() -> Vec<Self> {
        let mut all = Vec::new();
        for datastore in [Datastore::Sqlite, Datastore::Postgres] {
            for python in PythonVersion::ALL {
                for &codecs in python.codecs() {
                    for tables_by in [Language::Rust, Language::Python] {
                        all.push(Self { python, datastore, codecs, tables_by });
                    }
                }
            }
        }
        all
    }

    pub(crate) fn needs_postgres(&self) -> bool {
        self.datastore == Datastore::Postgres
    }

    /// The side that makes the tables of the ledger, among them the one of tracking positions.
    ///
    /// Version 9.1 of the Python library knows only the layout of its own: in the one that this library and
    /// 9.5 make, it can record a first position, and every further one is a conflict to it.
    pub(crate) fn ledger_tables_by(&self) -> Language {
        match self.python {
            PythonVersion::V9_1 => Language::Python,
            PythonVersion::V9_5 => self.tables_by,
        }
    }

    /// The settings that both languages read, except those that say where the database is.
    pub(crate) fn settings(&self) -> Vec<(&'static str, &'static str)> {
        let mut settings = vec![("BANK_IS_SNAPSHOTTING_ENABLED", "y")];
        settings.extend(match self.datastore {
            Datastore::Sqlite => &[
                ("PERSISTENCE_MODULE", "eventsourcing.sqlite"),
                ("INFRASTRUCTURE_FACTORY", "eventsourcing.sqlite:Factory"),
            ][..],
            Datastore::Postgres => &[
                ("PERSISTENCE_MODULE", "eventsourcing.postgres"),
                ("INFRASTRUCTURE_FACTORY", "eventsourcing.postgres:Factory"),
                // What a subscription of version 9.5 waits for.
                ("POSTGRES_NOTIFY", "y"),
            ],
        });
        settings.extend(self.codecs.settings());
        settings
    }
}

impl PythonVersion {
    pub(crate) const ALL: [Self; 2] = [Self::V9_1, Self::V9_5];

    fn codecs(self) -> &'static [Codecs] {
        match self {
            Self::V9_1 => &[Codecs::Plain, Codecs::Pycryptodome],
            Self::V9_5 => &[Codecs::Plain, Codecs::Pycryptodome, Codecs::Cryptography, Codecs::KeyRing],
        }
    }
}

impl Codecs {
    fn settings(self) -> &'static [(&'static str, &'static str)] {
        const ZLIB: (&str, &str) = ("COMPRESSOR_TOPIC", "eventsourcing.compressor:ZlibCompressor");
        match self {
            Self::Plain => &[],
            Self::Pycryptodome => &[
                ZLIB,
                ("CIPHER_TOPIC", "eventsourcing.cipher:AESCipher"),
                ("CIPHER_KEY", "SuvoWcmz3Tg+KemGGGirdQ=="),
            ],
            Self::Cryptography => &[
                ZLIB,
                ("CIPHER_TOPIC", "eventsourcing.cryptography:AESCipher"),
                ("CIPHER_KEY", "S7dWXcSV2xZeweJ0QSsbXuJxSvvS9SN+L6rBY9rcy0Q="),
            ],
            Self::KeyRing => &[
                ZLIB,
                ("MAPPER_TOPIC", "es_key_ring:KeyRingMapper"),
                ("CIPHER_TOPIC", "es_key_ring:KeyRingCipher"),
                (
                    "CIPHER_KEYS",
                    "1:S7dWXcSV2xZeweJ0QSsbXuJxSvvS9SN+L6rBY9rcy0Q=,2:5wdic04TK5JqIJwzovogEQfdBVpOPpHBSVaczFBDkqU=",
                ),
                ("CIPHER_PRIMARY_KEY_ID", "2"),
                ("CIPHER_ALGORITHM", "xaes-256-gcm"),
            ],
        }
    }
}

impl fmt::Display for Configuration {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { python, datastore, codecs, tables_by } = self;
        write!(formatter, "{datastore}, Python {python}, {codecs}, tables by {tables_by}")
    }
}

impl fmt::Display for Language {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Rust => "Rust",
            Self::Python => "Python",
        })
    }
}

impl fmt::Display for PythonVersion {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::V9_1 => "9.1",
            Self::V9_5 => "9.5",
        })
    }
}

impl fmt::Display for Datastore {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Sqlite => "SQLite",
            Self::Postgres => "PostgreSQL",
        })
    }
}

impl fmt::Display for Codecs {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Plain => "plain",
            Self::Pycryptodome => "zlib and AES-128 of PyCryptodome",
            Self::Cryptography => "zlib and AES-256 of cryptography",
            Self::KeyRing => "zlib and a key ring",
        })
    }
}
