"""The passwords that everybody tries first.

`common_passwords.txt.gz` holds 19,640 of them, most common first: the list of Royce Williams
(https://gist.github.com/roycewilliams/226886fd01572964e1431ac8afc999ce), lower case and without repetitions, as the Django
project distributes it under the BSD 3-Clause licence: `django/contrib/auth/common-passwords.txt.gz` of the wheel
django 5.2.19, unchanged (SHA-256 3c1baed62596de36860824eb3f436d59
32d37ca8b06e59df78f5a44ec175afe4).
"""

from __future__ import annotations

import gzip
from functools import cache
from importlib.resources import files

from chassis.text import search_key


@cache
def common_passwords() -> frozenset[str]:
    """All of them, as `search_key` has them."""
    raw = (files("user.repository") / "common_passwords.txt.gz").read_bytes()
    return frozenset(search_key(line) for line in gzip.decompress(raw).decode().splitlines() if line)
