"""Damaged and hostile GGUF headers: each its own sentence, before anything is allocated."""

from __future__ import annotations

import resource
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="exporting needs torch")
pytest.importorskip("gguf", reason="exporting needs gguf")

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tightrope.errors import UnsupportedModel
from tightrope.export.checkpoint import open_checkpoint

UINT32, STRING, ARRAY, UINT64 = 4, 8, 9, 10


def text(value: bytes, length: int | None = None) -> bytes:
    return struct.pack("<Q", len(value) if length is None else length) + value


def key(name: bytes, kind: int, value: bytes) -> bytes:
    return text(name) + struct.pack("<I", kind) + value


def tensor(
    name: bytes = b"x",
    shape: tuple[int, ...] = (32,),
    kind: int = 0,
    offset: int = 0,
    dimensions: int | None = None,
) -> bytes:
    sizes = struct.pack(f"<{len(shape)}Q", *shape)
    count = len(shape) if dimensions is None else dimensions
    return text(name) + struct.pack("<I", count) + sizes + struct.pack("<IQ", kind, offset)


def gguf(
    *keys: bytes,
    tensors: tuple[bytes, ...] = (),
    data: int = 256,
    version: int = 3,
    counts: tuple[int, int] | None = None,
    order: str = "<",
) -> bytes:
    num_tensors, num_keys = counts or (len(tensors), len(keys))
    head = b"GGUF" + struct.pack(f"{order}IQQ", version, num_tensors, num_keys)
    content = head + b"".join(keys) + b"".join(tensors)
    return content + bytes(-len(content) % 32) + bytes(data)


ARCHITECTURE = key(b"general.architecture", STRING, text(b"llama"))


def alignment(value: int, kind: int = UINT32) -> bytes:
    code = "<I" if kind == UINT32 else "<Q"
    return key(b"general.alignment", kind, struct.pack(code, value))


