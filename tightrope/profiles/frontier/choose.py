"""The point to take for a budget: the fastest of those that are as good as the best that fits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from tightrope.budget import Budget
from tightrope.errors import BudgetUnreachable, ProfileError
from tightrope.paired import indistinguishable
from tightrope.point import in_words
from tightrope.profiles.frontier.frontier import Frontier, Row, assumed_worth, measure_quality
from tightrope.profiles.frontier.took import Took


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What was chosen, and among what."""

    row: Row
    best: Row
    """Of the highest quality among those that fit."""
    alike: tuple[Row, ...]
    """Those that cannot be told apart from the best, itself among them."""
    fitting: int
    """Points within the budget."""

    def to_dict(self, frontier: Frontier, budget: Budget) -> dict[str, Any]:
        """JSON-ready values with a schema number: those of the frontier, and the choice."""
        return {
            **frontier.to_dict(),
            "budget": asdict(budget),
            "chosen": self.row.to_dict(),
            "best": asdict(self.best.point),
            "alike": [asdict(row.point) for row in self.alike],
            "fitting": self.fitting,
        }


def choose(frontier: Frontier, budget: Budget) -> Choice:
    """The fastest point that cannot be told apart, at 95 %, from the best one within `budget`.

    A point is within it if 99 of 100 requests are. Where quality is assumed, the best is taken.
    Raises BudgetUnreachable with the nearest figure, and ProfileError where what the budget limits
    was not measured.
    """
    timed = [row for row in frontier.rows if row.took is not None]
    if not timed:
        raise ProfileError(frontier.untimed or "no point can be asked the typical request")
    if budget.energy_j is not None and any(row.took.energy_j is None for row in timed if row.took):
        raise ProfileError(
            "energy_j limits what was not measured: no sensor told what the board draws; "
            "`tightrope doctor` says why"
        )
    if budget.min_quality is not None and frontier.task is None:
        raise ProfileError(
            f"min_quality is {budget.min_quality:g}, but no quality was measured; "
            f"{measure_quality(frontier.bundle)}"
        )
    fitting = _frugal(_in_time(timed, budget), budget.energy_j)
    fitting = _good(fitting, budget.min_quality)
    asked = {row.asked.point: row for row in fitting if row.asked is not None}
    if asked:
        found = indistinguishable([row.asked for row in asked.values() if row.asked is not None])
        alike = [asked[measured.point] for measured in found]
    else:
        alike = [max(fitting, key=lambda row: (assumed_worth(row) or (), -_p95(row)))]
    return Choice(
        row=min(alike, key=lambda row: (_p95(row), -(row.quality or 0.0))),
        best=alike[0],
        alike=tuple(alike),
        fitting=len(fitting),
    )


def _in_time(rows: Sequence[Row], budget: Budget) -> list[Row]:
    limits: list[tuple[str, float, Callable[[Took], float]]] = []
    if budget.deadline_ms is not None:
        limits.append(("answers", budget.deadline_ms, lambda took: took.total.p99_ms))
    if budget.first_token_ms is not None:
        limits.append(("has its first token", budget.first_token_ms, lambda took: took.ttft.p99_ms))
    fitting = list(rows)
    for does, limit, figure in limits:

        def ms(row: Row, figure: Callable[[Took], float] = figure) -> float:
            assert row.took is not None
            return figure(row.took)

        nearest = min(fitting, key=ms)
        among = "" if len(fitting) == len(rows) else ", of those that answer in time"
        fitting = [row for row in fitting if ms(row) <= limit]
        if not fitting:
            assert nearest.took is not None
            raise BudgetUnreachable(
                f"no point {does} within {limit:g} ms{among}: the fastest, "
                f"{in_words(nearest.point)}, takes {ms(nearest):.1f} ms (99 of 100 requests, "
                f"{nearest.took.source})",
                fastest_ms=nearest.took.total.p99_ms,
            )
    return fitting


def _frugal(rows: list[Row], most_j: float | None) -> list[Row]:
    """Those whose requests cost no more in the mean."""
    if most_j is None:
        return rows
    found = [row for row in rows if _joules(row) <= most_j]
    if not found:
        nearest = min(rows, key=_joules)
        raise BudgetUnreachable(
            f"no point within the time takes {most_j:g} J or less: the least, "
            f"{in_words(nearest.point)}, takes {_joules(nearest):.2f} J"
        )
    return found


def _joules(row: Row) -> float:
    assert row.took is not None and row.took.energy_j is not None, "it was looked at before"
    return row.took.energy_j


def _good(rows: list[Row], least: float | None) -> list[Row]:
    if least is None:
        return rows
    good = [row for row in rows if row.quality is not None and row.quality >= least]
    if not good:
        best = max(rows, key=lambda row: row.quality or 0.0)
        raise BudgetUnreachable(
            f"no point within the time reaches a quality of {least:g}: the best, "
            f"{in_words(best.point)}, has {best.quality or 0.0:.3f}"
        )
    return good


def _p95(row: Row) -> float:
    assert row.took is not None, "points without a time were left out"
    return row.took.total.p95_ms
