"""Own quantisation: weights rounded to the nearest of their block's levels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from tightrope.export.coded import Coded
from tightrope.export.slices import in_slices
from tightrope.plugins.int4_matmul.reference import quantize

_SMALLEST_BLOCK = 32
_SCALE_BITS = 16
_AT_ONCE = 128
"""Outputs that are rounded in one go: what they take stays in a core's cache."""


@dataclass(frozen=True, slots=True)
class Rounding:
    """How matrices of floats become codes."""

    block_size: int
    """Inputs that share a scale; fewer where they are no whole number of blocks."""
    symmetric: bool = True
    """Whether levels lie around zero; else four bits have a zero point a block."""
    eight_bits: frozenset[str] = frozenset()
    """Parameters that have codes of eight bits, which are symmetric."""

    @property
    def smallest_block(self) -> int:
        return min(self.block_size, _SMALLEST_BLOCK)

    def fits(self, value: torch.Tensor) -> bool:
        """Whether the inputs of a matrix [N,K] are whole blocks, if smaller ones."""
        return value.shape[1] % self.smallest_block == 0

    def bits_of(self, parameter: str) -> float:
        """Bits a weight on the host, scales and zero points of whole blocks included."""
        bits = 8 if parameter in self.eight_bits else 4
        beside = _SCALE_BITS + (0 if self.symmetric or bits == 8 else bits)
        return bits + beside / self.block_size

    def coded(self, parameter: str, value: torch.Tensor) -> Coded:
        """A matrix [N,K] that fits."""
        bits = 8 if parameter in self.eight_bits else 4
        symmetric = self.symmetric or bits == 8
        outputs, inputs = value.shape
        # Block sizes are powers of two, and so is what they have in common with the inputs.
        block_size = int(np.gcd(inputs, self.block_size))
        blocks = inputs // block_size
        codes = np.empty((inputs, outputs), np.int8)
        scale = np.empty((blocks, outputs), np.float16)
        zero = np.empty((blocks, outputs), np.int8)

        def one(some: slice) -> None:
            rows = np.ascontiguousarray(value[some].float().numpy().T)
            parts = quantize(rows, block_size, bits, symmetric)
            codes[:, some], scale[:, some], zero[:, some] = parts

        in_slices(outputs, _AT_ONCE, one)
        return Coded(codes=codes, bits=bits, scale=scale, zero=None if symmetric else zero)
