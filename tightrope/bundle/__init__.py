"""The bundle: a folder that export writes once and everything else reads.

    NAME.bundle/
      bundle.json             the manifest below: format, dims, what the graphs were made for,
                              every other file with its bytes and sha256
      graphs/*.onnx           host.*: ONNX Runtime on a CPU; standard.*: standard operators only;
                              plugins.*: own ops as plugins of TensorRT
      graphs/weights.data     one external-data file for all graphs
      embeddings.data         [vocab, hidden] float16 or float32, gathered by the host; behind
                              the vocabulary the separators that a tower brought
      positions.npz           the tower's position table for each resolution
      tokenizer.json  chat_template.jinja  preprocessor.json  generation.json
      selftest.npz            what it answered where it was exported

Opening checks the format, each file's size and its hash before anything is allocated. Hashing
is remembered in a stamp (size, mtime, inode) in the state folder beside the bundle.
"""

from tightrope.bundle.bundle import Bundle, sha256_of
from tightrope.bundle.manifest import (
    EMBEDDINGS,
    FORMAT,
    MANIFEST,
    SELFTEST,
    FileEntry,
    Manifest,
    Parity,
    PluginGraph,
    SelectorInfo,
    Source,
    Stage,
    TowerInt8,
    WeightGroup,
    read_manifest,
)

__all__ = [
    "EMBEDDINGS",
    "FORMAT",
    "MANIFEST",
    "SELFTEST",
    "Bundle",
    "FileEntry",
    "Manifest",
    "Parity",
    "PluginGraph",
    "SelectorInfo",
    "Source",
    "Stage",
    "TowerInt8",
    "WeightGroup",
    "read_manifest",
    "sha256_of",
]
