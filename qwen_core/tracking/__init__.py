"""MLflow: one experiment per recipe, one parent run per pipeline run, one nested run per stage.

The home of `mlflow`. Whoever has figures to log gets a `StageRun`, which travels to Ray workers by pickle.
"""

from qwen_core.tracking.runs import StageRun, begin_stage_run, pipeline_run_id

__all__ = ["StageRun", "begin_stage_run", "pipeline_run_id"]
