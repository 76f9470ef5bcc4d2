"""A reader that takes the folder's place for part of the content: the same bytes elsewhere would be another version."""

from __future__ import annotations

from components.data.dataset.idx import Idx


class Broken(Idx):
    """idx files whose path is an option like any other."""

    places = ()
