"""Wiring of the simulation."""

from kedro.pipeline import Node, Pipeline

from churn_pipeline.pipelines.simulation.nodes import simulate


def create_pipeline(**_: object) -> Pipeline:
    """Draw a customer base into a raw table, and its truth into another.

    Both outputs arrive in chunks, and each file is confirmed, that is put in place, once the last one is written.
    """
    outputs = ["simulated_customers", "simulated_truth"]
    return Pipeline([Node(simulate, name="simulate", inputs="params:simulation", outputs=outputs, confirms=outputs)])
