"""A contract that clients hold on to breaks only by a commit that says so: `make contracts BASE=origin/main`.

What differs since $BASE's last common commit: protobuf files by `buf breaking`, the public API by the rules below. Where something breaks, one of the
commits since has to be marked (`feat(api)!: …`, tools/lint_commit_message.py), from which the changelog takes it.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
OPENAPI = "api/openapi/bff.v1.yaml"
_METHODS = ("get", "put", "post", "delete", "patch")
_MARKED = re.compile(r"[a-z]+(\([^)]*\))?!: ")
Spec = Mapping[str, Any]


def breaks(before: Spec, after: Spec) -> list[str]:
    """A line for each thing of the public API that a client may hold on to, and that is gone or newly demanded."""
    then, now = _operations(before), _operations(after)
    found = [f"{name} is gone" for name in sorted(then.keys() - now.keys())]
    for name in sorted(then.keys() & now.keys()):
        found += [f"{name}: {fault}" for fault in _of_operation(before, after, then[name], now[name])]
    return found


def _operations(spec: Spec) -> dict[str, Spec]:
    return {
        f"{method.upper()} {path}": item[method]
        for path, item in spec["paths"].items()
        for method in _METHODS
        if method in item
    }


def _of_operation(before: Spec, after: Spec, then: Spec, now: Spec) -> Iterator[str]:
    was, is_ = (_demanded(*of) for of in ((before, then), (after, now)))
    yield from (f"demands {name}" for name in sorted(is_ - was))
    success_then, success_now = ({code for code in of["responses"] if code[0] in "23"} for of in (then, now))
    yield from (f"answers {code} no more" for code in sorted(success_then - success_now))
    for code in sorted(success_then & success_now):
        members_then, members_now = (
            _members(spec, of["responses"][code]) for spec, of in ((before, then), (after, now))
        )
        yield from (f"answers {code} without {member}" for member in sorted(members_then - members_now))


def _demanded(spec: Spec, operation: Spec) -> set[str]:
    """What a request cannot be without: parameters, and members of its body."""
    parameters = (_resolved(spec, one) for one in operation.get("parameters", ()))
    found = {f"the parameter {one['name']} ({one['in']})" for one in parameters if one.get("required")}
    body = _resolved(spec, operation.get("requestBody", {}))
    return found | {f"the member {name}" for name in _schema(spec, body).get("required", ())}


def _members(spec: Spec, response: Spec) -> set[str]:
    return set(_schema(spec, _resolved(spec, response)).get("required", ()))


def _schema(spec: Spec, holder: Spec) -> Spec:
    return _resolved(spec, holder.get("content", {}).get("application/json", {}).get("schema", {}))


def _resolved(spec: Spec, node: Spec) -> Spec:
    while "$ref" in node:
        target: Any = spec
        for part in node["$ref"].removeprefix("#/").split("/"):
            target = target[part]
        node = target
    return node


def said(*command: str) -> str:
    """What git says, in the repository."""
    return subprocess.run(["git", *command], cwd=ROOT, capture_output=True, encoding="utf-8", check=True).stdout


def is_marked(base: str) -> bool:
    """Whether a commit since a base says that it breaks something."""
    messages = said("log", "--format=%B%x00", f"{base}..HEAD").split("\0")
    return any(_MARKED.match(message.strip()) or "\nBREAKING CHANGE: " in message for message in messages)


def differences(base: str) -> list[str]:
    """What breaks between a commit and the files as they are."""
    archived = subprocess.run(["git", "archive", base, "api"], cwd=ROOT, capture_output=True, check=True).stdout
    with tempfile.TemporaryDirectory() as directory:
        subprocess.run(["tar", "-x", "-C", directory], input=archived, check=True)
        buf = [str(Path(sys.executable).parent / "buf"), "breaking", "api", "--against", f"{directory}/api"]
        protobuf = subprocess.run(buf, cwd=ROOT, capture_output=True, encoding="utf-8", check=False)
        before = yaml.safe_load((Path(directory) / OPENAPI).read_text(encoding="utf-8"))
    # 100: it has found something. Any other is no answer.
    if protobuf.returncode not in (0, 100):
        raise SystemExit(f"buf breaking: {protobuf.stderr}")
    after = yaml.safe_load((ROOT / OPENAPI).read_text(encoding="utf-8"))
    return [*protobuf.stdout.splitlines(), *breaks(before, after)]


def main() -> None:
    """Exit 1 when something breaks and no commit says so."""
    base = said("merge-base", os.environ.get("BASE") or "origin/main", "HEAD").strip()
    found = differences(base)
    for line in found:
        print(line)
    if found and not is_marked(base):
        sys.exit("this breaks clients: keep it, or mark the commit with `!` (feat(api)!: …)")


if __name__ == "__main__":
    main()
