"""`build`: objects by `_target_`, judged by where the resolved object is defined, nested nodes first."""

from __future__ import annotations

import pytest

from components.build import build, resolve
from components.errors import UsageError


def test_a_class_of_ours_is_built_with_its_arguments() -> None:
    """Plain values go through."""
    found = build({"_target_": "components.artifacts.Candidate", "space": "mlp", "architecture": {}, "hyperparameters": {"a": [1, 2]}})
    assert (found.space, found.hyperparameters) == ("mlp", {"a": [1, 2]})


@pytest.mark.parametrize(
    "target",
    [
        "os.system", "subprocess.run", "builtins.eval", "torch.load", "torch.hub.load", "unittest.mock.Mock", "pickle.loads",
        "components.store.os.system", "components.store.shutil.rmtree", "components.store.Path", "components.build.importlib.import_module",
        "optuna.artifacts.FileSystemArtifactStore", "system", "",
    ],
)  # fmt: skip
def test_what_is_not_on_the_list_is_refused_even_through_our_own_modules(target: str) -> None:
    """A module of ours that imports something does not lend its name to it."""
    with pytest.raises(UsageError):
        build({"_target_": target})


def test_a_nested_target_is_judged_before_anything_is_built() -> None:
    """Deep inside lists and dictionaries too."""
    node = {
        "_target_": "components.artifacts.Candidate",
        "space": "s",
        "architecture": {"a": [{"b": {"_target_": "os.getcwd"}}]},
        "hyperparameters": {},
    }
    with pytest.raises(UsageError, match=r"os\.getcwd"):
        build(node)


def test_a_library_class_is_allowed_by_its_full_name_only() -> None:
    """AdamW is listed; its neighbours are not."""
    assert resolve("torch.optim.AdamW").__name__ == "AdamW"
    with pytest.raises(UsageError):
        resolve("torch.optim.LBFGS")


def test_an_unknown_argument_names_the_nearest_one() -> None:
    """One line, with a suggestion."""
    with pytest.raises(UsageError, match="did you mean 'architecture'"):
        build({"_target_": "components.artifacts.Candidate", "architectur": {}})


def test_a_missing_name_names_the_nearest_one() -> None:
    """A typo in a class's name."""
    with pytest.raises(UsageError, match="did you mean 'Candidate'"):
        build({"_target_": "components.artifacts.Candidat"})
