"""Packing a corpus: the mix, the held-out set, the report; the same whatever the workers and the files."""

import hashlib

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import ray

from qwen_core.config import Recipe
from qwen_core.data.heldout import SCHEMA, HeldOut, Likeness, sizes_of
from qwen_core.data.packed import PackedSequences
from qwen_core.errors import InputError
from qwen_core.jobs import pack as job
from qwen_core.jobs.heldout import fit_with, pack_heldout
from qwen_core.jobs.mixing import report
from qwen_core.model import IGNORE
from qwen_core.tokenizer import load_tokenizer, save_tokenizer, train_tokenizer
from qwen_core.train.pretrain import packed_batch
from tests.jobs.corpus_files import context, documents, write_files

SKETCHED = {"shingle_words": 5, "num_buckets": 20, "hashes_per_bucket": 8, "seed": 1}


@pytest.fixture(scope="module")
def tokenizer_folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("tokenizer")
    save_tokenizer(train_tokenizer(iter([documents()["text"].to_pylist()]), 330, 2), place)
    return place


def packed_file(path, folder, target, **changes):
    section = {"method": "concatenate", "max_seq_len": 32, "validation_ratio": 0.1, "max_validation_sequences": 4}
    options = {
        "section": section | {name: value for name, value in changes.items() if name in section},
        "weights": changes.get("weights", {}),
        "languages": changes.get("languages", {}),
        "sources": {},
        "seed": 7,
        "folder": str(folder),
        "threads": 1,
        "likeness": changes.get("likeness"),
    }
    told, cells, heldout = job._pack_file(path, str(target), options, changes.get("weight", 1.0))
    return told, cells, heldout, PackedSequences([str(target)])


@pytest.mark.parametrize("method", ["concatenate", "best_fit"])
def test_a_file_is_packed_with_what_the_mix_takes_and_counts_add_up(tmp_path, tokenizer_folder, method):
    (path,) = write_files(documents(), tmp_path, 1)
    weights = {"code": 0.0, "zh": 2.0}
    told, cells, _, sequences = packed_file(
        path, tokenizer_folder, tmp_path / "a.arrow", method=method, languages=weights
    )
    assert told["sequences"] == len(sequences)
    assert told["tokens"] == sum(figures["tokens"] for figures in cells.values())
    for (language, _), figures in cells.items():
        assert figures["taken_documents"] == weights.get(language, 1) * figures["documents"]
        assert figures["taken_bytes"] == weights.get(language, 1) * figures["bytes"]
    assert sum(figures["documents"] for figures in cells.values()) < 240  # some were held out
    batch = sequences.batch(np.arange(len(sequences)))
    assert batch.num_tokens.sum() == told["tokens"]
    tokenizer = load_tokenizer(tokenizer_folder)
    separators = (batch.input_ids == tokenizer.endoftext_id) & (np.arange(32) < batch.num_tokens[:, None])
    assert separators.sum() == told["documents"]
    assert 0 < told["cut_documents"] < told["documents"]


def test_padding_and_the_first_token_of_each_document_are_not_predicted(tmp_path, tokenizer_folder):
    (path,) = write_files(documents(), tmp_path, 1)
    _, _, _, sequences = packed_file(path, tokenizer_folder, tmp_path / "a.arrow", method="best_fit")
    batch = sequences.batch(np.arange(len(sequences)))
    made = packed_batch(batch)
    is_predicted = made.labels.numpy() != IGNORE
    is_padding = np.arange(32) >= batch.num_tokens[:, None]
    assert is_padding.any() and not (is_predicted & is_padding).any()
    firsts = np.diff(made.segment_ids.numpy(), axis=1, prepend=-1) != 0
    assert np.array_equal(is_predicted, ~is_padding & ~firsts)


