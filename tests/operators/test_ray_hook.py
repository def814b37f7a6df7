"""The hook against a small server that speaks Ray's API."""

import json

import pytest

pytest.importorskip("airflow")

from operators.ray_connection import RayAddress
from operators.ray_hook import RayHook
from operators.ray_job import LOST, RayJobRequest, RayTokenError, RayUnreachableError, runtime_env_of
from qwen_core.errors import RayJobError, RecipeError


def _address(**fields):
    from airflow.sdk import Connection

    extra = fields.pop("extra", {})
    made = Connection(conn_id="ray_default", **{"conn_type": "ray"} | fields)
    return RayAddress.of(made, extra)


def test_submission_waits_for_the_nodes_agent_and_names_a_lasting_refusal(ray):
    ray.submissions_to_refuse = 2
    RayHook().submit(RayJobRequest("python x.py"), "j")
    assert ray.jobs["j"]["entrypoint"] == "python x.py"
    ray.submissions_to_refuse = 100
    with pytest.raises(RayUnreachableError, match=r"takes no jobs yet \(500\): no node of it is ready"):
        RayHook().submit(RayJobRequest("python x.py"), "k")


def test_second_submission_under_one_id_leaves_the_first_alone(ray):
    for command in ("first", "second"):
        RayHook().submit(RayJobRequest(command), "j")
    assert ray.jobs["j"]["entrypoint"] == "first"


def test_refusal_does_not_quote_the_values_of_environment_variables(ray):
    request = RayJobRequest("refuse me", {"env_vars": {"KEY": "very-secret"}})
    with pytest.raises(RayJobError, match="what is") as refused:
        RayHook().submit(request, "j")
    assert "very-secret" not in str(refused.value) and "***" in str(refused.value)


def test_request_carries_what_was_asked_for_and_nothing_else(ray):
    request = RayJobRequest("x", {"pip": ["a"]}, {"n": 1}, num_cpus=2, num_gpus=0.5, memory_bytes=7)
    assert request.body("j") == {
        "entrypoint": "x",
        "submission_id": "j",
        "runtime_env": {"pip": ["a"]},
        "metadata": {"n": "1"},
        "entrypoint_num_cpus": 2,
        "entrypoint_num_gpus": 0.5,
        "entrypoint_memory": 7,
    }


def test_environment_is_joined_and_a_local_working_dir_is_refused():
    joined = runtime_env_of({"env_vars": {"A": "1", "B": "2"}}, {"B": 3}, "s3://bucket/code.zip")
    assert joined == {"env_vars": {"A": "1", "B": "3"}, "working_dir": "s3://bucket/code.zip"}
    for place in ("/home/me/code", "code", "ftp://host/code.zip"):
        with pytest.raises(RecipeError, match="nothing is uploaded from Airflow"):
            runtime_env_of(None, None, place)


def test_unknown_job_is_lost_but_another_services_404_is_not(ray):
    assert RayHook().status("j") is LOST
    ray.answer_to_all = (404, "<html>not found</html>")
    with pytest.raises(RayUnreachableError, match=r"not Ray's dashboard.*404"):
        RayHook().status("j")
    ray.answer_to_all = (200, "<html>Airflow</html>")
    with pytest.raises(RayUnreachableError, match="not Ray's dashboard"):
        RayHook().status("j")


def test_dashboard_that_is_not_ready_is_asked_again(ray):
    ray.answer_to_all = (503, "starting")
    with pytest.raises(RayUnreachableError, match="503"):
        RayHook(tries=3).status("j")
    assert len(ray.asked) == 3


def test_refused_token_is_named_and_a_changed_one_is_read_again(ray, connection):
    connection(host="127.0.0.1", port=ray.port, password="other")
    hook = RayHook()
    with pytest.raises(RayTokenError, match=r"refuses the token: set the connection's field Token") as refused:
        hook.status("j")
    assert "other" not in str(refused.value)
    connection(host="127.0.0.1", port=ray.port)
    with pytest.raises(RayTokenError, match="refuses the call without a token"):
        RayHook().status("j")
    assert hook.address.token == "other"
    connection(host="127.0.0.1", port=ray.port, password="secret-token")
    assert hook.status("j") is LOST  # the same hook


def test_dead_cluster_is_named_with_its_address(ray, connection):
    connection(host="127.0.0.1", port=1, password="x")
    with pytest.raises(RayUnreachableError, match=r"does not answer at http://127\.0\.0\.1:1"):
        RayHook().status("j")


