"""`tightrope methods`: the selection methods and cache policies there are."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from tightrope.cli.options import Json
from tightrope.cli.output import print_json, print_table


def methods(json: Json = False) -> None:
    """List the methods that select visual tokens and the policies that give up cache slots."""
    from tightrope.export.selectors import SELECTORS
    from tightrope.plugins.slot_attention.policies import POLICIES

    selectors = [_describe(selector) for selector in SELECTORS.values()]
    policies = [asdict(policy) for policy in POLICIES.values()]
    if json:
        print_json({"schema": 1, "selectors": selectors, "policies": policies})
        return
    print_table(
        "Selectors: which visual tokens the language model sees",
        ("name", "acts", "signals", "usual keep", "question", "merges", "source"),
        [
            (
                selector["name"],
                selector["acts"],
                ", ".join(selector["signals"]) or "none",
                selector["default_keep"],
                _yes(selector["text_guided"]),
                _yes(selector["merges"]),
                selector["paper"],
            )
            for selector in selectors
        ],
    )
    print_table(
        "\nPolicies: which cache slots are given up under --kv-budget",
        ("name", "sinks", "recent", "source"),
        [
            (
                policy["name"],
                str(policy["sinks"]),
                "half the budget" if policy["recent"] is None else str(policy["recent"]),
                policy["paper"],
            )
            for policy in policies
        ],
    )


def _describe(selector: Any) -> dict[str, Any]:
    return {
        "name": selector.name,
        "acts": selector.acts,
        "signals": list(selector.signals),
        "default_keep": selector.default_keep,
        "text_guided": selector.text_guided,
        "merges": selector.merges,
        "paper": selector.paper,
    }


def _yes(claim: bool) -> str:
    return "yes" if claim else ""
