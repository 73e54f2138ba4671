"""A recipe is read whole or refused with the field that is wrong."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from train_samples import RECIPE, recipe

from sayso.models.network import SpeakerNetwork
from sayso.train import recipe as module
from sayso.train.recipe import Recipe, RecipeError

SHIPPED = sorted(Path(module.__file__).with_name("recipes").rglob("*.yaml"))


def read(folder: Path, content: Any) -> Recipe:
    path = folder / "recipe.yaml"
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return Recipe.read(path)


def test_a_recipe_is_read_as_written(tmp_path: Path) -> None:
    assert read(tmp_path, RECIPE) == recipe()


def test_steps_cover_all_crops() -> None:
    assert recipe(crops=64, batch_size=16).steps == 4
    assert recipe(crops=65, batch_size=16).steps == 5
    assert recipe(crops=1, batch_size=16).steps == 1


def test_numbers_are_read_as_people_write_them(tmp_path: Path) -> None:
    """YAML 1.1 takes 2e-3 for text and 1 for an integer."""
    text = yaml.safe_dump({k: v for k, v in RECIPE.items() if k not in ("learning_rate", "crops")})
    made = read(tmp_path, text + "learning_rate: 2e-3\ncrops: 352_000\nspeaker_balance: 1\n")
    assert made.learning_rate == 0.002
    assert made.crops == 352_000
    assert made.speaker_balance == 1.0


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_recipes_describe_networks(path: Path) -> None:
    shipped = Recipe.read(path)
    assert shipped.name == path.stem
    assert SpeakerNetwork(shipped.network()).embedding_dim == shipped.options["embedding_dim"]


def test_there_are_shipped_recipes() -> None:
    assert SHIPPED


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"learning_rat": 0.1, "epochs": 3}, "unknown fields: epochs, learning_rat"),
        ({"crops": "many"}, "crops: "),
        ({"crops": 1.5}, "crops: "),
        ({"learning_rate": "fast"}, "learning_rate: "),
        ({"options": None}, "options: "),
        ({"options": []}, "options: "),
        ({"crops": 0}, "needs crops above 0"),
        ({"batch_size": 0}, "needs batch_size above 0"),
        ({"crop_s": -2.0}, "needs crop_s above 0"),
        ({"crop_s": [2.0, 0.0]}, "needs crop_s above 0"),
        ({"crop_s": []}, "needs crop_s above 0"),
        ({"copies": []}, "needs copies"),
        ({"copies": [{"speed": 0.0}]}, "a speed above 0"),
        ({"copies": [{"tempo": 0.9}]}, "tempo"),
        ({"prototypical_weight": 1.0, "batch_size": 15}, "batch_size must be even"),
        ({"prototypical_weight": 1.0, "mixup": 0.2}, "leaves no pairs"),
        ({"architecture": "x-vector"}, "unknown architecture 'x-vector'"),
        ({"front_end": {"n_mels": 80}}, "same number of mels"),
        ({"front_end": {"n_mels": 24, "window": "kaiser"}}, "unknown window 'kaiser'"),
        ({"front_end": {"n_mels": 24, "sample_rate": 8_000}}, "sample_rate"),
        ({"options": RECIPE["options"] | {"pooling": "MAX"}}, "unknown pooling 'MAX'"),
        ({"options": RECIPE["options"] | {"depth": 34}}, "depth"),
        ({"options": {}}, "n_mels"),
        ({3: 4}, "unknown fields: 3"),
    ],
)
def test_what_is_wrong_is_named(changes: dict[Any, Any], told: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError) as caught:
        read(tmp_path, RECIPE | changes)
    assert told in str(caught.value)
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("field", ["name", "architecture", "options", "front_end", "crops"])
def test_missing_fields_are_named(field: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=f"{field}: Field required"):
        read(tmp_path, {k: v for k, v in RECIPE.items() if k != field})


@pytest.mark.parametrize(
    "content", ["", "- a\n- b\n", "just text", "a: [", "a: !!python/object:os.system {}"]
)
def test_what_is_no_recipe_is_refused(content: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"recipe\.yaml"):
        read(tmp_path, content)


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="cannot read the recipe"):
        Recipe.read(tmp_path / "absent.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RecipeError, match="cannot read the recipe"):
        Recipe.read(tmp_path / "binary.yaml")
