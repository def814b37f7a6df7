"""A Hugging Face model of somebody else's as artifacts of a pipeline run, as if `tokenizer` and `pretrain` had made it.

    folder ─▶ whole? fits its tokenizer? ─▶ tokenizer/<fingerprint>, pretrain/<fingerprint> ─▶ runs/<run key>

What comes after (`instruct`, `sft`, `preference`, `dpo`) runs on as behind stages of our own. Fingerprints cover the
hashes of all files. Weights are copied as they are.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pyarrow.fs as pafs

from qwen_core.artifacts import Attempt, Manifest, Outcome, Store, upload
from qwen_core.config import Recipe
from qwen_core.filesystem import open_filesystem
from qwen_core.jobs.folders import ModelFolder, check_tokenizer, file_hashes, open_folder
from qwen_core.jobs.sources import hash_file
from qwen_core.stages import STAGES
from qwen_core.tokenizer import TOKENIZER_FILES, import_tokenizer, load_tokenizer, save_tokenizer, told_template


def import_model(
    folder: str, recipe: Recipe, run_key: str, store: Store, tracking_uri: str | None = None
) -> dict[str, Manifest]:
    """Bring a model folder into the store.

    Args:
        folder: Weights (`config.json`, safetensors) and tokenizer (`tokenizer.json`).
        recipe: Of the pipeline run; `tokenizer.add_chat_tokens` is obeyed.
        run_key: The pipeline run.
        store: Where artifacts lie.
        tracking_uri: MLflow server or database; without it nothing is logged.

    Returns:
        Manifests of `tokenizer` and `pretrain`.

    Raises:
        ArtifactError: The folder is not whole, or of another architecture.
        InputError: The tokenizer is missing, unfit, or has ids without an embedding.
    """
    model = open_folder(Path(folder).expanduser().resolve())
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        given = import_tokenizer(model.place, recipe.tokenizer.add_chat_tokens)
        save_tokenizer(given, place / "tokenizer", *told_template(model.place))
        tokenizer = load_tokenizer(place / "tokenizer")
        check_tokenizer(tokenizer, model.config, str(model.place))
        origin = {"imported_from": str(model.place)}
        files = [model.place / file for file in TOKENIZER_FILES if (model.place / file).is_file()]
        sources = {file.name: hash_file(file) for file in files}

        def lay_tokenizer(attempt: Attempt) -> Outcome:
            upload(name, attempt.data_uri)
            return Outcome(rows=tokenizer.vocab_size, details={"vocab_size": tokenizer.vocab_size, **origin})

        def lay_model(attempt: Attempt) -> Outcome:
            _copy(model, f"{attempt.data_uri}/model")
            upload(str(place / "tokenizer"), f"{attempt.data_uri}/model")
            figures = {"parameters": float(model.num_parameters)}
            return Outcome(metrics=figures, details={"model_type": model.config.model_type, **origin})

        made = _Maker(recipe, run_key, store, tracking_uri)
        first = made.make("tokenizer", {}, sources, lay_tokenizer)
        second = made.make("pretrain", {"tokenizer": first}, file_hashes(model), lay_model)
    return {"tokenizer": first, "pretrain": second}


class _Maker:
    """Makes artifacts of a run's stages without running them."""

    def __init__(self, recipe: Recipe, run_key: str, store: Store, tracking_uri: str | None) -> None:
        self._recipe, self._run_key, self._store, self._tracking_uri = recipe, run_key, store, tracking_uri

    def make(
        self,
        stage: str,
        inputs: Mapping[str, Manifest],
        sources: Mapping[str, str],
        lay: Callable[[Attempt], Outcome],
    ) -> Manifest:
        """Make an artifact unless it exists, and note it for the run."""
        attempt = self._store.begin(STAGES[stage], self._recipe, self._run_key, inputs, sources)
        manifest = self._store.find(stage, attempt.fingerprint)
        if manifest is None:
            started = time.monotonic()
            outcome = lay(attempt)
            manifest = self._store.commit(attempt, outcome, time.monotonic() - started, None)
        self._store.point(self._run_key, manifest)
        self._log(stage, manifest)
        return manifest

    def _log(self, stage: str, manifest: Manifest) -> None:
        """Tell MLflow of it, so that the run's page and the lineage are complete."""
        if self._tracking_uri is None:
            return
        from qwen_core.tracking.runs import OUTPUT, begin_stage_run

        begin = begin_stage_run(self._tracking_uri, self._recipe, self._run_key, stage, manifest.fingerprint)
        with begin as run:
            run.set_tags({"qwen_core.imported_from": manifest.details["imported_from"]})
            run.log_result(manifest.metrics | {"rows": float(manifest.rows), "bytes": float(manifest.bytes)})
            run.log_dataset(manifest, OUTPUT)


def _copy(model: ModelFolder, uri: str) -> None:
    """Copy a model's files into the store, one by one, for they may be large."""
    target, path = open_filesystem(uri)
    target.create_dir(path, recursive=True)
    for file in model.files:
        pafs.copy_files(
            str(file), f"{path}/{file.name}", source_filesystem=pafs.LocalFileSystem(), destination_filesystem=target
        )
