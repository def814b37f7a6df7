"""`qwen-core up`, `status`, `down`, `logs`: the platform on one machine."""

from __future__ import annotations

import dataclasses
import json
import sys
import time

import click

from qwen_core.cli.options import home_option
from qwen_core.platform import Platform
from qwen_core.platform.database import in_own_schema

_SERVICES = ("watcher", "ray", "mlflow", "api-server", "scheduler", "dag-processor", "triggerer")


@click.command()
@click.option("--airflow-port", type=click.IntRange(1, 65535), help="Airflow's pages and API [default: 8080].")
@click.option("--mlflow-port", type=click.IntRange(1, 65535), help="MLflow [default: 5000].")
@click.option(
    "--ray-dashboard-port", type=click.IntRange(1, 65535), help="Ray's dashboard and Jobs API [default: 8265]."
)
@click.option("--ray-port", type=click.IntRange(1, 65535), help="Ray's head [default: 6379].")
@click.option(
    "--database",
    metavar="URL",
    envvar="QWEN_CORE_DATABASE",
    help="PostgreSQL for Airflow, and in its schema 'mlflow' for MLflow: postgresql://USER:PASSWORD@HOST/NAME "
    "[default: SQLite files]. Read from QWEN_CORE_DATABASE too, which no list of processes shows.",
)
@home_option
def up(
    airflow_port: int | None,
    mlflow_port: int | None,
    ray_dashboard_port: int | None,
    ray_port: int | None,
    database: str | None,
    home: str | None,
) -> None:
    """Start Airflow, Ray and MLflow on this machine (loopback only); what runs already is left alone.

    A watcher starts again what dies or hangs. What is given here is kept in platform.yaml below the state folder.
    """
    platform = Platform(home)
    platform.configure(
        airflow_port=airflow_port,
        mlflow_port=mlflow_port,
        ray_dashboard_port=ray_dashboard_port,
        ray_port=ray_port,
        airflow_database=database,
        mlflow_database=in_own_schema(database) if database else None,
    )
    platform.up(progress=click.echo)
    _show(platform)
    secret = platform.home.path / "credentials.json"
    click.echo(f"\nAirflow's user is 'admin'; its password and Ray's token are in {secret}")


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Machine-readable.")
@home_option
def status(as_json: bool, home: str | None) -> None:
    """Show each service: state, process, memory, address, restarts. Exit code 1 when one is not well."""
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
    colours = {"up": "green", "starting": "yellow", "down": "red", "failed": "red"}
    for service in platform.status():
        click.echo(
            f"{service.name:14} {click.style(f'{service.state:9}', fg=colours[service.state])} "
            f"{service.pid or '-'!s:>8} {service.memory_bytes / 1e6:7.0f} MB  {service.url}"
        )
        if service.last_exit:
            click.echo(f"{'':14} restarts {service.restarts}; it ended last by {service.last_exit}")
