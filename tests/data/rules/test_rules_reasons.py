"""Quality rules: a table of texts and expected reasons, family by family."""

import sys

import pytest

from qwen_core.config.filter import Filter
from qwen_core.data.rules import judge
from qwen_core.errors import MissingDependencyError

LIMITS = Filter().model_dump()
FAMILIES = ("gopher_quality", "gopher_repetition", "c4", "fineweb", "chinese", "code")
TOPICS = (
    "rivers",
    "harbours",
    "orchards",
    "bridges",
    "lanterns",
    "markets",
    "glaciers",
    "violins",
    "windmills",
    "bees",
)
GOOD = (
    "Fine sand travels far before it settles, and the slower a river flows the more of it sinks to the ground.\n"
    "Over centuries such deposits raise the land near the coast, so that farmers find rich soil where ships once lay.\n"
    "People who settle there learn to live with floods. They build walls, dig canals and move their herds in spring.\n"
    "A map of the mouth of any great stream is therefore soon out of date!\n"
    "Who would trust an old chart without asking a pilot? Most captains would not, and with good reason.\n"
    "Birds have their own opinion of all this: they rest on the banks by the thousand, and leave when frost arrives.\n"
)
CHINESE = (
    "河水带着细沙流向大海，水流越慢，沉到河底的沙子就越多。日积月累，河口便形成了平坦的三角洲，适合耕种，也养活了许多城镇。\n"
    "住在那里的人们修筑堤坝，疏通水道，一代又一代地同洪水相处。"
)
TRADITIONAL = (
    "河水帶著細沙流向大海，水流越慢，沉到河底的沙子就越多。日積月累，河口便形成了平坦的三角洲，適合耕種，也養活了許多城鎮。\n"
    "住在那裡的人們修築堤壩，疏通水道，一代又一代地同洪水相處。"
)
JAPANESE = (
    "川の水は細かい砂を海へ運び、流れが遅くなるほど多くの砂が底に沈みます。長い年月をかけて、河口には平らな三角州ができました。\n"
    "そこに住む人々は堤防を築き、水路を整えながら、洪水とともに暮らしてきました。"
)
KOREAN = (
    "강물은 고운 모래를 바다로 실어 나르고 물살이 느려질수록 더 많은 모래가 바닥에 가라앉는다. 오랜 세월이 지나면 "
    "강어귀에 넓은 들이 생긴다. 그곳에 사는 사람들은 둑을 쌓고 물길을 고치며 큰물과 더불어 살아왔다. 봄이 오면 소 떼를 "
    "높은 언덕으로 옮기고 가을에는 다시 내려와 곡식을 거둔다. 옛 지도를 그대로 믿는 선장은 거의 없다. 새들은 해마다 "
    "같은 때에 찾아와 갈대밭에서 쉬다가 서리가 내리면 남쪽으로 떠난다. 아이들은 둑 위를 달리며 새를 센다."
)
CODE = "\n".join(f"def area_{i}(width, height):\n    return width * height + {i}\n" for i in range(5))

