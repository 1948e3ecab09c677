"""A password that is kept as its hash alone: scrypt (RFC 7914) with a salt of its own."""

import base64
import binascii
import hashlib
import hmac
import os

from data.errors import UserError

N, R, P = 1 << 15, 8, 1  # 32 MiB and about a tenth of a second a try
MEMORY = 128 << 20
LEAST = 12  # characters
VARIABLE = "NEXTLABEL_PASSWORD_HASH"


def hashed(password: str) -> str:
    """The text for $NEXTLABEL_PASSWORD_HASH. Raises `UserError` for a short password."""
    if len(password) < LEAST:
        raise UserError(
            f"The password has {len(password)} characters: take at least {LEAST}, such as four random words."
        )
    salt = os.urandom(16)
    key = hashlib.scrypt(password.encode(), salt=salt, n=N, r=R, p=P, maxmem=MEMORY)
    return f"scrypt:{N}:{R}:{P}:{base64.b64encode(salt).decode()}:{base64.b64encode(key).decode()}"


def matches(password: str, text: str) -> bool:
    """Whether the password is the one of `hashed` text. Raises `UserError` where the text is no such hash."""
    try:
        kind, n, r, p, salt, key = text.strip().split(":")
        if kind != "scrypt":
            raise ValueError
        wanted = base64.b64decode(key, validate=True)
        found = hashlib.scrypt(
            password.encode(), salt=base64.b64decode(salt, validate=True), n=int(n), r=int(r), p=int(p), maxmem=MEMORY,
            dklen=len(wanted),
        )  # fmt: skip
    except (ValueError, binascii.Error, OverflowError) as error:
        raise UserError(f"${VARIABLE} holds no hash: make one with `python -m core password`.") from error
    return hmac.compare_digest(found, wanted)