def test_held_out_documents_are_not_trained_on(tmp_path, tokenizer_folder):
    table = documents().append_column("n", pa.array(range(240)))
    (path,) = write_files(table, tmp_path, 1)
    few = packed_file(path, tokenizer_folder, tmp_path / "a.arrow", validation_ratio=0.1)
    most = packed_file(path, tokenizer_folder, tmp_path / "b.arrow", validation_ratio=0.9)
    assert few[0]["documents"] > 200 and most[0]["documents"] < 40
    assert sum(few[2].bytes.values()) + sum(figures["bytes"] for figures in few[1].values()) == sum(
        len(text.encode()) for text in table["text"].to_pylist()
    )


def test_what_an_earlier_run_held_out_and_its_like_is_not_trained_on(tmp_path, tokenizer_folder):
    table = documents()
    (path,) = write_files(table, tmp_path, 1)
    plain = packed_file(path, tokenizer_folder, tmp_path / "a.arrow", validation_ratio=0.0)
    rows = [{**row, "chars": 5} for row in table.slice(0, 20).to_pylist()]
    rows[0]["id"] = "another document of the same text"
    likeness = Likeness(pa.Table.from_pylist(rows, schema=SCHEMA), SKETCHED)
    told, _, gathered, _ = packed_file(
        path, tokenizer_folder, tmp_path / "b.arrow", validation_ratio=0.0, likeness=likeness
    )
    assert told["like_heldout"] >= 20 and told["documents"] == plain[0]["documents"] - told["like_heldout"]
    assert not gathered.groups  # the set is there already


def test_new_documents_may_weigh_more(tmp_path, tokenizer_folder):
    (path,) = write_files(documents(), tmp_path, 1)
    once, twice = (
        packed_file(path, tokenizer_folder, tmp_path / f"{weight}.arrow", weight=weight)[0]["documents"]
        for weight in (1.0, 2.0)
    )
    assert twice == 2 * once


