"""A GGUF file as export uses it: config, tokenizer, end tokens, and the model with its weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers.initialization import no_init_weights

from tightrope.errors import UnsupportedModel
from tightrope.export.accounting import Account, WithoutEffect
from tightrope.export.foreign import reading
from tightrope.export.gguf import tensors
from tightrope.export.gguf.architectures import Architecture, find_architecture
from tightrope.export.gguf.config import HARMLESS, fields_of
from tightrope.export.gguf.file import GgufFile, open_file
from tightrope.export.gguf.keys import WAY_OUT
from tightrope.export.gguf.tokenizer import read_tokenizer
from tightrope.export.late import LateModel


@dataclass(frozen=True, slots=True)
class GgufModel:
    """An opened file; its tensors are still where they were."""

    file: GgufFile
    architecture: Architecture
    config: Any
    """Hugging Face's, of the architecture's model type."""
    tokenizer: Any
    end_ids: frozenset[int]
    without_effect: list[WithoutEffect]
    """Keys of metadata."""

    def late_model(self) -> tuple[LateModel, list[WithoutEffect]]:
        """The model in float32, and tensors that are without effect.

        Raises UnsupportedModel as `tensors.check` does, before anything is dequantised.
        """
        with reading(f"{self.file.path} cannot be loaded"):
            with torch.device("meta"):
                empty = self._build()
            tensors.check(dict(empty.named_parameters()), self.file, self.architecture)
            return tensors.late_model(self._build(), self.file, self.architecture)

    def _build(self) -> Any:
        with no_init_weights():
            model = transformers.AutoModelForCausalLM.from_config(self.config, dtype=torch.float32)
        model.tie_weights()
        return model


def open_model(path: Path) -> GgufModel:
    """Raises UnsupportedModel for whatever of the file is damaged, unknown or not exported."""
    file = open_file(path)
    account = Account("keys of the GGUF file", file.metadata, HARMLESS, WAY_OUT)
    account.take_all(
        ["general.architecture", "general.type", "general.alignment", "split.no", "split.count"]
    )
    account.take("split.tensors.count")
    architecture = find_architecture(file.architecture)
    fields = fields_of(file, architecture, account)
    _check_layers(file, fields["num_hidden_layers"])
    tokenizer, end_ids = read_tokenizer(file, account)
    without_effect = account.close()
    with reading(f"{path} has no config that can be read"):
        config = transformers.AutoConfig.for_model(architecture.model_type, **fields)
    return GgufModel(file, architecture, config, tokenizer, end_ids, without_effect)


def _check_layers(file: GgufFile, count: int) -> None:
    numbers = {name.split(".")[1] for name in file.tensors if name.startswith("blk.")}
    if len(numbers) != count:
        raise UnsupportedModel(
            f"{file.path} has block_count {count} and tensors of {len(numbers)} layers; {WAY_OUT}"
        )