PROSE = [
    ("gopher_quality", "", "too_few_words"),
    ("gopher_quality", " \n\t\n ", "too_few_words"),
    ("gopher_quality", "Too short to say anything.", "too_few_words"),
    ("gopher_quality", "river " * 100_001, "too_many_words"),
    ("gopher_quality", "12 34 56 78 90 ab " * 20, "short_words"),
    ("gopher_quality", "Supercalifragilistic incomprehensibilities notwithstanding " * 30, "long_words"),
    ("gopher_quality", "a tag #one #two #three here " * 20 + GOOD, "hash_signs"),
    ("gopher_quality", "and then ... well ... maybe ... so " * 12 + GOOD, "ellipses"),
    ("gopher_quality", "\n".join(f"- the point about {t} of old and the new" for t in TOPICS), "bullet_lines"),
    (
        "gopher_quality",
        "\n".join(f"The tale of {t} goes on to speak of…" for t in TOPICS) + "\n" + GOOD,
        "ellipsis_lines",
    ),
    ("gopher_quality", "1234 5678 9012 3456 " * 20, "few_alpha_words"),
    ("gopher_quality", "river banks carry sand " * 20, "few_stop_words"),
    ("gopher_quality", GOOD, None),
    ("gopher_repetition", (GOOD + "\n\n") * 3, "duplicate_paragraphs"),
    ("gopher_repetition", "\n\n".join([*TOPICS[:5], GOOD, GOOD]), "duplicate_paragraph_characters"),
    ("gopher_repetition", GOOD + "Sand.\n" * 9, "duplicate_lines"),
    ("gopher_repetition", "\n".join([*TOPICS[:6], *[GOOD.replace("\n", " ")] * 2]), "duplicate_line_characters"),
    ("gopher_repetition", " ".join(f"the river {t}" for t in TOPICS), "frequent_2_gram"),
    ("gopher_repetition", GOOD + " ".join(f"one by one {t}" for t in TOPICS * 2), "frequent_3_gram"),
    ("gopher_repetition", GOOD + " ".join(f"so it was everlasting {t}" for t in TOPICS[:7]), "frequent_4_gram"),
    ("gopher_repetition", GOOD + " ".join(GOOD.split("\n")[:2]), "repeated_5_grams"),
    ("gopher_repetition", GOOD, None),
    ("c4", GOOD + "Here you read lorem ipsum dolor.\n", "filler_text"),
    ("c4", "\n".join(GOOD.split("\n")[:4]), None),
    ("c4", " ".join(GOOD.split("\n")[:2]), "too_few_sentences"),
    ("c4", "Home\nNews\nPictures\n" + GOOD, None),
    ("fineweb", "About {}\nMore of {}\nThe old {}\n".format(*TOPICS), "few_line_ends"),
    ("fineweb", "\n".join(f"See {t} there." for t in TOPICS), "short_lines"),
    ("fineweb", GOOD + GOOD.split("\n")[0], "repeated_line_characters"),
    ("fineweb", "\n".join(f"Antidisestablishmentarianismof{t}." for t in TOPICS), "newlines"),
    ("fineweb", '"Where does the river go?"\n"Into the sea, where else."\n"And the sand that it carries?"', None),
    ("fineweb", GOOD, None),
]


def only(family: str) -> dict[str, object]:
    """Limits with one family."""
    return Filter.model_validate({name: {"enabled": name == family} for name in FAMILIES}).model_dump()


@pytest.mark.parametrize(("family", "text", "expected"), PROSE)
def test_prose_gets_its_reason(family, text, expected):
    assert list(judge([text], ["en"], only(family)).reasons) == [expected]


@pytest.mark.parametrize(("language", "text"), [("en", GOOD), ("ko", KOREAN), ("zh", CHINESE), ("ja", JAPANESE)])
def test_good_text_passes_all_families(language, text):
    assert list(judge([text], [language], LIMITS).reasons) == [None]


CHINESE_CASES = [
    (CHINESE, None),
    (TRADITIONAL, None),
    (JAPANESE, None),
    ("太短。", "too_few_characters"),
    ("\n".join(f"第{i}章风景" for i in range(30)), "short_lines"),
    ("\n".join(f"这一行讲的是第{i}座桥的来历和它旁边的人家" for i in range(12)), "few_line_ends"),
    (CHINESE.replace("。", "，").rstrip("，") + "。", "too_few_sentences"),
    (CHINESE + "！？、；：—「」《》" * 15, "many_signs"),
    (CHINESE + " 20240101" * 20, "many_digits"),
    ("【特价促销活动】" * 3 + CHINESE, "brackets"),
    ("\n".join(f"第{i}条新闻说的是河边的事情，点开可以展开" for i in range(6)) + "\n" + CHINESE, "read_more_lines"),
    ("啊哈" * 200 + "。哈哈。", "low_variety"),
    ((CHINESE.split("\n")[0] + "\n") * 5, "duplicate_lines"),
    ("首页\n登录\n注册\n" + CHINESE, "boilerplate"),
    (CHINESE + "".join(f"沙子沉底{c}" for c in "甲乙丙丁戊己庚") + "。", "frequent_4_gram"),
]


@pytest.mark.parametrize(("text", "expected"), CHINESE_CASES)
def test_chinese_or_japanese_gets_its_reason(text, expected):
    assert list(judge([text], ["zh"], LIMITS).reasons) == [expected]


