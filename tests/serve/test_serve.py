"""The server: OpenAI's shapes, whole and streamed; keys, hosts and faults."""

import json
import threading

import pytest
from starlette.testclient import TestClient

from qwen_core.chat import ChatModel
from qwen_core.model import CausalLM, ModelConfig, Sampling, initialise, save_pretrained
from qwen_core.serve import make_app
from qwen_core.tokenizer import load_tokenizer, save_tokenizer, train_tokenizer

LINES = ["The river flows to the sea 2024.", "河水流向大海，慢慢沉下细沙。"] * 20
ASK = {"messages": [{"role": "user", "content": "河水流向哪里？"}], "temperature": 0, "max_tokens": 12}


@pytest.fixture(scope="module")
def chat(tmp_path_factory):
    place = tmp_path_factory.mktemp("model")
    save_tokenizer(train_tokenizer(iter([LINES]), 330, 2), place)
    config = ModelConfig(load_tokenizer(place).vocab_size, 32, 48, 2, 4, 2, 16, 128, initializer_range=0.2)
    model = CausalLM(config)
    initialise(model, seed=3)
    save_pretrained(config, model.state_dict(), place)
    return ChatModel(place)


@pytest.fixture(scope="module")
def client(chat):
    return TestClient(make_app(chat, "tiny"))


def _streamed(response) -> list[dict]:
    lines = [line for line in response.text.split("\n") if line]
    assert all(line.startswith("data: ") for line in lines) and lines[-1] == "data: [DONE]"
    return [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]


def test_answer_is_the_models_own_and_is_counted(client, chat):
    answer = client.post("/v1/chat/completions", json=ASK).json()
    assert answer["object"] == "chat.completion" and answer["model"] == "tiny"
    (choice,) = answer["choices"]
    assert choice["message"] == {"role": "assistant", "content": chat.reply(ASK["messages"], 12)}
    assert answer["usage"]["prompt_tokens"] == len(chat.prompt(ASK["messages"]))
    assert answer["usage"]["completion_tokens"] <= 12 and choice["finish_reason"] in ("stop", "length")


def test_streamed_pieces_make_the_same_text(client):
    whole = client.post("/v1/chat/completions", json=ASK).json()["choices"][0]
    events = _streamed(client.post("/v1/chat/completions", json=ASK | {"stream": True}))
    pieces = [event["choices"][0]["delta"].get("content", "") for event in events]
    assert "".join(pieces) == whole["message"]["content"]
    assert events[-1]["choices"][0]["finish_reason"] == whole["finish_reason"]
    assert all(event["object"] == "chat.completion.chunk" for event in events)


def test_characters_of_several_tokens_are_never_cut(chat):
    """Pieces of random bytes: what is told early must be what the whole text says."""
    ids = chat.prompt(ASK["messages"])
    for seed in range(20):
        pieces = list(chat.pieces(ids, 40, Sampling(2.0, seed=seed)))
        again = chat.pieces(ids, 40, Sampling(2.0, seed=seed))
        assert "".join(pieces) == "".join(again)
    text = "河水流向大海，慢慢沉下细沙。🙂"
    (spelt,) = chat.tokenizer.encode_batch([text])
    assert "".join(_told(chat, spelt)) == text


def _told(chat, tokens):
    """Send known tokens through the part that turns them into pieces."""
    import qwen_core.chat as module

    before = module.stream
    module.stream = lambda *_: iter(tokens)
    try:
        return list(chat.pieces([1], len(tokens)))
    finally:
        module.stream = before


def test_stop_text_ends_the_answer_before_it(client):
    whole = client.post("/v1/chat/completions", json=ASK).json()["choices"][0]["message"]["content"]
    assert len(whole) > 4
    stop = whole[2:4]
    cut = client.post("/v1/chat/completions", json=ASK | {"stop": [stop, "never"]}).json()["choices"][0]
    assert cut["message"]["content"] == whole[: whole.index(stop)] and cut["finish_reason"] == "stop"


def test_plain_completion_and_models_and_health(client):
    answer = client.post("/v1/completions", json={"prompt": "The river", "max_tokens": 4, "temperature": 0}).json()
    assert answer["object"] == "text_completion" and isinstance(answer["choices"][0]["text"], str)
    assert client.get("/v1/models").json()["data"][0]["id"] == "tiny"
    assert client.get("/health").json() == {"status": "ok"}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"max_tokens": 500}, "500 more"),
        ({"n": 2}, "n: "),
        ({"messages": []}, "messages"),
        ({"temperature": -1}, "temperature"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]}, "content"),
    ],
)
def test_what_cannot_be_served_is_refused_in_openais_shape(client, change, told):
    response = client.post("/v1/chat/completions", json=ASK | change)
    assert response.status_code == 400 and told in response.json()["error"]["message"]


def test_key_is_asked_for_and_foreign_hosts_are_refused(chat):
    guarded = TestClient(make_app(chat, "tiny", "secret"))
    refused = guarded.get("/v1/models")
    assert refused.status_code == 401 and "Bearer" in refused.json()["error"]["message"]
    assert guarded.get("/v1/models", headers={"Authorization": "Bearer secret"}).status_code == 200
    local = TestClient(make_app(chat, "tiny", hosts=("localhost",)), base_url="http://evil.example")
    assert local.get("/v1/models").status_code == 400


@pytest.mark.slow
def test_openais_own_client_talks_to_it(chat):
    import openai
    import uvicorn

    server = uvicorn.Server(uvicorn.Config(make_app(chat, "tiny", "secret"), port=0, log_level="error"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            thread.join(0.05)
        port = server.servers[0].sockets[0].getsockname()[1]
        client = openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="secret")
        options = {"model": "tiny", "messages": ASK["messages"], "temperature": 0, "max_tokens": 12}
        whole = client.chat.completions.create(**options).choices[0].message.content
        pieces = client.chat.completions.create(**options, stream=True)
        assert "".join(piece.choices[0].delta.content or "" for piece in pieces) == whole
        with pytest.raises(openai.BadRequestError, match="positions"):
            client.chat.completions.create(**options | {"max_tokens": 1000})
        wrong = openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="wrong", max_retries=0)
        with pytest.raises(openai.AuthenticationError):
            wrong.models.list()
    finally:
        server.should_exit = True
        thread.join()
