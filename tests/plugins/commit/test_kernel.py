"""The commit kernel in Triton's interpreter, and its reference beside what the host's slots do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tightrope.interface.calls import Update
from tightrope.interface.tensors import Dims
from tightrope.plugins.commit.reference import commit
from tightrope.runtime.storage import NumpyStorage

HERE = Path(__file__).parent


def test_the_kernel_leaves_in_the_slots_what_the_reference_does() -> None:
    pytest.importorskip("triton", reason="needs the extra [kernels]")
    pytest.importorskip("torch", reason="Triton's interpreter takes torch's tensors")
    command = [sys.executable, str(HERE / "interpreted.py")]
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout) == [True] * 5


def test_the_reference_does_what_a_host_does() -> None:
    dims = Dims(
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=3,
        hidden_size=6,
        vocab_size=9,
    )
    rng, capacity = np.random.default_rng(0), np.array([5, 7])
    storage = NumpyStorage(dims, 2, capacity)
    key, value = rng.normal(size=(2, 2, 2, 2, 4, 3)).astype(np.float32)
    target = np.stack([rng.permuted(np.tile(np.arange(-1, 4), (2, 2, 1)), axis=2)] * 2)[..., :4]
    views = storage.views(0)
    wanted = [each.copy() for each in (*views.keys, *views.values)]
    for layer in range(2):
        commit(wanted[layer], key[layer], target[layer])
        commit(wanted[2 + layer], value[layer], target[layer])
    target = target.astype(np.int32)
    storage.write(Update(key, value, target, views.score, views.position), 0)
    for ours, theirs in zip(wanted, (*views.keys, *views.values), strict=True):
        np.testing.assert_array_equal(ours, theirs)
