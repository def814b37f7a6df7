"""Alerts against a small server that takes webhooks."""

import base64
import hashlib
import hmac
import json
import logging
from types import SimpleNamespace
from urllib.parse import parse_qs, urlsplit

import pytest

pytest.importorskip("airflow")

from airflow.sdk import AsyncCallback, BaseHook, Variable

from operators.alert_text import facts_of, text_of, title_of
from operators.notifiers import MailNotifier, WebhookNotifier, alert_notifiers
from qwen_core.errors import PlatformError
from qwen_core.webhooks import refusal_of, request_of, shape_of
from tests.chat_room import chat_room

TASK = {
    "ti": SimpleNamespace(dag_id="d", run_id="r", task_id="pack", try_number=2, state="failed", log_url="http://log"),
    "dag_run": SimpleNamespace(dag_id="d", run_id="r"),
    "exception": RuntimeError("Ray job j ended as FAILED\nfirst\nsecond\nthe reason\nno retry can mend it."),
}
DEADLINE = {"dag_run": {"dag_id": "d", "dag_run_id": "r"}, "deadline": {"id": "1", "deadline_time": "12:00"}}


@pytest.fixture
def room(monkeypatch):
    with chat_room() as room:
        monkeypatch.setenv("QWEN_CORE_ALERT_WEBHOOK", room.url)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        monkeypatch.setattr("operators.notifiers._BACKOFF_SECONDS", 0.0)
        yield room


def test_failed_task_is_told_with_its_last_words_and_its_log(room):
    WebhookNotifier()(dict(TASK))
    ((path, body),) = room.got
    assert path == "/hook/very-secret?key=1"
    assert body["text"] == (
        "qwen-core: task pack of DAG run r of d: failed, try 2\nsecond\nthe reason\nno retry can mend it.\nhttp://log"
    )
    assert body["event"]["task_id"] == "pack"


def test_message_is_a_template(room):
    WebhookNotifier("lost {{ ti.task_id }}")(dict(TASK))
    assert room.got[0][1]["text"] == "qwen-core: lost pack"


async def test_missed_deadline_is_told_as_airflow_calls_it(room):
    AsyncCallback(WebhookNotifier, {"shape": "slack"})  # Airflow takes it for awaitable
    await WebhookNotifier(shape="slack", context=DEADLINE)
    assert room.got[0][1] == {"text": "qwen-core: DAG run r of d takes longer than it may (due 12:00); it goes on"}


@pytest.mark.parametrize(
    ("shape", "body"),
    [
        ("slack", {"text": "qwen-core: x"}),
        ("wecom", {"msgtype": "text", "text": {"content": "qwen-core: x"}}),
        ("dingtalk", {"msgtype": "text", "text": {"content": "qwen-core: x"}}),
        ("feishu", {"msg_type": "text", "content": {"text": "qwen-core: x"}}),
    ],
)
def test_each_kind_of_room_gets_its_shape(room, shape, body):
    WebhookNotifier("x", shape=shape)({})
    assert room.got[0][1] == body


def test_dingtalk_signature_is_over_stamp_and_secret():
    url, _ = request_of("https://oapi.dingtalk.com/robot/send?access_token=t", "x", {}, secret="s", now_seconds=1.5)
    asked = parse_qs(urlsplit(url).query)
    expected = base64.b64encode(hmac.new(b"s", b"1500\ns", hashlib.sha256).digest()).decode()
    assert asked == {"access_token": ["t"], "timestamp": ["1500"], "sign": [expected]}


def test_feishu_signature_has_stamp_and_secret_for_its_key():
    _, body = request_of("https://open.feishu.cn/open-apis/bot/v2/hook/t", "x", {}, secret="s", now_seconds=1.5)
    expected = base64.b64encode(hmac.new(b"1\ns", b"", hashlib.sha256).digest()).decode()
    assert (body["timestamp"], body["sign"]) == ("1", expected)


@pytest.mark.parametrize(
    ("url", "shape"),
    [
        ("https://hooks.slack.com/services/x", "slack"),
        ("https://oapi.dingtalk.com/robot/send?access_token=x", "dingtalk"),
        ("https://open.larksuite.com/open-apis/bot/v2/hook/x", "feishu"),
        ("https://qyapi.weixin.qq.com/cgi-bin/webhook/send?key=x", "wecom"),
        ("https://example.org/x", "json"),
    ],
)
def test_shape_is_told_by_the_host(url, shape):
    assert shape_of(url) == shape


def test_refusal_in_a_good_answer_is_seen():
    assert refusal_of('{"errcode": 310000, "errmsg": "sign not match"}') == "310000: sign not match"
    assert refusal_of('{"code": 19001, "msg": "param invalid"}') == "19001: param invalid"
    assert refusal_of('{"errcode": 0}') is None and refusal_of("ok") is None and refusal_of("[]") is None


