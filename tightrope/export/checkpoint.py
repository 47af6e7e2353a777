"""Where weights come from: a Hugging Face folder, a hub id, or a GGUF file."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import huggingface_hub
import transformers
from huggingface_hub import constants as hub_constants

from tightrope.checks import check_one_of, check_path, shown
from tightrope.errors import UnsupportedModel
from tightrope.export.accounting import WithoutEffect, listed
from tightrope.export.families import Family, family_called, find_family
from tightrope.export.folder import account_tensors, check_config, check_tied, refuse_code
from tightrope.export.foreign import reading, silence
from tightrope.export.gguf.file import is_gguf
from tightrope.export.gguf.model import GgufModel, open_model
from tightrope.export.late import LateModel
from tightrope.export.loading import Publish, load_late
from tightrope.export.quantised import find_method
from tightrope.export.quantised.folder import QuantisedFolder, open_folder
from tightrope.export.weight_files import stored_tensors
from tightrope.foreign import words

DEFAULT_TEMPLATE = "default"
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_HUB_SECONDS = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """An opened checkpoint: its config and where its weights and texts lie."""

    name: str
    folder: Path
    config: Any
    family: Family
    gguf: GgufModel | None = None
    """The file that all of it comes from, if the weights are GGUF: nothing beside it is read."""
    quantised: QuantisedFolder | None = None
    """Its matrices in codes, if the folder says that it is quantised."""
    without_effect: list[WithoutEffect] = field(default_factory=list)
    """What was found and is known to change nothing; grows while the checkpoint is read."""

    @property
    def auto_class(self) -> Any:
        """The transformers class that builds this kind of model."""
        if self.family.tower is None:
            return transformers.AutoModelForCausalLM
        return transformers.AutoModelForImageTextToText

    @property
    def codes(self) -> str | None:
        """What its weights may have to be dequantised from, None for plain floats."""
        if self.quantised:
            return self.quantised.method.name.upper()
        return "GGUF" if self.gguf else None

    def late_model(self) -> LateModel:
        """The model, whose weights are read where they are needed; in float32.

        Raises UnsupportedModel where tensors are missing, misshapen, or have no place.
        """
        if self.gguf:
            late, without_effect = self.gguf.late_model()
            self.without_effect.extend(without_effect)
        else:
            late = self._late_folder()
        # The plainest code: fused products of experts take rows of whole 16 bytes alone.
        late.model.set_experts_implementation("eager")
        late.model.eval().requires_grad_(False)
        return late

    def load_model(self) -> Any:
        """The model with all of its weights, in float32: what others are compared with.

        Raises UnsupportedModel as `late_model` does, and for weights that cannot be read.
        """
        return self.late_model().filled()

    def _late_folder(self) -> LateModel:
        self.json("generation_config.json")  # transformers passes over a damaged one in silence
        stored = stored_tensors(self.folder)
        if self.quantised:
            stored = self.quantised.stored(stored)
        published: Publish = self.quantised.published if self.quantised else lambda _: None
        with silence(), reading(f"{self.name} cannot be loaded"):
            late, report = load_late(self.auto_class, self.config, stored, published)
        missing = [str(name) for name in report.get("missing_keys") or ()]
        misshapen = [
            f"{name} {list(found)} instead of {list(wanted)}"
            for name, found, wanted in report.get("mismatched_keys") or ()
        ]
        for problem, names in (("missing", sorted(missing)), ("misshapen", sorted(misshapen))):
            if names:
                raise UnsupportedModel(
                    f"{self.name} has {problem} tensors: {listed(names)}; "
                    "the checkpoint is incomplete or its config.json belongs to another"
                )
        unexpected = set(map(str, report.get("unexpected_keys") or ()))
        dtypes = {name: tensor.dtype for name, tensor in stored.items()}
        self.without_effect.extend(account_tensors(late.model, dtypes, unexpected))
        late.model.generation_config = self._generation()
        check_tied(late.model)
        return late

    def _generation(self) -> Any:
        """As transformers has it of a folder: config.json speaks where there is no other file."""
        name, more = "generation_config.json", dict[str, Any]()
        if not (self.folder / name).is_file():  # nor do defaults of the config's class speak then
            name, more = "config.json", {"_from_model_config": True}
        with silence(), reading(f"{self.name} has no {name} that can be read"):
            return transformers.GenerationConfig.from_pretrained(
                self.folder, config_file_name=name, **more
            )

    def tokenizer(self) -> Any:
        """The fast tokenizer; raises UnsupportedModel if there is none."""
        if self.gguf:
            return self.gguf.tokenizer
        refuse_code("tokenizer_config.json", self.json("tokenizer_config.json"))
        way_out = "put the model's own tokenizer.json beside its config.json"
        with silence(), reading(f"{self.name} has no tokenizer that can be read", way_out):
            tokenizer = transformers.AutoTokenizer.from_pretrained(self.folder)
        if not getattr(tokenizer, "is_fast", False):
            raise UnsupportedModel(
                f"{self.name} has no tokenizer.json, and none can be made of its files"
            )
        return tokenizer

    def end_ids(self, model: Any) -> frozenset[int]:
        """Token ids that end an answer: transformers' of a folder, llama.cpp's of a GGUF file.

        Of a folder they are what `generate` stops at: generation_config.json decides, config.json
        speaks where there is none; neither the tokenizer nor a default of a class adds to it.
        """
        if self.gguf:
            return self.gguf.end_ids
        found = model.generation_config.eos_token_id
        return frozenset([found] if isinstance(found, int) else found or ())

    def json(self, *names: str) -> dict[str, Any]:
        """The first of the checkpoint's files `names` that exists, else an empty object."""
        for name in () if self.gguf else names:
            file = self.folder / name
            if file.is_file():
                return _read_json(file)
        return {}

    def chat_template(self, tokenizer: Any, name: str | None) -> str | None:
        """The chat template called `name`; without one the default, or None where there is none.

        Raises InputError for a name that there is not, and UnsupportedModel where there are
        templates and none of them is the default.
        """
        named = self._chat_templates(tokenizer)
        if name is not None:
            check_one_of("template", name, named)
            return named[name]
        if named and DEFAULT_TEMPLATE not in named:
            raise UnsupportedModel(
                f"{self.name} has chat templates and no default: choose one of "
                f"{', '.join(named)} with --template"
            )
        return named.get(DEFAULT_TEMPLATE)

    def _chat_templates(self, tokenizer: Any) -> dict[str, str]:
        """Templates by name; the checkpoint's own files come before the tokenizer's."""
        found: dict[str, Any] = {}
        for source in (
            getattr(tokenizer, "chat_template", None),
            self.json("chat_template.json").get("chat_template"),
        ):
            named = source if isinstance(source, dict) else {DEFAULT_TEMPLATE: source}
            found |= {name: text for name, text in named.items() if text}
        if not self.gguf:
            others = sorted((self.folder / "additional_chat_templates").glob("*.jinja"))
            files = {DEFAULT_TEMPLATE: self.folder / "chat_template.jinja"}
            for name, file in (files | {file.stem: file for file in others}).items():
                if file.is_file():
                    with reading(f"{file} cannot be read"):
                        found[name] = file.read_text(encoding="utf-8")
        # An empty template writes nothing, whatever is asked: it is none.
        return {
            name: text for name, text in found.items() if isinstance(text, str) and text.strip()
        }

    def revision(self) -> str:
        """The hub's commit where the files lie in its cache, else a digest of what came first."""
        if self.folder.parent.name == "snapshots":
            return self.folder.name
        file = self.gguf.file.path if self.gguf else self.folder / "config.json"
        with file.open("rb") as stream:
            return f"sha256:{hashlib.sha256(stream.read(1 << 20)).hexdigest()[:16]}"

    def licence(self) -> str:
        """What the model card says of its licence, or "unknown"."""
        if self.gguf:
            return str(self.gguf.file.metadata.get("general.license") or "unknown")
        card = self.folder / "README.md"
        if card.is_file():
            with reading(f"{card} cannot be read"):
                text = card.read_text("utf-8", "replace")
            found = re.search(r"^license:\s*(\S+)", text, re.M)
            if found:
                return found[1].strip("\"'")
        return "unknown"


