"""Key rings for the Python `eventsourcing` library, version 9.5: states that the Rust crate es-crypto reads and writes.

Copy this file into a program, and select it in the environment, beside the variables of the key ring:

    MAPPER_TOPIC=es_key_ring:KeyRingMapper
    CIPHER_TOPIC=es_key_ring:KeyRingCipher
    CIPHER_KEYS=2:BASE64,1:BASE64    (or CIPHER_KEYS_FILE)
    CIPHER_PRIMARY_KEY_ID=2          (the first key by default)
    CIPHER_ALGORITHM=aes-256-gcm     (or xaes-256-gcm)
    CIPHER_KEY=BASE64                (the key of states without an envelope, if there are any)

Version 9.1 reads neither MAPPER_TOPIC nor a cipher without CIPHER_KEY: with it, this module only wraps the keys of
personal values (`es_personal.py`).

It needs the package `cryptography`. The documentation of es-crypto describes the format.
"""

import os
import re
import struct
from base64 import b64decode
from contextlib import contextmanager
from contextvars import ContextVar

from cryptography.hazmat.primitives.ciphers import Cipher as BlockCipher
from cryptography.hazmat.primitives.ciphers import algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from eventsourcing.persistence import Cipher, Mapper
from eventsourcing.utils import get_topic

MARK = b"\x89ES\x01"
NONCE_LENGTHS = {1: 12, 2: 24}
ALGORITHMS = {"aes-256-gcm": 1, "xaes-256-gcm": 2}
TAG_LENGTH = 16

_event = ContextVar("event")


@contextmanager
def bound_to(originator_id, originator_version, topic):
    """Gives the cipher the identity of an event, for the duration of a block."""
    token = _event.set((originator_id, originator_version, topic))
    try:
        yield
    finally:
        _event.reset(token)


class KeyRingMapper(Mapper):
    """A mapper that gives the cipher the identity of the event."""

    def to_stored_event(self, domain_event):
        topic = get_topic(type(domain_event))
        with bound_to(domain_event.originator_id, domain_event.originator_version, topic):
            return super().to_stored_event(domain_event)

    def to_domain_event(self, stored_event):
        with bound_to(stored_event.originator_id, stored_event.originator_version, stored_event.topic):
            return super().to_domain_event(stored_event)


class KeyRingCipher(Cipher):
    """A cipher with several keys, of which one encrypts. It needs the `KeyRingMapper`."""

    def __init__(self, environment):
        text = environment.get("CIPHER_KEYS") or ""
        path = environment.get("CIPHER_KEYS_FILE")
        if path:
            with open(path, encoding="ascii") as file:
                text += "," + file.read()
        keys = [_key(entry) for entry in re.split(r"[,\s]+", text) if entry]
        self._keys = dict(keys)
        if len(self._keys) < len(keys):
            raise ValueError("an id is twice in the key ring")
        if not self._keys:
            raise ValueError("CIPHER_KEYS and CIPHER_KEYS_FILE have no key")
        self._primary = int(environment.get("CIPHER_PRIMARY_KEY_ID") or next(iter(self._keys)))
        if self._primary not in self._keys:
            raise ValueError(f"the primary key {self._primary} is not in the key ring")
        self._algorithm = ALGORITHMS[environment.get("CIPHER_ALGORITHM") or "aes-256-gcm"]
        legacy = environment.get("CIPHER_KEY")
        self._legacy = AESGCM(b64decode(legacy, validate=True)) if legacy else None

    def encrypt(self, plaintext):
        header = MARK + struct.pack(">BBI", self._algorithm, 0, self._primary)
        nonce = os.urandom(NONCE_LENGTHS[self._algorithm])
        gcm, gcm_nonce = _gcm(self._algorithm, self._keys[self._primary], nonce)
        sealed = gcm.encrypt(gcm_nonce, plaintext, _associated_data(header))
        return header + nonce + sealed[-TAG_LENGTH:] + sealed[:-TAG_LENGTH]

    def decrypt(self, ciphertext):
        if not ciphertext.startswith(MARK):
            return self._decrypt_legacy(ciphertext)
        try:
            return self._open(ciphertext)
        except Exception:
            # The nonce of a state without an envelope may begin like one by chance.
            if self._legacy is None:
                raise
            return self._decrypt_legacy(ciphertext)

    def _open(self, state):
        header = state[: len(MARK) + 6]
        algorithm, flags, key_id = struct.unpack(">BBI", header[len(MARK) :])
        if algorithm not in NONCE_LENGTHS or flags != 0:
            raise ValueError(f"algorithm {algorithm} with flags {flags} is unknown")
        if key_id not in self._keys:
            raise ValueError(f"the state was encrypted with key {key_id}, which is not in the key ring")
        nonce, tag, text = split(state[len(header) :], NONCE_LENGTHS[algorithm])
        gcm, gcm_nonce = _gcm(algorithm, self._keys[key_id], nonce)
        return gcm.decrypt(gcm_nonce, text + tag, _associated_data(header))

    def _decrypt_legacy(self, state):
        if self._legacy is None:
            raise ValueError("the state has no envelope of a key ring, and CIPHER_KEY is not set")
        nonce, tag, text = split(state, NONCE_LENGTHS[1])
        return self._legacy.decrypt(nonce, text + tag, None)


def _key(entry):
    key_id, _, key = entry.partition(":")
    key = b64decode(key, validate=True)
    if not re.fullmatch("[0-9]{1,10}", key_id) or int(key_id) >= 1 << 32 or len(key) != 32:
        raise ValueError("an entry of the cipher keys is not ID:BASE64 with a key of 32 bytes")
    return int(key_id), key


def split(state, nonce_length):
    """Returns nonce, tag and ciphertext."""
    text_start = nonce_length + TAG_LENGTH
    if len(state) < text_start:
        raise ValueError("the encrypted state is cut off")
    return state[:nonce_length], state[nonce_length:text_start], state[text_start:]


def _associated_data(header):
    originator_id, originator_version, topic = _event.get()
    topic = topic.encode()
    return header + originator_id.bytes + struct.pack(">qH", originator_version, len(topic)) + topic


def _gcm(algorithm, key, nonce):
    """Returns the AES-GCM of a message, and its nonce. See https://c2sp.org/XAES-256-GCM for the derivation."""
    if algorithm == 1:
        return AESGCM(key), nonce
    subkey = int.from_bytes(_encrypt_block(key, bytes(16)), "big") << 1
    if subkey >> 128:
        subkey = (subkey ^ 0x87) & (1 << 128) - 1
    derived = b""
    for counter in 1, 2:
        block = int.from_bytes(bytes([0, counter]) + b"X\0" + nonce[:12], "big") ^ subkey
        derived += _encrypt_block(key, block.to_bytes(16, "big"))
    return AESGCM(derived), nonce[12:]


def _encrypt_block(key, block):
    encryptor = BlockCipher(algorithms.AES(key), modes.ECB()).encryptor()
    return encryptor.update(block) + encryptor.finalize()
