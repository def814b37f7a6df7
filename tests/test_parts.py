"""Parts: known by their commit alone, and only while their file is there."""

from pathlib import Path

import pytest

from qwen_core.artifacts import Manifest, Store
from qwen_core.errors import ArtifactError
from qwen_core.parts import Part, PartStore, parts_of, write_part_list


@pytest.fixture
def places(tmp_path):
    return PartStore(str(tmp_path / "store"), "filter")


def _written(places, fingerprint, content=b"rows"):
    uri = places.target(fingerprint)
    Path(uri).write_bytes(content)
    told = {"kept": [["a", "zh", 1, 4]], "x": 1}
    return Part(fingerprint=fingerprint, uri=uri, rows=1, bytes=len(content), told=told)


def test_part_is_unknown_until_it_is_committed(places):
    part = _written(places, "f1")
    assert places.find(["f1"]) == {}
    places.commit(part)
    assert places.find(["f1", "f2"]) == {"f1": part}


def test_part_whose_file_was_deleted_or_cut_off_is_not_found(places):
    parts = [_written(places, name) for name in ("f1", "f2")]
    for part in parts:
        places.commit(part)
    Path(parts[0].uri).unlink()
    Path(parts[1].uri).write_bytes(b"ro")
    assert places.find(["f1", "f2"]) == {}


def test_two_attempts_at_a_part_have_two_files(places):
    assert places.target("f1") != places.target("f1")


def test_list_of_parts_keeps_their_order_and_only_what_later_stages_need(places, tmp_path):
    parts = [_written(places, name) for name in ("f2", "f1")]
    folder = f"{places.root}/filter/abc/attempt"
    write_part_list(Store(places.root), folder, parts)
    manifest = Manifest.model_construct(data_uri=folder)
    listed = parts_of(manifest)
    assert [part.fingerprint for part in listed] == ["f2", "f1"]
    assert listed[0].told == {"kept": [["a", "zh", 1, 4]]}
    with pytest.raises(ArtifactError, match=r"no parts\.jsonl"):
        parts_of(Manifest.model_construct(data_uri=str(tmp_path)))
