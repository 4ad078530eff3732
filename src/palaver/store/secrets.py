"""Encryption of secrets at rest, with AES-256-GCM and a master key that is not stored in the database.

The master key comes from ``PALAVER_MASTER_KEY`` or from a file in the data folder that only its owner may read.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from palaver.core.problems import Internal

KEY_BYTES = 32
MASTER_KEY_CHANGED = "the master key was changed meanwhile: try again"
_NONCE_BYTES = 12


class SecretBox:
    """Authenticated encryption of texts, and keyed hashes of them. ``context`` is the associated data: a text sealed
    for one row does not open in another."""

    def __init__(self, master: bytes) -> None:
        self.set_master_key(master)
        self.set_fingerprint_key(self._key_id_key)

    def set_master_key(self, master: bytes) -> None:
        """Use another master key to seal, open and sign; the fingerprint key stays. Raises ``ValueError``."""
        if len(master) != KEY_BYTES:
            raise ValueError(f"the master key has {len(master)} bytes, it needs {KEY_BYTES}")
        self._cipher = AESGCM(hashlib.sha256(b"palaver seal" + master).digest())
        self._key_id_key = hashlib.sha256(b"palaver fingerprint" + master).digest()
        self._signing_key = hashlib.sha256(b"palaver sign" + master).digest()

    def set_fingerprint_key(self, fingerprint_key: bytes) -> None:
        """Use another fingerprint key: after a rotation, that of the first master key."""
        self.fingerprint_key = fingerprint_key

    @property
    def key_id(self) -> str:
        """Identifies the master key without revealing it."""
        return hmac.new(self._key_id_key, b"palaver", hashlib.sha256).hexdigest()

    def seal(self, text: str, *, context: str) -> bytes:
        nonce = os.urandom(_NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, text.encode(), context.encode())

    def open(self, sealed: bytes, *, context: str) -> str:
        """Decrypt a sealed text. Raises ``Internal`` if the master key or ``context`` differs from when it was
        sealed."""
        try:
            return self._cipher.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], context.encode()).decode()
        except InvalidTag as error:
            detail = "a stored secret does not open: PALAVER_MASTER_KEY is not the one it was stored with"
            raise Internal(reason="unforeseen", detail=detail) from error

    def fingerprint(self, text: str) -> bytes:
        """A keyed hash by which to look up a secret without storing it in plain text."""
        return hmac.new(self.fingerprint_key, text.encode(), hashlib.sha256).digest()

    def sign(self, text: str) -> bytes:
        """A signature (HMAC) that proves that ``text`` comes from this installation."""
        return hmac.new(self._signing_key, text.encode(), hashlib.sha256).digest()


def credential_context(dialect: str, id: str) -> str:
    """The associated data of a credential's secrets."""
    return f"{dialect}/{id}"


def parse_master_key(text: str) -> bytes:
    """Decode a master key of 32 bytes from hex or base64. Raises ``ValueError``."""
    stripped = text.strip()
    try:
        key = bytes.fromhex(stripped) if len(stripped) == 2 * KEY_BYTES else base64.b64decode(stripped, validate=True)
    except (ValueError, binascii.Error) as error:
        raise ValueError("the master key is neither hex nor base64") from error
    if len(key) != KEY_BYTES:
        raise ValueError(f"the master key has {len(key)} bytes, it needs {KEY_BYTES} (64 hex digits)")
    return key


def load_or_create_master_key(path: Path) -> bytes:
    """The key in the file ``path``, created with mode 0600 if missing. Raises ``ValueError`` if others can read it."""
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        pass
    else:
        with os.fdopen(handle, "w") as file:
            file.write(os.urandom(KEY_BYTES).hex() + "\n")
            file.flush()
            os.fsync(file.fileno())
    if path.stat().st_mode & 0o077:
        raise ValueError(f"{path} can be read by others; do: chmod 600 {path}")
    return parse_master_key(path.read_text())


def replace_master_key_file(path: Path, master: bytes) -> None:
    """Atomically replace the key in the file ``path``."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(master.hex() + "\n")
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