def test_another_tokenizer_packs_the_same_held_out_texts(tokenizer_folder):
    tokenizer = load_tokenizer(tokenizer_folder)
    rows = [{**row, "chars": len(row["text"]) // 2 + 1} for row in documents(9).sort_by("language").to_pylist()]
    heldout = pa.Table.from_pylist(rows, schema=SCHEMA)
    packed = pack_heldout(heldout, tokenizer, 16)
    size = sum(row["bytes"] for row in sizes_of(heldout))
    assert 0.8 * size < pc.sum(packed["num_bytes"]).as_py() < size  # but for the first token of each row
    text = "river sea sand slow water flows down old town " * 5
    tokens, _ = tokenizer.encode_documents([text])
    for room in (1, 7, 30):
        cut = fit_with(tokenizer)(text, tokens, room)
        assert text.startswith(cut) and 0 < len(tokenizer.encode_documents([cut])[0]) <= room
    assert fit_with(tokenizer)("大海" * 9, tokenizer.encode_documents(["大海" * 9])[0], 3) in "大海" * 9


def test_an_empty_file_gives_no_sequences(tmp_path, tokenizer_folder):
    (path,) = write_files(documents().slice(0, 0), tmp_path, 1)
    told, cells, _, _ = packed_file(path, tokenizer_folder, tmp_path / "a.arrow")
    assert told["sequences"] == told["documents"] == 0 and not cells


def test_the_held_out_set_keeps_the_lowest_draws_whatever_the_order_in_which_they_come():
    random = np.random.default_rng(5)
    draw = random.permutation(100).astype(np.uint64)
    lengths = random.integers(1, 9, size=100)
    tokens = np.arange(lengths.sum(), dtype=np.uint32)
    bounds = lengths.cumsum() - lengths

    def gathered(parts):
        whole = HeldOut(limit_tokens=40)
        for part in parts:
            one = HeldOut(limit_tokens=40)
            mine = [tokens[bounds[n] : bounds[n] + lengths[n]] for n in part]
            names = [str(n) for n in part]
            one.add(("en", "web"), draw[part], np.concatenate(mine), lengths[part], names, names)
            whole.merge(one)
        return [(member.draw, member.tokens.tolist(), member.id) for member in whole.groups["en", "web"]]

    first = gathered([np.arange(100)])
    assert [number for number, _, _ in first] == list(range(len(first)))  # the lowest, in order
    assert 40 <= sum(len(ids) for _, ids, _ in first) < 40 + 9
    assert first == gathered(np.array_split(random.permutation(100), 7))


def test_the_report_tells_tokens_shares_and_epochs_by_language_and_source():
    def cell(size, taken, tokens):
        return {"documents": 1, "bytes": size, "taken_documents": 1, "taken_bytes": taken, "tokens": tokens}

    rows, metrics = report(
        {("en", "web"): cell(100, 50, 10), ("en", "code"): cell(100, 100, 20), ("code", "web"): cell(10, 40, 10)}
    )
    assert [row["tokens"] for row in rows] == [20, 10, 10] and rows[1]["epochs"] == 4.0
    assert metrics["mix_tokens/en"] == 30 and metrics["mix_share/en"] == 0.75 and metrics["mix_epochs/en"] == 0.75
    assert (
        metrics["mix_tokens/code"] == 10 and metrics["mix_tokens/source.code"] == 20 and metrics["mix_tokens/web"] == 20
    )


def run_job(tmp_path, monkeypatch, tokenizer_folder, paths, **sections):
    """Run the whole job; return the outcome and a hash of each file."""
    monkeypatch.setattr(job, "document_files", lambda manifest: paths)
    own = {"max_seq_len": 32, "validation_ratio": 0.1, "max_validation_sequences": 6, "method": "best_fit"}
    recipe = Recipe(seed=7, pack=own, **sections)
    outcome = job.run(context("pack", tmp_path, recipe, paths, tokenizer_folder))
    files = sorted((tmp_path / "pack").rglob("*.arrow"))
    return outcome, {str(file.relative_to(tmp_path)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


@pytest.fixture
def start_ray():
    """Start a Ray of so many workers, instead of one that runs."""

    def start(num_cpus):
        ray.shutdown()
        quiet = {"include_dashboard": False, "logging_level": "ERROR", "log_to_driver": False}
        ray.init(address="local", num_cpus=num_cpus, **quiet)

    yield start
    ray.shutdown()


@pytest.mark.slow
@pytest.mark.ray
def test_the_result_does_not_depend_on_the_number_of_workers(tmp_path, monkeypatch, tokenizer_folder, start_ray):
    paths = write_files(documents(), tmp_path / "documents", 3)
    results = []
    for num_cpus in (1, 4):
        start_ray(num_cpus)
        results.append(run_job(tmp_path / str(num_cpus), monkeypatch, tokenizer_folder, paths))
    assert results[0] == results[1] and len(results[0][1]) == 4


@pytest.mark.slow
@pytest.mark.ray
def test_a_budget_is_met_and_what_is_taken_does_not_depend_on_the_files(
    tmp_path, monkeypatch, tokenizer_folder, start_ray
):
    start_ray(2)
    table, results = documents(4000), []
    mix = {"total_tokens": 80_000, "shares": {"zh": 0.5, "code": 0.1}, "max_epochs": 3}
    for count in (1, 4):
        paths = write_files(table, tmp_path / f"documents-{count}", count)
        results.append(run_job(tmp_path / str(count), monkeypatch, tokenizer_folder, paths, mix=mix))
    (one, hashes), (four, others) = results
    assert one.details["mix"] == four.details["mix"]
    assert hashes["pack/validation/part-00000.arrow"] == others["pack/validation/part-00000.arrow"]
    assert one.metrics["mix_share/zh"] == pytest.approx(0.5, abs=0.03)
    assert one.metrics["mix_share/code"] == pytest.approx(0.1, abs=0.02)
    assert one.tokens == pytest.approx(80_000, rel=0.05)
    assert not one.details["mix_warnings"]
    assert 0 < one.metrics["padding_ratio"] < 0.2 and 0 < one.metrics["cut_document_ratio"] < 1
    with pytest.raises(InputError, match="did you mean 'zh'"):
        run_job(tmp_path / "wrong", monkeypatch, tokenizer_folder, paths, mix={"shares": {"zhh": 0.5}})
