"""The application whose events have personal values. `src/personal.rs` is the same in Rust."""
import os

from es_key_ring import KeyRingCipher
from es_personal import PersonalAsSealed, PostgresKeyStore, SealedEventMapper, SqliteKeyStore, SubjectKeys
from eventsourcing.application import Application
from eventsourcing.domain import Aggregate, event
from eventsourcing.utils import get_topic


class Order(Aggregate):
    class Placed(Aggregate.Created):
        item: str
        buyer: object
        address: object

    @event(Placed)
    def __init__(self, item, buyer, address):
        self.item = item
        self.buyer = buyer
        self.address = address


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

    @event(Registered)
    def __init__(self, customer, name):
        self.customer = customer
        self.name = name


def key_store():
    if path := os.environ.get("KEYS_SQLITE"):
        return SqliteKeyStore(path)
    return PostgresKeyStore(connect)


def connect():
    try:
        from psycopg import connect
    except ImportError:
        from psycopg2 import connect
    names = {"host": "HOST", "port": "PORT", "dbname": "DBNAME", "user": "USER", "password": "PASSWORD"}
    return connect(**{name: os.environ[f"POSTGRES_{variable}"] for name, variable in names.items()})


KEYS = SubjectKeys(key_store(), KeyRingCipher({"CIPHER_KEYS": os.environ["KEYS"]}))


class Shop(Application):
    def register_transcodings(self, transcoder):
        super().register_transcodings(transcoder)
        transcoder.register(PersonalAsSealed(KEYS, transcoder))

    def construct_mapper(self, *args, **kwargs):
        return SealedEventMapper(super().construct_mapper(*args, **kwargs))
