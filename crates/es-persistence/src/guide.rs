#![doc = include_str!("guide/introduction.md")]

#[doc = include_str!("guide/getting_started.md")]
pub mod getting_started {}

#[doc = include_str!("guide/events.md")]
pub mod events {}

#[doc = include_str!("guide/commands.md")]
pub mod commands {}

#[doc = include_str!("guide/snapshots.md")]
pub mod snapshots {}

#[doc = include_str!("guide/encryption.md")]
pub mod encryption {}

#[doc = include_str!("guide/keys.md")]
pub mod keys {}

#[doc = include_str!("guide/sqlite.md")]
pub mod sqlite {}

#[doc = include_str!("guide/postgres.md")]
pub mod postgres {}

#[doc = include_str!("guide/following.md")]
pub mod following {}

#[doc = include_str!("guide/processing.md")]
pub mod processing {}

#[doc = include_str!("guide/projecting.md")]
pub mod projecting {}

#[doc = include_str!("guide/errors.md")]
pub mod errors {}

#[doc = include_str!("guide/testing.md")]
pub mod testing {}

#[doc = include_str!("guide/deployment.md")]
pub mod deployment {}

#[doc = include_str!("guide/cluster.md")]
pub mod cluster {}

#[doc = include_str!("guide/operating.md")]
pub mod operating {}

#[doc = include_str!("guide/python.md")]
pub mod python {}

#[doc = include_str!("guide/glossary.md")]
pub mod glossary {}

#[doc = include_str!("guide/how_to.md")]
pub mod how_to {}
