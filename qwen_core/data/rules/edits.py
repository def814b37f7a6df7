"""Lines that are taken out of documents, and the texts without them."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

import numpy as np

from qwen_core.data.index import Index, Ints
from qwen_core.data.rules.batch import Batch, Bools
from qwen_core.data.rules.prose import Source, is_structure, whole_lines
from qwen_core.data.rules.tokens import ranges

_LEAST_STRUCTURE = 0.05  # of a document's lines
_GAP = re.compile(r"\n\n\n+")  # begins with a literal, which `re` looks for first


@dataclass
class Edits:
    """What is taken out of a batch.

    Attributes:
        kept: Lines that stay, one for each line.
        end: Behind each line's last character, once citations are out.
        cited: Stretches within lines that go, [R, 2].
        reasons: For each reason the lines that went for it.
    """

    kept: Bools
    end: Ints
    cited: Ints = field(default_factory=lambda: np.zeros((0, 2), np.int64))
    reasons: dict[str, Bools] = field(default_factory=dict)

    @classmethod
    def none(cls, batch: Batch) -> Edits:
        """Begin with nothing taken out.

        Args:
            batch: Documents.

        Returns:
            No edits.
        """
        return cls(np.ones(len(batch.lines), bool), batch.lines.end.copy())

    def remove(self, reason: str, lines: Bools) -> None:
        """Take lines out.

        Args:
            reason: Why.
            lines: One for each line; those that went before are not counted again.
        """
        gone = lines & self.kept
        self.reasons[reason] = gone
        self.kept &= ~gone

    def texts(self, batch: Batch, wanted: Bools) -> dict[int, str]:
        """Write the documents anew that changed; what stays keeps its empty lines and its indentation.

        Args:
            batch: Documents.
            wanted: Those that are asked for, [N].

        Returns:
            By number in the batch.
        """
        changed = np.zeros(len(batch), bool)
        changed[batch.lines.owner[~self.kept]] = True
        changed[batch.owners(self.cited[:, 0])] = True
        numbers = np.flatnonzero(changed & wanted)
        if not len(numbers):
            return {}
        index, gone, cited = batch.index, ~self.kept, self.cited
        if batch.source is not None:  # to the lines of the whole documents
            index = batch.source.index
            gone = np.zeros(len(index.lines), bool)
            gone[batch.source.line_numbers[~self.kept]] = True
            line = batch.line_numbers(cited[:, 0])
            moved = index.lines.start[batch.source.line_numbers[line]] - batch.lines.start[line]
            cited = cited + moved[:, None]
        written = without(index, gone, numbers, cited)
        return {number: _GAP.sub("\n\n", text).strip() for number, text in written.items()}


def without(index: Index, lines: Bools, numbers: Ints, stretches: Ints | None = None) -> dict[int, str]:
    """Write texts without some of their lines.

    Args:
        index: Documents.
        lines: What goes, one for each line.
        numbers: Documents that are asked for.
        stretches: What else goes, [R, 2].

    Returns:
        By number.
    """
    stays = np.ones(len(index.codes), bool)
    stays[ranges(whole_lines(index, lines))] = False
    if stretches is not None:
        stays[ranges(stretches)] = False
    written = {}
    for number in numbers.tolist():
        part = slice(index.offsets[number], index.offsets[number + 1] - 1)
        written[number] = index.codes[part][stays[part]].tobytes().decode("utf-32-le", "surrogatepass")
    return written


def prose_batch(batch: Batch) -> Batch:
    """Make a batch of what is prose in another one.

    Args:
        batch: Documents.

    Returns:
        Their prose, or the same batch where all is prose, or nearly all: a ruler now and then changes no share.
    """
    passed = is_structure(batch.index)
    passed &= (batch.line_ratio(passed) >= _LEAST_STRUCTURE)[batch.lines.owner]
    if not passed.any():
        return batch
    texts = list(batch.texts)
    for number, text in without(batch.index, passed, np.unique(batch.lines.owner[passed])).items():
        texts[number] = text
    return Batch(texts, batch.languages.tolist(), source=Source(batch.texts, batch.index, np.flatnonzero(~passed)))
