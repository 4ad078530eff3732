"""Secrets at rest: AES-256-GCM under a master key that the database never sees.

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
CHANGED = "the master key was changed meanwhile: try again"
_NONCE_BYTES = 12


class SecretBox:
    """Seals and opens texts. ``bound_to`` is authenticated with the text: a sealed secret moved to another row does
    not open."""

    def __init__(self, master: bytes) -> None:
        self.change(master)
        self.find_by(self._of_master)

    def change(self, master: bytes) -> None:
        """Seal and open with another master key from now on; what finds texts stays as it is."""
        if len(master) != KEY_BYTES:
            raise ValueError(f"the master key has {len(master)} bytes, it needs {KEY_BYTES}")
        self._cipher = AESGCM(hashlib.sha256(b"palaver seal" + master).digest())
        self._of_master = hashlib.sha256(b"palaver fingerprint" + master).digest()
        self._sign = hashlib.sha256(b"palaver sign" + master).digest()

    def find_by(self, fingerprint_key: bytes) -> None:
        """Make fingerprints with this key: that of the first master key, where the present one is another."""
        self.fingerprint_key = fingerprint_key

    @property
    def identity(self) -> str:
        """By which a database knows the master key again."""
        return hmac.new(self._of_master, b"palaver", hashlib.sha256).hexdigest()

    def seal(self, text: str, *, bound_to: str) -> bytes:
        nonce = os.urandom(_NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, text.encode(), bound_to.encode())

    def open(self, sealed: bytes, *, bound_to: str) -> str:
        """The text. Raises ``Internal`` when the master key is not the one it was sealed with."""
        try:
            return self._cipher.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], bound_to.encode()).decode()
        except InvalidTag as error:
            detail = "a stored secret does not open: PALAVER_MASTER_KEY is not the one it was stored with"
            raise Internal(reason="unforeseen", detail=detail) from error

    def fingerprint(self, text: str) -> bytes:
        """A keyed hash, equal for equal texts, by which a secret is found without being stored in the open."""
        return hmac.new(self.fingerprint_key, text.encode(), hashlib.sha256).digest()

    def signature(self, text: str) -> bytes:
        """What shows that ``text`` is this installation's."""
        return hmac.new(self._sign, text.encode(), hashlib.sha256).digest()


def bound_to(dialect: str, id: str) -> str:
    """What a credential's secrets are bound to."""
    return f"{dialect}/{id}"


def read_master_key(text: str) -> bytes:
    """The 32 bytes that ``text`` writes, in hex or base64. Raises ``ValueError``."""
    stripped = text.strip()
    try:
        key = bytes.fromhex(stripped) if len(stripped) == 2 * KEY_BYTES else base64.b64decode(stripped, validate=True)
    except (ValueError, binascii.Error) as error:
        raise ValueError("the master key is neither hex nor base64") from error
    if len(key) != KEY_BYTES:
        raise ValueError(f"the master key has {len(key)} bytes, it needs {KEY_BYTES} (64 hex digits)")
    return key


def master_key_file(path: Path) -> bytes:
    """The key in ``path``, made on first use with mode 0600. Raises ``ValueError`` for a file others can read."""
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
    return read_master_key(path.read_text())


def replace_master_key_file(path: Path, master: bytes) -> None:
    """Let the key file at ``path`` have ``master`` from now on, as a whole."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(master.hex() + "\n")
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
