"""A mix: all kinds, in their shares, a few questions a scene."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from tightrope.profiles.scenes.kinds import KINDS, make_one
from tightrope.profiles.scenes.lines import Order
from tightrope.profiles.scenes.make_config import MakeConfig
from tightrope.profiles.scenes.making import make_task
from tightrope.profiles.scenes.mix import MOST_FRAMES, QUESTIONS_A_SCENE, SHARES, check_shares


def drawn(number: int, shares: dict[str, int] = SHARES) -> list[tuple[dict[str, Any], ...]]:
    orders = (
        Order(split="test", seed=5, index=index, pixels=336, shares=shares)
        for index in range(number)
    )
    return [make_one("mix", order).lines for order in orders]


def test_the_usual_shares_name_every_kind_that_is_learnt_and_add_up() -> None:
    kinds = [name for name in KINDS if name != "mix"]
    assert sorted(SHARES) == sorted(
        set(kinds) - {"board"}
    )  # the reference model cannot count there
    check_shares(SHARES, kinds)


def test_kinds_come_in_their_shares_with_a_few_questions_each() -> None:
    scenes = drawn(600)
    kinds = Counter(lines[0]["info"]["kind"] for lines in scenes if lines)
    for kind, share in SHARES.items():
        # A clip whose middle frame shows everything has no question in a mix.
        assert abs(kinds[kind] / 6 - share) < 5 or kind == "clips"
    for lines in scenes:
        assert len(lines) <= QUESTIONS_A_SCENE
        assert all(line["images"] for line in lines)
        assert len({line["info"]["kind"] for line in lines}) <= 1
        for line in lines:
            if line["info"]["kind"] == "clips":
                assert line["type"] == "glimpse" and len(line["images"]) == MOST_FRAMES
    assert {kind for kind in kinds} == set(SHARES)


def test_other_shares_draw_other_kinds() -> None:
    kinds = {line["info"]["kind"] for lines in drawn(40, {"fine": 100}) for line in lines}
    assert kinds == {"fine"}


def test_the_card_tells_the_shares_and_the_command_makes_the_same(tmp_path: Path) -> None:
    shares = {"crowded": 40, "background": 60}
    summary = make_task(MakeConfig(kind="mix", images=8, shares=shares), tmp_path / "task")
    card = (tmp_path / "task" / "README.md").read_text()
    assert "crowded 40 %, background 60 %" in card
    assert "--share crowded=40 --share background=60" in card
    lines = [json.loads(line) for line in (tmp_path / "task" / "task.jsonl").open()]
    counts = Counter(line["info"]["kind"] for line in lines)
    assert dict(counts) == summary.by_kind and set(counts) == set(shares)
    for kind, number in counts.items():
        assert f"| {kind} | {number} |" in card
