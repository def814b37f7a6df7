"""What the tests of commands share."""

import pytest


@pytest.fixture(scope="module")
def ray_address():
    """Address of a Ray that commands of this process find connected, so that its workers serve one after another."""
    import ray

    from qwen_core.jobs.context import connect_ray

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_ADDRESS", "local")
        connect_ray()
    return ray.get_runtime_context().gcs_address  # it ends with the module, as every Ray of a test does
