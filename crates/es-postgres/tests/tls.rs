//! Encrypted connections to a server that has certificates: verification of the server and of the client.
#![cfg(feature = "tls")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "a test")]

mod common;

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use common::{
    cluster::{Cluster, Stop},
    prelude::*,
};
use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};

/// The only name in the server's certificate. Its address, by which the server can be reached as well, is
/// not.
const NAME: &str = "localhost";

/// An authority that signs certificates.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: String,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), certificate }
    }

    /// A certificate and its key, in files of that name.
    fn sign(&self, params: &CertificateParams, directory: &Path, name: &str) -> (PathBuf, PathBuf) {
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap().pem();
        (
            write(directory, &format!("{name}.crt"), &certificate),
            write(directory, &format!("{name}.key"), &key.serialize_pem()),
        )
    }

    fn write(&self, directory: &Path, name: &str) -> PathBuf {
        write(directory, name, &self.certificate)
    }
}

fn write(directory: &Path, name: &str, text: &str) -> PathBuf {
    let path = directory.join(name);
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    path
}

/// A server that offers encryption, with a certificate for [`NAME`] that the authority has signed, and the
/// directory of its certificates; none where PostgreSQL's programs are not installed here.
async fn start(authority: &Authority) -> Option<(Cluster, PathBuf)> {
    let mut cluster = Cluster::start(&[])?;
    let directory = cluster.directory("certificates");
    let params = CertificateParams::new([NAME.to_owned()]).unwrap();
    let (certificate, key) = authority.sign(&params, &directory, "server");
    let trusted = authority.write(&directory, "trusted.crt");
    for file in [&certificate, &key, &trusted] {
        cluster.own(file);
    }
    let mut connection = cluster.server.connect().await;
    for (setting, value) in [
        ("ssl_cert_file", certificate.as_path()),
        ("ssl_key_file", key.as_path()),
        ("ssl_ca_file", trusted.as_path()),
        ("ssl", Path::new("on")),
    ] {
        run(&mut connection, &format!("ALTER SYSTEM SET {setting} = '{}'", value.display())).await;
    }
    cluster.stop(Stop::Fast);
    cluster.launch();
    Some((cluster, directory))
}

fn by_name(cluster: &Cluster, mode: &str) -> PostgresOptions {
    cluster.server.options().host(NAME).sslmode(mode).unwrap()
}

/// Appends an event on a connection that is kept.
async fn append(options: PostgresOptions) -> Result<PostgresDatastore, PersistenceError> {
    let datastore = options.open().await?;
    datastore.application_recorder("bank").await?.insert_events(vec![first()]).await?;
    Ok(datastore)
}

/// Appends an event; true if all connections are encrypted.
async fn is_encrypted(cluster: &Cluster, options: PostgresOptions) -> bool {
    let datastore = append(options).await.unwrap();
    let sessions = "SELECT bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) \
                    WHERE application_name = 'es-postgres'";
    let is_encrypted = scalar(&mut cluster.server.connect().await, sessions).await;
    datastore.close().await.unwrap();
    let gone = "SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE application_name = 'es-postgres')";
    until(&mut cluster.server.connect().await, gone).await;
    is_encrypted
}

#[tokio::test]
async fn the_servers_certificate_is_verified_as_configured() {
    let authority = Authority::new();
    let Some((cluster, directory)) = start(&authority).await else { return };
    let trusted = authority.write(&directory, "authority.crt");
    let other = Authority::new().write(&directory, "other.crt");
    for mode in ["prefer", "require"] {
        assert!(is_encrypted(&cluster, by_name(&cluster, mode)).await, "{mode}");
    }
    assert!(!is_encrypted(&cluster, by_name(&cluster, "disable")).await);
    for mode in ["verify-ca", "verify-full"] {
        let options = by_name(&cluster, mode).ssl_root_certificate(&trusted);
        assert!(is_encrypted(&cluster, options).await, "{mode}");
        let refused = append(by_name(&cluster, mode).ssl_root_certificate(&other)).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Operational, "{mode}: {refused}");
        assert!(refused.to_string().contains(NAME), "{refused}");
    }
    // The address is none of the names in the certificate.
    let by_address = |mode| by_name(&cluster, mode).host("127.0.0.1").ssl_root_certificate(&trusted);
    assert!(is_encrypted(&cluster, by_address("verify-ca")).await);
    assert_eq!(append(by_address("verify-full")).await.unwrap_err().kind(), ErrorKind::Operational);
    // A file that cannot be read is named.
    let there = || by_name(&cluster, "verify-full").ssl_root_certificate(&trusted);
    let none = |name: &str| directory.join(name);
    for (options, name) in [
        (there().ssl_root_certificate(none("none.crt")), "none.crt"),
        (there().ssl_client_certificate(none("mine.crt"), &trusted), "mine.crt"),
        (there().ssl_client_certificate(&trusted, none("mine.key")), "mine.key"),
    ] {
        let refused = append(options).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Operational);
        assert!(refused.to_string().contains(name), "{refused}");
    }
}

#[tokio::test]
async fn a_certificate_takes_the_place_of_a_password() {
    let authority = Authority::new();
    let Some((mut cluster, directory)) = start(&authority).await else { return };
    let mut connection = cluster.server.connect().await;
    let rules: String = scalar(&mut connection, "SHOW hba_file").await;
    fs::write(rules, "hostssl all all all cert").unwrap();
    cluster.stop(Stop::Fast);
    cluster.launch();

    let user = |name: &str| {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params
    };
    let without = || {
        PostgresOptions::new(&cluster.server.dbname)
            .host(NAME)
            .port(cluster.server.port)
            .user(&cluster.server.user)
            .sslmode("require")
            .unwrap()
    };
    let (certificate, key) = authority.sign(&user(&cluster.server.user), &directory, "ours");
    append(without().ssl_client_certificate(certificate, key)).await.unwrap();
    let (certificate, key) = authority.sign(&user("somebody"), &directory, "somebodys");
    let (forged, of_forged) = Authority::new().sign(&user(&cluster.server.user), &directory, "forged");
    for options in [
        without(),
        without().ssl_client_certificate(certificate, key),
        without().ssl_client_certificate(forged, of_forged),
    ] {
        let refused = append(options).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Operational, "{refused}");
    }
}
