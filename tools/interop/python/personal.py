"""The Python half of comparing personal values: `personal.py ACTION`.

The actions are lines of JSON in the first argument: orders to place, and subjects to erase. Then the orders of both
languages are printed as one line of JSON, each personal value as `[subject, value]`, or `[subject, null]` if it is erased.
`src/personal.rs` has the other half, and the order of the steps.
"""
import json
import sys
from uuid import UUID

from es_personal import Personal
from shop import KEYS, Order, Shop


def place(shop, order):
    address = {"street": order["street"], "id": UUID(order["id"])}
    buyer = Personal(order["subject"], order["buyer"])
    # The id is known to both languages.
    created = Order._create(
        Order.Placed, id=UUID(order["id"]), item=order["item"], buyer=buyer, address=Personal(order["subject"], address)
    )
    shop.save(created)


def shown(personal):
    assert personal.is_erased == (personal.value is None)
    assert personal.is_erased or str(personal.value) not in repr(personal)
    value = personal.value
    if isinstance(value, dict):
        value = {"street": value["street"], "id": value["id"].hex}
    return [personal.subject, value]


def main():
    work = json.loads(sys.argv[1])
    shop = Shop()
    for order in work["place"]:
        place(shop, order)
    erasures = []
    for subject in work["erase"]:
        erasure = KEYS.erase(subject, "python")
        erasures.append([erasure.subject, erasure.erased_by, erasure.erased_at.isoformat()])
    orders = []
    for order_id in work["read"]:
        order = shop.repository.get(UUID(order_id))
        orders.append([order.item, shown(order.buyer), shown(order.address)])
    refused = []
    for order in work["refuse"]:
        try:
            place(shop, order)
        except ValueError as error:
            refused.append(str(error))
    print(json.dumps({"orders": orders, "erasures": erasures, "refused": refused}))


if __name__ == "__main__":
    main()
