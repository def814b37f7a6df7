"""What Airflow is told of this provider: entry point `apache_airflow_provider` of the distribution."""

from __future__ import annotations

from typing import Any

from operators.ray_connection import CONNECTION_TYPE


def get_provider_info() -> dict[str, Any]:
    """Describe the provider.

    Returns:
        Airflow's provider metadata: the connection type with its form, operators, buttons and notifiers.
    """
    modules = {
        "operators": ["operators.ray_operator", "operators.orphans_operator"],
        "hooks": ["operators.ray_hook"],
        "triggers": ["operators.ray_trigger"],
    }
    return {
        "package-name": "qwen-core",
        "name": "Ray",
        "description": "Ray jobs over Ray's Jobs REST API, deferrable, with streamed logs; Airflow needs no ray.",
        "integrations": [
            {
                "integration-name": "Ray",
                "external-doc-url": "https://docs.ray.io/en/latest/cluster/running-applications/job-submission/",
                "tags": ["service"],
            }
        ],
        **{kind: [{"integration-name": "Ray", "python-modules": names}] for kind, names in modules.items()},
        "connection-types": [CONNECTION_TYPE],
        "extra-links": ["operators.ray_links.RayJobLink", "operators.ray_links.MlflowRunLink"],
        "notifications": ["operators.notifiers.WebhookNotifier"],
    }
