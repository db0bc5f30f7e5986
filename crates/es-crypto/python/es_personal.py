"""Personal values for the Python `eventsourcing` library, versions 9.1 to 9.5: values and sealed events that the Rust crate
es-personal reads and writes.

Copy this file and `es_key_ring.py` into a program. Register the transcoding with the application's transcoder, and put
values of type `Personal` into the fields of events:

    keys = SubjectKeys(SqliteKeyStore("keys.db"), KeyRingCipher(os.environ))

    class Shop(Application):
        def register_transcodings(self, transcoder):
            super().register_transcodings(transcoder)
            transcoder.register(PersonalAsSealed(keys, transcoder))

    Order(item="book", buyer=Personal("7f3c...", "Alice"))
    keys.erase("7f3c...", "request 4711")

After the erasure of its subject, a value is decoded as `Personal(subject, is_erased=True)`, whose `value` is None. Other
processes read it until their keys in memory have expired.

If all attributes of an event are personal, the event is sealed as a whole: its class has a property `data_subject`, and a
static method `erased`, which returns the attributes of the event after an erasure. `SealedEventMapper` wraps the mapper;
without it, the property has no effect:

    class Shop(Application):
        ...
        def construct_mapper(self, *args, **kwargs):
            return SealedEventMapper(super().construct_mapper(*args, **kwargs))

    class Customer(Aggregate):
        class Registered(Aggregate.Created):
            customer: str
            name: str

            @property
            def data_subject(self):
                return self.customer

            @staticmethod
            def erased(subject):
                return {"originator_topic": get_topic(Customer), "customer": subject, "name": None}

It needs the package `cryptography`; a key store on PostgreSQL also needs psycopg or psycopg2. The key ring wraps the keys
of the subjects, and is independent of the cipher of the events. The documentation of es-personal describes the format.
"""

import os
import sqlite3
import unicodedata
from base64 import b64decode, b64encode
from collections import OrderedDict
from contextlib import closing
from copy import copy
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from threading import Lock
from time import monotonic
from typing import Any
from uuid import UUID

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from es_key_ring import NONCE_LENGTHS, bound_to, split
from eventsourcing.persistence import Transcoding
from eventsourcing.utils import resolve_topic

AES_256_GCM = b"\x01"
KEY_LENGTH = 32
EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
SEALED = "_personal_"
# What stays readable in a sealed event, beside its class version.
READABLE = ("originator_id", "originator_version", "timestamp", "_metadata_")


@dataclass(frozen=True)
class Personal:
    """A value of a data subject. The representation does not show the value."""

    subject: str
    value: Any = field(default=None, repr=False)
    is_erased: bool = False

    def __post_init__(self):
        has_control = any(unicodedata.category(char) == "Cc" for char in self.subject)
        if not 1 <= len(self.subject.encode()) <= 255 or has_control:
            raise ValueError("a data subject has between 1 and 255 bytes, without control characters")


@dataclass(frozen=True)
class Erasure:
    """The audit record of an erasure."""

    subject: str
    erased_at: datetime
    erased_by: str


class PersonalAsSealed(Transcoding):
    """The transcoding of personal values. Their plaintext is written by the transcoder."""

    type = Personal
    name = "personal"

    def __init__(self, keys, transcoder):
        self._keys = keys
        self._transcoder = transcoder

    def encode(self, obj):
        gcm = self._keys.gcm(obj.subject, create=not obj.is_erased)
        if (gcm is None) != obj.is_erased:
            state = "erased: no personal value can be stored for it" if gcm is None else "not erased, but its value is"
            raise ValueError(f"data subject {obj.subject!r} is {state}")
        if gcm is None:
            return {"subject": obj.subject, "sealed": None}
        nonce = os.urandom(NONCE_LENGTHS[1])
        sealed = gcm.encrypt(nonce, self._transcoder.encode(obj.value), AES_256_GCM + obj.subject.encode())
        sealed = AES_256_GCM + nonce + sealed[-16:] + sealed[:-16]
        return {"subject": obj.subject, "sealed": b64encode(sealed).decode()}

    def decode(self, data):
        subject, sealed = data["subject"], data["sealed"]
        gcm = self._keys.gcm(subject)
        if gcm is None:
            return Personal(subject, is_erased=True)
        if sealed is None:
            raise ValueError(f"a personal value is marked as erased, but data subject {subject!r} is not")
        sealed = b64decode(sealed, validate=True)
        if not sealed.startswith(AES_256_GCM):
            raise ValueError(f"a personal value of data subject {subject!r} has an unknown format")
        nonce, tag, text = split(sealed[1:], NONCE_LENGTHS[1])
        plaintext = gcm.decrypt(nonce, text + tag, AES_256_GCM + subject.encode())
        return Personal(subject, self._transcoder.decode(plaintext))


