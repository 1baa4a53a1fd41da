"""`backend backup` and `backend restore`, and what the API answers afterwards."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta
from pathlib import Path

import pytest
from contract_runtime.http_client import ApiError
from contracts.bff.v1 import models
from devstack.backups import BackupError

from conftest import People, Platform, backend, new_key, order_of
from devstack import backups

DATABASES = ("notificationdb", "orderdb", "userdb")
_GRANTS = """
SELECT grantee, table_name, privilege_type, '' AS part FROM information_schema.role_table_grants WHERE table_schema = 'public'
UNION ALL SELECT grantee, table_name, privilege_type, column_name FROM information_schema.column_privileges
WHERE table_schema = 'public'
UNION ALL SELECT 'database', '', datacl::text, '' FROM pg_database WHERE datname = current_database()
UNION ALL SELECT 'schema', nspname, nspacl::text, '' FROM pg_namespace WHERE nspname = 'public'
UNION ALL SELECT 'default', '', defaclacl::text, '' FROM pg_default_acl
UNION ALL SELECT 'large objects', proname, proacl::text, '' FROM pg_proc WHERE proname LIKE 'lo\\_%'
UNION ALL SELECT 'index', indexrelid::regclass::text, indisvalid::text, '' FROM pg_index
WHERE indrelid IN (SELECT oid FROM pg_class WHERE relnamespace = 'public'::regnamespace)
ORDER BY 1, 2, 3, 4
"""


async def grants(stack: Platform) -> list[tuple[object, ...]]:
    """Who may do what in the databases."""
    found = []
    for name in DATABASES:
        connection = await stack.database(name)
        found += [(name, *row) for row in await connection.fetch(_GRANTS)]
        await connection.close()
    return found


async def soonest_expiry(stack: Platform) -> timedelta:
    """How long from now the first of the unpaid orders expires."""
    connection = await stack.database("orderdb")
    found = await connection.fetchval("SELECT min(expires_at) - now() FROM orders WHERE status = 'pending_payment'")
    await connection.close()
    assert isinstance(found, timedelta)
    return found


async def test_after_a_restore_nothing_answers_what_came_after_the_backup(
    people: People, stack: Platform, tmp_path: Path
) -> None:
    where = ("--data-dir", str(stack.layout.data_dir))
    client, login = await people.newcomer()
    product = await people.product(stock=10)
    order = await people.order(client, (product, 1))
    before = await grants(stack)
    target = tmp_path / "a backup"
    await asyncio.to_thread(backend, "backup", str(target), *where)
    assert {path.name for path in target.iterdir()} == {"manifest.json", *(f"{name}.dump" for name in DATABASES)}
    assert not any(path.stat().st_mode & 0o077 for path in (target, *target.iterdir()))

    # All of it is read again, so that every copy is as hot as can be.
    key = new_key()
    lost = (await client.create_order(order_of((product, 2)), idempotency_key=key)).data
    await client.cancel_order(order.id, models.CancellationRequest(reason="why"))
    await client.update_me(models.UpdateMeRequest(display_name="After The Backup"))
    stranger, strangers_login = await people.newcomer()
    admin = await people.role("admin")
    await admin.update_product(product.id, models.UpdateProductRequest(name="After the backup"), if_match='"1"')
    assert (await client.get_order(lost.id)).data == lost
    assert (await client.get_order(order.id)).data.status == "cancelled"
    assert (await client.get_product(product.id)).data.name == "After the backup"
    assert (await client.get_me()).data.display_name == "After The Backup"

    done = await asyncio.to_thread(backend, "restore", str(target), "--yes", *where)
    assert "restored" in done.stdout
    # The trail has gone back with everything else; the log says so.
    *_, told = (stack.layout.logs / "audit.log").read_text(encoding="utf-8").splitlines()
    assert '"databases.restored"' in told
    assert str(target) in told
    # Nobody loses an order that the provider may have been paid for since.
    assert timedelta(minutes=50) < await soonest_expiry(stack) <= timedelta(hours=1)
    for gone in (client, stranger, admin):
        with pytest.raises(ApiError) as refused:
            await gone.get_me()
        assert refused.value.status == 401
    with pytest.raises(ApiError) as unknown:
        await people.log_in(strangers_login)
    assert unknown.value.status == 401
    client = await people.log_in(login)
    assert (await client.get_order(order.id)).data == order
    assert (await client.get_product(product.id)).data.name == product.name
    assert (await client.get_me()).data.display_name == "New Comer"
    with pytest.raises(ApiError) as missing:
        await client.get_order(lost.id)
    assert missing.value.status == 404
    # The key of what never happened makes an order; what changes from here on is seen.
    again = await client.create_order(order_of((product, 2)), idempotency_key=key)
    assert again.data.id != lost.id
    assert (await client.get_order(again.data.id)).data == again.data
    assert (await client.cancel_order(order.id, models.CancellationRequest(reason="why"))).data.status == "cancelled"
    assert (await client.get_order(order.id)).data.status == "cancelled"
    assert await grants(stack) == before
    names = await stack.database("postgres")
    assert not await names.fetch("SELECT 1 FROM pg_database WHERE datname ~ '_(restored|replaced)$'")
    await names.close()


async def test_what_is_no_whole_backup_of_ours_is_refused(stack: Platform, tmp_path: Path) -> None:
    with pytest.raises(BackupError, match=r"is no backup: there is no manifest\.json in it"):
        backups.read(tmp_path, stack.secrets)
    target = tmp_path / "backup"
    await backups.back_up(stack.layout, stack.secrets, target)
    backups.read(target, stack.secrets)
    with pytest.raises(BackupError, match="exists already"):
        await backups.back_up(stack.layout, stack.secrets, target)
    whole = (target / "manifest.json").read_text(encoding="utf-8")
    later = json.loads(whole)
    later["databases"]["orderdb"]["migrations"].append("99990101000001")
    (target / "manifest.json").write_text(json.dumps(later), encoding="utf-8")
    with pytest.raises(BackupError, match="later version: it has migrations 99990101000001"):
        backups.read(target, stack.secrets)
    (target / "manifest.json").write_text(whole, encoding="utf-8")
    archive = target / "userdb.dump"
    archive.write_bytes(archive.read_bytes()[:-1])
    with pytest.raises(BackupError, match=r"userdb\.dump is damaged"):
        backups.read(target, stack.secrets)
    # And the command says so, before anything is touched.
    done = backend("restore", str(target), "--yes", "--data-dir", str(stack.layout.data_dir), check=False)
    assert (done.returncode, "is damaged" in done.stdout) == (1, True)
