"""docker-compose.yml, its images and its secrets: what must hold before any engine is asked."""

import re
import shutil
import stat
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "infra" / "docker"
SECRETS = (
    "POSTGRES_PASSWORD",
    "AIRFLOW_DB_PASSWORD",
    "MLFLOW_DB_PASSWORD",
    "AIRFLOW_PASSWORD",
    "AIRFLOW_FERNET_KEY",
    "AIRFLOW_SECRET_KEY",
    "AIRFLOW_JWT_SECRET",
    "RAY_AUTH_TOKEN",
    "S3_ACCESS_KEY",
    "S3_SECRET_KEY",
)
ONE_SHOT = {"init", "demo"}
OURS = re.compile(r"qwen-core-[a-z0-9]+:local")


@pytest.fixture(scope="module")
def text():
    return (ROOT / "docker-compose.yml").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def services(text):
    return yaml.safe_load(text)["services"]


def _airflow_env():
    lines = (DOCKER / "airflow.env").read_text(encoding="utf-8").splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def _make_env(folder):
    """Run a copy of env.sh, for it writes beside itself."""
    place = folder / "infra"
    (place / "docker").mkdir(parents=True)
    shutil.copy(ROOT / "infra" / "env.sh", place)
    return place / "env.sh", folder / ".env"


def _values(path):
    lines = path.read_text(encoding="utf-8").splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def test_every_image_is_a_variable_with_a_pinned_default(services):
    for name, service in services.items():
        told = re.fullmatch(r"\$\{[A-Z0-9_]+:-(?P<image>[^}]+)\}", service["image"])
        assert told, f"{name}: {service['image']}"
        image = told["image"]
        assert OURS.match(image) or re.search(r":v?\d+\.\d+", image), f"{name}: {image} names no release"


def test_nothing_is_latest(text):
    for path in (ROOT / "docker-compose.yml", *DOCKER.glob("*")):
        if path.is_file():
            assert not re.search(r":latest\b", path.read_text(encoding="utf-8")), path


def test_base_images_of_the_dockerfile_are_arguments_with_a_pinned_default():
    text = (DOCKER / "Dockerfile").read_text(encoding="utf-8")
    stages = set(re.findall(r"^FROM \S+ AS (\S+)$", text, re.MULTILINE))
    for base in re.findall(r"^FROM (\S+)", text, re.MULTILINE):
        assert base in stages or base.startswith("${"), base
    for image in re.findall(r"^ARG \w*BASE_IMAGE=(\S+)$", text, re.MULTILINE):
        assert re.search(r":v?\d+\.\d+\.\d+", image), image


def test_each_secret_is_required_and_never_has_a_default(text):
    used = set(re.findall(r"\$\{(\w+):\?run make env\}", text))
    assert used == set(SECRETS)
    for name in SECRETS:
        assert not re.search(rf"\$\{{{name}\b(?!:\?run make env\}})", text), name


def test_files_of_settings_hold_no_secret():
    for name in ("airflow.env", "ray.env"):
        lines = (DOCKER / name).read_text(encoding="utf-8").splitlines()
        names = [line.split("=")[0] for line in lines if line and not line.startswith("#")]
        assert not [found for found in names if re.search(r"(TOKEN|SECRET|FERNET_KEY|PASSWORD)$", found)], name


def test_each_lasting_service_has_a_health_check_with_a_start_period(services):
    for name in services.keys() - ONE_SHOT:
        check = services[name]["healthcheck"]
        assert check["test"][0] == "CMD" and check["start_period"], name


def test_ports_are_published_on_loopback_alone_and_only_for_pages(services):
    published = {name: service["ports"] for name, service in services.items() if service.get("ports")}
    assert published.keys() == {"mlflow", "ray-head", "api-server"}
    for ports in published.values():
        assert all(port.startswith("${BIND_ADDRESS:-127.0.0.1}:") for port in ports), ports