def test_missing_connection_is_named_with_what_to_do():
    with pytest.raises(RayJobError, match=r"no usable connection 'nowhere'.*AIRFLOW_CONN_NOWHERE"):
        RayHook("nowhere").status("j")


def test_stop_is_sent_again_until_the_job_has_ended(ray):
    ray.add("j")
    ray.stops_to_forget = 1  # as Ray does before the job's process exists
    assert RayHook().stop("j").state == "STOPPED"
    assert RayHook().stop("unknown") is LOST


def test_stop_of_a_job_that_does_not_end_comes_back_in_time(ray):
    ray.add("j")
    ray.stops_to_forget = 1000
    assert RayHook().stop("j", verify_seconds=0.1).state == "RUNNING"


def test_end_of_the_log_is_read_and_an_unknown_one_is_empty(ray):
    ray.add("j", logs="1\n2\n3\n")
    assert RayHook().log_tail("j", lines=2) == "2\n3\n"
    assert RayHook().log_tail("unknown") == ""
    ray.answer_to_all = (503, "starting")
    with pytest.raises(RayUnreachableError):
        RayHook(tries=1).log_tail("j")


def test_connection_is_tested_with_its_token(ray, connection):
    assert RayHook().test_connection() == (True, f"Ray 2.60.0 answers at http://127.0.0.1:{ray.port}")
    connection(host="127.0.0.1", port=ray.port, password="wrong")
    is_well, message = RayHook().test_connection()
    assert not is_well and "refuses the token" in message
    ray.answer_to_all = (200, "[]")
    assert RayHook().test_connection() == (False, f"what answers at http://127.0.0.1:{ray.port} is no Ray dashboard")


@pytest.mark.parametrize(
    ("fields", "url"),
    [
        ({}, "http://127.0.0.1:8265"),
        ({"host": "head", "port": 80}, "http://head:80"),
        ({"host": "head", "extra": {"tls": True}}, "https://head:8265"),
        ({"host": "head", "schema": "https"}, "https://head:8265"),
        ({"host": "https://head:443/ray/"}, "https://head:443/ray"),
        ({"host": "::1"}, "http://[::1]:8265"),
        ({"host": "head", "extra": {"tls": "false"}}, "http://head:8265"),
    ],
)
def test_address_is_read_from_the_connections_fields(fields, url):
    assert _address(**fields).url == url


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"host": "http://me:secret@head"}, "holds a user or a password"),
        ({"host": "ftp://head"}, "neither a name nor an http or https address"),
        ({"host": "head", "port": 70_000}, "port 70000"),
        ({"host": "head:port"}, "no number"),
        ({"conn_type": "postgres"}, "is of type 'postgres'"),
        ({"extra": {"ca_file": "/not/there.pem"}}, "names a ca_file that is not there"),
    ],
)
def test_wrong_connection_is_refused_with_the_field_and_without_secrets(fields, reason):
    with pytest.raises(RayJobError, match=reason) as refused:
        _address(**fields)
    assert "secret" not in str(refused.value) and "Admin > Connections" in str(refused.value)


def test_token_is_in_no_description_of_the_address():
    assert "very-secret" not in repr(_address(password="very-secret"))


def test_proxies_of_the_environment_are_for_other_machines_alone():
    assert _address(host="head").client_arguments()["trust_env"]
    assert not _address(host="127.0.0.1").client_arguments()["trust_env"]


def test_tls_is_verified_unless_told_otherwise_and_bad_files_are_named(tmp_path):
    import ssl

    tls = {"tls": True}
    assert _address(host="head", extra=tls).client_arguments()["verify"].verify_mode is ssl.CERT_REQUIRED
    loose = _address(host="head", extra={**tls, "verify": False}).client_arguments()["verify"]
    assert loose.verify_mode is ssl.CERT_NONE
    bad = tmp_path / "bad.pem"
    bad.write_text("nothing")
    with pytest.raises(RayJobError, match="must be PEM files"):
        _address(host="head", extra={**tls, "ca_file": str(bad)}).client_arguments()


async def test_async_calls_answer_as_the_others_do(ray):
    hook = RayHook()
    ray.add("j", logs="1\n2\n", metadata={"a": "b"})
    assert (await hook.async_status("j")).metadata == {"a": "b"}
    async with hook.async_log("n", "j", 1) as pieces:
        assert b"".join([piece async for piece in pieces]) == b"2\n"
    assert (await hook.async_stop("j")).state == "STOPPED"
    await hook.async_close()


def test_no_secret_is_in_what_ray_is_asked(ray):
    RayHook().submit(RayJobRequest("x"), "j")
    assert "secret-token" not in json.dumps(ray.asked)
