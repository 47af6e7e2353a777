"""Checkpoints of a training: whole or not there.

`python -m models.training.checkpoints FROM TO` makes one small enough to be kept with the program:
in float16 and without the optimizer, which starts anew where the training goes on from it.
"""

from __future__ import annotations

import argparse
import os
import pickle
from pathlib import Path
from typing import Any, cast

import torch

from tightrope.errors import TightropeError


class TrainingError(TightropeError):
    """A training cannot start or go on; the text says the way out."""


def save(path: Path, state: dict[str, Any]) -> None:
    """Write to a neighbour first, so that a file under `path` is always a whole one."""
    beside = path.with_name(f".{path.name}.part")
    with open(beside, "wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(beside, path)


def load(path: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """The state in `path`; raises TrainingError if it is broken or was made with other settings."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise TrainingError(f"{path} is missing: run the stage that writes it first") from None
    except (OSError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError) as error:
        raise TrainingError(
            f"{path} cannot be read ({type(error).__name__}); delete it, its stage starts again"
        ) from error
    if not isinstance(state, dict) or not isinstance(state.get("settings"), dict):
        raise TrainingError(f"{path} is no checkpoint of this training; name another folder")
    found = state["settings"]
    if found != settings:
        changed = sorted(
            name for name in {*settings, *found} if found.get(name) != settings.get(name)
        )
        raise TrainingError(
            f"{path} comes from a training with another {', '.join(changed)}; go on with the "
            "settings it was started with, or train into an empty folder"
        )
    return cast(dict[str, Any], state)


def small(state: dict[str, Any]) -> dict[str, Any]:
    """A state in float16, without its optimizer."""
    halves = {
        part: {name: weight.half() for name, weight in state[part].items()}
        for part in ("model", "aids")
    }
    return {**state, **halves, "optimizer": {}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    given = parser.parse_args()
    save(given.target, small(torch.load(given.source, map_location="cpu", weights_only=True)))


if __name__ == "__main__":
    main()