def test_services_restart_rotate_logs_and_have_no_more_rights_than_they_need(services):
    for name, service in services.items():
        assert service["restart"] == ("no" if name in ONE_SHOT else "unless-stopped"), name
        assert service["security_opt"] == ["no-new-privileges:true"] and service["cap_drop"] == ["ALL"], name
        assert "privileged" not in service and "cap_add" not in service, name
        assert service["logging"]["options"].keys() == {"max-size", "max-file"}, name
        assert service["deploy"]["resources"]["limits"].keys() == {"memory", "cpus"}, name
        assert service["networks"] == ["qwen-core"], name
        assert service.get("read_only") or name.startswith("ray-"), name


def test_what_starts_later_waits_for_what_it_needs(services):
    conditions = {
        (name, needed): told["condition"]
        for name, service in services.items()
        for needed, told in service.get("depends_on", {}).items()
    }
    assert conditions["init", "postgres"] == conditions["init", "s3"] == "service_healthy"
    assert conditions["ray-worker", "ray-head"] == conditions["ray-head", "mlflow"] == "service_healthy"
    for name in ("api-server", "scheduler", "dag-processor", "triggerer"):
        assert conditions[name, "init"] == "service_completed_successfully"


def test_jobs_get_store_mlflow_keys_and_alerts(services):
    wanted = {"QWEN_CORE_STORE", "MLFLOW_TRACKING_URI", "AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID"}
    wanted |= {"AWS_SECRET_ACCESS_KEY", "QWEN_CORE_ALERT_WEBHOOK", "QWEN_CORE_ALERT_COMMAND"}
    for name in ("ray-head", "ray-worker"):
        assert wanted <= services[name]["environment"].keys(), name


def test_every_setting_of_the_dags_reaches_airflow(services):
    text = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "operators").glob("*.py"))
    read = set(re.findall(r"\bQWEN_CORE_[A-Z]+(?:_[A-Z]+)*\b", text))
    assert read <= services["scheduler"]["environment"].keys()


def test_airflow_components_have_no_key_to_the_store(services):
    for name in ("api-server", "scheduler", "dag-processor", "triggerer"):
        assert not [key for key in services[name]["environment"] if key.startswith("AWS_")], name


def test_own_images_run_as_a_plain_user_and_add_nothing_from_elsewhere():
    text = (DOCKER / "Dockerfile").read_text(encoding="utf-8")
    assert not re.search(r"^ADD ", text, re.MULTILINE)
    for name in ("airflow", "ray", "mlflow", "s3"):
        body = re.split(rf"^FROM \S+ AS {name}$", text, flags=re.MULTILINE)[1].split("\nFROM ")[0]
        assert re.findall(r"^USER (\S+)$", body, re.MULTILINE)[-1] == "10001:10001", name
    copied = " ".join(re.findall(r"^COPY (?!--from)(.*)$", text, re.MULTILINE))
    assert "mirror" not in copied and ".env" not in copied and " . " not in copied


def test_build_context_is_a_list_of_what_the_images_need():
    lines = [line for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines() if line[:1] != "#"]
    assert lines[0] == "*" and "infra/docker/mirror.env" in lines
    assert not any(line.startswith("!.env") or line.startswith("!data") for line in lines)


def test_settings_of_airflow_are_those_of_one_machine(tmp_path):
    """What differs is listed: addresses and secrets (docker-compose.yml), sizes, and what only one machine needs."""
    from qwen_core.platform import settings as module
    from qwen_core.platform.settings import Home, Settings

    try:
        from qwen_core.platform.environment import environment
    except ImportError:
        environment = module.environment
    here = {
        name: str(value)
        for name, value in environment(Home(tmp_path / "home"), Settings()).items()
        if name.startswith("AIRFLOW__")
    }
    compose = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
    there = _airflow_env()
    only_here = {"AIRFLOW__TRIGGERER__CAPACITY", "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST"}
    other_value = {"DAGS_FOLDER", "BASE_LOG_FOLDER", "EXECUTION_API_SERVER_URL", "SIMPLE_AUTH_MANAGER_PASSWORDS_FILE"}
    for name, value in here.items():
        if name in only_here or f"  {name}:" in compose:
            continue
        assert name in there, f"{name} is set on one machine: add it to infra/docker/airflow.env"
        assert there[name] == value or name.split("__")[2] in other_value, name


