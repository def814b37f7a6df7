"""What is masked: for each kind a fast expression that finds candidates, an exact one, and a check of what it found.

A number next to a letter of ASCII is a part of a hash or a name, and stays; next to a Chinese character it is masked.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

_ID_WEIGHTS = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
_ID_CHECKS = "10X98765432"
_GLOBAL_UNICAST = ipaddress.ip_network("2000::/3")


@dataclass(frozen=True)
class Kind:
    """One kind of what is masked.

    Attributes:
        mask: Stands in the text instead.
        candidate: RE2; every text that holds one matches, and few others.
        pattern: What is replaced; where it has a group `value`, that alone.
        is_real: Tells one from what only looks so, by the match.
        in_code: Whether source code is searched too.
    """

    mask: str
    candidate: str
    pattern: re.Pattern[str]
    is_real: Callable[[re.Match[str]], bool] = bool
    in_code: bool = False


def _is_resident_id(match: re.Match[str]) -> bool:
    """Check the last sign of a Chinese resident id (GB 11643-1999, ISO 7064 MOD 11-2)."""
    total = sum(weight * int(digit) for weight, digit in zip(_ID_WEIGHTS, match[0], strict=False))
    return _ID_CHECKS[total % 11] == match[0][-1].upper()


def _is_card(match: re.Match[str]) -> bool:
    """Check length, issuer's first digit and the last digit (ISO/IEC 7812-1: Luhn) of a card's number."""
    digits = [int(sign) for sign in match[0] if sign.isdigit()]
    if not 13 <= len(digits) <= 19 or not 3 <= digits[0] <= 6:
        return False
    doubled = [digit * 2 - 9 * (digit > 4) for digit in digits[-2::-2]]
    return (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0


def _is_phone(match: re.Match[str]) -> bool:
    """Leave out what is too long (E.164), one digit again and again, and counting digits after a plus."""
    digits = re.sub(r"\D", "", match[0])
    if len(digits) > 15 or len(set(digits[-7:])) == 1:
        return False
    return not (match[0].startswith("+") and digits.startswith(("12345", "01234")))


def _is_public_address(match: re.Match[str]) -> bool:
    """Tell whether an address leads to a machine: loopback, private and documentation ranges lead to none.

    Four small numbers are a version or a section far more often than an address. Of all addresses one in forty has no
    number from 100 on; such a one counts where something says that it is an address, or all four are the same.
    """
    try:
        address = ipaddress.ip_address(match[0])
    except ValueError:
        return False
    if address.version == 6:
        parts = [part for part in match[0].split(":") if part]
        return len(parts) > 2 and address in _GLOBAL_UNICAST and address.is_global
    numbers = match[0].split(".")
    before = match.string[max(0, match.start() - 12) : match.start()]
    is_told = _ADDRESS_BEFORE.search(before) is not None or match.string[match.end() : match.end() + 1] in (":", "/")
    is_likely = is_told or len(set(numbers)) == 1 or any(len(number) == 3 for number in numbers)
    is_reachable = address.is_global and not address.is_multicast
    return is_likely and is_reachable and _VERSION_BEFORE.search(before) is None


def _is_email(match: re.Match[str]) -> bool:
    """Leave out file names (`icon@2x.png`) and addresses of repositories (`git@host:path`)."""
    ending = match[0].rsplit(".", 1)[1].lower()
    return ending not in _FILE_ENDINGS and not (match[0].startswith("git@") and match.string[match.end() :][:1] == ":")


def _is_key(match: re.Match[str]) -> bool:
    """Ask the less certain forms for digits and letters: words joined by hyphens are no key."""
    value = match[match.lastgroup or 0]
    is_uncertain = match.lastgroup is not None or value.startswith("sk-")
    return not is_uncertain or (sum(sign.isdigit() for sign in value) > 1 and any(sign.isalpha() for sign in value))


def _kind(mask: str, pattern: str, candidate: str, **more: Any) -> Kind:
    return Kind(mask, candidate, re.compile(pattern, re.ASCII), **more)


_FILE_ENDINGS = frozenset(
    ("png", "jpg", "jpeg", "gif", "svg", "webp", "ico", "bmp", "css", "js", "ts", "jsx", "tsx", "json", "html", "txt")
)
_ADDRESS_BEFORE = re.compile(r"(?:ip|ipv4|addr|address|host|server|地址|@|//)[\s:=：是为\"']*$", re.IGNORECASE)
_VERSION_BEFORE = re.compile(r"(?:version|release|section|chapter|版本|章节|§|v)[\s:=：_\"']*$", re.IGNORECASE)

_PREFIXED = (
    r"sk-[A-Za-z0-9_-]{20,}",  # OpenAI and many like it
    r"(?:AKIA|ASIA)[0-9A-Z]{16}",  # AWS
    r"gh[pousr]_[A-Za-z0-9]{36,}",
    r"github_pat_[A-Za-z0-9_]{40,}",
    r"glpat-[A-Za-z0-9_-]{20,}",  # GitLab
    r"xox[abeprs]-[A-Za-z0-9-]{10,}",  # Slack
    r"AIza[0-9A-Za-z_-]{35}",  # Google
    r"GOCSPX-[A-Za-z0-9_-]{28}",
    r"hf_[A-Za-z0-9]{30,}",  # Hugging Face
    r"[rs]k_(?:live|test)_[A-Za-z0-9]{16,}",  # Stripe
    r"SG\.[A-Za-z0-9_-]{16,}\.[A-Za-z0-9_-]{16,}",  # SendGrid
    r"npm_[A-Za-z0-9]{36}",
    r"pypi-AgE[A-Za-z0-9_-]{50,}",
    r"LTAI[A-Za-z0-9]{12,24}",  # Alibaba Cloud
    r"AKID[A-Za-z0-9]{32}",  # Tencent Cloud
    r"[0-9]{8,10}:AA[A-Za-z0-9_-]{33}",  # Telegram
    r"eyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}",  # JSON web token
)
_KEY = "|".join(_PREFIXED)
_KEY_NAME = r"(?:api[_-]?key|access[_-]?key|secret(?:[_-]?key)?|auth[_-]?token|access[_-]?token|password|passwd)"
_ASSIGNED = rf"(?i:{_KEY_NAME})[\"']?\s{{0,3}}[:=]\s{{0,3}}[\"'](?P<value>[A-Za-z0-9+/_=.-]{{20,200}})[\"']"
_BLOCK = r"-----BEGIN [A-Z ]*PRIVATE KEY-----[A-Za-z0-9+/=\s:,\\-]+?-----END [A-Z ]*PRIVATE KEY-----"

_ALONE = r"(?:(?<![A-Za-z0-9_.+-])|(?<=[^A-Za-z0-9_][vVqQ]))"  # 加v138...: an account's number
_MOBILE = r"(?:(?:\+|00)?86[ -]?)?1[3-9]\d(?:[ -]?\d{4}[ -]?\d{4}|[ -]\d{3}[ -]?\d{5})"
_CITY = r"0(?:10|2[0-57-9]|[3-9]\d{2})"
_LANDLINE = rf"(?:(?:\+|00)86[ -]?{_CITY[1:]}[ -]?|\({_CITY}\) ?|（{_CITY}）|{_CITY}[-—])[2-9]\d{{2,3}}[ -]?\d{{4}}"
_AMERICAN = r"(?<!\d[ .-])(?:\+?1[ .-]?)?(?:\([2-9]\d{2}\) ?|[2-9]\d{2}[ .-])[2-9]\d{2}[ .-]\d{4}(?![ .-]\d)"
_COUNTRY = (  # ITU-T E.164
    r"(?:1|7|2[07]|3[0-469]|4[013-9]|5[1-8]|6[0-6]|8[1246]|9[0-58]|"
    r"21[1-368]|2[2-6]\d|29[0179]|3[578]\d|42\d|50\d|59\d|6[789]\d|8[058]\d|9[679]\d)"
)
_INTERNATIONAL = rf"\+{_COUNTRY}[ .-]?(?:\(\d{{1,4}}\)[ .-]?)?\d{{1,4}}(?:[ .-]?\d{{2,4}}){{2,4}}"

_NUMBER = r"(?:25[0-5]|2[0-4]\d|1?\d?\d)"
_IP4 = rf"(?<![\w.-])(?:{_NUMBER}\.){{3}}{_NUMBER}(?![\w-]|\.\d)"
_IP6 = r"(?<![\w:.])[23][0-9A-Fa-f]{3}:(?:[0-9A-Fa-f]{0,4}:){1,6}[0-9A-Fa-f]{0,4}(?![\w:])"

KINDS = {
    "email": _kind(
        "<EMAIL>",
        r"(?<![A-Za-z0-9._%+-])[A-Za-z0-9_%+-][A-Za-z0-9._%+-]{0,63}@(?:[A-Za-z0-9-]{1,63}\.)+[A-Za-z]{2,24}"
        r"(?![A-Za-z0-9-])",
        r"[A-Za-z0-9._%+-]@[A-Za-z0-9-]+\.[A-Za-z0-9]",
        is_real=_is_email,
        in_code=True,
    ),
    "api_key": _kind(
        "<API_KEY>",
        rf"(?<![A-Za-z0-9])(?:{_KEY})|{_BLOCK}|{_ASSIGNED}",
        rf"{_KEY}|BEGIN [A-Z ]*PRIVATE KEY|(?i:{_KEY_NAME})[\"']?\s{{0,3}}[:=]\s{{0,3}}[\"'][A-Za-z0-9+/_=.-]{{20}}",
        is_real=_is_key,
        in_code=True,
    ),
    "resident_id": _kind(
        "<ID_NUMBER>",
        r"(?<![A-Za-z0-9_.])(?:1[1-5]|2[1-3]|3[1-7]|4[1-6]|5[0-4]|6[1-5]|71|8[1-3])\d{4}(?:18|19|20)\d{2}"
        r"(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])\d{3}[\dXx](?![A-Za-z0-9_])",
        r"[0-9]{17}[0-9Xx]",
        is_real=_is_resident_id,
    ),
    "bank_card": _kind(
        "<BANK_CARD>",
        r"(?<![\w.])(?<!\d[ -])(?:\d{13,19}|\d{4}([ -])\d{4}\1\d{4}\1\d{1,7}|\d{4}([ -])\d{6}\2\d{5}"
        r"|\d{4}([ -])\d{4}\3\d{4}\3\d{4}\3\d{3})(?![\w]|[ -]?\d|\.\d)",
        r"[0-9]{13}|[0-9]{4}[ -][0-9]{4}[ -][0-9]{4}[ -]|[0-9]{4}[ -][0-9]{6}[ -]",
        is_real=_is_card,
    ),
    "phone": _kind(
        "<PHONE>",
        rf"{_ALONE}(?:{_MOBILE}|{_LANDLINE}|{_AMERICAN}|{_INTERNATIONAL})(?![A-Za-z0-9_]|-\d|\.\d)",
        r"1[3-9][0-9][ -]?[0-9]{3}[0-9 -][0-9 -]?[0-9]{4}|\(?[2-9][0-9]{2}[) .-] ?[2-9][0-9]{2}[ .-][0-9]{4}|"
        r"\+[1-9][0-9(). -]{6}|0[1-9][0-9]{1,2}[)）—-] ?[2-9][0-9]{2}",
        is_real=_is_phone,
    ),
    "ip": _kind(
        "<IP>",
        rf"{_IP4}|{_IP6}",
        r"[0-9]\.[0-9]{1,3}\.[0-9]{1,3}\.[0-9]|[23][0-9A-Fa-f]{3}:[0-9A-Fa-f]{0,4}:",
        is_real=_is_public_address,
        in_code=True,
    ),
}
"""Every kind by the word that the recipe has for it, in the order of masking."""
