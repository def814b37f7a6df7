"""`qwen-core`: the command line.

run        the whole path through Airflow, followed to its end      stage   one stage, without Airflow
chat       talk to a model            serve  behind OpenAI's API    recipe  show, check, list recipes
import     take a Hugging Face folder into a run                    export  give a run's model out as one
model      parameters, memory per GPU, days of training             doctor  what is wrong with a curve
retrain    what is new, and its training                            promote, rollback  which version is champion
curate     raw text to a clean corpus, and nothing else             inspect  what was dropped, and why
runs       the pipeline runs                                        compare  what differs between two of them
lineage    what a model was made from, and what holds a file        gc  clear away what nobody needs
up, status, down, logs                                              the platform on one machine
"""

from __future__ import annotations

import sys
from typing import Any

import click

from qwen_core import __version__
from qwen_core.cli.chat import chat
from qwen_core.cli.compare import compare
from qwen_core.cli.curate import curate
from qwen_core.cli.doctor import doctor
from qwen_core.cli.export import export
from qwen_core.cli.gc import gc
from qwen_core.cli.import_ import import_
from qwen_core.cli.inspect import inspect
from qwen_core.cli.lineage import lineage
from qwen_core.cli.model import model
from qwen_core.cli.platform import down, logs, status, up
from qwen_core.cli.promote import promote, rollback
from qwen_core.cli.recipe import recipe
from qwen_core.cli.retrain import retrain
from qwen_core.cli.run import run
from qwen_core.cli.runs import runs
from qwen_core.cli.serve import serve
from qwen_core.cli.stage import stage
from qwen_core.cli.summary import summary
from qwen_core.errors import QwenCoreError


class _Group(click.Group):
    """Prints the project's own errors as a message with an exit code, never as a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except QwenCoreError as error:
            click.secho("error: ", fg="red", bold=True, err=True, nl=False)
            click.echo(str(error), err=True)
            sys.exit(error.exit_code)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="qwen-core")
def main() -> None:
    """Raw text to an aligned Qwen-style language model, as scheduled workflows.

    \b
    First steps:
      qwen-core run                          the demo: start everything, train, summarise
      qwen-core chat                         talk to the model that came out
      qwen-core run --input my/texts         the same path on your own data
      qwen-core curate my/texts -o corpus    only the corpus: cleaned, filtered, deduplicated
      qwen-core status                       what runs, and where its pages are
    """


_COMMANDS = (
    *(run, summary, chat, serve, curate, inspect, stage, recipe, model, doctor, import_, export),
    *(up, status, down, logs),
    *(retrain, promote, rollback),
    *(runs, compare, lineage, gc),
)
for _command in _COMMANDS:
    main.add_command(_command)
