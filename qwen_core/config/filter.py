"""Recipe section of `filter`."""

from __future__ import annotations

import typing
from typing import Annotated, Literal

from pydantic import Field

from qwen_core.config.base import Count, Ratio, Section

Phrase = Annotated[str, Field(min_length=2, pattern=r"^[^\n]+$")]
"""What is looked for in lines, capitals like small letters."""

PiiKind = Literal["email", "phone", "resident_id", "bank_card", "ip", "api_key"]


JAVASCRIPT_PHRASES = (
    *("enable javascript", "javascript is disabled", "javascript is not enabled", "javascript must be enabled"),
    *("javascript to be enabled", "javascript enabled", "requires javascript", "turn on javascript"),
    *("activate javascript", "does not support javascript", "javascript is required", "javascript is turned off"),
)
"""What a page says to a browser without it; prose about JavaScript says other things."""

POLICY_PHRASES = (
    *("terms of use", "privacy policy", "cookie policy", "uses cookies", "use of cookies", "use cookies"),
)
"""Of C4's published code."""

BOILERPLATE_PHRASES = (
    # registration and rights
    *("备案号", "備案號", "icp备", "icp備", "公网安备", "版权所有", "版權所有", "版权声明", "免责声明", "免責聲明"),
    *(
        "转载请注明",
        "轉載請註明",
        "未经授权",
        "未經授權",
        "不得转载",
        "不得轉載",
        "违法和不良信息举报",
        "无断転载",
        "無断転載",
    ),
    *("all rights reserved", "copyright ©", "著作権", "プライバシーポリシー", "利用規約"),
    # navigation
    *("上一篇", "下一篇", "上一页", "下一页", "上一頁", "下一頁", "返回顶部", "返回頂部", "返回首页", "返回首頁"),
    *(
        "网站地图",
        "網站地圖",
        "サイトマップ",
        "关于我们",
        "關於我們",
        "联系我们",
        "聯繫我們",
        "聯絡我們",
        "お問い合わせ",
    ),
    *(
        "友情链接",
        "友情連結",
        "设为首页",
        "設為首頁",
        "加入收藏",
        "收藏本站",
        "当前位置",
        "您的位置",
        "加载更多",
        "載入更多",
    ),
    # calls to act
    *(
        "点击查看",
        "點擊查看",
        "点击下载",
        "點擊下載",
        "点击进入",
        "點擊進入",
        "点击这里",
        "點擊這裡",
        "立即购买",
        "立即購買",
    ),
    *(
        "立即注册",
        "立即註冊",
        "立即登录",
        "立即登入",
        "免费注册",
        "忘记密码",
        "忘記密碼",
        "会員登録",
        "扫码关注",
        "掃碼關注",
    ),
    *("扫描二维码", "長按識別", "长按识别", "关注我们", "关注公众号", "微信公众号", "分享到", "客服热线", "举报电话"),
)
"""What marks a short line as boilerplate, in simplified and traditional Chinese and in Japanese."""

NAVIGATION_WORDS = (
    *(
        "首页",
        "首頁",
        "登录",
        "登入",
        "登錄",
        "注册",
        "註冊",
        "搜索",
        "搜尋",
        "更多",
        "返回",
        "关闭",
        "關閉",
        "打印",
        "列印",
    ),
    *(
        "分享",
        "收藏",
        "点赞",
        "點讚",
        "举报",
        "檢舉",
        "评论",
        "評論",
        "回复",
        "回覆",
        "关注",
        "關注",
        "菜单",
        "選單",
        "导航",
    ),
    *("ホーム", "ログイン", "新規登録", "検索", "メニュー", "トップへ戻る"),
)
"""Lines that are nothing but one of these are navigation."""


