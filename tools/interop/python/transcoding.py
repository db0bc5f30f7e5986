"""The Python half of comparing transcoders: `transcoding.py FILE`.

Each line of the file has a value in plain JSON and the bytes that Rust has encoded it to. For each, one line is printed:
the bytes that Python encodes it to, and what Python decodes from the bytes of Rust.
"""
import json
import sys
from datetime import date, time, timedelta, timezone
from decimal import Decimal
from uuid import UUID

from bank import CUSTOM
from eventsourcing.persistence import DatetimeAsISO, DecimalAsStr, JSONTranscoder, Transcoding, UUIDAsHex
from plain import EPOCH, plain, unpack_float


class TimeAsISO(Transcoding):
    """As the documentation of es-transcode has it; `bank` has the one for dates."""
    type = time
    name = "time_iso"

    def encode(self, obj):
        return obj.isoformat()

    def decode(self, data):
        return time.fromisoformat(data)


def value_of(plain_value):
    """The inverse of `plain`."""
    if isinstance(plain_value, list):
        return [value_of(item) for item in plain_value]
    if not isinstance(plain_value, dict):
        return plain_value
    [(sort, data)] = plain_value.items()
    return SORTS[sort](data)


def decimal_of(data):
    digits, exponent = data
    return Decimal((digits[0] == "-", tuple(map(int, digits.lstrip("-"))), exponent))


def datetime_of(data):
    face, offset = data
    return naive_of(face).replace(tzinfo=timezone(timedelta(seconds=offset)))


def naive_of(data):
    return EPOCH + timedelta(microseconds=data)


SORTS = {
    "int": int,
    "float": unpack_float,
    "dict": lambda data: {key: value_of(item) for key, item in data},
    "uuid": UUID,
    "decimal": decimal_of,
    "datetime": datetime_of,
    "naive": naive_of,
    "date": date.fromisoformat,
    "time": time.fromisoformat,
}


def main():
    transcoder = JSONTranscoder()
    for transcoding in (UUIDAsHex(), DecimalAsStr(), DatetimeAsISO(), TimeAsISO(), *(custom() for custom in CUSTOM)):
        transcoder.register(transcoding)
    with open(sys.argv[1], encoding="utf-8") as lines:
        for line in lines:
            sent = json.loads(line)
            encoded = transcoder.encode(value_of(sent["value"]))
            decoded = transcoder.decode(bytes.fromhex(sent["encoded"]))
            print(json.dumps({"value": plain(decoded), "encoded": encoded.hex()}))


if __name__ == "__main__":
    main()
