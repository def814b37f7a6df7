"""A small corpus in Parquet files, and a context that a job can run in without store or tracking."""

import itertools
import types

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from qwen_core.config import Recipe
from qwen_core.data import tally

WORDS = {
    "en": ["river", "sea", "sand", "slow", "water", "flows", "down", "old", "town", "over", "wide", "green", "fields"],
    "zh": list("河水流向大海，慢慢沉下细沙，山高月小。"),
    "code": ["def", "return", "if", "x", "y", "(", ")", ":", "=", "1", "2", "for", "in", "range"],
}


def documents(count=240, seed=1):
    """Texts of three languages and two sources, ids as `ingest` gives them."""
    random = np.random.default_rng(seed)
    rows = []
    for _ in range(count):
        language = ["en", "zh", "code"][random.integers(3)]
        words = random.choice(WORDS[language], size=random.integers(1, 60))
        text = ("" if language == "zh" else " ").join(words)
        source = "web" if random.random() < 0.7 else "books"
        rows.append({"id": f"{random.integers(2**63):016x}", "text": text, "language": language, "source": source})
    return pa.Table.from_pylist(rows)


def write_files(table, folder, count):
    """Write a table as several files; return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    bounds = np.linspace(0, table.num_rows, count + 1).astype(int)
    paths = []
    for number, (start, end) in enumerate(itertools.pairwise(bounds)):
        paths.append(str(folder / f"part-{number:05d}.parquet"))
        pq.write_table(table.slice(start, end - start), paths[-1])
    return paths


def context(stage, folder, recipe: Recipe, files, tokenizer_folder=None):
    """What a job reads of its context; the corpus lies in the files."""
    target = folder / stage

    def output(name):
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        return str(target / name)

    counted = tally.merge(tally.tally(pq.read_table(file)) for file in files)
    tokenizer = types.SimpleNamespace(path=lambda name: str(tokenizer_folder))
    return types.SimpleNamespace(
        section=getattr(recipe, stage),
        recipe=recipe,
        inputs={"dedup": types.SimpleNamespace(rows=0, details=counted), "tokenizer": tokenizer},
        attempt=types.SimpleNamespace(data_uri=str(target)),
        output=output,
        progress=lambda *arguments, **figures: None,
    )