class GopherQuality(Section):
    """Gopher's quality rules (arXiv 2112.11446, table A1), for text in words."""

    enabled: bool = Field(True, description="Apply these rules.")
    min_words: int = Field(50, ge=0, description="Words, punctuation left out.")
    max_words: Count = Field(100_000, description="Words, punctuation left out.")
    min_mean_word_length: float = Field(3.0, ge=0, description="Characters; not for Korean.")
    max_mean_word_length: float = Field(10.0, gt=0, description="Characters.")
    max_symbol_word_ratio: Ratio = Field(0.1, description="# to words, and … to words.")
    max_bullet_line_ratio: Ratio = Field(0.9, description="Lines that begin with a bullet.")
    max_ellipsis_line_ratio: Ratio = Field(0.3, description="Lines that end with an ellipsis.")
    min_alpha_word_ratio: Ratio = Field(0.8, description="Words that hold a letter.")
    counts_signs: bool = Field(
        False, description="Each sign is a word where ratios to words are taken, as datatrove has it."
    )
    min_stop_words: int = Field(2, ge=0, description="Different stop words; in languages that have a list.")
    stop_words: dict[str, tuple[str, ...]] = Field(
        {"en": ("the", "be", "to", "of", "and", "that", "have", "with")}, description="Lists by language."
    )


class GopherRepetition(Section):
    """Gopher's repetition rules (arXiv 2112.11446, table A1), for text in words."""

    enabled: bool = Field(True, description="Apply these rules.")
    max_duplicate_paragraph_ratio: Ratio = Field(0.3, description="Paragraphs that stand in the document before.")
    max_duplicate_paragraph_character_ratio: Ratio = Field(0.2, description="Characters of these paragraphs.")
    max_duplicate_line_ratio: Ratio = Field(0.3, description="Lines that stand in the document before.")
    max_duplicate_line_character_ratio: Ratio = Field(0.2, description="Characters of these lines.")
    max_top_ngram_ratios: dict[int, Ratio] = Field(
        {2: 0.20, 3: 0.18, 4: 0.16}, description="Characters of the most frequent n-gram, by n."
    )
    max_duplicate_ngram_ratios: dict[int, Ratio] = Field(
        {5: 0.15, 6: 0.14, 7: 0.13, 8: 0.12, 9: 0.11, 10: 0.10},
        description="Characters of n-grams that stand in the document before, by n.",
    )


class C4(Section):
    """C4's rules (arXiv 1910.10683, section 2.2), for text in words: they remove lines, then judge what is left."""

    enabled: bool = Field(True, description="Apply these rules.")
    needs_terminal_punctuation: bool = Field(
        False, description="Remove lines that do not end in punctuation; C4 does, FineWeb found it too strict."
    )
    min_words_per_line: int = Field(3, ge=0, description="Lines with fewer words are removed.")
    max_word_length: Count = Field(1000, description="Lines with a longer word (in characters) are removed.")
    removes_menus_only: bool = Field(
        True, description="Of lines with few words only three or more plain ones in a row are removed; C4: false."
    )
    joins_wrapped_lines: bool = Field(
        True, description="Lines that only a column's end broke are no lines of their own; C4: false."
    )
    javascript_phrases: tuple[Phrase, ...] = Field(
        JAVASCRIPT_PHRASES, description='Lines with these are removed; C4: ["javascript"].'
    )
    policy_phrases: tuple[Phrase, ...] = Field(POLICY_PHRASES, description="Lines with these are removed.")
    removes_citations: bool = Field(True, description="Take out [1], [edit] and [citation needed].")
    filler_phrases: tuple[Phrase, ...] = Field(("lorem ipsum",), description="Documents with these are dropped.")
    drops_curly_brackets: bool = Field(
        False, description="Drop documents with a {; C4 does, and loses all prose about programming."
    )
    min_sentences: int = Field(5, ge=0, description="Sentences of the lines that are left.")


class FineWeb(Section):
    """FineWeb's rules (arXiv 2406.17557, section 3.6), for text in words, after C4's lines are removed."""

    enabled: bool = Field(True, description="Apply these rules.")
    min_line_punctuation_ratio: Ratio = Field(0.12, description="Lines that end in punctuation.")
    max_short_line_ratio: Ratio = Field(0.67, description="Lines of at most short_line_characters.")
    short_line_characters: Count = Field(30, description="What a short line is.")
    max_duplicate_line_character_ratio: Ratio = Field(0.01, description="Characters of repeated lines.")
    passes_over_quotes: bool = Field(
        True, description="A line's end is sought before closing quotes and brackets; FineWeb: false."
    )
    min_lines: int = Field(3, ge=0, description="With fewer lines a document is not asked how they end; FineWeb: 0.")
    joins_wrapped_lines: bool = Field(
        True, description="Lines that only a column's end broke are not asked how they end; FineWeb: false."
    )
    max_newline_word_ratio: Ratio = Field(0.3, description="Line ends to words: lists.")


