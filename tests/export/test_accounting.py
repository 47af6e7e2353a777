"""What is found is taken, known to be without effect, or refused by name."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("torch", reason="exporting needs torch")

from tightrope.errors import UnsupportedModel
from tightrope.export.accounting import Account, Harmless, listed, notes

RULES = (Harmless(r"general\..*", "describes the file"), Harmless("name", "a remark"))


def test_what_is_taken_is_gone_and_what_was_not_found_is_the_default() -> None:
    account = Account("keys", {"a": 1, "b": None})
    assert account.take("a") == 1
    assert account.take("a", 7) == 7
    assert account.take("b", 7) is None
    assert account.close() == []


def test_what_is_left_and_harmless_is_handed_back_with_its_reason() -> None:
    left = Account("keys", {"general.x": 1, "name": 2}, RULES).close()
    assert [(entry.what, entry.name, entry.reason) for entry in left] == [
        ("keys", "general.x", "describes the file"),
        ("keys", "name", "a remark"),
    ]
    assert notes(left) == ["keys that have no effect: 2 (describes the file; a remark)"]


def test_a_rule_is_of_whole_names() -> None:
    for name in ("my.general.x", "general", "names"):
        with pytest.raises(UnsupportedModel, match=f"nothing here reads.*: {name}; "):
            Account("keys", {name: 1}, RULES).close()


def test_a_refusal_names_the_things_and_the_way_out() -> None:
    with pytest.raises(UnsupportedModel) as raised:
        Account("keys of x", dict.fromkeys("abcdefg"), way_out="do this").close()
    assert str(raised.value).startswith("keys of x that nothing here reads")
    assert str(raised.value).endswith(": a, b, c, d, e and 2 more; do this")


@given(st.dictionaries(st.text(max_size=9), st.integers()), st.data())
def test_nothing_is_lost(found: dict[str, int], data: st.DataObject) -> None:
    taken = data.draw(st.lists(st.sampled_from(sorted(found)))) if found else []
    account = Account("keys", found, RULES)
    account.take_all(taken)
    left = set(found) - set(taken)
    known = {name for name in left if name == "name" or name.startswith("general.")}
    if left == known:
        assert {entry.name for entry in account.close()} == left
        return
    with pytest.raises(UnsupportedModel) as raised:
        account.close()
    unknown = [name for name in found if name in left - known]
    assert listed(unknown) in str(raised.value)


def test_a_name_that_breaks_lines_is_quoted() -> None:
    assert listed(["a.b", "\nlama.c"]) == "a.b, '\\nlama.c'"
