"""Errors, which survive the way over gRPC and are shown only when they are of the table."""

from __future__ import annotations

from typing import Any

from chassis.errors import FieldViolation, ServiceError, as_service_error
from contracts.errors import ERRORS
from google.rpc.status_pb2 import Status
from hypothesis import given
from hypothesis import strategies as st

printable = st.text(st.characters(exclude_categories=["Cs"]), max_size=50)


@given(
    st.sampled_from(sorted(ERRORS)),
    printable,
    st.lists(st.builds(FieldViolation, printable, printable), max_size=3).map(tuple),
    st.one_of(st.none(), st.integers(0, 10**6).map(lambda ms: ms / 1000)),
    st.dictionaries(printable, printable, max_size=3),
)
def test_an_error_survives_the_way_over_grpc(
    reason: str, detail: str, violations: Any, retry_after: float | None, facts: dict[str, str]
) -> None:
    if detail == ERRORS[reason].title:
        detail = ""
    error = ServiceError(reason, detail, violations, retry_after, facts)
    back = ServiceError.from_status(Status.FromString(error.to_status().SerializeToString()))
    assert (back.reason, back.detail, back.violations) == (reason, detail, violations)
    assert (back.retry_after, back.facts) == (retry_after, facts)


def test_every_reason_has_a_problem_of_its_own() -> None:
    problems = [ServiceError(reason).to_problem("id") for reason in ERRORS]
    assert len({problem.type for problem in problems}) == len(ERRORS)
    assert all(400 <= problem.status < 600 and problem.title for problem in problems)


def test_a_status_that_is_not_ours_is_read_by_its_code() -> None:
    assert ServiceError.from_status(Status(code=14)).reason == "UNAVAILABLE"
    assert ServiceError.from_status(Status(code=4)).reason == "DEADLINE_EXCEEDED"
    assert ServiceError.from_status(Status(code=5)).reason == "INTERNAL"


def test_only_errors_of_the_table_are_shown() -> None:
    assert as_service_error(ValueError("secret")) is None
