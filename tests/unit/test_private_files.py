"""Files with secrets in them are never half written, and never readable for others."""

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from agentflow_server import private_files

BEFORE = "A=1\n"
FULL = r"No space left|File too large"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "secrets"
    file.write_text(BEFORE, encoding="utf-8")
    file.chmod(0o600)
    return file


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """A full disk, as this process sees it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("room", [0, 5])
def test_what_does_not_fit_is_not_appended_by_half(file: Path, room: int) -> None:
    with files_of_at_most(len(BEFORE) + room), pytest.raises(OSError, match=FULL):
        private_files.append(file, "SECRET=abcdefgh\n")
    assert file.read_text(encoding="utf-8") == BEFORE


def test_what_is_appended_comes_after_what_is_there(file: Path) -> None:
    inode = file.stat().st_ino
    private_files.append(file, "B=2\n")
    assert file.read_text(encoding="utf-8") == BEFORE + "B=2\n"
    # The same file: whoever owns it still does.
    assert (file.stat().st_ino, file.stat().st_mode & 0o777) == (inode, 0o600)


def test_a_new_file_is_its_owners_alone(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        private_files.append(tmp_path / "appended", "A=1\n")
        private_files.replace(tmp_path / "folder" / "replaced", "A=1\n")
    finally:
        os.umask(before)
    assert (tmp_path / "appended").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "folder" / "replaced").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "folder").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("mode", [0o604, 0o640, 0o620])
def test_nothing_is_appended_where_others_can_read_or_write(file: Path, mode: int) -> None:
    file.chmod(mode)
    with pytest.raises(PermissionError, match="others can read it"):
        private_files.append(file, "B=2\n")
    assert file.read_text(encoding="utf-8") == BEFORE


def test_nothing_is_appended_to_links_pipes_and_folders(file: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(file)
    os.mkfifo(tmp_path / "pipe", 0o600)
    for name in ("link", "pipe", "."):
        with pytest.raises(OSError, match=r"symbolic link|no regular file|directory"):
            private_files.append(tmp_path / name, "B=2\n")
    assert file.read_text(encoding="utf-8") == BEFORE


def test_a_replacement_that_does_not_fit_leaves_the_old_one(file: Path) -> None:
    with files_of_at_most(2), pytest.raises(OSError, match=FULL):
        private_files.replace(file, "B=2\n")
    assert file.read_text(encoding="utf-8") == BEFORE
    assert list(file.parent.iterdir()) == [file]