class Chinese(Section):
    """Counterparts for Chinese and Japanese, by MAP-CC (arXiv 2404.04167) and ChineseWebText (arXiv 2311.01149)."""

    enabled: bool = Field(True, description="Apply these rules.")
    min_han_ratio: Ratio = Field(
        0.3, description="Share of Han and Kana from which these rules judge a document, and those for words do not."
    )
    min_characters: int = Field(50, ge=0, description="Letters, digits and Han; MAP-CC.")
    max_characters: Count = Field(100_000, description="Letters, digits and Han; Gopher's bound on words.")
    min_mean_line_characters: float = Field(10.0, ge=0, description="ChineseWebText.")
    min_line_punctuation_ratio: Ratio = Field(0.12, description="Lines that end in a sign; FineWeb's bound.")
    min_sentences: int = Field(2, ge=0, description="MAP-CC.")
    max_sign_ratio: Ratio = Field(0.5, description="Signs to visible characters; ours.")
    max_digit_ratio: Ratio = Field(0.3, description="Digits to letters, digits and Han; MAP-CC.")
    max_symbol_ratio: Ratio = Field(0.1, description="#, and …, to visible characters; MAP-CC.")
    max_bracket_ratio: Ratio = Field(0.1, description="Characters within 【】; MAP-CC.")
    max_read_more_line_ratio: Ratio = Field(0.3, description="Lines that end in such a phrase or an ellipsis; MAP-CC.")
    read_more_phrases: tuple[Phrase, ...] = Field(
        (
            "展开",
            "展開",
            "更多",
            "阅读全文",
            "閱讀全文",
            "查看详情",
            "查看詳情",
            "続きを読む",
            "もっと見る",
            "read more",
            "readmore",
        ),
        description="What such a line ends in.",
    )
    max_bullet_line_ratio: Ratio = Field(0.9, description="Lines that begin with a bullet; MAP-CC.")
    min_entropy: float = Field(3.0, ge=0, description="Of the characters, in nats; MAP-CC.")
    max_duplicate_line_ratio: Ratio = Field(0.3, description="Lines and paragraphs that stand before; Gopher.")
    max_duplicate_line_character_ratio: Ratio = Field(0.2, description="Their characters; Gopher.")
    max_top_ngram_ratios: dict[int, Ratio] = Field(
        {2: 0.20, 3: 0.18, 4: 0.16}, description="The most frequent n characters, by n; MAP-CC."
    )
    max_duplicate_ngram_ratios: dict[int, Ratio] = Field(
        {5: 0.6, 6: 0.6, 7: 0.6, 8: 0.6, 9: 0.6, 10: 0.6}, description="Repeated n characters, by n; MAP-CC."
    )
    min_mean_word_length: float = Field(0.0, ge=0, description="By rjieba; MAP-CC has 1.3; 0 switches it off.")
    max_mean_word_length: float = Field(10.0, gt=0, description="MAP-CC.")
    removes_boilerplate_lines: bool = Field(True, description="Remove lines of navigation, rights, registration.")
    max_boilerplate_line_characters: Count = Field(60, description="Longer lines stay, and those that end in a sign.")
    max_boilerplate_line_ratio: Ratio = Field(0.5, description="Documents with more such lines are dropped.")
    boilerplate_phrases: tuple[Phrase, ...] = Field(BOILERPLATE_PHRASES, description="What marks such a line.")
    navigation_words: tuple[str, ...] = Field(NAVIGATION_WORDS, description="Lines that are nothing else.")


