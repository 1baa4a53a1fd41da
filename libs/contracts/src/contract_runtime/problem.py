"""How every HTTP API of ours says that something went wrong: RFC 9457, with three members of our own."""

from __future__ import annotations

from msgspec import UNSET, Struct, UnsetType


class FieldError(Struct, frozen=True, kw_only=True):
    """One thing that breaks the contract, and where: exactly one of `pointer`, `parameter` and `header` is there."""

    # In the body, a JSON pointer (RFC 6901).
    pointer: str | UnsetType = UNSET
    parameter: str | UnsetType = UNSET
    header: str | UnsetType = UNSET
    detail: str


class Problem(Struct, frozen=True, kw_only=True):
    """The body of `application/problem+json`; `request_id`, `errors` and `facts` are ours."""

    type: str
    title: str
    status: int
    request_id: str
    detail: str | UnsetType = UNSET
    errors: list[FieldError] | UnsetType = UNSET
    # Machine-readable facts about the problem.
    facts: dict[str, str] | UnsetType = UNSET
