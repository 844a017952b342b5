"""The messages that must arrive unchanged."""

import base64
import random
from dataclasses import dataclass

# Random bytes do not compress. They are the same in every run.
_NOISE = random.Random(6455).randbytes(70 * 1024)
_WORDS = "closed for an unknown reason: grüße ✓ 👋 "
_MEBIBYTE = 1024 * 1024


@dataclass(frozen=True)
class Kind:
    name: str
    payload: dict[str, str]
    fragments: int = 1


def _text(text: str) -> dict[str, str]:
    return {"text": text}


def _binary(data: bytes) -> dict[str, str]:
    return {"binary": base64.b64encode(data).decode()}


KINDS = (
    Kind("text", _text(_WORDS)),
    Kind("binary", _binary(bytes(range(256)))),
    Kind("empty text", _text("")),
    Kind("empty binary", _binary(b"")),
    Kind("70 KiB of noise", _binary(_NOISE)),
    Kind("1 MiB of text", _text("x" + _WORDS * (_MEBIBYTE // len(_WORDS.encode())))),
    Kind("three fragments", _text(_WORDS * 3), fragments=3),
    Kind("70 KiB in three", _binary(_NOISE), fragments=3),
)