def test_message_is_sent_again_after_a_fault_and_a_lasting_one_is_named_without_the_address(room, caplog):
    room.answers = [(500, ""), (200, '{"errcode": 1, "errmsg": "busy"}')]
    WebhookNotifier("x")({})
    assert len(room.got) == 3
    room.answers = [(404, "")] * 3
    with caplog.at_level(logging.DEBUG), pytest.raises(PlatformError, match=r"QWEN_CORE_ALERT_WEBHOOK.*HTTP 404") as no:
        WebhookNotifier("x")({})
    assert "very-secret" not in str(no.value)
    assert "very-secret" not in caplog.text


def test_address_that_is_none_is_refused_without_being_shown(monkeypatch):
    monkeypatch.setattr("operators.notifiers._BACKOFF_SECONDS", 0.0)
    monkeypatch.setenv("QWEN_CORE_ALERT_WEBHOOK", "very-secret")
    with pytest.raises(PlatformError, match="must hold an http or https address") as refused:
        WebhookNotifier("x")({})
    assert "very-secret" not in str(refused.value)
    monkeypatch.setenv("QWEN_CORE_ALERT_WEBHOOK", "http://127.0.0.1:1/very-secret")
    with pytest.raises(PlatformError, match="Refused") as refused:
        WebhookNotifier("x")({})
    assert "very-secret" not in str(refused.value)


async def test_address_may_lie_in_a_connection_or_a_variable(room, monkeypatch):
    async def aget_connection(_, conn_id):
        return BaseHook.get_connection(conn_id)

    monkeypatch.setattr(BaseHook, "aget_connection", classmethod(aget_connection))
    extra = {"secret": "s", "shape": "feishu"}
    monkeypatch.setenv("AIRFLOW_CONN_ROOM", json.dumps({"conn_type": "http", "password": room.url, "extra": extra}))
    monkeypatch.setenv("AIRFLOW_VAR_ROOM", json.dumps({"url": room.url, "shape": "slack"}))
    assert Variable.get("room")
    await WebhookNotifier("x", conn_id="room").async_notify({})
    await WebhookNotifier("x", variable="room").async_notify({})
    WebhookNotifier("x", conn_id="room")({})
    assert [sorted(body) for _, body in room.got] == [
        ["content", "msg_type", "sign", "timestamp"],
        ["text"],
        ["content", "msg_type", "sign", "timestamp"],
    ]


def test_deployment_chooses_the_channels_and_secrets_stay_where_they_are(monkeypatch):
    for name in ("WEBHOOK", "CONNECTION", "VARIABLE", "EMAIL"):
        monkeypatch.delenv(f"QWEN_CORE_ALERT_{name}", raising=False)
    assert alert_notifiers() == []
    monkeypatch.setenv("QWEN_CORE_ALERT_WEBHOOK", "https://hooks.slack.com/very-secret")
    monkeypatch.setenv("QWEN_CORE_ALERT_CONNECTION", "room")
    monkeypatch.setenv("QWEN_CORE_ALERT_EMAIL", "a@example.org, b@example.org")
    of_connection, of_environment, mail = alert_notifiers()
    assert of_connection.conn_id == "room" and isinstance(of_environment, WebhookNotifier)
    assert isinstance(mail, MailNotifier) and mail.to == ["a@example.org", "b@example.org"]
    assert "very-secret" not in repr(vars(of_environment))


def test_mail_goes_through_airflows_smtp_provider(monkeypatch):
    smtp = pytest.importorskip("airflow.providers.smtp.notifications.smtp")
    sent = []
    monkeypatch.setattr(
        smtp.SmtpNotifier, "notify", lambda self, _: sent.append((self.to, self.subject, self.html_content))
    )
    MailNotifier(["a@example.org"])({**TASK, "exception": RuntimeError("<b>")})
    assert sent == [(["a@example.org"], title_of(TASK), f"<pre>{title_of(TASK)}\n&lt;b&gt;\nhttp://log</pre>")]


@pytest.mark.parametrize("context", [None, {}, {"dag_id": "d", "minutes": 3}, TASK, DEADLINE, {"dag_run": None}])
def test_text_is_made_of_whatever_the_context_has(context):
    assert title_of(context).startswith("qwen-core") and title_of(context) in text_of(context)
    assert set(facts_of(context)) == set(facts_of({}))


def test_reason_is_cut_and_airflows_secrets_are_covered(monkeypatch):
    monkeypatch.setattr("airflow.sdk._shared.secrets_masker.redact", lambda text: text.replace("hidden", "***"))
    context = {**TASK, "exception": RuntimeError("a\n" * 100 + "hidden " + "x" * 1_000)}
    assert "hidden" not in text_of(context) and len(text_of(context)) < 500
