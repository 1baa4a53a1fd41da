"""Where everything of one stack is: directories and ports."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
DEFAULT_DATA_DIR = ROOT / ".backend"

# Every TCP port of a stack, before its offset. All but the public two are bound to loopback only.
PORTS = {
    "public": 8080,
    "public_tls": 8443,
    "postgres": 15432,
    "valkey": 16379,
    "bff": 18081,
    "user": 18082,
    "order": 18083,
    "edge_ops": 19080,
    "bff_ops": 19081,
    "user_ops": 19082,
    "order_ops": 19083,
    "edge_admin": 19180,
    "bff_admin": 19181,
    "user_admin": 19182,
    "order_admin": 19183,
}
HIGHEST_OFFSET = 65535 - max(PORTS.values())


@dataclass(frozen=True, slots=True)
class Layout:
    """One stack: its data directory and its port offset. Two with different ones run side by side."""

    data_dir: Path
    port_offset: int = 0

    def port(self, name: str) -> int:
        """The port of one listener."""
        return PORTS[name] + self.port_offset

    @property
    def state_file(self) -> Path:
        """What runs, as JSON, kept by the supervisor."""
        return self.data_dir / "state.json"

    @property
    def logs(self) -> Path:
        """One file a process."""
        return self.data_dir / "logs"

    @property
    def secrets(self) -> Path:
        """Generated on first start; readable by the owner only."""
        return self.data_dir / "secrets"

    @property
    def envoy(self) -> Path:
        """Rendered Envoy configurations."""
        return self.data_dir / "envoy"

    def endpoints(self) -> dict[str, str]:
        """The URLs a person or a test calls."""
        urls = {
            "public": f"http://127.0.0.1:{self.port('public')}",
            "public_tls": f"https://127.0.0.1:{self.port('public_tls')}",
        }
        for name in ("edge", "bff", "user", "order"):
            urls[f"{name}_ops"] = f"http://127.0.0.1:{self.port(f'{name}_ops')}"
        return urls