def open_checkpoint(source: str | Path) -> Checkpoint:
    """The checkpoint that `source` names; nothing of its weights is read yet.

    Raises InputError for what can be no name, else UnsupportedModel, within ten seconds where a
    hub cannot be reached.
    """
    path = check_path("checkpoint", source, "a folder, a .gguf file or a hub id owner/name")
    text = str(source)
    with reading(f"{shown(text)} cannot be read", "change its permissions"):
        return _open(path, text)


def _open(path: Path, text: str) -> Checkpoint:
    """What `text` names, which may also be the path `path`."""
    if path.is_file() and is_gguf(path):
        opened = open_model(path)
        return Checkpoint(
            name=text,
            folder=path.parent,
            config=opened.config,
            family=find_family(opened.config),
            gguf=opened,
            without_effect=[*opened.without_effect],
        )
    if path.is_dir():
        folder = path
        if not (path / "config.json").is_file():
            raise UnsupportedModel(
                f"{path} has no config.json; give a Hugging Face folder or a .gguf file"
            )
    elif path.exists():
        raise UnsupportedModel(f"{path} is neither a Hugging Face folder nor a .gguf file")
    elif _HUB_ID.fullmatch(text):
        folder = _download(text)
    else:
        raise UnsupportedModel(
            f"{text} does not exist; give a folder, a .gguf file or a hub id owner/name"
        )
    content = _read_json(folder / "config.json")
    family_called(content.get("model_type"))
    without_effect = check_config(content)
    codes = content.get("quantization_config") or content.get("compression_config")
    quantised = open_folder(folder, *find_method(codes)) if codes else None
    with silence(), reading(f"{text} has no config that can be read"):
        config = transformers.AutoConfig.from_pretrained(folder)
    for key in ("quantization_config", "compression_config"):
        vars(config).pop(key, None)  # transformers would want the method's own package
    return Checkpoint(
        name=text,
        folder=folder,
        config=config,
        family=find_family(config),
        quantised=quantised,
        without_effect=without_effect,
    )


