"""Airflow's connection of type `ray`: its form, and what an HTTP client makes of it.

Nothing here may put the token into a message: connections are shown by scheme, host and port alone.
"""

from __future__ import annotations

import ipaddress
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from qwen_core.errors import RayJobError

CONNECTION_TYPE = {
    "connection-type": "ray",
    "hook-class-name": "operators.ray_hook.RayHook",
    "hook-name": "Ray",
    "ui-field-behaviour": {
        "hidden-fields": ["login", "schema"],
        "relabeling": {"host": "Dashboard host", "port": "Dashboard port", "password": "Token"},
        "placeholders": {"host": "ray-head.example.org", "port": "8265", "password": "RAY_AUTH_TOKEN of the cluster"},
    },
    "conn-fields": {
        "tls": {
            "label": "TLS (https)",
            "schema": {"type": ["boolean", "null"], "default": False},
            "description": "Speak https to the dashboard, or to the proxy before it.",
        },
        "verify": {
            "label": "Verify the certificate",
            "schema": {"type": ["boolean", "null"], "default": True},
            "description": "Only a test cluster should do without.",
        },
        "ca_file": {
            "label": "CA file",
            "schema": {"type": ["string", "null"]},
            "description": "Path of a PEM file on Airflow's machines; empty: the system's authorities.",
        },
        "client_cert": {
            "label": "Client certificate",
            "schema": {"type": ["string", "null"]},
            "description": "Path of a PEM file, where the server asks for one; it may hold the key too.",
        },
        "client_key": {
            "label": "Client key",
            "schema": {"type": ["string", "null"]},
            "description": "Path of a PEM file, where the certificate's does not hold the key.",
        },
        "dashboard_url": {
            "label": "Dashboard for browsers",
            "schema": {"type": ["string", "null"]},
            "description": "Where the button 'Ray job' leads, if people reach the dashboard by another address.",
        },
        "mlflow_url": {
            "label": "MLflow for browsers",
            "schema": {"type": ["string", "null"]},
            "description": "Where the button 'MLflow run' leads, such as https://mlflow.example.org",
        },
    },
}
"""The connection's form, as Airflow's provider metadata wants it."""

DEFAULT_PORT = 8265


@dataclass(frozen=True)
class RayAddress:
    """Where a cluster's dashboard is and how it is asked.

    Attributes:
        url: Scheme, host and port.
        token: Of the cluster, a secret.
        verify: Whether the server's certificate is checked.
        ca_file: PEM file of authorities.
        client_cert: PEM file of an own certificate.
        client_key: PEM file of its key.
        dashboard_url: For browsers.
        mlflow_url: For browsers.
    """

    url: str
    token: str | None = field(default=None, repr=False)
    verify: bool = True
    ca_file: str | None = None
    client_cert: str | None = None
    client_key: str | None = None
    dashboard_url: str = ""
    mlflow_url: str | None = None

    @classmethod
    def of(cls, connection: Any, extra: dict[str, Any]) -> RayAddress:
        """Read a connection.

        Args:
            connection: Airflow's.
            extra: Its extra fields.

        Returns:
            The address.

        Raises:
            RayJobError: A field is wrong; the message names it.
        """
        if connection.conn_type not in ("ray", "http", "https", None):
            raise _wrong(connection, f"is of type '{connection.conn_type}', not 'ray'")
        url = _url(connection, is_tls=_is_true(extra.get("tls")) or connection.conn_type == "https")
        files = {name: extra.get(name) or None for name in ("ca_file", "client_cert", "client_key")}
        for name, path in files.items():
            if path and not Path(path).is_file():
                raise _wrong(connection, f"names a {name} that is not there: {path}")
        return cls(
            url,
            connection.password or None,
            _is_true(extra.get("verify", True)),
            **files,
            dashboard_url=(extra.get("dashboard_url") or url).rstrip("/"),
            mlflow_url=(extra.get("mlflow_url") or "").rstrip("/") or None,
        )

    def client_arguments(self) -> dict[str, Any]:
        """Make the arguments that httpx's two clients share; reads certificates, so not for an event loop."""
        return {
            "base_url": self.url,
            "headers": {"Authorization": f"Bearer {self.token}"} if self.token else {},
            # For plain http nothing is loaded: the system's authorities take 20 ms.
            "verify": self._tls_context() if self.url.startswith("https") else False,
            "trust_env": not _is_loopback(self.url),
        }

    def _tls_context(self) -> ssl.SSLContext:
        try:
            context = ssl.create_default_context(cafile=self.ca_file)
            if not self.verify:
                context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            if self.client_cert:
                context.load_cert_chain(self.client_cert, self.client_key)
        except (OSError, ssl.SSLError) as error:
            raise RayJobError(
                f"the certificates of the connection to {self.url} cannot be read ({type(error).__name__}): "
                f"ca_file, client_cert and client_key must be PEM files, the key without a passphrase"
            ) from None
        return context


def _url(connection: Any, is_tls: bool) -> str:
    """Compose scheme, host and port; the host's field may hold them all."""
    host = (connection.host or "127.0.0.1").strip()
    scheme = "https" if is_tls or connection.schema == "https" else "http"
    parts = urlsplit(host if "://" in host else f"{scheme}://{_bracketed(host)}")
    try:
        port = connection.port or parts.port or DEFAULT_PORT
    except ValueError:
        raise _wrong(connection, "has a port that is no number from 1 to 65535") from None
    if parts.username or parts.password:
        raise _wrong(connection, "holds a user or a password in its host: the token belongs into the field Token")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise _wrong(connection, "has a host that is neither a name nor an http or https address")
    if not 0 < port < 65_536:
        raise _wrong(connection, f"has the port {port}: it must lie between 1 and 65535")
    return f"{parts.scheme}://{_bracketed(parts.hostname)}:{port}{parts.path.rstrip('/')}"


def _bracketed(host: str) -> str:
    return f"[{host}]" if host.count(":") > 1 and not host.startswith("[") else host


def _is_true(value: Any) -> bool:
    """Read a switch; a connection from a URI holds words."""
    return value.strip().lower() in ("true", "1", "yes", "on") if isinstance(value, str) else bool(value)


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _wrong(connection: Any, what: str) -> RayJobError:
    return RayJobError(f"connection '{connection.conn_id}' {what}. Mend it under Admin > Connections in Airflow")
