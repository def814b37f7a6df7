"""What goes wrong, or takes too long, reaches a chat room and a mailbox: through Airflow, HTTP and SMTP."""

import email
import email.policy
import json

import pytest
from aiosmtpd.controller import Controller

from tests.chat_room import chat_room
from tests.platform.platforms import TINY, Airflow, free_ports, until

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(1200)]

TO, FROM = "oncall@example.org", "qwen@example.org"


@pytest.fixture
def room():
    with chat_room() as room:
        yield room


@pytest.fixture
def mailbox():
    """An SMTP server; yields its port and the mails that it got."""
    mails = []

    class Handler:
        async def handle_DATA(self, server, session, envelope):
            mails.append(email.message_from_bytes(envelope.content, policy=email.policy.default))
            return "250 OK"

    controller = Controller(Handler(), hostname="127.0.0.1", port=free_ports(1)[0])
    controller.start()
    yield controller.port, mails
    controller.stop()


@pytest.fixture
def airflow(room, mailbox, platforms, monkeypatch):
    """An Airflow whose deployment has both channels, and gives `corpus` a few seconds."""
    monkeypatch.setenv("QWEN_CORE_ALERT_WEBHOOK", room.url)
    monkeypatch.setenv("QWEN_CORE_ALERT_EMAIL", TO)
    monkeypatch.setenv("QWEN_CORE_DEADLINE_MINUTES", "corpus=0.2")
    airflow = Airflow(platforms.get(None, is_fresh=True))
    server = {"conn_type": "smtp", "host": "127.0.0.1", "port": mailbox[0]}
    extra = json.dumps({"disable_ssl": True, "disable_tls": True, "from_email": FROM})
    airflow.ask("POST", "/connections", expected=201, json=server | {"connection_id": "smtp_default", "extra": extra})
    yield airflow
    platforms.end()  # the channels are gone, and the next module's tests want no deadline


def test_failed_task_and_missed_deadline_reach_chat_room_and_mailbox(airflow, room, mailbox):
    _, mails = mailbox

    def told(word, run_id):
        bodies = [(mail["subject"], mail.get_body(("html",)).get_content(), mail) for mail in mails]
        in_room = [body["text"] for _, body in room.got if word in body["text"] and run_id in body["text"]]
        in_mail = [(subject, mail) for subject, body, mail in bodies if word in body and run_id in body]
        return in_room and in_mail and (in_room, in_mail)

    refused = airflow.trigger("corpus", recipe_path=TINY, run_key="refused", overrides=["dedup.num_bukets=7"])
    assert airflow.wait_end("corpus", refused) == "failed"
    in_room, in_mail = until(lambda: told("dedup.num_bukets", refused), 60, "the failure is told", every=1)
    assert len(in_room) == len(in_mail) == 1
    assert "task ingest" in in_room[0] and "failed" in in_room[0]
    subject, mail = in_mail[0]
    assert mail["to"] == TO and mail["from"] == FROM and "ingest" in subject

    late = airflow.trigger("corpus", recipe_path=TINY, run_key="late")
    in_room, in_mail = until(lambda: told("longer than it may", late), 120, "the missed deadline is told", every=1)
    assert airflow.client.dag_run("corpus", late)["state"] == "running"  # it goes on
    airflow.ask("PATCH", f"/dags/corpus/dagRuns/{late}", json={"state": "failed"})
    assert len(in_room) == len(in_mail) == 1
    assert "very-secret" not in str([body for _, body in room.got])
