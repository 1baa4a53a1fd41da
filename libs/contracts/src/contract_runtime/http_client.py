"""What a generated client of an HTTP API is made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Generic, TypeVar, cast

import httpx
import msgspec

from contract_runtime.problem import Problem

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Answer(Generic[T]):
    """A successful answer: its status, headers and decoded body."""

    status: int
    headers: httpx.Headers
    data: T


class ApiError(Exception):
    """Any answer that is not a success; `problem` is its RFC 9457 body where it has one."""

    def __init__(self, status: int, headers: httpx.Headers, problem: Problem | None) -> None:
        super().__init__(f"{status} {problem.type if problem else ''}")
        self.status = status
        self.headers = headers
        self.problem = problem


class HttpClient:
    """Makes the calls of an API. Set `access_token` after a login; `http` is the connection pool, owned by the caller."""

    def __init__(self, http: httpx.AsyncClient, access_token: str | None = None) -> None:
        self.http = http
        self.access_token = access_token

    async def send(
        self,
        method: str,
        path: str,
        answer: type[T],
        *,
        body: msgspec.Struct | None = None,
        query: Mapping[str, datetime | str | int | None] | None = None,
        headers: Mapping[str, str | None] | None = None,
    ) -> Answer[T]:
        """One call, its answer decoded as `answer`.

        Raises:
            ApiError: the answer is no success.
            httpx.TransportError: there is none.
        """
        sent = {name: value for name, value in (headers or {}).items() if value is not None}
        if self.access_token is not None:
            sent["Authorization"] = f"Bearer {self.access_token}"
        if body is not None:
            sent["Content-Type"] = "application/json"
        response = await self.http.request(
            method,
            path,
            content=msgspec.json.encode(body) if body is not None else None,
            params={
                k: v.isoformat() if isinstance(v, datetime) else v for k, v in (query or {}).items() if v is not None
            },
            headers=sent,
        )
        if not response.is_success:
            problem = None
            if response.headers.get("content-type", "").startswith("application/problem+json"):
                problem = msgspec.json.decode(response.content, type=Problem)
            raise ApiError(response.status_code, response.headers, problem)
        return Answer(response.status_code, response.headers, _read(response, answer))


def _read(response: httpx.Response, answer: type[T]) -> T:
    if answer is str:
        return cast("T", response.text)
    if answer is type(None):
        return None
    return msgspec.json.decode(response.content, type=answer)
