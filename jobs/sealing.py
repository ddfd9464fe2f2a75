"""Snapshots and secret arguments at rest: encrypted, each for one job, with keys that can be changed.

A sealed blob is: one byte of version, four of key id, twelve of nonce, then AES-256-GCM's ciphertext
and tag, with the job's id as associated data. Key and key id are derived from the secret.
"""

import hmac
import logging
import os
import secrets
import stat
from collections.abc import Sequence
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from .errors import BadContext, ConfigurationError
from .settings import Settings

log = logging.getLogger(__name__)

VERSION = 1  #: of the blob, and of what is sealed in it: to be raised when either changes
_LABEL = b"quart-jobs request snapshot 1"
_TAG_LABEL = b"quart-jobs tag 1"
_PREFIX = bytes([VERSION])
_NONCE_AT, _TEXT_AT = 5, 17


class Sealer:
    """Seals with the first of `keys`, opens with any of them."""

    def __init__(self, keys: Sequence[bytes | str]) -> None:
        if not keys or not all(keys):
            raise ConfigurationError("a secret key is empty")
        ciphers = [_cipher(key) for key in keys]
        self._prefix, self._cipher = _PREFIX + ciphers[0][0], ciphers[0][1]
        self._ciphers = dict(reversed(ciphers))
        self._tag_key = _derived(keys[0], _TAG_LABEL, 32)

    def seal(self, job_id: str, plaintext: bytes) -> bytes:
        """`plaintext`, for the job of that id alone."""
        nonce = os.urandom(_TEXT_AT - _NONCE_AT)
        return self._prefix + nonce + self._cipher.encrypt(nonce, plaintext, job_id.encode())

    def tag(self, text: str) -> bytes:
        """The same for the same text; to nobody without the key does it say anything of a text."""
        return hmac.digest(self._tag_key, text.encode(), "sha256")

    def open(self, job_id: str, blob: bytes) -> bytes:
        """What was sealed for that job. Raises `BadContext`."""
        if blob[:1] != _PREFIX:
            raise BadContext("the request snapshot was sealed by another version of quart-jobs")
        cipher = self._ciphers.get(blob[1:_NONCE_AT])
        if cipher is None:
            raise BadContext(
                "the request snapshot was sealed with a key that is not known here:"
                " add the earlier key to JOBS_SECRET_KEY_FALLBACKS"
            )
        try:
            return cipher.decrypt(blob[_NONCE_AT:_TEXT_AT], blob[_TEXT_AT:], job_id.encode())
        except (InvalidTag, ValueError):
            raise BadContext("the request snapshot is damaged, or another job's") from None


def find_keys(
    settings: Settings,
    app_secret_key: str | bytes | None,
    app_fallbacks: Sequence[str | bytes],
    database: Path | None,
) -> list[str]:
    """The secrets for a `Sealer`: the setting, else the app's own, else a key file beside the database,
    if there is one; the file is made if need be. Raises `ConfigurationError`."""
    earlier = [key.get_secret_value() for key in settings.secret_key_fallbacks]
    if settings.secret_key is not None and settings.secret_key.get_secret_value():
        return [settings.secret_key.get_secret_value(), *earlier]
    if app_secret_key:
        return [_text(app_secret_key), *map(_text, app_fallbacks), *earlier]
    if database is None:
        raise ConfigurationError(
            "requests are sealed with a key that all processes share: set JOBS_SECRET_KEY, or the app's SECRET_KEY"
        )
    return [_key_in(key_file(database)), *earlier]


def key_file(database: Path) -> Path:
    """Where the key is if no setting holds it."""
    return database.with_name(database.name + ".key")


def _cipher(secret: bytes | str) -> tuple[bytes, AESGCM]:
    derived = _derived(secret, _LABEL, 36)
    return derived[32:], AESGCM(derived[:32])


def _derived(secret: bytes | str, label: bytes, length: int) -> bytes:
    material = secret.encode() if isinstance(secret, str) else secret
    return HKDF(algorithm=SHA256(), length=length, salt=None, info=label).derive(material)


def _text(secret: str | bytes) -> str:
    return secret.decode("latin-1") if isinstance(secret, bytes) else secret


def _key_in(path: Path) -> str:
    try:
        if not path.exists():
            _make_key_file(path)
        with path.open(encoding="ascii") as file:
            mode = os.fstat(file.fileno()).st_mode
            key = file.read().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"key file {path}: {error}; or set JOBS_SECRET_KEY") from None
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise ConfigurationError(f"key file {path} is open to other users: chmod 600 it")
    if len(key) < 32:
        raise ConfigurationError(
            f"key file {path} holds no key: restore it, or set JOBS_SECRET_KEY"
        )
    return key


def _make_key_file(path: Path) -> None:
    """Of processes that start together, one makes the file; it is never seen half-written."""
    draft = path.with_name(f"{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(secrets.token_hex(32) + "\n")
            file.flush()
            os.fsync(file.fileno())
        try:
            path.hardlink_to(draft)
        except FileExistsError:
            return
        _sync_folder(path.parent)
    finally:
        draft.unlink()
    log.info("made %s, which seals request snapshots; JOBS_SECRET_KEY would replace it", path)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
