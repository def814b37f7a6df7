"""Packing both ways, in tokens/s of CPU time, with padding and cut documents, beside a loop; and the tokenizer."""

from __future__ import annotations

import numpy as np

from qwen_core.data.mix import draws
from qwen_core.data.pack import pack
from qwen_core.tokenizer import ChatTokenizer, train_tokenizer
from tests.benchmarks.corpus import megabytes, texts
from tests.benchmarks.measure import timed

_LENGTHS = (512, 2048, 8192)
_COPIES = 4


def main() -> None:
    """Train, encode, pack; print each with its peer, measured in the same run."""
    documents = texts(("pretrain/en_tech", "pretrain/zh_tech", "pretrain/code"))[::6]
    size = megabytes(documents)
    seconds, trained = timed(lambda: train_tokenizer(iter([documents]), 8192, 2))
    print(f"Tokenizer of 8,192 entries on {size:.1f} MB, in CPU time of one core")
    print(f"  {'training':34} {size / seconds:10.2f} MB/s")
    tokenizer = ChatTokenizer(trained)
    encoding, (tokens, lengths) = timed(lambda: tokenizer.encode_documents(documents, tokenizer.endoftext_id))
    bare, _ = timed(lambda: trained.encode_batch_fast(documents, add_special_tokens=False))
    print(f"  {'encoding, to one array':34} {size / encoding:10.2f} MB/s")
    print(f"  {'the library alone':34} {size / bare:10.2f} MB/s")
    _draws()
    tokens, lengths = np.tile(tokens, _COPIES), np.tile(lengths, _COPIES)
    for max_seq_len in _LENGTHS:
        _packing(tokens, lengths, max_seq_len, tokenizer)


def _packing(tokens: np.ndarray, lengths: np.ndarray, max_seq_len: int, tokenizer: ChatTokenizer) -> None:
    print(f"Packing {len(lengths):,} documents, {len(tokens) / 1e6:.1f}M tokens, into sequences of {max_seq_len}")
    sizes, order = tokenizer.token_bytes(), np.random.default_rng(1).permutation(len(lengths))
    rates = {}
    for method in ("concatenate", "best_fit"):
        options = {"separator": tokenizer.endoftext_id, "token_bytes": sizes, "method": method, "order": order}
        seconds, packed = timed(lambda options=options: pack(tokens, lengths, max_seq_len=max_seq_len, **options))
        rates[method] = len(tokens) / seconds / 1e6
        padding = 1 - len(tokens) / (packed.table.num_rows * max_seq_len)
        cut = packed.cut_documents / packed.documents
        print(f"  {method:34} {rates[method]:10.2f} M tokens/s   padding {padding:.2%}, cut {cut:.2%} of documents")
    # One copy for the loops: the search of first fit takes time with the square of the rows.
    documents = [ids.tolist() for ids in np.split(tokens, lengths.cumsum()[:-1])[: len(lengths) // _COPIES]]
    count = len(tokens) // _COPIES
    for name, peer, loop in (
        ("concatenate", "a plain loop that concatenates", _concatenate_loop),
        ("best_fit", "a plain loop, first fit decreasing", _first_fit_loop),
    ):
        seconds, rows = timed(lambda loop=loop: loop(documents, max_seq_len), turns=1)
        rate, padding = count / seconds / 1e6, 1 - count / (rows * max_seq_len)
        told = f"padding {padding:.2%}; {name} is {rates[name] / rate:.1f} times as fast"
        print(f"  {peer:34} {rate:10.2f} M tokens/s   {told}")


def _concatenate_loop(documents: list[list[int]], max_seq_len: int) -> int:
    """As tutorials have it: a list that grows, and a row off its front."""
    rows, flat = [], []
    for ids in documents:
        flat.extend(ids)
        while len(flat) >= max_seq_len:
            rows.append(flat[:max_seq_len])
            flat = flat[max_seq_len:]
    return len(rows) + bool(flat)


def _first_fit_loop(documents: list[list[int]], max_seq_len: int) -> int:
    """Longest first, each piece into the first row that has room."""
    pieces = [ids[i : i + max_seq_len] for ids in documents for i in range(0, len(ids), max_seq_len)]
    rows: list[list[int]] = []
    rooms: list[int] = []
    for piece in sorted(pieces, key=len, reverse=True):
        for number, room in enumerate(rooms):
            if room >= len(piece):
                rows[number].extend(piece)
                rooms[number] -= len(piece)
                break
        else:
            rows.append(list(piece))
            rooms.append(max_seq_len - len(piece))
    return len(rows)


def _draws() -> None:
    """Draws of ids as `ingest` gives them, and of others, which are hashed one by one."""
    ids = [f"{number * 0x9E3779B97F4A7C15 % 2**64:016x}" for number in range(200_000)]
    ours, _ = timed(lambda: draws(ids, 1, "mix"))
    hashed, _ = timed(lambda: draws([f"x{name}" for name in ids], 1, "mix"))
    print(f"Draws of {len(ids):,} documents")
    print(f"  {'ids read as numbers':34} {len(ids) / ours / 1e6:10.2f} M/s   {hashed / ours:.1f} times hashed ids")
