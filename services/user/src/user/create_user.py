"""`python -m user.create_user EMAIL NAME ROLE…`: a user with roles, for the first administrator.

Nobody can grant a role before there is somebody with the right to. The password comes on standard input, so that it
appears in no process list and no shell history. A user who exists already is not changed; it is an error
unless that user is active and has the roles.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys

from chassis.audit.acts import operator
from chassis.config import load

from user.domain.email_address import canonical
from user.domain.errors import EmailTakenError, InvalidFieldError
from user.domain.user import Role, User, parse_roles
from user.main import opened
from user.repository import users
from user.settings import Settings


async def create(email: str, display_name: str, roles: list[str], password: str) -> str:
    """Create a user in the database that the environment names; returns what was done, in one line.

    Raises:
        SystemExit: the service would refuse the address, the name or the password, or somebody has the address who
            is not what is asked for.
    """
    wanted = parse_roles(roles)
    async with opened(load(Settings)) as service:
        try:
            user = await service.servicers.use_cases.register(email, password, display_name, wanted, operator())
        except EmailTakenError:
            async with service.database.connection() as connection:
                known = await users.by_email(connection, canonical(email))
            return registered(email, known, wanted)
        except InvalidFieldError as error:
            ((pointer, detail),) = error.violations
            raise SystemExit(f"{pointer.strip('/')} {detail}") from None
        return f"{user.id} {email} {','.join(user.roles)}"


def registered(email: str, known: User | None, wanted: tuple[Role, ...]) -> str:
    """What is to be said of somebody who has the address already.

    Raises:
        SystemExit: it is not active, or lacks a role.
    """
    if known is None:
        raise SystemExit(f"{email} was registered until a moment ago; try again")
    lacks = [role for role in wanted if role not in known.roles]
    if known.is_active and not lacks:
        return f"{email} is registered already, with {','.join(known.roles)}; its password is what it was"
    why = f"without the role {', '.join(lacks)}" if lacks else "and is disabled"
    roles = sorted({*known.roles, *wanted})
    raise SystemExit(
        f"{email} is registered already, {why}; nothing was changed, and its password is what it was.\n"
        f"What to do: an administrator gives it the role with PATCH /v1/admin/users/{known.id} "
        f'{{"roles": {json.dumps(roles)}, "status": "active"}}; or take another address'
    )


def main() -> None:
    """Read the arguments and the password, create the user, print it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("email")
    parser.add_argument("display_name")
    parser.add_argument("roles", nargs="+")
    arguments = parser.parse_args()
    password = sys.stdin.readline().rstrip("\n")
    if not password:
        raise SystemExit("no password was given")
    print(asyncio.run(create(arguments.email, arguments.display_name, arguments.roles, password)))


if __name__ == "__main__":
    main()