class SealedEventMapper:
    """A mapper that seals events with a `data_subject` as a whole, and passes them to another mapper."""

    def __init__(self, mapper):
        self._mapper = mapper

    def to_stored_event(self, domain_event):
        """Is called by version 9.5."""
        return self._mapper.to_stored_event(_sealed(domain_event))

    def from_domain_event(self, domain_event):
        """Is called by version 9.1."""
        return self._mapper.from_domain_event(_sealed(domain_event))

    def to_domain_event(self, stored_event):
        mapper = copy(self._mapper)
        mapper.transcoder = _OpeningTranscoder(mapper.transcoder, resolve_topic(stored_event.topic))
        return mapper.to_domain_event(stored_event)


def _sealed(domain_event):
    """Returns a copy of an event whose attributes are one personal value; an event without a subject as it is."""
    event_class = type(domain_event)
    # The class decides: an error of the property must not leave the event unsealed.
    if not hasattr(event_class, "data_subject"):
        return domain_event
    subject = domain_event.data_subject
    if not isinstance(subject, (str, UUID)):
        raise TypeError(f"the data subject of an event is neither a string nor a UUID, but a {type(subject).__name__}")
    attributes = dict(vars(domain_event))
    state = {name: attributes.pop(name) for name in READABLE if name in attributes}
    state[SEALED] = Personal(str(subject), attributes)
    sealed = object.__new__(event_class)
    vars(sealed).update(state)
    return sealed


class _OpeningTranscoder:
    """Decodes a sealed event to its attributes, before the mapper upcasts them."""

    def __init__(self, transcoder, event_class):
        self._transcoder = transcoder
        self._event_class = event_class

    def decode(self, data):
        state = self._transcoder.decode(data)
        personal = state.pop(SEALED, None)
        if personal is None:
            return state
        if not personal.is_erased:
            return {**state, **personal.value}
        # Without upcasts: the attributes are those of the current class version.
        state["class_version"] = getattr(self._event_class, "class_version", 1)
        return {**state, **self._event_class.erased(personal.subject)}


class SubjectKeys:
    """The keys of data subjects, in a key store and for a limited time in memory. Make one for each process."""

    def __init__(self, store, ring, lifetime=60.0, capacity=10_000):
        self._store = store
        self._ring = ring
        self._lifetime = lifetime
        self._capacity = capacity
        self._cached = OrderedDict()
        self._lock = Lock()

    def gcm(self, subject, create=False):
        """Returns the cipher of a subject; None if the subject is erased."""
        with self._lock:
            gcm, expires = self._cached.get(subject, (None, 0.0))
        requested = monotonic()
        if requested < expires:
            return gcm
        record = self._store.select(subject)
        if record is None and create:
            self._store.insert(subject, self._wrap(subject, AESGCM.generate_key(KEY_LENGTH * 8)))
            record = self._store.select(subject)
        if record is None:
            raise KeyError(f"the key store has neither a key nor an erasure of data subject {subject!r}")
        gcm = None if isinstance(record, Erasure) else AESGCM(self._unwrap(subject, record))
        self._insert(subject, gcm, requested)
        return gcm

    def erase(self, subject, erased_by):
        """Records the erasure of a subject and destroys its key. Returns this erasure, or the earlier one."""
        erased_at = (datetime.now(timezone.utc) - EPOCH) // timedelta(microseconds=1)
        self._store.erase(Personal(subject).subject, erased_at, erased_by)
        self._insert(subject, None, monotonic())
        return self._store.select(subject)

    def _insert(self, subject, gcm, requested):
        with self._lock:
            self._cached.pop(subject, None)
            self._cached[subject] = gcm, requested + self._lifetime
            while len(self._cached) > self._capacity:
                self._cached.popitem(last=False)

    def _wrap(self, subject, key):
        with bound_to(UUID(int=0), 0, f"personal-key:{subject}"):
            return self._ring.encrypt(key)

    def _unwrap(self, subject, wrapped):
        with bound_to(UUID(int=0), 0, f"personal-key:{subject}"):
            return self._ring.decrypt(wrapped)