def _download(hub_id: str) -> Path:
    files = ["*.json", "*.jinja", "*/*.jinja", "*.safetensors", "*.model", "README.md"]
    with contextlib.suppress(OSError, ValueError):
        return Path(huggingface_hub.snapshot_download(hub_id, local_files_only=True))
    try:
        _reach_hub(hub_id)
        return Path(huggingface_hub.snapshot_download(hub_id, allow_patterns=files))
    except Exception as error:  # the hub's HTTP client has errors of its own
        raise UnsupportedModel(
            f"{hub_id} is no folder here, and the hub at {hub_constants.ENDPOINT} does not give "
            f"it: {words(error)}; download it elsewhere and give its folder"
        ) from error


def _reach_hub(hub_id: str) -> None:
    """Ask the hub for a model's card; raises what went wrong, TimeoutError after a while."""
    problems: list[Exception] = []

    def ask() -> None:
        try:
            huggingface_hub.HfApi().model_info(hub_id, timeout=_HUB_SECONDS)
        except Exception as error:
            problems.append(error)

    # Apart, because no timeout of the client covers looking the hub's name up.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(_HUB_SECONDS + 1)
    if thread.is_alive():
        raise TimeoutError(f"no answer within {_HUB_SECONDS + 1:.0f} s")
    if problems:
        raise problems[0]


def _read_json(file: Path) -> dict[str, Any]:
    with reading(f"{file} cannot be read"):
        content = json.loads(file.read_text(encoding="utf-8"))
    return content if isinstance(content, dict) else {}


def embedding_scale(model: Any) -> float:
    """By what a model's own table multiplies the rows that it gathers, in its storage type."""
    return float(getattr(model.get_input_embeddings(), "embed_scale", 1.0))
