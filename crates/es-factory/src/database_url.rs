//! `DATABASE_URL`: the location of a database in one variable, as other tools know it.

use percent_encoding::percent_decode_str;

/// Returns the settings of the factory that a URL stands for, and the reason if it cannot be read. The
/// reason never contains a part of the URL's user information.
pub(crate) fn settings(url: &str) -> Result<Vec<(&'static str, String)>, String> {
    match url.split_once(':') {
        Some(("sqlite", location)) => sqlite(location),
        Some(("postgres" | "postgresql", _)) => postgres(url),
        _ => {
            Err("expected a URL such as sqlite:bank.db or postgres://user:password@host/database".to_owned())
        }
    }
}

fn sqlite(location: &str) -> Result<Vec<(&'static str, String)>, String> {
    let path = location.strip_prefix("//").unwrap_or(location);
    let database = match path.contains('?') {
        // SQLite decodes the path and reads the parameters.
        true => format!("file:{path}"),
        false => decoded(path)?,
    };
    Ok(vec![("PERSISTENCE_MODULE", "sqlite".to_owned()), ("SQLITE_DBNAME", database)])
}

#[cfg(not(feature = "postgres"))]
fn postgres(_: &str) -> Result<Vec<(&'static str, String)>, String> {
    // The registry then names the feature that is missing.
    Ok(vec![("PERSISTENCE_MODULE", "postgres".to_owned())])
}

#[cfg(feature = "postgres")]
fn postgres(url: &str) -> Result<Vec<(&'static str, String)>, String> {
    let url = url::Url::parse(url).map_err(|error| error.to_string())?;
    let mut settings = vec![("PERSISTENCE_MODULE", "postgres".to_owned())];
    let texts = [
        // An IPv6 address is in brackets in a URL only.
        ("POSTGRES_HOST", url.host_str().unwrap_or_default().trim_matches(['[', ']'])),
        ("POSTGRES_USER", url.username()),
        ("POSTGRES_PASSWORD", url.password().unwrap_or_default()),
        ("POSTGRES_DBNAME", url.path().trim_start_matches('/')),
    ];
    for (setting, text) in texts {
        settings.push((setting, decoded(text)?));
    }
    if let Some(port) = url.port() {
        settings.push(("POSTGRES_PORT", port.to_string()));
    }
    for (name, value) in url.query_pairs() {
        let setting = match &*name {
            "sslmode" => "POSTGRES_SSLMODE",
            "sslrootcert" => "POSTGRES_SSLROOTCERT",
            _ => {
                return Err(format!(
                    "the parameter {name:?} is not known; known are sslmode and sslrootcert"
                ));
            }
        };
        settings.push((setting, value.into_owned()));
    }
    Ok(settings)
}

fn decoded(text: &str) -> Result<String, String> {
    let decoded = percent_decode_str(text).decode_utf8();
    Ok(decoded.map_err(|_| "a part of it is not UTF-8 after decoding".to_owned())?.into_owned())
}

#[cfg(all(test, feature = "postgres"))]
mod tests {
    use super::settings;

    #[test]
    fn a_host_may_be_an_ipv6_address() {
        let settings = settings("postgres://me:p%40ss@[::1]:5433/bank").unwrap();
        for expected in [("POSTGRES_HOST", "::1"), ("POSTGRES_PORT", "5433"), ("POSTGRES_PASSWORD", "p@ss")] {
            assert!(settings.contains(&(expected.0, expected.1.to_owned())), "{expected:?}");
        }
    }
}
