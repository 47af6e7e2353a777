"""Where weights come from: a Hugging Face folder, a hub id, or a GGUF file."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import re
import threading
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import huggingface_hub
import torch
import transformers
from huggingface_hub import constants as hub_constants

from tightrope.errors import InputError, UnsupportedModel
from tightrope.export.families import Family, family_called, find_family

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_HUB_SECONDS = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """An opened checkpoint: its config and where its weights and texts lie."""

    name: str
    folder: Path
    gguf: str | None
    """File name inside `folder`, if the weights are GGUF."""
    config: Any
    family: Family

    @property
    def auto_class(self) -> Any:
        """The transformers class that builds this kind of model."""
        if self.family.tower is None:
            return transformers.AutoModelForCausalLM
        return transformers.AutoModelForImageTextToText

    def load_model(self) -> Any:
        """The model with its weights, in the type they are stored in.

        Raises UnsupportedModel where tensors are missing, misshapen or unreadable.
        """
        self.json("generation_config.json")  # transformers passes over a damaged one in silence
        options = {"gguf_file": self.gguf} if self.gguf else {"dtype": "auto"}
        with _silence():
            try:
                # Mismatched tensors are refused below, by name: the error without this option
                # names none.
                model, report = self.auto_class.from_pretrained(
                    self.folder, output_loading_info=True, ignore_mismatched_sizes=True, **options
                )
            except Exception as error:  # safetensors, torch and gguf each raise their own
                raise UnsupportedModel(
                    f"{self.name} cannot be loaded: {_words(error)}; get the checkpoint again"
                ) from error
        missing = [str(name) for name in report.get("missing_keys") or ()]
        misshapen = [
            f"{name} {list(found)} instead of {list(wanted)}"
            for name, found, wanted in report.get("mismatched_keys") or ()
        ]
        for problem, names in (("missing", sorted(missing)), ("misshapen", sorted(misshapen))):
            if names:
                listed = ", ".join(names[:5]) + (", …" if len(names) > 5 else "")
                raise UnsupportedModel(
                    f"{self.name} has {problem} tensors: {listed}; "
                    "the checkpoint is incomplete or its config.json belongs to another"
                )
        if self.gguf:
            model = self._without_quantizer(model)
        return model.eval().requires_grad_(False)

    def _without_quantizer(self, model: Any) -> Any:
        """A plain model with the dequantised weights: transformers' refuses a change of type."""
        plain = self.auto_class.from_config(self.config, dtype=torch.float32)
        plain.load_state_dict(model.state_dict())
        plain.generation_config = model.generation_config
        return plain

    def tokenizer(self) -> Any:
        """The fast tokenizer; raises UnsupportedModel if there is none."""
        options = {"gguf_file": self.gguf} if self.gguf else {}
        with _silence():
            try:
                tokenizer = transformers.AutoTokenizer.from_pretrained(self.folder, **options)
            except Exception as error:  # tokenizers raises no narrower class
                raise UnsupportedModel(
                    f"{self.name} has no tokenizer that can be read: {_words(error)}; put the "
                    "model's own tokenizer.json beside its config.json"
                ) from error
        if not getattr(tokenizer, "is_fast", False):
            raise UnsupportedModel(
                f"{self.name} has no tokenizer.json, and none can be made of its files"
            )
        return tokenizer

    def json(self, *names: str) -> dict[str, Any]:
        """The first of the checkpoint's files `names` that exists, else an empty object."""
        for name in names:
            file = self.folder / name
            if file.is_file():
                return _read_json(file)
        return {}

    def chat_template(self, tokenizer: Any) -> str | None:
        """The chat template: the checkpoint's own file first, then the tokenizer's."""
        file = self.folder / "chat_template.jinja"
        if file.is_file() and not self.gguf:
            return file.read_text(encoding="utf-8")
        template = self.json("chat_template.json").get("chat_template")
        template = template or getattr(tokenizer, "chat_template", None)
        if isinstance(template, dict):
            template = template.get("default")
        return template if isinstance(template, str) else None

    def revision(self) -> str:
        """The hub's commit where the files lie in its cache, else a digest of what came first."""
        if self.folder.parent.name == "snapshots":
            return self.folder.name
        with (self.folder / (self.gguf or "config.json")).open("rb") as stream:
            return f"sha256:{hashlib.sha256(stream.read(1 << 20)).hexdigest()[:16]}"

    def licence(self) -> str:
        """What the model card says of its licence, or "unknown"."""
        card = self.folder / "README.md"
        if card.is_file():
            found = re.search(r"^license:\s*(\S+)", card.read_text("utf-8", "replace"), re.M)
            if found:
                return found[1].strip("\"'")
        return "unknown"


def open_checkpoint(source: str | Path) -> Checkpoint:
    """The checkpoint that `source` names; nothing of its weights is read yet.

    Raises InputError for what can be no name, else UnsupportedModel, within ten seconds where a
    hub cannot be reached.
    """
    if not isinstance(source, (str, Path)) or not str(source):
        raise InputError(f"checkpoint is {source!r}; accepted: a folder, a .gguf file or a hub id")
    text = str(source)
    path = Path(source)
    gguf: str | None = None
    if path.is_file() and path.suffix.lower() == ".gguf":
        folder, gguf = path.parent, path.name
    elif path.is_dir():
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
    if not gguf:
        family_called(_read_json(folder / "config.json").get("model_type"))
    options = {"gguf_file": gguf} if gguf else {}
    with _silence():
        try:
            config = transformers.AutoConfig.from_pretrained(folder, **options)
        except Exception as error:  # each reader raises its own for a damaged file
            raise UnsupportedModel(
                f"{text} has no config that can be read: {_words(error)}; get the checkpoint again"
            ) from error
    return Checkpoint(
        name=text, folder=folder, gguf=gguf, config=config, family=find_family(config)
    )


def _download(hub_id: str) -> Path:
    files = ["*.json", "*.jinja", "*.safetensors", "*.model", "README.md"]
    with contextlib.suppress(OSError, ValueError):
        return Path(huggingface_hub.snapshot_download(hub_id, local_files_only=True))
    try:
        _reach_hub(hub_id)
        return Path(huggingface_hub.snapshot_download(hub_id, allow_patterns=files))
    except Exception as error:  # the hub's HTTP client has errors of its own
        raise UnsupportedModel(
            f"{hub_id} is no folder here, and the hub at {hub_constants.ENDPOINT} does not give "
            f"it: {_words(error)}; download it elsewhere and give its folder"
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
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UnsupportedModel(
            f"{file} cannot be read: {_words(error)}; get the checkpoint again"
        ) from error
    return content if isinstance(content, dict) else {}


def _words(error: Exception) -> str:
    """What an error says, on one line."""
    return " ".join(str(error).split()).rstrip(".")


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """transformers writes progress bars, advice and load reports to the terminal."""
    level = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    try:
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        transformers.logging.set_verbosity(level)


def parameters_of(model: Any) -> dict[str, torch.Tensor]:
    """Parameters and buffers of a model by Hugging Face's names."""
    named = dict(model.named_parameters(remove_duplicate=False))
    return named | dict(model.named_buffers(remove_duplicate=False))
