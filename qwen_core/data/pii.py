"""Masking what identifies a person or opens a door: e-mail, phone, resident id, bank card, IP address, API key.

all texts ─▶ RE2 finds the few that may hold one ─▶ exact pattern and checksum on these ─▶ `<EMAIL>`, `<PHONE>`, ...

Numbers with a checksum are masked only where it holds. In source code only e-mail, IP address and API key are looked
for: a long number there is a number (as in StarCoder, Li et al., 2023).
"""

from __future__ import annotations

import ipaddress
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

_ID_WEIGHTS = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
_ID_CHECKS = "10X98765432"


@dataclass(frozen=True)
class Kind:
    """One kind of what is masked.

    Attributes:
        mask: Stands in the text instead.
        candidate: RE2; every text that holds one matches, and few others.
        pattern: What is replaced.
        is_real: Tells a number from one that only looks so.
        in_code: Whether source code is searched too.
    """

    mask: str
    candidate: str
    pattern: re.Pattern[str]
    is_real: Callable[[str], bool] = bool
    in_code: bool = False


def mask_pii(
    text: pa.ChunkedArray, is_code: npt.NDArray[np.bool_], kinds: Sequence[str]
) -> tuple[pa.Array, Counter[str]]:
    """Mask texts.

    Args:
        text: Strings.
        is_code: Which of them are source code.
        kinds: Keys of `KINDS`, in any order.

    Returns:
        The masked texts, and how often each kind was masked.
    """
    array = pa.concat_arrays(text.chunks) if text.num_chunks else pa.array([], pa.string())
    found: Counter[str] = Counter()
    for name, kind in KINDS.items():  # a longer number first, for a shorter kind would find a part of it
        if name not in kinds:
            continue
        hit = np.asarray(pc.match_substring_regex(array, pattern=kind.candidate)).astype(bool)
        if not kind.in_code:
            hit &= ~is_code
        if hit.any():
            masked = [_replaced(value, name, kind, found) for value in array.filter(pa.array(hit)).to_pylist()]
            array = pc.replace_with_mask(array, pa.array(hit), pa.array(masked, array.type))
    return array, found


def _replaced(text: str, name: str, kind: Kind, found: Counter[str]) -> str:
    def put(match: re.Match[str]) -> str:
        if not kind.is_real(match[0]):
            return match[0]
        found[name] += 1
        return kind.mask

    return kind.pattern.sub(put, text)


def _is_resident_id(number: str) -> bool:
    """Check the last sign of a Chinese resident id (GB 11643-1999, ISO 7064 MOD 11-2)."""
    total = sum(weight * int(digit) for weight, digit in zip(_ID_WEIGHTS, number, strict=False))
    return _ID_CHECKS[total % 11] == number[-1].upper()


def _is_card(number: str) -> bool:
    """Check length, issuer's first digit and the last digit (ISO/IEC 7812-1: Luhn) of a card's number."""
    digits = [int(sign) for sign in number if sign.isdigit()]
    if not 13 <= len(digits) <= 19 or not 3 <= digits[0] <= 6:
        return False
    doubled = [digit * 2 - 9 * (digit > 4) for digit in digits[-2::-2]]
    return (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0


def _is_public_address(address: str) -> bool:
    """Tell whether an address leads to a machine: loopback, private and documentation ranges lead to none."""
    try:
        return ipaddress.ip_address(address).is_global
    except ValueError:
        return False


def _kind(mask: str, pattern: str, candidate: str, **more: Any) -> Kind:
    return Kind(mask, candidate, re.compile(pattern, re.ASCII), **more)


_KEY = (
    r"sk-[A-Za-z0-9_-]{20,}|AKIA[0-9A-Z]{16}|gh[pousr]_[A-Za-z0-9]{36,}|xox[abprs]-[A-Za-z0-9-]{10,}|"
    r"AIza[0-9A-Za-z_-]{35}|hf_[A-Za-z0-9]{30,}|eyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}"
)
_BLOCK = r"-----BEGIN [A-Z ]*PRIVATE KEY-----[A-Za-z0-9+/=\s:,-]+?-----END [A-Z ]*PRIVATE KEY-----"
_MOBILE = r"(?:(?:\+|00)?86[ -]?)?1[3-9]\d[ -]?\d{4}[ -]?\d{4}"
_AMERICAN = r"(?:\+?1[ .-]?)?(?:\(\d{3}\) ?|\d{3}[ .-])\d{3}[ .-]\d{4}"
_INTERNATIONAL = r"\+[1-9]\d{0,2}[ .-]?(?:\(\d{1,4}\)[ .-]?)?\d{1,4}(?:[ .-]?\d{2,4}){2,4}"

KINDS = {
    "email": _kind(
        "<EMAIL>",
        r"(?<![A-Za-z0-9._%+-])[A-Za-z0-9._%+-]{1,64}@(?:[A-Za-z0-9-]{1,63}\.)+[A-Za-z]{2,24}(?![A-Za-z0-9-])",
        r"[A-Za-z0-9_%+-]@[A-Za-z0-9-]+\.",
        in_code=True,
    ),
    "api_key": _kind(
        "<API_KEY>", rf"(?<![A-Za-z0-9])(?:{_KEY})|{_BLOCK}", rf"{_KEY}|BEGIN [A-Z ]*PRIVATE KEY", in_code=True
    ),
    "resident_id": _kind(
        "<ID_NUMBER>",
        r"(?<!\d)[1-9]\d{5}(?:18|19|20)\d{2}(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])\d{3}[\dXx](?![\dA-Za-z])",
        r"[0-9]{17}[0-9Xx]",
        is_real=_is_resident_id,
    ),
    "bank_card": _kind(
        "<BANK_CARD>", r"(?<![\d.])\d(?:[ -]?\d){12,18}(?![\d.]\d|\d)", r"[0-9](?:[ -]?[0-9]){12}", is_real=_is_card
    ),
    "phone": _kind(
        "<PHONE>",
        rf"(?<![\d+.-])(?:{_MOBILE}|{_AMERICAN}|{_INTERNATIONAL})(?![\d-]|\.\d)",
        r"1[3-9][0-9][ -]?[0-9]{4}[ -]?[0-9]{4}|[0-9]{3}\)? ?[ .-]?[0-9]{3}[ .-][0-9]{4}|\+[1-9][0-9(). -]{6}",
    ),
    "ip": _kind(
        "<IP>",
        r"(?<![\d.])(?:\d{1,3}\.){3}\d{1,3}(?![\d]|\.\d)|(?<![0-9A-Za-z:.])(?:[0-9A-Fa-f]{0,4}:){2,7}[0-9A-Fa-f]{0,4}(?![0-9A-Za-z:])",
        r"(?:[0-9]{1,3}\.){3}[0-9]|(?:[0-9A-Fa-f]{0,4}:){2,7}",
        is_real=_is_public_address,
        in_code=True,
    ),
}
"""Every kind by the word that the recipe has for it, in the order of masking."""
