"""AES-256-GCM around what must not be read off the disk: vectors, recordings, and the keys that seal them.

A sealed value is `key number (8 bytes, big-endian) | nonce (12) | ciphertext | tag (16)`. What it is and
where it belongs is authenticated with it, so a value put in another's place does not open. Nonces are
random: under one key at most 2**32 values should be sealed (NIST SP 800-38D, 8.3).
"""

import hashlib
import secrets
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from sayso.enroll.errors import MasterKeyUnusable, SealBroken

KEY_BYTES = 32
_NONCE_BYTES = 12
_NUMBER_BYTES = 8


@dataclass(frozen=True)
class MasterKey:
    """The key that wraps every other one; it is never in the database."""

    secret: bytes = field(repr=False)

    @property
    def id(self) -> str:
        """Sixteen hex digits that name the key and say nothing about it."""
        return hashlib.sha256(b"sayso master key " + self.secret).hexdigest()[:16]

    def wrap(self, purpose: str, key: bytes) -> bytes:
        """Encrypt a key; `purpose` says what for, and is needed to unwrap it."""
        nonce = secrets.token_bytes(_NONCE_BYTES)
        return nonce + AESGCM(self.secret).encrypt(nonce, key, purpose.encode())

    def unwrap(self, purpose: str, wrapped: bytes) -> bytes:
        """Decrypt a key. Raises SealBroken."""
        try:
            return AESGCM(self.secret).decrypt(
                wrapped[:_NONCE_BYTES], wrapped[_NONCE_BYTES:], purpose.encode()
            )
        except (InvalidTag, ValueError) as error:
            raise SealBroken(f"key ({purpose})") from error


def new_key() -> bytes:
    """Make 256 random bits."""
    return secrets.token_bytes(KEY_BYTES)


def parse_master_key(text: str, origin: str) -> MasterKey:
    """Read a master key as text: 64 hex digits. Raises MasterKeyUnusable naming its origin."""
    try:
        secret = bytes.fromhex(text.strip())
    except ValueError:
        secret = b""
    if len(secret) != KEY_BYTES:
        raise MasterKeyUnusable(
            f"{origin} holds no master key: 64 hex digits are expected, as `openssl rand -hex 32` gives."
        )
    return MasterKey(secret)


def header(number: int) -> bytes:
    """Return how every value begins that was sealed with the key of this number."""
    return number.to_bytes(_NUMBER_BYTES, "big")


def key_number(sealed: bytes) -> int:
    """Return the number of the key that a value was sealed with."""
    return int.from_bytes(sealed[:_NUMBER_BYTES], "big")


def seal(cipher: AESGCM, number: int, context: str, data: bytes) -> bytes:
    """Encrypt bytes under a tenant's key; `context` says what they are and where they belong."""
    nonce = secrets.token_bytes(_NONCE_BYTES)
    return header(number) + nonce + cipher.encrypt(nonce, data, context.encode())


def unseal(cipher: AESGCM, context: str, sealed: bytes) -> bytes:
    """Decrypt what `seal` made for the same context. Raises SealBroken."""
    nonce = sealed[_NUMBER_BYTES : _NUMBER_BYTES + _NONCE_BYTES]
    try:
        return cipher.decrypt(nonce, sealed[_NUMBER_BYTES + _NONCE_BYTES :], context.encode())
    except (InvalidTag, ValueError) as error:
        raise SealBroken(context) from error
