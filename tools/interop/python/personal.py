"""The Python half of comparing personal values: `personal.py TASK`.

The task is JSON: orders to place, and subjects to erase. Then the orders of both languages are printed as one line of JSON,
each personal value as `[subject, value]`, or `[subject, null]` if it is erased. Each order also registers its customer, by
an event that is sealed as a whole. `src/personal.rs` has the other half, and the order of the steps.
"""
import json
import sys
from base64 import b64encode
from pathlib import Path
from uuid import UUID

from es_key_ring import KeyRingCipher
from es_personal import Personal, PersonalAsSealed, SealedEventMapper, SubjectKeys
from eventsourcing.persistence import DatetimeAsISO, JSONTranscoder, Mapper, StoredEvent
from shop import KEYS, Customer, Order, Shop

VECTORS = Path(__file__).parents[3] / "testdata/personal/vectors.json"


def place(shop, order):
    address = {"street": order["street"], "id": UUID(order["id"])}
    buyer = Personal(order["subject"], order["buyer"])
    # The id is known to both languages.
    created = Order._create(
        Order.Placed, id=UUID(order["id"]), item=order["item"], buyer=buyer, address=Personal(order["subject"], address)
    )
    shop.save(created)


def register(shop, order):
    customer, name = order["subject"], order["buyer"]
    shop.save(Customer._create(Customer.Registered, id=UUID(order["customer"]), customer=customer, name=name))


def shown(personal):
    assert personal.is_erased == (personal.value is None)
    assert personal.is_erased or str(personal.value) not in repr(personal)
    value = personal.value
    if isinstance(value, dict):
        value = {"street": value["street"], "id": value["id"].hex}
    return [personal.subject, value]


class VectorKeyStore:
    """The wrapped keys of the vectors."""

    def __init__(self, values):
        self._keys = {value["subject"]: bytes.fromhex(value["wrapped_key"]) for value in values}

    def select(self, subject):
        return self._keys[subject]


def read_vectors():
    """Reads the values and sealed events that were made independently."""
    vectors = json.loads(VECTORS.read_text())
    ring = KeyRingCipher({"CIPHER_KEYS": f"{vectors['ring_key_id']}:{base64(vectors['ring_key'])}"})
    keys = SubjectKeys(VectorKeyStore(vectors["values"]), ring)
    transcoder = JSONTranscoder()
    transcoder.register(DatetimeAsISO())
    transcoder.register(PersonalAsSealed(keys, transcoder))
    mapper = SealedEventMapper(Mapper(transcoder))
    for vector in vectors["values"]:
        subject, value = vector["subject"], vector["value"]
        personal = {"_type_": "personal", "_data_": {"subject": subject, "sealed": vector["sealed"]}}
        assert transcoder.decode(json.dumps(personal).encode()) == Personal(subject, value)
        stored = StoredEvent(UUID(int=0), 1, "shop:Customer.Registered", vector["event"].encode())
        registered = mapper.to_domain_event(stored)
        assert (registered.customer, registered.name) == (subject, value), subject
        assert registered.timestamp.year == 2024


def base64(hexadecimal):
    return b64encode(bytes.fromhex(hexadecimal)).decode()


def main():
    work = json.loads(sys.argv[1])
    read_vectors()
    shop = Shop()
    for order in work["place"]:
        place(shop, order)
        register(shop, order)
    erasures = []
    for subject in work["erase"]:
        erasure = KEYS.erase(subject, "python")
        erasures.append([erasure.subject, erasure.erased_by, erasure.erased_at.isoformat()])
    orders = []
    for order_id, customer_id in work["read"]:
        order = shop.repository.get(UUID(order_id))
        customer = shop.repository.get(UUID(customer_id))
        registered = [customer.customer, customer.name]
        orders.append([order.item, shown(order.buyer), shown(order.address), registered])
    refused = []
    for order in work["refuse"]:
        for attempt in place, register:
            try:
                attempt(shop, order)
            except ValueError as error:
                refused.append(str(error))
    print(json.dumps({"orders": orders, "erasures": erasures, "refused": refused}))


if __name__ == "__main__":
    main()
