"""Recipes: every fault at once, dotted path, nearest key; overrides; round trip."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from qwen_core.config import bundled_recipes, dump_recipe, load_recipe
from qwen_core.config.explain import to_markdown
from qwen_core.errors import RecipeError


def test_every_bundled_recipe_loads_under_its_own_name():
    assert "demo" in bundled_recipes()
    for name in bundled_recipes():
        assert load_recipe(name).name == name


def test_resolved_recipe_reads_back_equal(tmp_path):
    recipe = load_recipe("demo", ["pretrain.max_steps=7", "ingest.inputs=[a.jsonl, b]"])
    path = tmp_path / "resolved.yaml"
    path.write_text(dump_recipe(recipe), encoding="utf-8")
    assert load_recipe(str(path)) == recipe
    assert recipe.ingest.inputs == ("a.jsonl", "b")


def test_all_faults_are_reported_at_once_with_path_and_nearest_key():
    overrides = ["pretrain.max_step=3", "dedup.num_buckets=many", "filter.gopher_quality.min_words=-1", "models.x=1"]
    with pytest.raises(RecipeError) as caught:
        load_recipe("demo", overrides)
    text = str(caught.value)
    assert "4 faults" in text
    assert "pretrain.max_step: unknown key; did you mean 'max_steps'?" in text
    assert "dedup.num_buckets" in text and "(got 'many')" in text
    assert "filter.gopher_quality.min_words" in text and "(got -1)" in text
    assert "models: unknown key; did you mean 'model'?" in text


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("pretrain.max_steps", "section.key=value"),
        ("=3", "section.key=value"),
        ("seed.deep=3", "'seed' is a value"),
        ("model.num_attention_heads=3", "must be a multiple of num_key_value_heads (2)"),
    ],
)
def test_wrong_override_is_explained(override, words, tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text("seed: 1\n")
    with pytest.raises(RecipeError, match="fault") as caught:
        load_recipe(str(path), [override])
    assert words in str(caught.value)


def test_unknown_recipe_names_the_nearest_and_all_bundled():
    with pytest.raises(RecipeError, match="did you mean 'demo'"):
        load_recipe("dema")


@pytest.mark.parametrize("text", ["- a\n- b\n", "a: [1\n"])
def test_file_that_is_no_mapping_is_refused(text, tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text(text)
    with pytest.raises(RecipeError):
        load_recipe(str(path))


def test_recipe_is_frozen():
    with pytest.raises(ValidationError):
        load_recipe("demo").seed = 3


def test_page_of_all_keys_is_up_to_date():
    page = Path(__file__).parents[2] / "docs" / "recipe.md"
    assert page.read_text(encoding="utf-8") == to_markdown(), "run: qwen-core recipe --explain > docs/recipe.md"
    assert '| `pretrain.optimizer` | `adamw`, `lamb`, `muon` | `"adamw"` |' in to_markdown()
