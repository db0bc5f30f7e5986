//! AES-GCM ciphers for stored events.
