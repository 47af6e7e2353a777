"""How a prompt is cut into calls of the decoder."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tightrope.runtime.cuts import parts_of

CHUNK = 8


@st.composite
def streams(draw: st.DrawFn) -> tuple[int, list[int], list[slice]]:
    """Length, cuts, and images that no cut falls into, none longer than a chunk."""
    place, cuts, wholes = 0, list[int](), list[slice]()
    for _ in range(draw(st.integers(1, 6))):
        place += draw(st.integers(0, 12))
        if draw(st.booleans()):
            size = draw(st.integers(0, CHUNK))
            wholes.append(slice(place, place + size))
            place += size
        if draw(st.booleans()) and place > (cuts[-1] if cuts else 0):
            cuts.append(place)
    return place + 1, cuts, wholes


@given(streams())
def test_calls_hold_images_whole_and_end_at_the_cuts(
    stream: tuple[int, list[int], list[slice]],
) -> None:
    length, cuts, wholes = stream
    parts = parts_of(length, lambda _: CHUNK, cuts, wholes)
    assert [part.start for part in parts] == [0, *(part.stop for part in parts[:-1])]
    assert parts[-1].stop == length
    assert all(0 < part.stop - part.start <= CHUNK for part in parts)
    ends = {part.stop for part in parts}
    assert set(cuts) <= ends
    assert not any(whole.start < end < whole.stop for whole in wholes for end in ends)


@given(streams())
def test_without_images_every_call_is_as_long_as_it_may_be(
    stream: tuple[int, list[int], list[slice]],
) -> None:
    length, cuts, _ = stream
    for part in parts_of(length, lambda _: CHUNK, cuts):
        assert part.stop - part.start == CHUNK or part.stop in (*cuts, length)