def test_gpu_file_gives_devices_to_workers_and_the_cuda_build_to_both():
    services = yaml.safe_load((DOCKER / "compose.gpu.yml").read_text(encoding="utf-8"))["services"]
    device = services["ray-worker"]["deploy"]["resources"]["reservations"]["devices"][0]
    assert device["driver"] == "nvidia" and device["capabilities"] == ["gpu"]
    assert services["ray-head"]["image"] == services["ray-worker"]["image"]
    assert services["ray-head"]["build"]["args"] == {"TORCH": "cuda"}


def test_secrets_are_made_once_differ_and_are_for_their_owner_alone(tmp_path):
    script, file = _make_env(tmp_path)
    done = subprocess.run(["sh", script], capture_output=True, text=True, check=True)
    made = _values(file)
    assert made.keys() >= set(SECRETS)
    assert len({made[name] for name in SECRETS}) == len(SECRETS)
    assert all(len(made[name]) >= 20 for name in SECRETS)
    assert not any(made[name] in done.stdout + done.stderr for name in SECRETS)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    mirror = tmp_path / "infra" / "docker" / "mirror.env"
    assert mirror.read_text(encoding="utf-8") == "" and stat.S_IMODE(mirror.stat().st_mode) == 0o600


def test_another_start_changes_nothing_and_adds_what_is_missing(tmp_path):
    script, file = _make_env(tmp_path)
    file.write_text("MINE=1\nRAY_AUTH_TOKEN=kept\nS3_SECRET_KEY=\n", encoding="utf-8")
    subprocess.run(["sh", script], capture_output=True, check=True)
    first = file.read_text(encoding="utf-8")
    assert first.startswith("MINE=1\nRAY_AUTH_TOKEN=kept\n") and _values(file)["S3_SECRET_KEY"]
    subprocess.run(["sh", script], capture_output=True, check=True)
    assert file.read_text(encoding="utf-8") == first


def test_two_machines_never_share_a_secret(tmp_path):
    one, two = (_make_env(tmp_path / name) for name in ("one", "two"))
    for script, _ in (one, two):
        subprocess.run(["sh", script], capture_output=True, check=True)
    assert not {_values(one[1])[name] for name in SECRETS} & {_values(two[1])[name] for name in SECRETS}


def test_fernet_key_is_one_that_airflow_takes(tmp_path):
    from cryptography.fernet import Fernet

    script, file = _make_env(tmp_path)
    subprocess.run(["sh", script], capture_output=True, check=True)
    Fernet(_values(file)["AIRFLOW_FERNET_KEY"].encode())


def _compose():
    if shutil.which("docker") is None:
        pytest.skip("docker is not installed")
    if subprocess.run(["docker", "compose", "version"], capture_output=True, check=False).returncode:
        pytest.skip("docker has no compose plugin")


@pytest.mark.slow
@pytest.mark.parametrize("more", [[], ["-f", "infra/docker/compose.gpu.yml"]])
def test_compose_itself_takes_the_file(tmp_path, more):
    _compose()
    script, file = _make_env(tmp_path)
    subprocess.run(["sh", script], capture_output=True, check=True)
    command = ["docker", "compose", "--env-file", file, "-f", "docker-compose.yml", *more, "config"]
    done = subprocess.run([*command, "--quiet"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_compose_refuses_to_start_without_secrets(tmp_path):
    _compose()
    empty = tmp_path / "empty.env"
    empty.touch()
    command = ["docker", "compose", "--env-file", empty, "-f", "docker-compose.yml", "config", "--quiet"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode and "run make env" in done.stderr
