"""Values as plain JSON in which each type shows, so that a difference between the languages cannot hide.

Not by the library's transcoder, which is under test. `src/plain.rs` is the same in Rust.
"""
import struct
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from uuid import UUID

from bank import ComplexCustomValue, SimpleCustomValue

EPOCH = datetime(1970, 1, 1)


def plain(value):
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, int):
        return {"int": str(value)}
    if isinstance(value, float):
        return {"float": struct.pack(">d", value).hex()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {"dict": [[key, plain(item)] for key, item in value.items()]}
    if isinstance(value, UUID):
        return {"uuid": str(value)}
    if isinstance(value, Decimal):
        sign, digits, exponent = value.as_tuple()
        return {"decimal": ["-" * sign + "".join(map(str, digits)), exponent]}
    if isinstance(value, datetime):
        return plain_datetime(value)
    if isinstance(value, date):
        return {"date": str(value)}
    if isinstance(value, time):
        return {"time": value.isoformat()}
    if isinstance(value, SimpleCustomValue):
        return {"simple": [plain(value.id), plain(value.date)]}
    if isinstance(value, ComplexCustomValue):
        return {"complex": plain(value.value)}
    raise TypeError(f"no value of the scenario: {value!r}")


def unpack_float(data):
    return struct.unpack(">d", bytes.fromhex(data))[0]


def plain_datetime(value):
    """Microseconds of the clock's face since 1970, and the offset in seconds where there is one."""
    face = (value.replace(tzinfo=None) - EPOCH) // timedelta(microseconds=1)
    if value.tzinfo is None:
        return {"naive": face}
    return {"datetime": [face, value.utcoffset() // timedelta(seconds=1)]}