class Code(Section):
    """Rules for source code, by The Stack (arXiv 2211.15533), StarCoder (2305.06161) and StarCoder2 (2402.19173)."""

    enabled: bool = Field(True, description="Apply these rules.")
    min_characters: int = Field(50, ge=0, description="Visible ones; ours.")
    max_line_characters: Count = Field(1000, description="The longest line; StarCoder.")
    max_mean_line_characters: float = Field(100.0, gt=0, description="StarCoder.")
    min_alphanumeric_ratio: Ratio = Field(0.25, description="Letters and digits to all characters; StarCoder.")
    max_digit_ratio: Ratio = Field(0.5, description="Digits to letters and digits; ours.")
    generated_lines: int = Field(5, ge=0, description="Lines at the top where a generator may name itself; StarCoder2.")
    max_encoded_characters: Count = Field(1024, description="One stretch of base64 or hexadecimal; StarCoder2.")
    max_encoded_ratio: Ratio = Field(0.5, description="Such stretches to all characters; StarCoder2.")
    drops_xml: bool = Field(True, description="Drop files with an XML header; StarCoder.")
    min_html_text_ratio: Ratio = Field(0.2, description="Visible text of HTML; StarCoder.")
    min_html_text_characters: int = Field(100, ge=0, description="Visible text of HTML; StarCoder.")
    min_json_characters: int = Field(50, ge=0, description="StarCoder.")
    max_json_characters: Count = Field(5000, description="StarCoder.")
    min_json_letter_ratio: Ratio = Field(0.5, description="Letters to visible characters; StarCoder.")


class Keywords(Section):
    """Lists of terms, and how many of them a document may hold."""

    lists: tuple[str, ...] = Field(
        ("bundled",), description="JSON of terms by language, or .txt of a term a line, of the language in its name."
    )
    languages: dict[str, str] = Field({}, description="Language of a .txt list, by path or name; * is every language.")
    applies_to_all: bool = Field(False, description="Every list applies to every document, whatever its language.")
    min_hits: Count = Field(1, description="Fewer hits let a document pass.")
    max_character_ratio: Ratio = Field(0.0, description="Up to this share of characters in hits it may pass.")


class Decontaminate(Section):
    """Documents that hold a passage of an evaluation set (Brown et al., 2020, appendix C)."""

    evaluation: tuple[str, ...] = Field(
        (), description="Files: JSON lines or text, plain or .gz; empty looks for none."
    )
    fields: dict[str, tuple[str, ...]] = Field(
        {}, description="Keys of a file's records that count, by path or name, such as [question, answer]; else all."
    )
    words: Count = Field(13, description="Words of an n-gram; GPT-3.")
    characters: Count = Field(20, description="The same in scripts without spaces.")
    min_words: Count = Field(8, description="Shorter passages are not looked for; GPT-3.")
    min_letter_ratio: Ratio = Field(0.5, description="Words of an n-gram that begin with a letter; else it is a table.")
    action: Literal["drop", "cut"] = Field("drop", description="Drop the document, or cut the passage out of it.")
    margin_chars: int = Field(200, ge=0, description="What is cut before and behind a passage; GPT-3.")
    min_piece_chars: Count = Field(200, description="Shorter pieces that a cut leaves are cut as well; GPT-3.")
    max_pieces: Count = Field(10, description="A document that falls into more is dropped; GPT-3.")
    max_documents: Count | None = Field(
        None, description="N-grams in more documents than so many are common speech and pass; GPT-3 took 10."
    )


class Filter(Section):
    """Rules with the published thresholds (Gopher, C4, FineWeb), keywords, evaluation sets, classifiers, PII."""

    languages: tuple[str, ...] = Field((), description="Keep these languages only; empty keeps all.")
    passes_over_code: bool = Field(
        True, description="Prose is judged without its code, tables and tags, which stay in it; datatrove: false."
    )
    gopher_quality: GopherQuality = GopherQuality()
    gopher_repetition: GopherRepetition = GopherRepetition()
    c4: C4 = C4()
    fineweb: FineWeb = FineWeb()
    chinese: Chinese = Chinese()
    code: Code = Code()
    min_quality_score: Ratio = Field(0.1, description="Lower scores are dropped as low_quality, not in code.")
    max_toxicity_score: Ratio = Field(0.9, description="Higher scores are dropped as toxic, not in code.")
    mask_pii: tuple[PiiKind, ...] = Field(
        typing.get_args(PiiKind), description="What is masked in kept documents; source code: email, ip, api_key only."
    )
    keywords: Keywords = Keywords()
    decontaminate: Decontaminate = Decontaminate()
