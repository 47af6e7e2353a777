"""Selection inside the language model: which visual tokens the later layers still see.

One method, one file, found by its name. A schedule is baked into a prefill graph of its own.
"""

from tightrope.export.schedules.schedule import Schedule
from tightrope.registry import discover

SCHEDULES: dict[str, Schedule] = discover(__name__, Schedule)

__all__ = ["SCHEDULES", "Schedule"]
