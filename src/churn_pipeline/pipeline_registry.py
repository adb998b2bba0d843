"""The project's pipelines by name."""

from kedro.pipeline import Pipeline

from churn_pipeline.pipelines import data_engineering, evaluation, modelling, packaging, refit, simulation


def register_pipelines() -> dict[str, Pipeline]:
    """``training`` is data engineering, modelling and evaluation; the default is training, then packaging.

    ``refit`` is data engineering, the refit of a registered version, and evaluation.

    A run of ``evaluation`` alone registers no model and keeps no hold-out sample: without the digests of a whole training, the
    model could not be rebuilt.
    The pipelines are listed here because Kedro's ``find_pipelines`` requires a folder for each name, such as ``training``.
    """
    modules = (data_engineering, modelling, evaluation, packaging, refit, simulation)
    pipelines = {module.__name__.rsplit(".", 1)[-1]: module.create_pipeline() for module in modules}
    training = pipelines["data_engineering"] + pipelines["modelling"] + pipelines["evaluation"]
    pipelines["refit"] = pipelines["data_engineering"] + pipelines["refit"] + pipelines["evaluation"]
    pipelines["evaluation"] -= pipelines["evaluation"].only_nodes_with_outputs(
        "registered_model@logged", "holdout_sample"
    )
    return {**pipelines, "training": training, "__default__": training + pipelines["packaging"]}
