"""`retrain`: looks at sources, corpus and champion, and answers with the settings of the next pipeline run, if any.

    python -m qwen_core.jobs.retrain --recipe R --run-key K [--set KEY=VALUE ...] [--date YYYY-MM-DD]
    ─▶ qwen-core result: {"recipe": ..., "overrides": [...], "run_key": ..., "reason": ..., "new_files": ...}
    ─▶ or exit code 9, and the reason why nothing is to be done

Runs nothing itself: the DAGs corpus, pretrain, align and release do, with these settings. See `jobs.planning`.
"""

from __future__ import annotations

import datetime
import sys

from qwen_core.artifacts import Store
from qwen_core.config import load_recipe
from qwen_core.jobs.command import job_parser, print_result, run_command, with_places
from qwen_core.jobs.news import Asked
from qwen_core.jobs.planning import plan


def main(arguments: list[str] | None = None) -> int:
    """Command line of the job.

    Args:
        arguments: Instead of the process's own.

    Returns:
        Exit code: 0 with a plan, 9 where there is nothing to do, or an error's own (see `qwen_core.errors`).
    """
    parser = job_parser("qwen_core.jobs.retrain", "Plan a retraining, as a Ray job.")
    parser.add_argument("--plan-only", action="store_true", help="tell, and leave no record that it will be run")
    given = with_places(parser, arguments)

    def work() -> None:
        recipe = load_recipe(given.recipe, given.overrides)
        asked = Asked(given.recipe, tuple(given.overrides), recipe, given.run_key, given.date)
        now = datetime.datetime.now(datetime.UTC)
        record = plan(asked, Store(given.store), given.tracking_uri, now, is_binding=not given.plan_only)
        print(f"[retrain] {record.result['reason']}", flush=True)
        print_result(record.result)

    return run_command("retrain", work)


if __name__ == "__main__":
    sys.exit(main())
