"""Events: one line in the log, sinks that may fail, and alerts that chat rooms understand."""

import json
import math
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from qwen_core.errors import RecipeError
from qwen_core.train.alerts import AlertPlan, Alerts
from qwen_core.train.events import Event, EventLog
from qwen_core.webhooks import request_of

SPIKE = Event("loss_spike", 7, "the loss is 9", details={"loss": math.nan, "documents": ["a", "b"]}, seconds=1000.0)


@pytest.fixture
def room():
    """A webhook on loopback that keeps what it gets and answers as it is told."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            server.bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            status, answer = server.answers.pop(0) if server.answers else (200, {})
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps(answer).encode())

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    server.bodies, server.answers = [], []
    server.url = f"http://127.0.0.1:{server.server_port}/secret-token"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def send(plan: AlertPlan, *events: Event) -> None:
    alerts = Alerts(plan, "pretrain", "run 1")
    for event in events:
        alerts(event)
    alerts.close()


def test_an_event_is_one_line_in_the_log_and_reaches_all_sinks_though_one_fails(capsys):
    seen = []

    def broken(_):
        raise RuntimeError("broken sink")

    log = EventLog("pretrain", [broken, seen.append])
    log.emit_all([SPIKE, SPIKE])
    lines = capsys.readouterr().out.splitlines()
    assert lines == ["[pretrain] warning: loss_spike at step 7: the loss is 9"] * 2
    assert seen == [SPIKE, SPIKE] and log.counts == {"loss_spike": 2}


def test_other_workers_only_count(capsys):
    log = EventLog("pretrain", is_silent=True)
    log.emit(SPIKE)
    assert log.counts == {"loss_spike": 1} and capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("url", "body"),
    [
        ("https://hooks.slack.com/services/T/B/x", {"text": "hello"}),
        ("https://oapi.dingtalk.com/robot/send?access_token=x", {"msgtype": "text", "text": {"content": "hello"}}),
        ("https://open.feishu.cn/open-apis/bot/v2/hook/x", {"msg_type": "text", "content": {"text": "hello"}}),
        ("https://open.larksuite.com/open-apis/bot/v2/hook/x", {"msg_type": "text", "content": {"text": "hello"}}),
        ("https://qyapi.weixin.qq.com/cgi-bin/webhook/send?key=x", {"msgtype": "text", "text": {"content": "hello"}}),
        ("https://example.org/hook", {"text": "hello", "event": {"kind": "rollback"}}),
    ],
)
def test_the_body_has_the_shape_that_the_host_takes(url, body):
    assert request_of(url, "hello", {"kind": "rollback"})[1] == body


def test_a_webhook_gets_the_event_as_strict_json(room):
    send(AlertPlan(room.url), SPIKE)
    (body,) = room.bodies
    assert body["text"] == "qwen-core pretrain (run 1): warning: loss_spike at step 7: the loss is 9"
    assert body["event"]["details"] == {"loss": "nan", "documents": ["a", "b"]}


def test_alerts_of_a_kind_are_rare_and_tell_how_many_were_left_out(room):
    events = [Event("loss_spike", step, "spike", seconds=1000.0 + 100 * step) for step in range(5)]
    send(AlertPlan(room.url, every_seconds=250.0), *events, Event("rollback", 9, "back", "error", seconds=1001.0))
    assert [body["event"]["step"] for body in room.bodies] == [0, 3, 9]
    assert "(and 2 more since the last alert of this kind)" in room.bodies[1]["text"]


def test_info_is_no_alert(room):
    send(AlertPlan(room.url), Event("profile", 1, "taken", "info"))
    assert room.bodies == []


def test_a_webhook_that_fails_is_tried_again_and_one_that_refuses_in_its_body_is_noticed(room, monkeypatch, caplog):
    monkeypatch.setattr("qwen_core.train.alerts.time.sleep", lambda _: None)
    room.answers = [(500, {}), (200, {"errcode": 310000, "errmsg": "keywords not in content"}), (200, {"errcode": 0})]
    send(AlertPlan(room.url), SPIKE)
    assert len(room.bodies) == 3 and "keywords not in content" in caplog.text


def test_the_address_is_never_told(room, monkeypatch, caplog, capsys):
    monkeypatch.setattr("qwen_core.train.alerts.time.sleep", lambda _: None)
    room.answers = [(403, {})] * 3
    plan = AlertPlan(room.url)
    send(plan, SPIKE)
    assert "webhook for loss_spike failed: HTTPError 403" in caplog.text
    assert "secret-token" not in caplog.text + capsys.readouterr().out + repr(plan)
    with pytest.raises(RecipeError, match="QWEN_CORE_ALERT_WEBHOOK must be") as error:
        AlertPlan.from_environment({"QWEN_CORE_ALERT_WEBHOOK": "file:///secret-token"})
    assert "secret" not in str(error.value)


def test_a_command_gets_the_event_on_its_standard_input(tmp_path):
    out = tmp_path / "event.json"
    script = tmp_path / "alert.py"
    script.write_text(f"import sys, pathlib; pathlib.Path({str(out)!r}).write_text(sys.stdin.read())")
    plan = AlertPlan.from_environment({"QWEN_CORE_ALERT_COMMAND": f"{sys.executable} -S {script}"})
    send(plan, SPIKE)
    told = json.loads(out.read_text())
    assert (told["kind"], told["step"], told["details"]["documents"]) == ("loss_spike", 7, ["a", "b"])


def test_without_an_address_nothing_is_sent():
    send(AlertPlan.from_environment({}), SPIKE)
