"""Decontamination: documents that hold a passage of an evaluation set are found, and dropped or cut.

evaluation.read_items ─▶ ngrams.build_ngrams ─┐
texts ────────────────────────────────────────┴─▶ hits.find_ngrams ─▶ hits.cut_hits | drop, hits.report
"""

from qwen_core.data.decontaminate.evaluation import Item, read_items
from qwen_core.data.decontaminate.hits import Hits, add_reports, count_documents, cut_hits, find_ngrams, report
from qwen_core.data.decontaminate.ngrams import Ngrams, build_ngrams, without_common

__all__ = [
    "Hits",
    "Item",
    "Ngrams",
    "add_reports",
    "build_ngrams",
    "count_documents",
    "cut_hits",
    "find_ngrams",
    "read_items",
    "report",
    "without_common",
]