class SqliteKeyStore:
    """Keys in an SQLite database of their own: it has no write-ahead log, in which erased keys would remain."""

    _CREATE = """CREATE TABLE IF NOT EXISTS subject_keys (
    subject TEXT NOT NULL PRIMARY KEY,
    wrapped_key BLOB,
    erased_at INTEGER, -- microseconds since 1970-01-01 00:00:00 UTC
    erased_by TEXT,
    CHECK ((wrapped_key IS NULL) = (erased_at IS NOT NULL) AND (erased_at IS NULL) = (erased_by IS NULL))
) STRICT, WITHOUT ROWID"""
    _SELECT = "SELECT wrapped_key, erased_at, erased_by FROM subject_keys WHERE subject = ?"
    _INSERT = "INSERT INTO subject_keys (subject, wrapped_key) VALUES (?, ?) ON CONFLICT (subject) DO NOTHING"
    _ERASE = """INSERT INTO subject_keys (subject, erased_at, erased_by) VALUES (?, ?, ?)
    ON CONFLICT (subject) DO UPDATE
    SET wrapped_key = NULL, erased_at = excluded.erased_at, erased_by = excluded.erased_by
    WHERE subject_keys.erased_at IS NULL"""

    def __init__(self, path):
        self._path = path
        self._execute(self._CREATE)

    def select(self, subject):
        """Returns the wrapped key of a subject, its erasure, or None."""
        return _record(subject, self._execute(self._SELECT, subject))

    def insert(self, subject, wrapped_key):
        """Stores a wrapped key, unless the subject has a record."""
        self._execute(self._INSERT, subject, wrapped_key)

    def erase(self, subject, erased_at, erased_by):
        """Replaces the key of a subject by its erasure, unless the subject is erased."""
        self._execute(self._ERASE, subject, erased_at, erased_by)

    def _execute(self, statement, *parameters):
        """Returns the first row."""
        with closing(sqlite3.connect(self._path, timeout=10)) as connection:
            if connection.execute("PRAGMA journal_mode").fetchone() == ("wal",):
                raise ValueError("the database has a write-ahead log: keys need a database of their own")
            connection.execute("PRAGMA synchronous = EXTRA")
            connection.execute("PRAGMA secure_delete = ON")
            with connection:
                return connection.execute(statement, parameters).fetchone()


class PostgresKeyStore:
    """Keys in a PostgreSQL database, preferably another one than that of the events.

    `connect` returns a new connection of psycopg or psycopg2: `lambda: psycopg.connect("dbname=keys")`.
    """

    _CREATE = """CREATE TABLE IF NOT EXISTS subject_keys (
    subject text COLLATE "C" PRIMARY KEY,
    wrapped_key bytea,
    erased_at timestamptz,
    erased_by text,
    CHECK ((wrapped_key IS NULL) = (erased_at IS NOT NULL) AND (erased_at IS NULL) = (erased_by IS NULL))
)"""
    # Two processes that create the table at the same time would otherwise violate an index of the catalogue.
    _LOCK = "SELECT pg_advisory_xact_lock(hashtext('subject_keys'))"
    _SELECT = """SELECT wrapped_key, (extract(epoch FROM erased_at) * 1000000)::bigint, erased_by
    FROM subject_keys WHERE subject = %s"""
    _INSERT = "INSERT INTO subject_keys (subject, wrapped_key) VALUES (%s, %s) ON CONFLICT (subject) DO NOTHING"
    _ERASE = """INSERT INTO subject_keys (subject, erased_at, erased_by)
    VALUES (%s, timestamptz 'epoch' + %s * interval '1 microsecond', %s)
    ON CONFLICT (subject) DO UPDATE
    SET wrapped_key = NULL, erased_at = excluded.erased_at, erased_by = excluded.erased_by
    WHERE subject_keys.erased_at IS NULL"""

    def __init__(self, connect):
        self._connect = connect
        self._execute((self._LOCK, ()), (self._CREATE, ()))

    def select(self, subject):
        """Returns the wrapped key of a subject, its erasure, or None."""
        return _record(subject, self._execute((self._SELECT, (subject,))))

    def insert(self, subject, wrapped_key):
        """Stores a wrapped key, unless the subject has a record."""
        self._execute((self._INSERT, (subject, wrapped_key)))

    def erase(self, subject, erased_at, erased_by):
        """Replaces the key of a subject by its erasure, unless the subject is erased."""
        self._execute((self._ERASE, (subject, erased_at, erased_by)))

    def _execute(self, *statements):
        """Executes statements in one transaction. Returns the first row of the last one."""
        with closing(self._connect()) as connection:
            cursor = connection.cursor()
            for statement, parameters in statements:
                cursor.execute(statement, parameters)
            row = cursor.fetchone() if cursor.description else None
            connection.commit()
            return row


def _record(subject, row):
    if row is None:
        return None
    wrapped_key, erased_at, erased_by = row
    if wrapped_key is not None:
        return bytes(wrapped_key)
    return Erasure(subject, EPOCH + timedelta(microseconds=erased_at), erased_by)
