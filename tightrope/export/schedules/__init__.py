"""Selection inside the language model: which visual tokens the later layers still see.

One method, one file, one entry here. A schedule is baked into a prefill graph of its own.
"""

from tightrope.export.schedules import fastv
from tightrope.export.schedules.schedule import Schedule

SCHEDULES: dict[str, Schedule] = {schedule.name: schedule for schedule in (fastv.FASTV,)}

__all__ = ["SCHEDULES", "Schedule"]
