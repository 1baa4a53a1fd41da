"""Where everything of one stack is: directories, sockets and ports."""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from mesh.topology import CONSOLE, FIRST_PORT, OTHER_PORTS, PORTS_EACH, TABLE

ROOT = Path(__file__).resolve().parents[3]
DEFAULT_DATA_DIR = ROOT / ".backend"

# Every port that a stack may have, before its offset, by listener; all are bound to loopback.
PORTS = {**OTHER_PORTS, **{listener: port for row in TABLE for port, listener in row.ports.items()}}
HIGHEST_OFFSET = (65535 - FIRST_PORT) // PORTS_EACH * PORTS_EACH - PORTS_EACH


@dataclass(frozen=True, slots=True)
class Layout:
    """One stack: its data directory and its port offset. Two with different ones run side by side."""

    data_dir: Path
    port_offset: int = 0

    def port(self, name: str) -> int:
        """The port of one listener: public, public_tls, order, order_ops, order-2, order-2_ops."""
        return PORTS[name] + self.port_offset

    def make(self) -> None:
        """The data directory, its owner's alone with everything in it (an older version left some open to others)."""
        self.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        _make_private(self.data_dir)
        # A directory that another process removes meanwhile is passed over.
        for directory, names, files in os.walk(self.data_dir):
            for name in (*names, *files):
                _make_private(Path(directory, name))

    @property
    def state_file(self) -> Path:
        """What runs, as JSON, kept by the supervisor."""
        return self.data_dir / "state.json"

    @property
    def demo_marker(self) -> Path:
        """There once all demo data are."""
        return self.data_dir / "demo-loaded"

    @property
    def logs(self) -> Path:
        """One file a process."""
        return self.data_dir / "logs"

    @property
    def spans(self) -> Path:
        """What processes told of the requests of the last hour (`devstack.console.spans`)."""
        return self.data_dir / "spans"

    @property
    def mails(self) -> Path:
        """What was sent by mail and not delivered (`devstack.mails`)."""
        return self.data_dir / "mails"

    @property
    def secrets(self) -> Path:
        """Generated on first start; readable by the owner only."""
        return self.data_dir / "secrets"

    @property
    def pki(self) -> Path:
        """The certificate authority's own."""
        return self.data_dir / "pki"

    @property
    def certificates(self) -> Path:
        """What each process proves itself with."""
        return self.data_dir / "certs"

    @property
    def envoy(self) -> Path:
        """Rendered Envoy configurations."""
        return self.data_dir / "envoy"

    @property
    def run(self) -> Path:
        """Unix sockets of the Envoys, relative to whose working directory (the data directory) they are named."""
        return self.data_dir / "run"

    @property
    def sockets(self) -> Path:
        """Unix sockets that clients open by an absolute path, which must be short (108 bytes on Linux, 104 on macOS)."""
        digest = hashlib.sha256(str(self.data_dir).encode()).hexdigest()[:12]
        return Path(tempfile.gettempdir()) / f"backend-{digest}"

    def endpoints(self, processes: tuple[str, ...]) -> dict[str, str]:
        """The URLs a person or a test calls."""
        urls = {
            "public": f"http://127.0.0.1:{self.port('public')}",
            "public_tls": f"https://127.0.0.1:{self.port('public_tls')}",
            CONSOLE: f"http://127.0.0.1:{self.port(CONSOLE)}",
        }
        return urls | {f"{name}_ops": f"http://127.0.0.1:{self.port(f'{name}_ops')}" for name in processes}


def _make_private(path: Path) -> None:
    # What another process renames or removes meanwhile is passed over, too: it has its own mode from its maker.
    with suppress(FileNotFoundError):
        mode = path.lstat().st_mode
        if mode & 0o077 and (stat.S_ISDIR(mode) or stat.S_ISREG(mode)):
            path.chmod(mode & 0o700)
