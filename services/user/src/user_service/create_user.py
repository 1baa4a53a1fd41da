"""`python -m user_service.create_user EMAIL NAME ROLE…`: a user with roles, for the first administrator.

Nobody can grant a role before there is somebody with the right to. The password comes on standard input, so that it
appears in no process list and no shell history. An address that is registered already is left as it is.
"""

from __future__ import annotations

import argparse
import asyncio
import sys

from chassis.config import load

from user_service.domain.errors import EmailTakenError, InvalidFieldError
from user_service.domain.user import parse_roles
from user_service.main import opened
from user_service.settings import Settings


async def create(email: str, display_name: str, roles: list[str], password: str) -> str:
    """Create a user in what the environment names; what has been done, in one line.

    Raises:
        SystemExit: the service would refuse the address, the name or the password.
    """
    async with opened(load(Settings)) as service:
        try:
            user = await service.servicers.use_cases.register(email, password, display_name, parse_roles(roles))
        except EmailTakenError:
            return f"{email} is registered already"
        except InvalidFieldError as error:
            ((pointer, detail),) = error.violations
            raise SystemExit(f"{pointer.strip('/')} {detail}") from None
        return f"{user.id} {email} {','.join(user.roles)}"


def main() -> None:
    """Read the arguments and the password, create the user, print it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("email")
    parser.add_argument("display_name")
    parser.add_argument("roles", nargs="+")
    arguments = parser.parse_args()
    password = sys.stdin.readline().rstrip("\n")
    print(asyncio.run(create(arguments.email, arguments.display_name, arguments.roles, password)))


if __name__ == "__main__":
    main()
