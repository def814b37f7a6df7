"""The model as MLflow serves it: loaded by `mlflow.pyfunc` from the registry, in a process of its own.

mlflow.pyfunc.load_model("models:/qwen-core-demo@champion").predict([{"role": "user", "content": "..."}])
"""

from __future__ import annotations

from typing import Any

import mlflow
from mlflow.pyfunc.model import PythonModel, PythonModelContext

from qwen_core.chat import ChatModel
from qwen_core.model import Sampling


class ServedModel(PythonModel):
    """Answers a conversation."""

    def load_context(self, context: PythonModelContext) -> None:
        """Load the model folder that lies with the registered version.

        Args:
            context: Paths of the version's artifacts.
        """
        self._chat = ChatModel(context.artifacts["model"])

    def predict(self, context: PythonModelContext, model_input: Any, params: dict[str, Any] | None = None) -> list[str]:
        """Answer.

        Args:
            context: Unused.
            model_input: Messages, as a list of mappings or a table with the columns role and content.
            params: `max_new_tokens`, and the fields of `qwen_core.model.Sampling`.

        Returns:
            One text in a list.
        """
        messages = model_input.to_dict("records") if hasattr(model_input, "to_dict") else list(model_input)
        given = dict(params or {})
        room = {"max_new_tokens": given.pop("max_new_tokens")} if "max_new_tokens" in given else {}
        return [self._chat.reply(messages, **room, sampling=Sampling(**given))]


mlflow.models.set_model(ServedModel())
