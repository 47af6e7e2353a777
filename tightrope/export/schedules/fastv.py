"""FastV: after two layers, drop the visual tokens that the last query attends to least."""

from tightrope.export.schedules.schedule import Schedule

FASTV = Schedule(
    name="fastv",
    paper="FastV, Chen et al. 2024, arXiv:2403.06764",
    layers=(2,),
    default_keep="50%",
)
