"""Modelling: a sub-pipeline for each configured candidate, all from one template; then comparison and choice."""

from kedro.pipeline import Node, Pipeline

from churn_pipeline.configuration import configured_candidates
from churn_pipeline.pipelines.boxes import box
from churn_pipeline.pipelines.modelling import nodes

SHARED = {"train_features", "train_label", "train_groups", "folds", "contract"}


def create_pipeline() -> Pipeline:
    """Build a box for each candidate, ``prepare → search → fit``, and one for the choice among them."""
    template = Pipeline(
        [
            Node(
                nodes.prepare,
                ["train_features", "train_label", "folds", "contract", "params:seed", "train_groups"],
                "task",
                name="prepare",
            ),
            Node(
                nodes.search,
                ["task", "params:candidate", "params:search", "studies"],
                ["cv_predictions", "tuned"],
                name="search",
            ),
            Node(
                nodes.fit,
                ["train_features", "train_label", "tuned", "contract", "params:seed", "train_groups"],
                "model",
                name="fit",
            ),
        ]
    )
    candidates = configured_candidates()
    boxes = [
        Pipeline(
            template,
            namespace=name,
            inputs=SHARED,
            outputs={"cv_predictions": f"{name}_cv_predictions", "model": f"{name}_model"},
            parameters={
                "params:candidate": f"params:candidates.{name}",
                "params:seed": "params:seed",
                "params:search": "params:search",
            },
        )
        for name in candidates
    ]
    return Pipeline([*boxes, box("choice", _choice(candidates))], tags="modelling")


def _choice(candidates: list[str]) -> list[Node]:
    return [
        Node(
            nodes.compare,
            {"settings": "params:choice", **{name: f"{name}_cv_predictions" for name in candidates}},
            ["leaderboard", "choice"],
            name="compare",
        ),
        Node(
            nodes.choose,
            {"choice": "choice", **{name: f"{name}_model" for name in candidates}},
            "chosen_model",
            name="choose",
        ),
        Node(
            nodes.convert_chosen,
            ["chosen_model", "choice", "contract"],
            ["onnx_model", "model_report", "model_tags"],
            name="convert_to_onnx",
        ),
    ]
