"""The simulation pipeline."""

from kedro.pipeline import Node, Pipeline

from churn_pipeline.pipelines.simulation.nodes import simulate


def create_pipeline(**_: object) -> Pipeline:
    """Draw a customer base into a raw table, and its true probabilities into another.

    Both are written in chunks; ``confirms`` replaces the previous files once the last chunk is written.
    """
    outputs = ["simulated_customers", "simulated_truth"]
    return Pipeline([Node(simulate, name="simulate", inputs="params:simulation", outputs=outputs, confirms=outputs)])
