"""A broker of its own for a test: the server as devstack runs it, without the rest of a stack."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

from chassis.events.nats import Nats
from chassis.events.publisher import BrokerUnavailable
from chassis.private_files import private_pem
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from devstack.layout import Layout
from mesh import broker as declared
from mesh import streams
from mesh.certificates import TRUST_DOMAIN, Certificates, workload_certificate
from mesh.topology import OPERATORS, SERVICES, Service

from conftest import free_port_offset
from devstack import broker, health


class Server:
    """A broker that a test starts, kills and starts again."""

    def __init__(self, directory: Path, services: Sequence[Service] = SERVICES) -> None:
        self.layout = Layout(directory, free_port_offset())
        self.services = services
        self.certificates = Certificates(self.layout.pki, self.layout.certificates)
        self.certificates.ensure()
        self.process: asyncio.subprocess.Process | None = None

    @property
    def url(self) -> str:
        return broker.url(self.layout)

    def certificates_of(self, name: str) -> Path:
        """The directory of an identity's certificate, made when the stack has none of that name."""
        directory = self.layout.certificates / name
        if not directory.exists():
            pki = self.layout.pki
            issuer = x509.load_pem_x509_certificate((pki / "intermediate.crt").read_bytes())
            issuer_key = load_pem_private_key((pki / "intermediate.key").read_bytes(), password=None)
            assert isinstance(issuer_key, ec.EllipticCurvePrivateKey)
            key = ec.generate_private_key(ec.SECP256R1())
            made = workload_certificate(name, key.public_key(), issuer, issuer_key, timedelta(hours=1))
            directory.mkdir()
            (directory / "tls.crt").write_bytes(made.public_bytes(Encoding.PEM) + issuer.public_bytes(Encoding.PEM))
            (directory / "tls.key").write_bytes(private_pem(key))
            (directory / "ca.crt").write_bytes((pki / "root.crt").read_bytes())
        return directory

    async def start(self) -> None:
        command = broker.command(self.layout)
        accounts = broker.directory(self.layout) / "accounts.conf"
        accounts.write_text(declared.accounts(TRUST_DOMAIN, self.services), encoding="utf-8")
        log = os.open(self.layout.data_dir / "nats.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        # Python ignores SIGXFSZ; so does what it starts, which then gets an error where a file may not grow.
        self.process = await asyncio.create_subprocess_exec(*command, stdout=log, stderr=log, restore_signals=False)
        os.close(log)
        async with asyncio.timeout(20):
            while not await health.broker_works(self.layout):
                assert self.process.returncode is None, self.log()
                await asyncio.sleep(0.02)

    def log(self) -> str:
        return (self.layout.data_dir / "nats.log").read_text(encoding="utf-8")

    async def apply(self, *, remove: bool = False) -> list[str]:
        certificates = self.layout.certificates / OPERATORS
        return await streams.apply(self.url, certificates, replicas=1, remove=remove, services=self.services)

    async def kill(self, how: signal.Signals = signal.SIGKILL) -> None:
        assert self.process is not None
        if self.process.returncode is None:
            self.process.send_signal(how)
            await self.process.wait()

    @asynccontextmanager
    async def client(self, name: str, timeout: float = 20.0) -> AsyncIterator[Nats]:
        """A process's connection, once it is there."""
        client = Nats(self.url, self.certificates_of(name), name, timeout)
        running = asyncio.create_task(client.run())
        try:
            await connected(client)
            yield client
        finally:
            running.cancel()
            await asyncio.wait([running])


async def connected(client: Nats) -> None:
    async with asyncio.timeout(30):
        while True:
            try:
                await client.check()
            except BrokerUnavailable:
                await asyncio.sleep(0.02)
            else:
                return


@asynccontextmanager
async def running(directory: Path, services: Sequence[Service] = SERVICES) -> AsyncIterator[Server]:
    """A broker with its streams."""
    server = Server(directory, services)
    await server.start()
    try:
        await server.apply()
        yield server
    finally:
        await server.kill()