DAMAGED: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "is 0 bytes long"),
    "short": (b"GGUF\x03", "is 5 bytes long"),
    "garbage": (b"garbage " * 99, "does not begin with the GGUF magic"),
    "version 1": (gguf(ARCHITECTURE, version=1), "GGUF file of version 1; read here: 2, 3"),
    "version 99": (gguf(ARCHITECTURE, version=99), "GGUF file of version 99; read here"),
    "version 0": (gguf(ARCHITECTURE, version=0), "is big-endian|version 0"),
    "big-endian": (gguf(ARCHITECTURE, order=">"), "is big-endian.*take the little-endian"),
    "a thousand million keys": (gguf(counts=(0, 10**9)), "claims 1000000000 keys and 0 tensors"),
    "as many tensors": (gguf(counts=(10**9, 0)), "claims 0 keys and 1000000000 tensors"),
    "all keys there are": (gguf(counts=(2**64 - 1, 2**64 - 1)), "claims 18446744073709551615"),
    "no keys for its count": (gguf(counts=(0, 9)), "value of unknown type|ends before|twice"),
    "a string longer than the file": (
        gguf(key(b"a", STRING, text(b"x", 1 << 40))),
        "ends before a does",
    ),
    "a key longer than the file": (gguf(text(b"a", 1 << 62) + bytes(99)), "ends before a key"),
    "strings that are too many": (
        gguf(key(b"a", ARRAY, struct.pack("<IQ", STRING, 1 << 60))),
        "ends before the 1152921504606846976 strings of a do",
    ),
    "numbers that are too many": (
        gguf(key(b"a", ARRAY, struct.pack("<IQ", UINT64, 1 << 61))),
        "ends before the 2305843009213693952 values of a do",
    ),
    "lists of lists": (gguf(key(b"a", ARRAY, struct.pack("<IQ", ARRAY, 1))), "array of unknown"),
    "a type unheard of": (gguf(key(b"a", 77, bytes(8))), "value of unknown type 77 in a"),
    "a key twice": (gguf(ARCHITECTURE, ARCHITECTURE), "the key general.architecture twice"),
    "text that is none": (gguf(key(b"a", STRING, text(b"\xff\xfe"))), "not UTF-8 in a"),
    "alignment 0": (gguf(alignment(0)), "general.alignment 0; accepted: a power of two"),
    "alignment 24": (gguf(alignment(24)), "general.alignment 24"),
    "alignment 2^31": (gguf(alignment(1 << 31)), "general.alignment 2147483648"),
    "alignment 2^40": (gguf(alignment(1 << 40, UINT64)), "general.alignment that is no uint32"),
    "nine dimensions": (gguf(tensors=(tensor(shape=(1,) * 9),)), r"x 9 dimensions; acc.*1\.\.4"),
    "no dimensions": (gguf(tensors=(tensor(shape=()),)), "x 0 dimensions"),
    "dimensions beyond the file": (gguf(tensors=(tensor(dimensions=1 << 31),)), "dimensions"),
    "a quantisation unheard of": (gguf(tensors=(tensor(kind=99),)), "x in quantisation 99, which"),
    "one that was taken away": (gguf(tensors=(tensor(kind=4),)), "x in quantisation 4, which"),
    "a product beyond 64 bits": (
        gguf(tensors=(tensor(shape=(1 << 33, 1 << 33)),)),
        "the shape .*cannot hold",
    ),
    "a product that comes round to 32": (
        gguf(tensors=(tensor(shape=(1 << 32, 1 << 32, 32)),)),
        "the shape .*cannot hold",
    ),
    "a size beyond the file": (gguf(tensors=(tensor(shape=(32, 99)),)), "cannot hold"),
    "half a block": (gguf(tensors=(tensor(shape=(33,), kind=2),)), "does not fit its blocks"),
    "an empty tensor": (gguf(tensors=(tensor(shape=(0, 4)),)), r"the shape \[0, 4\]"),
    "an offset beyond the file": (gguf(tensors=(tensor(offset=1 << 40),)), "ends before the data"),
    "an offset that comes round": (
        gguf(tensors=(tensor(offset=2**64 - 32),)),
        "ends before the data of x",
    ),
    "an offset between": (gguf(tensors=(tensor(offset=7),)), "puts x at 7, no multiple of 32"),
    "data that is cut": (gguf(tensors=(tensor(),), data=100), "ends before the data of x"),
    "a tensor twice": (gguf(tensors=(tensor(), tensor(offset=128))), "the tensor x twice"),
    "tensors that overlap": (
        gguf(tensors=(tensor(), tensor(b"y", offset=64))),
        "lets y overlap x",
    ),
    "a name too long": (gguf(tensors=(tensor(b"x" * 65),)), "name of 65 bytes"),
}


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> object:
    """Allocations of more than a gigabyte on top fail, so that a claimed size is not believed."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + (1 << 30), hard))
    yield
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("what", DAMAGED)
def test_each_damage_is_told_in_its_own_sentence(tmp_path: Path, what: str) -> None:
    content, said = DAMAGED[what]
    file = tmp_path / "m.gguf"
    file.write_bytes(content)
    with pytest.raises(UnsupportedModel, match=said) as raised:
        open_checkpoint(file)
    assert "\n" not in str(raised.value) and len(str(raised.value)) < 500


Fields = Callable[[], bytes]


@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(place=st.integers(0, 4000), value=st.binary(min_size=1, max_size=9), cut=st.integers(0, 99))
def test_any_damage_is_ours_to_tell(
    small_file: bytes, tmp_path: Path, place: int, value: bytes, cut: int
) -> None:
    content = bytearray(small_file)
    place %= len(content)
    content[place : place + len(value)] = value
    file = tmp_path / "m.gguf"
    file.write_bytes(content[: len(content) - cut])
    try:
        open_checkpoint(file).load_model()
    except UnsupportedModel as error:
        assert "\n" not in str(error)


@pytest.fixture(scope="module")
def small_file(gguf_files: object, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A whole file, its metadata first."""
    import transformers

    files: object = gguf_files
    keys = files.metadata_of(files.byte_level(["<|end|>"], 260))  # type: ignore[attr-defined]
    model = files.model_of(  # type: ignore[attr-defined]
        transformers.LlamaConfig(
            vocab_size=260,
            hidden_size=32,
            intermediate_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
        )
    )
    file = tmp_path_factory.mktemp("gguf") / "m.gguf"
    content: bytes = files.file_of(file, model, keys).read_bytes()  # type: ignore[attr-defined]
    return content