CODE_CASES = [
    (CODE, None),
    ("x = 1\n", "too_few_characters"),
    ("# Automatically generated by a tool, see below\n" + CODE, "generated"),
    (CODE + f"KEY = '{'QWxhZGRpbjpvcGVuIHNlc2FtZQ' * 60}'\n", "encoded_data"),
    ("static const char data[] = {\n" + "  0x1f, 0x8b, 0x08, 0x00,\n" * 80 + "};\n", "encoded_data"),
    (CODE + "names = '" + "one two " * 200 + "'\n", "long_line"),
    (
        "\n".join("value = compute(first_argument, second_argument, third_argument) + " * 2 for _ in range(9)),
        "long_lines",
    ),
    ("{}[]();;<>!@#$%^&*\n" * 20, "few_alphanumeric"),
    ("\n".join(f"p({i}{i}{i}7.25, {i}81.5, {i}{i}3.75)" for i in range(20)), "many_digits"),
    ('<?xml version="1.0"?>\n<root>' + "<item>text of the item</item>\n" * 9 + "</root>", "xml"),
    ("<!DOCTYPE html>\n<html><body>" + '<div class="row">a</div>\n' * 20 + "</body></html>", "html_markup"),
    ("<html><body>\n" + GOOD.replace(", ", ",\n") + "</body></html>", None),
    ("{\n" + ",\n".join(f'"name{i}": "some value of {i}"' for i in range(400)) + "\n}", "json_data"),
    ('{\n  "name": "example", "license": "Apache", "description": "A small package file"\n}', None),
]


@pytest.mark.parametrize(("text", "expected"), CODE_CASES)
def test_source_code_gets_its_reason(text, expected):
    assert list(judge([text], ["code"], LIMITS).reasons) == [expected]


def test_unwanted_language_comes_before_every_other_reason():
    limits = LIMITS | {"languages": ("en", "zh")}
    verdict = judge(["Zu kurz.", CHINESE, TRADITIONAL], ["de", "zh-Hans", "zh-Hant"], limits)
    assert list(verdict.reasons) == ["language", None, None]
    verdict = judge([CHINESE, TRADITIONAL], ["zh-Hans", "zh-Hant"], LIMITS | {"languages": ("zh-Hant",)})
    assert list(verdict.reasons) == ["language", None]


def test_text_in_two_languages_is_not_dropped_for_the_other_one():
    mixed = [CHINESE + "\n" + GOOD, GOOD + CHINESE[:40]]
    assert list(judge(mixed, ["zh", "en"], LIMITS).reasons) == [None, None]
    assert list(judge([GOOD, CHINESE], ["zh", "en"], LIMITS).reasons) == [None, None]  # a wrong label harms nobody


def test_documents_are_judged_alike_in_any_company():
    texts = [text for _, text, _ in PROSE] + [text for text, _ in CHINESE_CASES]
    together = list(judge(texts, ["en"] * len(texts), LIMITS).reasons)
    assert together == [judge([text], ["en"], LIMITS).reasons[0] for text in texts]


def test_without_families_everything_is_kept():
    texts = [text for _, text, _ in PROSE] + [text for text, _ in (*CHINESE_CASES, *CODE_CASES)]
    for language in ("en", "code"):
        assert not any(judge(texts, [language] * len(texts), only("none")).reasons)


def test_odd_input_is_judged_too():
    texts = [
        "\x00" * 300,
        "\ud800 broken " * 30,
        "word " * 200_000,
        "\n" * 5_000,
        "。" * 500,
        "[" * 99,
        "{" * 99,
        "`" * 99,
    ]
    for language in ("en", "zh", "code", None):
        assert all(judge(texts, [language] * len(texts), LIMITS).reasons)
    assert len(judge([""] * 10_000, ["en"] * 10_000, LIMITS).reasons) == 10_000
    assert len(judge([], [], LIMITS).reasons) == 0


SEGMENTED = Filter.model_validate({"chinese": {"min_mean_word_length": 1.3}}).model_dump()


def test_loose_characters_are_no_words():
    pytest.importorskip("rjieba")
    loose = "的了是在不有和我你他就也都。要会可上下这那着过给把被。让对从到向比跟与或但而之。" * 2
    verdict = judge([CHINESE, TRADITIONAL, loose], ["zh"] * 3, SEGMENTED)
    assert list(verdict.reasons) == [None, None, "odd_words"]


def test_missing_segmenter_is_named_with_what_to_do(monkeypatch):
    monkeypatch.setitem(sys.modules, "rjieba", None)
    with pytest.raises(MissingDependencyError, match="or set it to 0"):
        judge([CHINESE], ["zh"], SEGMENTED)


@pytest.mark.slow
def test_bundled_documents_are_decided_as_by_datatrove():
    pytest.importorskip("datatrove")
    pytest.importorskip("spacy")
    from tests.benchmarks import corpus, rules

    texts = corpus.bundled_texts("en")
    theirs = rules.datatrove_reasons(texts)
    ours = rules.our_reasons(texts)
    assert sum((mine is None) == (other is None) for mine, other in zip(ours, theirs, strict=True)) >= 0.99 * len(texts)
