"""MLflow: one experiment per recipe, one parent run per pipeline run, one nested run per stage.

The home of `mlflow`. Whoever has figures to log gets a `StageRun`, which travels to Ray workers by pickle.
Nothing is imported here: MLflow takes seconds, and the drawing of a figure does not need it.
"""
