//! Passwords that are fetched for each new connection.

use std::fmt::Debug;

use es_core::BoxFuture;

/// Returns the password of each new connection, such as a token that expires.
///
/// [Register](crate::Registry::register_password_provider) a function that constructs it, to make it available
/// as `POSTGRES_GET_PASSWORD_TOPIC=name`.
pub trait PasswordProvider: Debug + Send + Sync + 'static {
    /// Returns the password.
    ///
    /// # Errors
    /// If it cannot be fetched: the connection is not made.
    fn password(&self) -> BoxFuture<'_, String>;
}
