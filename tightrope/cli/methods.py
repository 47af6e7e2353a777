"""`tightrope methods`: the selection methods and cache policies there are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from tightrope.cli.options import Json
from tightrope.cli.output import print_json, print_pairs, print_table
from tightrope.schemas import versioned

if TYPE_CHECKING:
    from tightrope.export.schedules import Schedule
    from tightrope.export.selectors import Selector
    from tightrope.runtime.baselines import Baseline


def methods(json: Json = False) -> None:
    """List the methods that select visual tokens and the policies that give up cache slots."""
    from tightrope.export.schedules import SCHEDULES
    from tightrope.export.selectors import SELECTORS
    from tightrope.plugins.slot_attention.policies import POLICIES
    from tightrope.runtime.baselines import BASELINES

    selectors = [
        _describe(by, "before the language model", by.signals, by.text_guided, by.merges)
        for by in SELECTORS.values()
    ]
    selectors += [_describe(by, "baseline") for by in BASELINES.values()]
    last_query = ("attention of the last query",)
    selectors += [
        _describe(by, "inside the language model", last_query, text_guided=True)
        for by in SCHEDULES.values()
    ]
    policies = [asdict(policy) for policy in POLICIES.values()]
    if json:
        print_json(versioned("methods", {"selectors": selectors, "policies": policies}))
        return
    print_table(
        "Selectors: which visual tokens the language model sees",
        ("name", "acts", "usual keep", "reads", "needs from the tower"),
        [
            (
                selector["name"] + ("*" if selector["merges"] else ""),
                selector["acts"].replace("the language model", "the LLM"),
                selector["default_keep"],
                "the question" if selector["text_guided"] else "",
                ", ".join(selector["signals"]) or "nothing",
            )
            for selector in selectors
        ],
    )
    print("* merges some of the tokens that it drops into others")
    print_table(
        "\nPolicies: which cache slots are given up under --kv-budget",
        ("name", "sinks", "recent"),
        [
            (
                policy["name"],
                str(policy["sinks"]),
                "half the budget" if policy["recent"] is None else str(policy["recent"]),
            )
            for policy in policies
        ],
    )
    print_pairs(
        "\nSources",
        [(method["name"], method["paper"]) for method in (*selectors, *policies)],
    )


def _describe(
    method: Selector | Baseline | Schedule,
    acts: str,
    signals: Sequence[str] = (),
    text_guided: bool = False,
    merges: bool = False,
) -> dict[str, Any]:
    return {
        "name": method.name,
        "acts": acts,
        "signals": list(signals),
        "default_keep": method.default_keep,
        "text_guided": text_guided,
        "merges": merges,
        "paper": method.paper,
    }
