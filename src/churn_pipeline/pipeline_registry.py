"""The project's pipelines by name."""

from kedro.pipeline import Pipeline

from churn_pipeline.pipelines import data_engineering, evaluation, modelling, packaging, simulation


def register_pipelines() -> dict[str, Pipeline]:
    """``training`` is data engineering, modelling and evaluation; the default is training, then packaging.

    Named one by one: under ``kedro run --pipelines training``, Kedro's ``find_pipelines`` looks for a folder of that name.
    """
    modules = (data_engineering, modelling, evaluation, packaging, simulation)
    pipelines = {module.__name__.rsplit(".", 1)[-1]: module.create_pipeline() for module in modules}
    training = pipelines["data_engineering"] + pipelines["modelling"] + pipelines["evaluation"]
    return {**pipelines, "training": training, "__default__": training + pipelines["packaging"]}
