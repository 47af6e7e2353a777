"""Which chat template an export takes, wherever transformers may have stored it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tightrope.errors import InputError, UnsupportedModel
from tightrope.export.checkpoint import Checkpoint, open_checkpoint

transformers = pytest.importorskip("transformers", reason="the checkpoints are transformers' own")

Stored = dict[str, Any]


@pytest.fixture
def opened(checkpoint: Callable[[str], Path], tmp_path: Path) -> Callable[..., Checkpoint]:
    """`opened(config, files)`: a checkpoint with these templates and no others."""

    def make(in_config: Any, files: dict[str, str]) -> Checkpoint:
        folder = tmp_path / "checkpoint"
        shutil.copytree(checkpoint("llama"), folder, dirs_exist_ok=True)
        (folder / "chat_template.jinja").unlink(missing_ok=True)
        config = json.loads((folder / "tokenizer_config.json").read_text())
        config.pop("chat_template", None)
        if in_config is not None:
            config["chat_template"] = in_config
        (folder / "tokenizer_config.json").write_text(json.dumps(config))
        for name, text in files.items():
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_text(text)
        return open_checkpoint(folder)

    return make


def chosen(opened: Checkpoint, name: str | None = None) -> str | None:
    return opened.chat_template(opened.tokenizer(), name)


LISTED = [{"name": "default", "template": "d"}, {"name": "tool_use", "template": "t"}]
NAMELESS = [{"name": "rag", "template": "r"}, {"name": "tool_use", "template": "t"}]
JINJA, EXTRA = "chat_template.jinja", "additional_chat_templates/tool_use.jinja"


@pytest.mark.parametrize(
    ("in_config", "files", "default", "named"),
    [
        (None, {}, None, {}),
        ("c", {}, "c", {"default": "c"}),
        ("c", {JINJA: "f"}, "f", {"default": "f"}),
        (None, {"chat_template.json": json.dumps({"chat_template": "j"})}, "j", {"default": "j"}),
        (LISTED, {}, "d", {"default": "d", "tool_use": "t"}),
        (None, {JINJA: "f", EXTRA: "x"}, "f", {"default": "f", "tool_use": "x"}),
        ("", {}, None, {}),
        (None, {JINJA: " \n"}, None, {}),
        (
            [{"name": "default", "template": ""}, {"name": "default", "template": "d"}],
            {},
            "d",
            {"default": "d"},
        ),
    ],
)
def test_the_default_is_taken_and_a_name_chooses(
    opened: Callable[..., Checkpoint],
    in_config: Any,
    files: dict[str, str],
    default: str | None,
    named: dict[str, str],
) -> None:
    found = opened(in_config, files)
    assert chosen(found) == default
    for name, text in named.items():
        assert chosen(found, name) == text
    with pytest.raises(InputError, match="template is 'other'; accepted: "):
        chosen(found, "other")


def test_templates_without_a_default_are_offered_by_name(
    opened: Callable[..., Checkpoint],
) -> None:
    found = opened(NAMELESS, {})
    with pytest.raises(UnsupportedModel, match="no default: choose one of rag, tool_use with --t"):
        chosen(found)
    assert chosen(found, "rag") == "r"


def test_transformers_stores_them_where_they_are_looked_for(
    opened: Callable[..., Checkpoint], tmp_path: Path
) -> None:
    found = opened(None, {})
    tokenizer = found.tokenizer()
    tokenizer.chat_template = {"default": "one", "tool_use": "two"}
    tokenizer.save_pretrained(found.folder)
    again = open_checkpoint(found.folder)
    assert (chosen(again), chosen(again, "tool_use")) == ("one", "two")


def test_a_template_that_is_no_text_is_named(opened: Callable[..., Checkpoint]) -> None:
    found = opened(None, {})
    (found.folder / JINJA).write_bytes(b"\xff\xfe")
    with pytest.raises(UnsupportedModel, match=r"chat_template\.jinja|tokenizer"):
        chosen(found)
