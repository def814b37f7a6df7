"""DAG `release`: measure, register, and let the better model be champion."""

from operators.pipeline import pipeline_dag

dag = pipeline_dag(
    "release",
    """
### Measure and register

`evaluate` measures bits per byte, answers and preferences on held-out data and writes sample generations, `release`
registers the model in MLflow as `challenger`, and as `champion` when it is better. Starts when the asset `align` is
made; started by hand, give the run key to continue.
""",
)
