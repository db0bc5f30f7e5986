"""Writes vectors.json: envelopes of key rings, made with Python's `cryptography` alone.

    pip install cryptography
    python make_vectors.py > vectors.json

The format is that of the documentation of the crate es-crypto. Nonces and keys are derived from a seed, so
that the file is always the same.
"""

import json
import struct
import uuid
from hashlib import sha256

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

AES_256_GCM, XAES_256_GCM = 1, 2


def seeded(name: str, length: int) -> bytes:
    data = b""
    while len(data) < length:
        data += sha256(f"{name}/{len(data)}".encode()).digest()
    return data[:length]


def aes_block(key: bytes, block: bytes) -> bytes:
    encryptor = Cipher(algorithms.AES(key), modes.ECB()).encryptor()
    return encryptor.update(block) + encryptor.finalize()


def xaes_key(key: bytes, context: bytes) -> bytes:
    """CMAC of two blocks, after https://c2sp.org/XAES-256-GCM."""
    subkey = int.from_bytes(aes_block(key, bytes(16)), "big") << 1
    if subkey >> 128:
        subkey = (subkey ^ 0x87) & (1 << 128) - 1
    subkey = subkey.to_bytes(16, "big")
    blocks = (bytes([0, counter]) + b"X\0" + context for counter in (1, 2))
    return b"".join(aes_block(key, bytes(a ^ b for a, b in zip(block, subkey))) for block in blocks)


def envelope(algorithm, key_id, key, originator_id, version, topic, nonce, plaintext) -> bytes:
    header = b"\x89ES\x01" + struct.pack(">BBI", algorithm, 0, key_id)
    topic = topic.encode()
    associated = header + originator_id.bytes + struct.pack(">qH", version, len(topic)) + topic
    if algorithm == XAES_256_GCM:
        key, gcm_nonce = xaes_key(key, nonce[:12]), nonce[12:]
    else:
        gcm_nonce = nonce
    sealed = AESGCM(key).encrypt(gcm_nonce, plaintext, associated)
    return header + nonce + sealed[-16:] + sealed[:-16]


EVENTS = [
    ("bank:Account.Opened", 1, b'{"owner":"Alice"}'),
    ("bank:Account.Opened", -1, b""),
    ("", 0, b"\x89ES\x01"),
    ("b\u00e4nk:Konto.Er\u00f6ffnet", 2**63 - 1, bytes(range(256))),
    ("t" * 300, -(2**63), b"a"),
]

vectors = []
for algorithm in AES_256_GCM, XAES_256_GCM:
    for index, (topic, version, plaintext) in enumerate(EVENTS):
        name = f"{algorithm}/{index}"
        key_id = [1, 2, 0, 2**32 - 1, 258][index]
        key = seeded(f"key/{name}", 32)
        originator_id = uuid.UUID(bytes=seeded(f"id/{name}", 16))
        nonce = seeded(f"nonce/{name}", 12 if algorithm == AES_256_GCM else 24)
        sealed = envelope(algorithm, key_id, key, originator_id, version, topic, nonce, plaintext)
        vectors.append(
            {
                "algorithm": algorithm,
                "key_id": key_id,
                "key": key.hex(),
                "originator_id": str(originator_id),
                "originator_version": version,
                "topic": topic,
                "plaintext": plaintext.hex(),
                "envelope": sealed.hex(),
            }
        )
print(json.dumps(vectors, indent=1))
