"""Chat templates: how a conversation becomes one text, and which parts of it the assistant wrote.

    messages, tools ─▶ jinja template ─▶ text, spans of the assistant  (─▶ ids, mask: `use.render_chats`)

A template is Hugging Face's: a jinja text that lies with the tokenizer as `chat_template.jinja`, so what we train on is
what `apply_chat_template` gives. What the assistant wrote stands between its `generation` marks, contents and the
end of the turn; the files in `chat_templates/` are written so. Templates of others often lack the marks: there a
turn runs from what the template gives as prompt for it to the next end token.

Templates come with models and are run in jinja's sandbox.
"""

from __future__ import annotations

import functools
import itertools
import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any, cast

import jinja2
import jinja2.ext
from jinja2.sandbox import ImmutableSandboxedEnvironment

from qwen_core.tokenizer.train import ENDOFTEXT, IM_END

Message = Mapping[str, Any]
"""`role` and `content`; an assistant's may carry `tool_calls`, and `train: false` where it is not to be learnt."""

OWN = "own"
_END_TOKENS = {"llama3": "<|eot_id|>", "gemma": "<end_of_turn>"}
TEMPLATES = ("chatml", "llama3", "gemma", "mistral", "alpaca", "vicuna", "plain")
"""Templates that this package brings."""

# Marks inside of a rendered text: noncharacters, which no text that is exchanged may hold.
_OPEN, _CLOSE, SPELT = "\ufdd0", "\ufdd1", "\ufdd2"
_MARKS = re.compile(f"[{_OPEN}{_CLOSE}{SPELT}]")
_IS_MARKED = re.compile(r"\{%-?\s*generation\s*-?%\}")


class TemplateError(ValueError):
    """A template refuses a conversation; the text says why."""


@dataclass(frozen=True)
class Rendered:
    """A conversation as text.

    Attributes:
        text: With `SPELT` inside of each control token's name that stands in a message: it is spelt out, not obeyed.
        spans: Where each of the assistant's turns stands, its end included, in characters of `text`.
    """

    text: str
    spans: tuple[tuple[int, int], ...]


def chat_template(name: str, control_tokens: Collection[str], system: str | None = None) -> tuple[str, str]:
    """Make a template's jinja text for a tokenizer.

    Args:
        name: One of `TEMPLATES`.
        control_tokens: Of the tokenizer. One without the template's own end token ends turns with `<|im_end|>`; its
            other marks are then spelt as text.
        system: Put before conversations that bring no system message.

    Returns:
        The jinja text, and the token that ends a turn.
    """
    text = (resources.files("qwen_core.tokenizer") / "chat_templates" / f"{name}.jinja").read_text(encoding="utf-8")
    end = _END_TOKENS.get(name, IM_END)
    if end not in control_tokens:
        text, end = text.replace(end, IM_END), IM_END
    if system:
        told = json.dumps(system, ensure_ascii=False)
        text = (
            "{%- if not messages or messages[0].role != 'system' %}"
            f"{{%- set messages = [{{'role': 'system', 'content': {told}}}] + messages %}}"
            "{%- endif %}\n" + text
        )
    return text, end


class ChatTemplate:
    """A jinja template with what it needs of a tokenizer."""

    def __init__(self, text: str, end_token: str, control_tokens: Collection[str] = ()) -> None:
        """Compile.

        Args:
            text: The jinja text.
            end_token: Ends a turn; the template knows it as `eos_token`.
            control_tokens: Names that are spelt out where a message holds one.

        Raises:
            TemplateError: The text is no jinja template.
        """
        self.text, self.end_token = text, end_token
        self._is_marked = bool(_IS_MARKED.search(text))
        names = "|".join(re.escape(name) for name in sorted(control_tokens, key=len, reverse=True))
        self._names = re.compile(names) if names else None
        try:
            self._template = _environment().from_string(text)
        except jinja2.TemplateError as error:
            raise TemplateError(f"the chat template is no jinja template: {error}") from error

    def render(
        self,
        messages: Sequence[Message],
        tools: Sequence[Mapping[str, Any]] = (),
        add_generation_prompt: bool = False,
    ) -> Rendered:
        """Render a conversation.

        Args:
            messages: The conversation.
            tools: JSON schemas of functions that the assistant may call.
            add_generation_prompt: Whether to open the assistant's next turn.

        Returns:
            Its text and the assistant's turns in it.

        Raises:
            TemplateError: The template refuses it, or does not tell which part the assistant wrote.
        """
        clean, tools = [self._spelt(message) for message in messages], self._spelt(list(tools))
        marked = self._fill(clean, tools, add_generation_prompt)
        if not self._is_marked:
            return Rendered(marked, self._found_spans(marked, clean, tools))
        parts = re.split(f"[{_OPEN}{_CLOSE}]", marked)  # every second one is the assistant's
        ends = list(itertools.accumulate(map(len, parts)))
        return Rendered("".join(parts), tuple(zip(ends[:-1:2], ends[1::2], strict=True)))

    def _fill(self, messages: list[Any], tools: Any, add_generation_prompt: bool) -> str:
        try:
            return self._template.render(
                messages=messages,
                tools=tools or None,
                add_generation_prompt=add_generation_prompt,
                eos_token=self.end_token,
                pad_token=ENDOFTEXT,
            )
        except (jinja2.TemplateError, TypeError, AttributeError) as error:
            raise TemplateError(f"the chat template refuses the conversation: {error}") from error

    def _found_spans(self, text: str, messages: list[Any], tools: Any) -> tuple[tuple[int, int], ...]:
        """Find the assistant's turns in what a template without marks gave."""
        spans = []
        for number, message in enumerate(messages):
            if message["role"] != "assistant":
                continue
            prompt = self._fill(messages[:number], tools, True)
            end = text.find(self.end_token, len(prompt))
            if not text.startswith(prompt) or end < 0:
                raise TemplateError(
                    f"the chat template does not tell what the assistant wrote: its text up to turn {number + 1} is "
                    f"no beginning of the whole, or no {self.end_token} follows. Put the assistant's part between "
                    "{% generation %} and {% endgeneration %} in it"
                )
            spans.append((len(prompt), end + len(self.end_token)))
        return tuple(spans)

    def _spelt(self, value: Any) -> Any:
        """Break control tokens' names in all texts of a message, and drop marks that it should not hold."""
        if isinstance(value, str):
            clean = _MARKS.sub("", value)
            if self._names is None:
                return clean
            return self._names.sub(lambda found: found[0][0] + SPELT + found[0][1:], clean)
        if isinstance(value, Mapping):
            return {key: self._spelt(inner) for key, inner in value.items()}
        return [self._spelt(inner) for inner in value] if isinstance(value, list | tuple) else value


class _Generation(jinja2.ext.Extension):
    """The tag `generation`, which leaves marks around what stands in it."""

    tags = {"generation"}  # noqa: RUF012 - jinja's own way

    def parse(self, parser: Any) -> Any:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("_marked"), [], [], body).set_lineno(line)

    def _marked(self, caller: Any) -> str:
        return f"{_OPEN}{caller()}{_CLOSE}"


@functools.cache
def _environment() -> ImmutableSandboxedEnvironment:
    """Make jinja behave as transformers has it behave for chat templates."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, jinja2.ext.loopcontrols]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise
    return environment


def _to_json(value: Any, ensure_ascii: bool = False, **options: Any) -> str:
    """Write JSON without escaping HTML, which jinja's own filter does."""
    return json.dumps(value, ensure_ascii=ensure_ascii, **options)


def _raise(message: str) -> None:
    raise jinja2.TemplateError(cast(Any, message))
