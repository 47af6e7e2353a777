"""Files that are code are read only where nobody else can have put them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tightrope.errors import BackendError
from tightrope.runtime.backends.tensorrt import trusted
from tightrope.runtime.backends.tensorrt.trusted import names_in, read_trusted, write_trusted

NAME = "x.plan"
STRANGER = 54321
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files to another user")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "x.state" / "engines"
    write_trusted(folder, NAME, b"plan")
    return folder


def test_what_was_written_is_read_and_named(folder: Path) -> None:
    assert read_trusted(folder, NAME) == b"plan" and names_in(folder) == [NAME]
    assert names_in(folder.parent / "nothing") == []
    with pytest.raises(FileNotFoundError):
        read_trusted(folder, "y.plan")
    with pytest.raises(FileNotFoundError):
        read_trusted(folder.parent / "nothing", NAME)


def linked_file(folder: Path) -> None:
    (folder / NAME).rename(folder / "real")
    (folder / NAME).symlink_to("real")


def linked_folder(folder: Path) -> None:
    folder.rename(folder.with_name("real"))
    folder.symlink_to("real")


def writable_file(folder: Path) -> None:
    (folder / NAME).chmod(0o602)


def writable_folder(folder: Path) -> None:
    folder.chmod(0o707)


def writable_above(folder: Path) -> None:
    folder.parent.chmod(0o777)


def shared_by_group(folder: Path) -> None:
    (folder / NAME).chmod(0o660)


def pipe(folder: Path) -> None:
    (folder / NAME).unlink()
    os.mkfifo(folder / NAME, 0o600)


def is_folder(folder: Path) -> None:
    (folder / NAME).unlink()
    (folder / NAME).mkdir()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (linked_file, r"x\.plan is a link to real"),
        (linked_folder, r"engines is a link to real"),
        (writable_file, r"x\.plan may be written by others \(mode 602\).*chmod go-w .*x\.plan"),
        (writable_folder, r"engines may be written by others.*chmod go-w"),
        (writable_above, r"x\.state may be written by others"),
        (pipe, r"x\.plan is no file"),
        (is_folder, r"x\.plan is no file"),
    ],
)
def test_what_another_could_have_changed_is_refused_with_the_way_out(
    folder: Path, change: Callable[[Path], None], said: str
) -> None:
    change(folder)
    with pytest.raises(BackendError, match=said):
        read_trusted(folder, NAME)


def test_a_group_counts_only_where_others_are_in_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared_by_group(folder)
    monkeypatch.setattr(trusted, "_shared", lambda group, owner: False)
    assert read_trusted(folder, NAME) == b"plan"
    monkeypatch.setattr(trusted, "_shared", lambda group, owner: True)
    with pytest.raises(BackendError, match="mode 660"):
        read_trusted(folder, NAME)


@as_root
def test_the_file_or_folder_of_another_user_is_refused(folder: Path) -> None:
    os.chown(folder / NAME, STRANGER, STRANGER)
    with pytest.raises(BackendError, match=rf"x\.plan belongs to the user {STRANGER}"):
        read_trusted(folder, NAME)
    os.chown(folder / NAME, 0, 0)
    os.chown(folder.parent, STRANGER, STRANGER)
    with pytest.raises(BackendError, match=rf"x\.state belongs to the user {STRANGER}"):
        names_in(folder)


def test_nothing_is_written_where_it_would_not_be_read(folder: Path) -> None:
    folder.chmod(0o777)
    with pytest.raises(BackendError, match="may be written by others"):
        write_trusted(folder, "y.plan", b"plan")
    assert sorted(path.name for path in folder.iterdir()) == [NAME]


def test_a_state_folder_behind_an_administrators_link_is_fine(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(folder.parent)
    assert read_trusted(tmp_path / "link" / "engines", NAME) == b"plan"
