"""Writes vectors.json: personal values, sealed events and wrapped keys, made with Python's `cryptography` alone.

    pip install cryptography
    python make_vectors.py > vectors.json

The formats are those of the documentation of the crates es-personal and es-crypto. Nonces and keys are derived
from a seed, so that the file is always the same.
"""

import json
import struct
from base64 import b64encode
from hashlib import sha256

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

RING_KEY_ID = 3


def seeded(name: str, length: int) -> bytes:
    data = b""
    while len(data) < length:
        data += sha256(f"{name}/{len(data)}".encode()).digest()
    return data[:length]


def gcm(key: bytes, nonce: bytes, plaintext: bytes, associated: bytes) -> bytes:
    """Nonce, tag and ciphertext."""
    sealed = AESGCM(key).encrypt(nonce, plaintext, associated)
    return nonce + sealed[-16:] + sealed[:-16]


def sealed_value(subject: str, key: bytes, nonce: bytes, plaintext: bytes) -> str:
    return b64encode(b"\x01" + gcm(key, nonce, plaintext, b"\x01" + subject.encode())).decode()


def sealed_event(subject: str, key: bytes, nonce: bytes, name: str) -> str:
    """The state of an event that is sealed as a whole."""
    attributes = {"originator_topic": "shop:Customer", "customer": subject, "name": name}
    plaintext = json.dumps(attributes, ensure_ascii=False).encode()
    data = {"subject": subject, "sealed": sealed_value(subject, key, nonce, plaintext)}
    state = {
        "timestamp": {"_type_": "datetime_iso", "_data_": "2024-01-01T00:00:00+00:00"},
        "_personal_": {"_type_": "personal", "_data_": data},
    }
    return json.dumps(state, ensure_ascii=False)


def wrapped_key(subject: str, key: bytes, nonce: bytes, ring_key: bytes) -> bytes:
    header = b"\x89ES\x01" + struct.pack(">BBI", 1, 0, RING_KEY_ID)
    topic = f"personal-key:{subject}".encode()
    associated = header + bytes(16) + struct.pack(">qH", 0, len(topic)) + topic
    return header + gcm(ring_key, nonce, key, associated)


VALUES = [
    ("00000000-0000-0000-0000-000000000007", "Alice"),
    ("customer-7", ""),
    ("M\u00fcller", "\u00e4\u4e2d\U0001f600 \"quoted\""),
    ("s" * 255, "x" * 5000),
]

ring_key = seeded("ring", 32)
vectors = []
for index, (subject, value) in enumerate(VALUES):
    key = seeded(f"key/{index}", 32)
    plaintext = json.dumps(value, ensure_ascii=False).encode()
    vectors.append(
        {
            "subject": subject,
            "wrapped_key": wrapped_key(subject, key, seeded(f"wrap/{index}", 12), ring_key).hex(),
            "value": value,
            "sealed": sealed_value(subject, key, seeded(f"nonce/{index}", 12), plaintext),
            "event": sealed_event(subject, key, seeded(f"event/{index}", 12), value),
        }
    )
print(json.dumps({"ring_key_id": RING_KEY_ID, "ring_key": ring_key.hex(), "values": vectors}, indent=1))
