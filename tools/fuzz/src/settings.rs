//! Text that claims to be a topic, and settings of an environment.

use std::error::Error;

use es_persistence::{
    Event, Mapper, PersistenceError, StoredEvent, Topic,
    factory::{Environment, InfrastructureFactory},
};
use uuid::Uuid;

use crate::bank::{AccountEvent, transcoder};

/// Stands in secrets, and nowhere else.
const MARK: char = '🔑';

/// A text is a topic exactly when it is not empty and has no NUL, and is then what it was; events of topics
/// that no type has are refused.
pub fn topic(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let Ok(topic) = Topic::new(&*text) else {
        assert!(text.is_empty() || text.contains('\0'), "{text:?} is refused");
        return;
    };
    assert!(!text.is_empty() && !text.contains('\0'), "{text:?} is a topic");
    assert_eq!(topic, *text);
    assert_eq!(topic.to_string(), text);

    let is_known = AccountEvent::TOPICS.contains(&topic);
    let state = br#"{"timestamp":{"_type_":"datetime_iso","_data_":"2024-02-29T12:34:56+00:00"}}"#;
    let stored =
        StoredEvent { originator_id: Uuid::nil(), originator_version: 1, topic, state: state[..].into() };
    if let Err(error) = Mapper::new(transcoder()).to_domain_event::<AccountEvent>(&stored) {
        assert!(error.to_string().contains(&format!("{:?}", stored.topic)), "{error} names no topic");
    } else {
        assert!(is_known, "an event of an unknown topic is read");
    }
}

/// Lines of `NAME=VALUE` as the environment of an application. What is refused is refused without a secret.
pub fn environment(data: &[u8]) {
    let text = String::from_utf8_lossy(data).replace(MARK, "");
    let variables: Vec<_> = text.lines().filter_map(|line| line.split_once('=')).collect();
    read(Environment::new("Bank", variables.iter().copied()));
    construct(variables.iter().map(|(name, value)| (*name, (*value).to_owned())));
    construct(variables.iter().map(|(name, value)| (*name, marked(name, value))));
}

/// Each way to read a setting, whatever the setting.
fn read(environment: Environment) {
    for key in ["CREATE_TABLE", "SQLITE_LOCK_TIMEOUT", "POSTGRES_POOL_SIZE", "KEY", ""] {
        let found = environment.get(key);
        assert!(found.is_none_or(|value| !value.is_empty()), "an empty value counts as none");
        assert_eq!(environment.required(key).ok(), found);
        let _ = environment.boolean(key, true);
        let _ = environment.seconds(key);
        let _ = environment.whole_seconds(key);
        let _ = environment.count(key);
    }
}

/// The parts that an environment asks for; none is opened.
fn construct<'a>(variables: impl Iterator<Item = (&'a str, String)>) {
    let factory = match InfrastructureFactory::builder("Bank").environment(variables).build() {
        Ok(factory) => factory,
        Err(error) => return assert_no_secret(&error),
    };
    assert!(!format!("{factory:?}").contains(MARK), "a secret is shown");
    for refused in [factory.mapper().err(), factory.is_snapshotting_enabled().err()].into_iter().flatten() {
        assert_no_secret(&refused);
    }
}

fn marked(name: &str, value: &str) -> String {
    let is_secret = name.ends_with("CIPHER_KEY") || name.ends_with("PASSWORD");
    if is_secret { format!("{MARK}{value}") } else { value.to_owned() }
}

fn assert_no_secret(error: &PersistenceError) {
    let mut causes = vec![format!("{error} {error:?}")];
    let mut cause = error.source();
    while let Some(next) = cause {
        causes.push(format!("{next} {next:?}"));
        cause = next.source();
    }
    assert!(!causes.concat().contains(MARK), "a secret is shown: {causes:?}");
}
