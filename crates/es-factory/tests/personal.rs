//! Tests of personal values whose key store an environment describes.
#![allow(clippy::unwrap_used, reason = "a test says what it expects by unwrapping it")]

use es_core::{ErrorKind, EventRange, Expected, PersistenceError, uuid::Uuid};
use es_derive::Event;
use es_factory::InfrastructureFactory;
use es_personal::{KeyStore, Personal, Subject};

const RING_KEY: &str = "1:5wdic04TK5JqIJwzovogEQfdBVpOPpHBSVaczFBDkqU=";

#[derive(Clone, Debug, PartialEq, Event)]
#[event(topic = "shop:Order")]
enum OrderEvent {
    Placed {
        buyer: Personal<String>,
    },
    #[event(subject = customer, erased = |customer| Self::Forgotten { customer })]
    Noted {
        customer: Subject,
        text: String,
    },
    Forgotten {
        customer: Subject,
    },
}

fn build(variables: &[(&str, &str)]) -> Result<InfrastructureFactory, PersistenceError> {
    let common = [("PERSISTENCE_MODULE", "sqlite"), ("SQLITE_DBNAME", ":memory:")];
    let variables = common.iter().chain(variables).copied();
    InfrastructureFactory::builder("Shop").personal::<String>().environment(variables).build()
}

#[tokio::test]
async fn an_environment_has_personal_values_and_an_erasure() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let (events, url) = (path("events.db"), format!("sqlite:{}", path("keys.db")));
    let variables =
        [("SQLITE_DBNAME", &*events), ("CIPHER_KEYS", RING_KEY), ("SHOP_PERSONAL_KEYS_URL", &*url)];
    let factory = build(&variables).unwrap();
    let store = factory.event_store().await.unwrap();
    let (id, alice) = (Uuid::from_u128(1), Subject::from(Uuid::from_u128(7)));
    let recorded = [
        OrderEvent::Placed { buyer: Personal::new(alice.clone(), "Alice".to_owned()) },
        OrderEvent::Noted { customer: alice.clone(), text: "called".to_owned() },
    ];
    store.append(id, Expected::New, recorded.clone()).await.unwrap();

    // Another process.
    let other = build(&variables).unwrap();
    let reader = other.event_store().await.unwrap();
    let read = reader.get::<OrderEvent>(id, EventRange::all()).await.unwrap();
    assert!(read.into_iter().map(|event| event.payload).eq(recorded));
    let keys = other.key_store().unwrap().unwrap();
    assert_eq!(keys.select_keys(None, 10).await.unwrap().len(), 1);
    // The keys of the factory are those of its mapper.
    other.subject_keys().unwrap().unwrap().erase(alice.clone(), "test").await.unwrap();
    let read = reader.get::<OrderEvent>(id, EventRange::all()).await.unwrap();
    let erased = [
        OrderEvent::Placed { buyer: Personal::Erased { subject: alice.clone() } },
        OrderEvent::Forgotten { customer: alice },
    ];
    assert!(read.into_iter().map(|event| event.payload).eq(erased));
}

#[tokio::test]
async fn settings_that_are_missing_or_unusable_are_named() {
    for (variables, expected) in [
        (vec![], "PERSONAL_KEYS_URL"),
        (vec![("PERSONAL_KEYS_URL", "sqlite:keys.db")], "CIPHER_KEYS"),
        (vec![("PERSONAL_KEYS_URL", "mysql:keys"), ("CIPHER_KEYS", RING_KEY)], "PERSONAL_KEYS_URL"),
        (
            vec![
                ("PERSONAL_KEYS_URL", "sqlite:keys.db"),
                ("CIPHER_KEYS", RING_KEY),
                ("PERSONAL_KEYS_MAX_AGE", "long"),
            ],
            "PERSONAL_KEYS_MAX_AGE",
        ),
    ] {
        let error = build(&variables).unwrap().mapper().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Programming);
        assert!(error.to_string().contains(expected), "{error}");
    }
}

/// The time until other processes see an erasure, as it is documented.
#[tokio::test]
async fn keys_expire_after_the_documented_time_or_that_of_the_environment() {
    let variables = [("PERSONAL_KEYS_URL", "sqlite:keys.db"), ("CIPHER_KEYS", RING_KEY)];
    for (max_age, lifetime) in [(None, "60s"), (Some("0.5"), "500ms")] {
        let max_age = max_age.map(|seconds| ("PERSONAL_KEYS_MAX_AGE", seconds));
        let factory = build(&variables.into_iter().chain(max_age).collect::<Vec<_>>()).unwrap();
        let shown = format!("{:?}", factory.subject_keys().unwrap().unwrap());
        assert!(shown.contains(&format!("lifetime: {lifetime}")), "{shown}");
    }
}

#[tokio::test]
async fn a_missing_store_is_not_created_if_tables_are_not() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("keys.db");
    let url = format!("sqlite:{}", path.to_str().unwrap());
    let variables = [("PERSONAL_KEYS_URL", &*url), ("CREATE_TABLE", "no")];
    let keys = build(&variables).unwrap().key_store().unwrap().unwrap();
    let error = keys.select_keys(None, 1).await.unwrap_err();
    assert!(error.to_string().contains("PERSONAL_KEYS_URL"), "{error}");
    assert!(!path.exists());
    // Not a key store.
    std::fs::write(&path, "").unwrap();
    let error = keys.select_keys(None, 1).await.unwrap_err();
    assert!(error.to_string().contains("no table of keys"), "{error}");
}
