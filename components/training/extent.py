"""How many epochs a training gets when nobody says: the fewer rows, the more often each is seen."""

from __future__ import annotations

import math

from components.errors import UsageError

# Chosen on digits (1,224 rows), Fashion-MNIST (50,973) and adult (27,677): the accuracy had levelled off.
FULL_ROWS_TIMES_EPOCHS, FULL_LEAST, FULL_MOST = 60_000, 20, 200
TRIAL_SHARE = 5
# 5 folds, the usual number, where a validation split of 15 % would hold fewer than 150 rows: there one row more or less
# right is most of the difference between two candidates, and five trainings are still short.
FOLDS, FOLDS_BELOW = 5, 1_000


def full_epochs(setting: int | str | None, rows: int) -> int:
    """Epochs of a full-length training: `setting`, or for `auto` what `rows` call for."""
    if setting not in (None, "auto"):
        return _positive("training.epochs", setting)
    return min(FULL_MOST, max(FULL_LEAST, math.ceil(FULL_ROWS_TIMES_EPOCHS / rows)))


def trial_epochs(setting: int | str | None, rows: int) -> int:
    """Epochs of a search's trial: `setting`, or for `auto` a fifth of a full training."""
    if setting not in (None, "auto"):
        return _positive("search.epochs", setting)
    return max(1, full_epochs(None, rows) // TRIAL_SHARE)


def num_folds(setting: int | str | None, rows: int) -> int | None:
    """Folds that a trial is judged on: `setting`, or for `auto` 5 for fewer than 1,000 rows (training and validation
    together), else none: None, the validation split judges."""
    if setting is None:
        return None
    if setting == "auto":
        return FOLDS if rows < FOLDS_BELOW else None
    if isinstance(setting, bool) or not isinstance(setting, int) or not 2 <= setting <= rows:
        raise UsageError(f"search.folds is null, auto or a number of folds from 2 to {rows}, the rows there are; got {setting!r}")
    return setting


def _positive(name: str, setting: int | str | None) -> int:
    try:
        value = int(setting)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise UsageError(f"{name} is a number of epochs or auto, got {setting!r}") from None
    if value < 1:
        raise UsageError(f"{name} must be at least 1, got {value}")
    return value
