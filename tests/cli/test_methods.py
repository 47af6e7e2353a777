from __future__ import annotations

import json
import subprocess
from collections.abc import Callable

from tightrope.export.schedules import SCHEDULES
from tightrope.export.selectors import SELECTORS
from tightrope.plugins.slot_attention.policies import POLICIES
from tightrope.runtime.baselines import BASELINES

Command = Callable[..., "subprocess.CompletedProcess[str]"]


def test_json_lists_every_method_and_policy_with_its_source(command: Command) -> None:
    result = command("methods", "--json")
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    assert [row["name"] for row in found["selectors"]] == [*SELECTORS, *BASELINES, *SCHEDULES]
    assert [row["name"] for row in found["policies"]] == list(POLICIES)
    assert all(row["paper"] for row in (*found["selectors"], *found["policies"]))


def test_people_read_every_name(command: Command) -> None:
    result = command("methods")
    names = (*SELECTORS, *BASELINES, *SCHEDULES, *POLICIES)
    assert all(name in result.stdout for name in names)
