"""PII masking: what is real is masked, what only looks so stays."""

import typing

import numpy as np
import pyarrow as pa
import pytest

from qwen_core.config.filter import PiiKind
from qwen_core.data.pii import KINDS, mask_pii


def _masked(text, is_code=False, kinds=tuple(KINDS)):
    array, found = mask_pii(pa.chunked_array([[text]]), np.array([is_code]), kinds)
    return array[0].as_py(), dict(found)


def _resident_id(first_seventeen):
    weights = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
    return first_seventeen + "10X98765432"[sum(w * int(d) for w, d in zip(weights, first_seventeen, strict=True)) % 11]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("write to jane.doe+x@mail.example.org.", "write to <EMAIL>."),
        ("邮箱li_lei@example.com，谢谢", "邮箱<EMAIL>，谢谢"),
        ("手机13812345678或+86 139-1234-5678。", "手机<PHONE>或<PHONE>。"),
        ("call (415) 555-0132 or +44 20 7946 0958", "call <PHONE> or <PHONE>"),
        ("from 8.8.8.8 and 2001:4860:4860::8888", "from <IP> and <IP>"),
        ("卡号4111 1111 1111 1111，请保密", "卡号<BANK_CARD>，请保密"),
        (f"身份证号{_resident_id('11010119900307123')}。", "身份证号<ID_NUMBER>。"),
        ("key AKIA" + "ABCDEFGH" * 2, "key <API_KEY>"),
        ("token=ghp_" + "a1" * 18 + ";", "token=<API_KEY>;"),
        ("api_key = 'a8f5f167f44f4964e6c998de'", "api_key = '<API_KEY>'"),
        ("sk_live_" + "4eC39HqLyjWDarjt", "<API_KEY>"),
        ("手机号：１３８ １２３４ ５６７８，谢谢", "手机号：<PHONE>，谢谢"),
        ("座机010-60000001，传真（0755）26530000", "座机<PHONE>，传真<PHONE>"),
        ("加v13987654321聊", "加v<PHONE>聊"),
        ("+8613987654321 or 0086 139 8765 4321", "<PHONE> or <PHONE>"),
        ("ＱＱ邮箱lilei＠example.com吧", "ＱＱ邮箱<EMAIL>吧"),
        (f"卡号：{'４１１１１１１１１１１１１１１１'}。", "卡号：<BANK_CARD>。"),
        ("服务器地址：47.95.1.10", "服务器地址：<IP>"),
        ("http://8.8.4.4:53/ and 203.119.24.3", "http://<IP>:53/ and <IP>"),
    ],
)
def test_real_ones_are_masked_once_each(text, expected):
    masked, found = _masked(text)
    assert masked == expected
    assert sum(found.values()) == expected.count("<")


@pytest.mark.parametrize(
    "text",
    [
        "the decorator @property and user@host stay",
        "at 127.0.0.1, 192.168.0.10 and version 1.2.3 nobody is met; 999.8.8.8 is no address",
        "at 12:30:45 the ratio was 3:2:1",
        "4111 1111 1111 1112 fails the check digit",
        "身份证号110101199003071230123太长",
        "in 2024-2025 we counted 1234567890123 grains, pi is 3.14159265358979",
        "ISBN 978-3-16-148410-0",
        "release 3.1.1.6, v1.8.5.1 and section 22.1.3.15; multicast is 224.0.0.0",
        "slices x[:, 1::2], the year 2006:: and abcd::ef",
        "commit 15027957951b64cf8 and 95e0222ba6399739834380eb10af",
        "primes 971 977 983 991 997 1009 1013",
        "+2147483647, +123456789 and 1.0E+1000000000",
        "const n = 15346349309n; icon@2x.png; git@github.example:team/x",
        "sk-this-is-a-class-name-with-many-words",
        "password: 'correct-horse-battery-staple'",
        "2024-01-15 12:30:45, 0.1234567, 1 000 000 000",
    ],
)
def test_what_only_looks_so_stays(text):
    assert _masked(text) == (text, {})


def test_source_code_keeps_its_numbers_but_not_its_secrets():
    masked, found = _masked("N = 4111111111111111  # by a@b.org", is_code=True)
    assert masked == "N = 4111111111111111  # by <EMAIL>" and found == {"email": 1}


def test_only_the_wanted_kinds_are_masked_and_the_recipe_knows_all():
    text = "a@b.org 13812345678"
    assert _masked(text, kinds=("phone",)) == ("a@b.org <PHONE>", {"phone": 1})
    assert _masked(text, kinds=()) == (text, {})
    assert set(typing.get_args(PiiKind)) == set(KINDS)


def test_empty_batch_is_fine():
    array, found = mask_pii(pa.chunked_array([], pa.string()), np.array([], bool), tuple(KINDS))
    assert len(array) == 0 and not found
