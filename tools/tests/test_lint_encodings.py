"""Which text is read or written without an encoding."""

from __future__ import annotations

from pathlib import Path

import pytest
from lint_encodings import modules, problems


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("self._file.read_text()", 1),
        ("layout.state_file.write_text(text)", 1),
        ("self.path_of(1).read_text()", 1),
        ("Path('x').write_text('utf-8')", 1),
        ("self._file.open('w')", 1),
        ("self._file.open(mode='a')", 1),
        ("open('x')", 1),
        ("open('x', 'r+')", 1),
        ("subprocess.run(command, text=True)", 1),
        ("self._file.read_text(encoding='utf-8')", 0),
        ("self._file.open('w', encoding='utf-8')", 0),
        ("self._file.open('rb')", 0),
        ("open('x', 'wb')", 0),
        ("open('x', mode='xb')", 0),
        ("self._file.read_bytes()", 0),
        ("Path('x').read_text('utf-8')", 0),
        ("Path('x').write_text('text', 'utf-8')", 0),
        ("Event(text=text)", 0),
        ("self._database.open()", 0),
        ("webbrowser.open('http://localhost')", 0),
        ("os.open(path, os.O_RDONLY)", 0),
        ("subprocess.run(command, encoding='utf-8')", 0),
        ("subprocess.run(command, **options, text=True)", 0),
    ],
)
def test_text_says_its_encoding(tmp_path: Path, code: str, found: int) -> None:
    module = tmp_path / "module.py"
    module.write_text(f"{code}\n", encoding="utf-8")
    assert len(problems(module)) == found


def test_ours_say_it() -> None:
    assert len(modules()) > 200
    assert [problem for path in modules() for problem in problems(path)] == []
