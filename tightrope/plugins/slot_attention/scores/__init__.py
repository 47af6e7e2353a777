"""What a slot is worth: one score, one file, found by its name."""

from tightrope.plugins.slot_attention.scores.score import Evidence, PolicyNumbers, Score
from tightrope.registry import discover

SCORES: dict[str, Score] = discover(__name__, Score)
DEFAULT_SCORE = "recurrence"

__all__ = ["DEFAULT_SCORE", "SCORES", "Evidence", "PolicyNumbers", "Score"]
