"""Source code without a file ending to tell it: signs and lines of a batch of texts.

text ─▶ signs such as ( ; = are rare? ─▶ not code
     └─▶ a mark of prose (fence, heading, link), or East Asian characters? ─▶ not code
     └─▶ lines ─▶ most start or end as a line of code does? ─▶ code

Precision comes first: a page of prose with code blocks is prose, and a wrong 'code' label takes a document out of the
rules that are meant for it. A text with a fence (three backquotes), a Markdown link or heading is prose by definition.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

_MIN_LINES = 3
_MIN_SIGN_RATIO: Final = 0.05
_MIN_CODE_LINE_RATIO: Final = 0.6
_MAX_CHARS = 6000  # of each text; the beginning of a file is often its licence, so some more than that
_SIGNS = r"[{}()\[\]<>=;_+*/&|!#@$%\\\"':]"
# A line of code: how it starts (keywords, decorators, closing brackets, comments), or what it is (a call, an assignment
# with a plain name at the left), or how it ends.
_CODE_LINE = (
    r"^[ \t]*(?:(?:def|class|import|from|return|if|elif|else|for|while|try|except|finally|with|raise|assert|yield|"
    r"async|await|let|const|var|function|fn|pub|use|mod|impl|struct|enum|trait|match|package|public|private|protected|"
    r"static|final|void|int|char|bool|double|float|long|unsigned|auto|namespace|template|typedef|export|interface|type|"
    r"extends|extern|switch|case|break|continue|goto|go|func|defer|echo|fi|done|esac|then|do|end|local|set|require|"
    r"include|using|new|throw|catch|print|println!)\b[^.?!。]*(?:[;:{}(\[,)=\]\"'`>\\]|\w)[ \t]*$"
    r"|[@#][\w! \[].*$|\[[\w.:-]+\]$|[})\]][^a-z]*$|(?://|/\*|\*/|\*[ /]|--[ -]|\"\"\"|<!--|</?\w).*$"
    r"|[\w.\[\]\"'$*&:<> ]+[ \t]*(?:[-+*/|&:]?=|=>|->|:=)[ \t]*\S.*$"
    r"|[\w.:$!]+\(.*[);,{(\[\\]?[ \t]*$|.*[;{}(\[,]\s*$|.*\w\(.*\)[ \t]*:?[ \t]*$|[\"'][^\"']*[\"'],?[ \t]*$)"
)
# Fences, headings of the second level, directives of reStructuredText and AsciiDoc, links of Markdown.
_PROSE_MARK = r"(?m)^(?:[ \t]*```|#{2,6} \S|\.\. \w+::|\[source)|\]\((?:https?:|[/#]|[\w./-]+\.\w+\))"
_CJK = r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Hangul}]"
_MAX_CJK_RATIO = 0.1  # of characters; comments in code are fewer


def code_scores(text: pa.Array) -> npt.NDArray[np.float32]:
    """Recognise source code.

    Args:
        text: Strings, no nulls.

    Returns:
        Share of lines that read as code, 0 for a text that is not source code.
    """
    head = pc.utf8_slice_codeunits(text, 0, _MAX_CHARS)
    signs = pc.count_substring_regex(head, pattern=_SIGNS).to_numpy()
    rows = np.flatnonzero(signs > _MIN_SIGN_RATIO * pc.utf8_length(head).to_numpy())
    found = np.zeros(len(text), np.float32)
    if len(rows):
        few = head.take(pa.array(rows))
        lines, code_lines = _count_lines(few)
        cjk = pc.count_substring_regex(few, pattern=_CJK).to_numpy()
        is_prose = pc.match_substring_regex(few, pattern=_PROSE_MARK).to_numpy(zero_copy_only=False)
        is_prose |= cjk > _MAX_CJK_RATIO * pc.utf8_length(few).to_numpy()
        is_code = (lines >= _MIN_LINES) & (code_lines > _MIN_CODE_LINE_RATIO * lines) & ~is_prose
        found[rows] = np.where(is_code, code_lines / np.maximum(1, lines), 0)
    return found


def _count_lines(text: pa.Array) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Count the lines of each text that are not blank, and those that read as code."""
    lists = pc.split_pattern(text, "\n")
    lines = pc.utf8_rtrim_whitespace(lists.flatten())
    owners = pc.list_parent_indices(lists).to_numpy()
    is_text = pc.not_equal(lines, "").to_numpy(zero_copy_only=False)
    is_code_line = is_text & pc.match_substring_regex(lines, pattern=_CODE_LINE).to_numpy(zero_copy_only=False)
    size = len(text)
    return np.bincount(owners, is_text, size).astype(np.int64), np.bincount(owners, is_code_line, size).astype(np.int64)
