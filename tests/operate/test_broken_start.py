"""One start names everything that keeps services from starting, whatever is broken at once in a copy of the repository."""

from __future__ import annotations

from copies import Copy

# In each file a piece, and what it is replaced by: three handlers that are called otherwise, a permission that no role
# grants, and a variable that nobody sets, without which its service does not come to look at its handlers.
BROKEN = {
    "services/order/src/order/handlers/catalog.py": ("async def GetProduct(", "async def GetProducts("),
    "services/bff/src/bff/handlers/meta.py": ("async def get_jwks(", "async def get_keys("),
    "libs/contracts/src/contracts/bff/v1/operations.py": ('permission="orders:pay"', 'permission="orders:buy"'),
    "services/user/src/user/handlers/users.py": ("async def ListUsers(", "async def ListEveryUser("),
    "services/user/src/user/settings.py": (
        "    valkey_url: ValkeyUrl\n",
        "    valkey_url: ValkeyUrl\n    pepper: str\n",
    ),
}
TABLE = {"libs/mesh/src/mesh/topology.py": ('"RATE_LIMIT_SCALE"', '"RATE_LIMIT_SCALES"')}
NAMED = (
    "order.v1.CatalogService.GetProduct has no handler",
    "getJwks has no handler",
    "get_keys is no operation of the contract",
    "payOrder needs orders:buy, which no role grants",
    "PEPPER: Field required",
    "user.v1.UserService.ListUsers has no handler",
)
OF_TABLE = "limiter: nobody knows the value of RATE_LIMIT_SCALES"
START = './backend up --detach --port-offset "$OFFSET" --data-dir "$BACKEND_DATA_DIR-broken"'


def test_one_start_names_all_that_is_broken(copy: Copy) -> None:
    copy.start_over()
    damage(copy, BROKEN)
    said = copy.refused(START)
    assert [problem for problem in NAMED if problem not in said] == [], said
    # With a table that is wrong no service is started at all.
    damage(copy, TABLE)
    said = copy.refused(START)
    assert [problem for problem in (*NAMED, OF_TABLE) if problem not in said] == [], said
    copy.run("git checkout --quiet .")


def damage(copy: Copy, pieces: dict[str, tuple[str, str]]) -> None:
    for name, (piece, broken) in pieces.items():
        file = copy.path / name
        text = file.read_text(encoding="utf-8")
        assert text.count(piece) == 1, (name, piece)
        file.write_text(text.replace(piece, broken), encoding="utf-8")
