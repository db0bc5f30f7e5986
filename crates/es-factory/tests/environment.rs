//! Tests of the lookup and parsing of settings.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test says what it expects by unwrapping it")]

use std::time::Duration;

use es_core::ErrorKind;
use es_factory::{Environment, InfrastructureFactory};

fn environment(variables: &[(&str, &str)]) -> Environment {
    Environment::new("Bank", variables.iter().copied())
}

#[test]
fn the_application_s_own_setting_comes_first() {
    let both = environment(&[("CIPHER_KEY", "common"), ("BANK_CIPHER_KEY", "own")]);
    assert_eq!(both.get("CIPHER_KEY"), Some("own"));
    assert_eq!(environment(&[("CIPHER_KEY", "common")]).get("CIPHER_KEY"), Some("common"));
    assert_eq!(environment(&[("SHOP_CIPHER_KEY", "another's")]).get("CIPHER_KEY"), None);
    assert_eq!(Environment::new("", [("CIPHER_KEY", "common")]).get("CIPHER_KEY"), Some("common"));
}

#[test]
fn an_empty_value_is_not_set_and_hides_the_common_one() {
    assert_eq!(environment(&[("CIPHER_KEY", "")]).get("CIPHER_KEY"), None);
    assert_eq!(environment(&[("CIPHER_KEY", "common"), ("BANK_CIPHER_KEY", "")]).get("CIPHER_KEY"), None);
}

#[test]
fn booleans_are_read_in_any_case() {
    for (yes, no) in [("y", "n"), ("YES", "No"), ("t", "F"), ("True", "false"), ("on", "OFF"), ("1", "0")] {
        assert!(environment(&[("CREATE_TABLE", yes)]).boolean("CREATE_TABLE", false).unwrap(), "{yes}");
        assert!(!environment(&[("CREATE_TABLE", no)]).boolean("CREATE_TABLE", true).unwrap(), "{no}");
    }
    assert!(environment(&[]).boolean("CREATE_TABLE", true).unwrap());
    assert!(environment(&[("CREATE_TABLE", "")]).boolean("CREATE_TABLE", true).unwrap());
}

#[test]
fn an_unreadable_value_names_key_value_and_what_was_expected() {
    let error = environment(&[("BANK_CREATE_TABLE", "perhaps")]).boolean("CREATE_TABLE", true).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Programming);
    assert_eq!(
        error.to_string(),
        "environment variable BANK_CREATE_TABLE has the value \"perhaps\", \
         expected y, yes, t, true, on, 1, n, no, f, false, off or 0"
    );
    for wrong in ["-1", "soon", "NaN", "inf", "1e400", "1,5"] {
        let error = environment(&[("POSTGRES_CONN_MAX_AGE", wrong)]).seconds("POSTGRES_CONN_MAX_AGE");
        assert!(error.unwrap_err().to_string().contains("POSTGRES_CONN_MAX_AGE"), "{wrong}");
    }
    for wrong in ["-1", "1.5", "4294967296", "many"] {
        assert!(
            environment(&[("POSTGRES_LOCK_TIMEOUT", wrong)]).whole_seconds("POSTGRES_LOCK_TIMEOUT").is_err()
        );
        assert!(environment(&[("POSTGRES_POOL_SIZE", wrong)]).count("POSTGRES_POOL_SIZE").is_err());
    }
}

#[test]
fn durations_and_counts_are_read() {
    let settings = environment(&[("AGE", "0.5"), ("ZERO", "0"), ("WHOLE", " 7 "), ("EMPTY", "")]);
    assert_eq!(settings.seconds("AGE").unwrap(), Some(Duration::from_millis(500)));
    assert_eq!(settings.seconds("ZERO").unwrap(), Some(Duration::ZERO));
    assert_eq!(settings.whole_seconds("WHOLE").unwrap(), Some(Duration::from_secs(7)));
    assert_eq!(settings.count("WHOLE").unwrap(), Some(7));
    assert_eq!(settings.seconds("EMPTY").unwrap(), None);
    assert_eq!(settings.seconds("ABSENT").unwrap(), None);
}

#[test]
fn a_required_setting_that_is_missing_is_named_as_it_was_looked_for() {
    let error = environment(&[]).required("SQLITE_DBNAME").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Programming);
    assert!(error.to_string().contains("BANK_SQLITE_DBNAME or SQLITE_DBNAME"), "{error}");
}

#[test]
fn secrets_are_not_displayed() {
    let secret = "c2VjcmV0LXNlY3JldC1zZWNyZXQ=";
    let settings = [("CIPHER_KEY", secret), ("POSTGRES_PASSWORD", secret), ("PERSISTENCE_MODULE", "popo")];
    assert!(!format!("{:?}", environment(&settings)).contains(secret));
    let builder = InfrastructureFactory::builder("Bank").environment(settings);
    assert!(!format!("{builder:?}").contains(secret));
    // The key is not valid for AES: the error contains its size, not the key.
    let error = builder.build().unwrap().mapper().unwrap_err();
    assert!(!format!("{error} {error:?}").contains(secret), "{error}");
}
