"""`tightrope methods`: the selection methods and cache policies there are."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from tightrope.cli.options import Json
from tightrope.cli.output import print_json, print_pairs, print_table

if TYPE_CHECKING:
    from tightrope.export.schedules import Schedule
    from tightrope.export.selectors import Selector


def methods(json: Json = False) -> None:
    """List the methods that select visual tokens and the policies that give up cache slots."""
    from tightrope.export.schedules import SCHEDULES
    from tightrope.export.selectors import SELECTORS
    from tightrope.plugins.slot_attention.policies import POLICIES

    known: list[Selector | Schedule] = [*SELECTORS.values(), *SCHEDULES.values()]
    selectors = [_describe(method) for method in known]
    policies = [asdict(policy) for policy in POLICIES.values()]
    if json:
        print_json({"schema": 1, "selectors": selectors, "policies": policies})
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


def _describe(method: Selector | Schedule) -> dict[str, Any]:
    return {
        "name": method.name,
        "acts": method.acts,
        "signals": list(method.signals),
        "default_keep": method.default_keep,
        "text_guided": method.text_guided,
        "merges": method.merges,
        "paper": method.paper,
    }
