"""What one version's parser refuses of a bundle, told from bundle.json alone: no graph is read."""

from __future__ import annotations

import re

from tightrope.bundle import Manifest
from tightrope.interface.names import GraphName
from tightrope.plugins.parsers import Parser


def standard_graphs(manifest: Manifest) -> list[GraphName]:
    """The bundle's standard graphs, by name."""
    names = [GraphName.parse(file) for file in manifest.files if file.endswith(".onnx")]
    return sorted((name for name in names if name.variant == "standard"), key=str)


def refused(manifest: Manifest, name: GraphName, parser: Parser) -> list[str]:
    """A sentence for everything of standard graph `name` that `parser` does not take."""
    text = str(name)
    reasons = parser.refuse(manifest.standard_ops.get(text, {}))
    if text not in manifest.standard_ops:
        reasons.append("bundle.json lists no operators for it")
    # Selectors rank an image's tokens, a schedule those of a whole call.
    ranked = {"select": "V", "prefill": "S"}.get(name.role) if name.method else None
    if ranked is not None and (most := manifest.ranges(name)[ranked].most) >= parser.topk_limit:
        reasons.append(
            f"{most} tokens are ranked together, TensorRT ranks fewer than {parser.topk_limit}; "
            "export for smaller images, or with a smaller prefill_chunk"
        )
    if name.role in ("prefill", "decode"):
        reasons += _odd_blocks(manifest, parser)
    return reasons


def _odd_blocks(manifest: Manifest, parser: Parser) -> list[str]:
    """int4 weights whose groups TensorRT does not know."""
    kinds = {kind for group in manifest.weights.values() for kind in group.stored}
    found = {int(size) for kind in kinds for size in re.findall(r"^int4 by (\d+)", kind)}
    if not (odd := sorted(found - set(parser.int4_blocks))):
        return []
    accepted = ", ".join(map(str, parser.int4_blocks))
    return [
        f"int4 weights share a scale by {', '.join(map(str, odd))}, TensorRT {parser.version} "
        f"takes {accepted}; export with --block-size 32 or 128, or from plain weights"
    ]
