"""What there is to read for a retraining, and what was read already but trained on by none."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from qwen_core.artifacts import Manifest
from qwen_core.config import Recipe
from qwen_core.errors import InputError, NothingToDoError
from qwen_core.jobs.base import check_settings
from qwen_core.jobs.dated import with_date
from qwen_core.jobs.sources import Source, document_sources
from qwen_core.parts import parts_of

_UNREAD = ("unreadable_path", "unknown_format")


@dataclass(frozen=True)
class Asked:
    """What a retraining is asked for.

    Attributes:
        recipe_name: Bundled name or path, as jobs are given it.
        overrides: Of the recipe, as given.
        recipe: Loaded, overrides applied.
        run_key: For the run that it plans.
        date: That `{date}` stands for, if any.
    """

    recipe_name: str
    overrides: tuple[str, ...]
    recipe: Recipe
    run_key: str
    date: str | None = None


@dataclass(frozen=True)
class News:
    """What there is to read.

    Attributes:
        inputs: Names of `ingest.inputs`, without days that have no file.
        files: New ones.
        bytes: Of them.
        known: Files that the corpus has already.
        untrained: Files of the corpus that no retraining has had.
        content: Hash of the new files and the corpus that they are added to.
    """

    inputs: tuple[str, ...]
    files: int
    bytes: int
    known: int
    untrained: int
    content: str


def what_is_new(asked: Asked, base: Manifest | None, trained: Manifest | None) -> News:
    """Compare the sources with what the corpus so far was made of, by the hashes of their content.

    Args:
        asked: Recipe and date.
        base: Manifest of the `ingest` of the corpus that new files are added to.
        trained: The same of the corpus that was trained on last; often the same one.

    Returns:
        What is new.

    Raises:
        InputError: Inputs are missing that bear no date, or the recipe reads them with other settings than the corpus.
    """
    recipe = with_date(asked.recipe, asked.date)
    if base is not None:
        check_settings(recipe.ingest.model_dump(mode="json"), base.config["ingest"])
    inputs, sources = _sources(asked.recipe, recipe)
    known = _contents(base)
    fresh = [source for source in sources if (source.content_hash or source.path) not in known]
    files = {source.path for source in fresh}
    digest = hashlib.sha256((base.fingerprint if base else "").encode())
    for source in fresh:
        digest.update(f"\0{source.path}\0{source.content_hash}".encode(errors="surrogateescape"))
    everything = {source.path for source in sources}
    size = sum(source.size for source in fresh)
    untrained = len(known - _contents(trained)) if trained != base else 0
    return News(inputs, len(files), size, len(everything - files), untrained, digest.hexdigest()[:16])


def _contents(ingest: Manifest | None) -> set[str]:
    """Tell which files a corpus was made of, by the hashes of their content."""
    return {digest or path for part in parts_of(ingest) for path, digest in part.told["files"]} if ingest else set()


def _sources(asked: Recipe, recipe: Recipe) -> tuple[tuple[str, ...], list[Source]]:
    """List the sources; a day that has no file is no fault, a folder that has gone is one."""
    inputs, sources, faults = [], list[Source](), []
    for name, dated in zip(asked.ingest.inputs, recipe.ingest.inputs, strict=True):
        ingest = recipe.ingest.model_copy(update={"inputs": (dated,)})
        try:
            sources += document_sources(recipe.model_copy(update={"ingest": ingest}))
            inputs.append(dated)
        except InputError as fault:
            if name == dated:
                raise
            faults.append(str(fault))
    if faults and not inputs:
        raise NothingToDoError(f"nothing came that day: {'; '.join(faults)}")
    if not asked.ingest.inputs:
        document_sources(recipe)  # says what is missing
    return tuple(inputs), [source for source in sources if source.kind not in _UNREAD]
