"""`qwen-core up`, `status`, `down`, `logs`: the platform on one machine."""

from __future__ import annotations

import dataclasses
import json
import sys
import time

import click

from qwen_core.cli.options import home_option
from qwen_core.platform import Platform

_SERVICES = ("ray", "mlflow", "api-server", "scheduler", "dag-processor", "triggerer")


@click.command()
@click.option("--airflow-port", type=click.IntRange(1, 65535), help="Airflow's pages and API [default: 8080].")
@click.option("--mlflow-port", type=click.IntRange(1, 65535), help="MLflow [default: 5000].")
@click.option(
    "--ray-dashboard-port", type=click.IntRange(1, 65535), help="Ray's dashboard and Jobs API [default: 8265]."
)
@click.option("--ray-port", type=click.IntRange(1, 65535), help="Ray's head [default: 6379].")
@home_option
def up(
    airflow_port: int | None,
    mlflow_port: int | None,
    ray_dashboard_port: int | None,
    ray_port: int | None,
    home: str | None,
) -> None:
    """Start Airflow, Ray and MLflow on this machine (loopback only); what runs already is left alone.

    Ports given here are kept in platform.yaml below the state folder.
    """
    platform = Platform(home)
    platform.configure(
        airflow_port=airflow_port, mlflow_port=mlflow_port, ray_dashboard_port=ray_dashboard_port, ray_port=ray_port
    )
    platform.up(progress=click.echo)
    _show(platform)
    secret = platform.home.path / "credentials.json"
    click.echo(f"\nAirflow's user is 'admin'; its password and Ray's token are in {secret}")


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Machine-readable.")
@home_option
def status(as_json: bool, home: str | None) -> None:
    """Show each service: state, process, address, memory. Exit code 1 when one is down."""
    platform = Platform(home)
    if as_json:
        click.echo(json.dumps([dataclasses.asdict(service) for service in platform.status()], indent=1))
    else:
        _show(platform)
    sys.exit(0 if platform.is_up() else 1)


@click.command()
@home_option
def down(home: str | None) -> None:
    """End every process of the platform; running stages go on from their last checkpoint at the next run."""
    count = Platform(home).down()
    click.echo(f"ended {count} processes" if count else "nothing was running")


@click.command()
@click.argument("service", type=click.Choice(_SERVICES))
@click.option("-n", "--lines", default=50, show_default=True, type=click.IntRange(min=1))
@click.option("-f", "--follow", is_flag=True, help="Go on until Ctrl-C.")
@home_option
def logs(service: str, lines: int, follow: bool, home: str | None) -> None:
    """Print the end of a service's log."""
    from qwen_core.platform.processes import tail

    path = Platform(home).log_path(service)
    click.echo(tail(path, lines))
    if not follow or not path.is_file():
        return
    with path.open(encoding="utf-8", errors="replace") as file:
        file.seek(0, 2)
        while True:
            line = file.readline()
            if line:
                click.echo(line, nl=False)
            else:
                time.sleep(0.3)


def _show(platform: Platform) -> None:
    """Print the table of services."""
    for service in platform.status():
        colour = {"up": "green", "starting": "yellow", "down": "red"}[service.state]
        click.echo(
            f"{service.name:14} {click.style(f'{service.state:9}', fg=colour)} {service.pid or '-'!s:>8} "
            f"{service.memory_bytes / 1e6:7.0f} MB  {service.url}"
        )
