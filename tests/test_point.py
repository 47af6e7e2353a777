"""What an operating point refuses by itself, before any bundle is known."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tightrope.checks import shown
from tightrope.errors import InputError
from tightrope.point import OperatingPoint, in_words, keep_count

WRONG_KEEPS = (
    -(10**5000), "9" * 5000, "x" * 5000, 0, -1, 1.5, True, math.nan, b"5", [5],
    "0", "-3", "1.5", "nan", "abc", "", "%", "0%", "-5%", "101%", "nan%", "inf%",
)  # fmt: skip


@pytest.mark.parametrize("keep", WRONG_KEEPS, ids=shown)
def test_a_keep_that_is_no_count_and_no_share_is_refused(keep: Any) -> None:
    for refuse in (
        lambda: keep_count(keep, 100),
        lambda: OperatingPoint(selector="visionzip", keep=keep),
        lambda: OperatingPoint(selector="visionzip+fastv", keep=("25%", keep)),
    ):
        with pytest.raises(InputError, match=r"^keep is .*(accepted|lies)") as caught:
            refuse()
        assert len(str(caught.value)) < 200


def test_a_keep_beyond_the_image_names_how_many_tokens_there_are() -> None:
    with pytest.raises(InputError, match="keep is 17; an image has 16 tokens"):
        keep_count(17, 16)
    with pytest.raises(InputError, match=r"keep is .* tokens"):
        keep_count(10**4000, 16)
    with pytest.raises(InputError, match="keep is a int"):
        keep_count(10**5000, 16)


def test_a_count_is_all_of_an_image_that_has_fewer_where_others_may_have_more() -> None:
    assert [keep_count(17, available, most=20) for available in (5, 16, 17, 20)] == [5, 16, 17, 17]
    assert keep_count("25%", 5, most=20) == 2
    with pytest.raises(InputError, match="keep is 21; an image has 20 tokens"):
        keep_count(21, 5, most=20)


@given(st.integers(1, 4096), st.floats(0, 100, exclude_min=True))
def test_a_share_rounds_up_and_never_to_nothing(available: int, share: float) -> None:
    kept = keep_count(f"{share!r}%", available)
    assert 1 <= kept <= available
    assert kept >= math.floor(available * share / 100)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"keep": 4}, "no selector is named"),
        ({"selector": "visionzip"}, "needs keep"),
        ({"selector": 5, "keep": 4}, "selector is 5"),
        ({"selector": ("visionzip",), "keep": 4}, r"selector is \('visionzip',\)"),
        ({"selector": "visionzip", "keep": (4, 5)}, "2 values for the 1 links"),
        ({"selector": "visionzip+fastv", "keep": ()}, "0 values for the 2 links"),
        ({"kv_budget": 0}, "kv_budget is 0"),
        ({"kv_budget": -1}, "kv_budget is -1"),
        ({"kv_budget": True}, "kv_budget is True"),
        ({"kv_budget": 64.0}, "kv_budget is 64.0"),
        ({"kv_budget": math.nan}, "kv_budget is nan"),
        ({"kv_budget": "64"}, "kv_budget is '64'"),
        ({"kv_budget": [64, 64]}, r"kv_budget is \[64, 64\].*tuple"),
        ({"kv_budget": (64, 0)}, "kv_budget is 0"),
        ({"kv_budget": (64, None)}, "kv_budget is None"),
        ({"policy": "h2o"}, "policy is 'h2o' but kv_budget is not set"),
        ({"sinks": 4}, "sinks is 4 but kv_budget is not set"),
        ({"recent": 4}, "recent is 4 but kv_budget is not set"),
        ({"kv_budget": 64, "policy": ["h2o"]}, r"policy is \['h2o'\]"),
        ({"kv_budget": 64, "sinks": -1}, "sinks is -1"),
        ({"kv_budget": 64, "sinks": 1.5}, "sinks is 1.5"),
        ({"kv_budget": 64, "recent": 0}, "recent is 0"),
        ({"kv_budget": 64, "recent": True}, "recent is True"),
        ({"resolution": 0}, "resolution is 0"),
        ({"resolution": "56"}, "resolution is '56'"),
        ({"resolution": 56.0}, "resolution is 56.0"),
    ],
    ids=repr,
)
def test_a_value_that_is_wrong_for_any_bundle_is_refused_by_name(
    values: dict[str, Any], said: str
) -> None:
    with pytest.raises(InputError, match=said):
        OperatingPoint(**values)


@pytest.mark.parametrize(
    ("point", "words"),
    [
        (OperatingPoint(), "everything"),
        (OperatingPoint(resolution=336, thinking_tokens=0), "336 px, no thoughts"),
        (
            OperatingPoint(selector="visionzip+fastv", keep=(64, "50%"), thinking_tokens=8),
            "visionzip 64, fastv 50%, thoughts of 8",
        ),
        (
            OperatingPoint(kv_budget=(256, 128), policy="h2o", sinks=0, recent=8),
            "256/128 slots by h2o, 0 sinks, 8 recent",
        ),
    ],
)
def test_a_point_is_told_in_words(point: OperatingPoint, words: str) -> None:
    assert in_words(point) == words
