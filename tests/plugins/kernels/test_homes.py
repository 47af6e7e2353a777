"""Where kernels are looked for: the package first, then what was built for a bundle."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tightrope.errors import BackendError
from tightrope.plugins.kernels.homes import homes_of, load_from, missing
from tightrope.plugins.kernels.launch import COMPILED


def test_a_kernel_of_the_state_folder_is_found_behind_those_of_the_package(tmp_path: Path) -> None:
    bundle, state = tmp_path / "x.bundle", tmp_path / "x.state"
    homes = homes_of(bundle, state)
    assert homes == (COMPILED, bundle / "kernels", state / "kernels")
    assert missing(homes, ["commit", "own", "own", "other"], 87) == ["own", "other"]
    (state / "kernels" / "sm_87").mkdir(parents=True)
    for ending in ("json", "cubin"):
        shutil.copy(COMPILED / f"sm_87/commit.{ending}", state / f"kernels/sm_87/own.{ending}")
    assert missing(homes, ["commit", "own"], 87) == []
    assert load_from(homes, "own", 87) == load_from(homes, "commit", 87)
    with pytest.raises(BackendError, match="kernel own is not compiled for sm_110"):
        load_from(homes, "own", 110)
