"""Modelling: a sub-pipeline for each configured candidate, all from one template; then comparison and choice."""

from kedro.pipeline import Node, Pipeline

from churn_pipeline.configuration import configured_candidates
from churn_pipeline.pipelines.boxes import box
from churn_pipeline.pipelines.modelling import nodes


def create_pipeline() -> Pipeline:
    """Build a box for each candidate's search, and one for the choice among them and the fit of the chosen model.

    Candidates are searched one after another, because each passes the time that it leaves on to the next.
    """
    candidates = configured_candidates()
    seconds = ["search_seconds", *(f"{name}_seconds_left" for name in candidates)]
    return Pipeline(
        [
            box("preparation", [_prepare()]),
            *(_search(name, available) for name, available in zip(candidates, seconds, strict=False)),
            box("choice", _choice(candidates)),
        ],
        tags="modelling",
    )


def _prepare() -> Node:
    return Node(
        nodes.prepare,
        ["train_features", "train_label", "folds", "train_groups", "params:seed", "params:search"],
        ["search_rows", "search_seconds"],
        name="prepare",
    )


def _search(name: str, seconds: str) -> Pipeline:
    template = Node(
        nodes.search,
        ["search_rows", "contract", "params:seed", "params:candidate", "params:search", "studies", "seconds"],
        ["cv_predictions", "tuned", "seconds_left"],
        name="search",
    )
    return Pipeline(
        [template],
        namespace=name,
        inputs={"search_rows": "search_rows", "contract": "contract", "seconds": seconds},
        outputs={output: f"{name}_{output}" for output in ("cv_predictions", "tuned", "seconds_left")},
        parameters={
            "params:candidate": f"params:candidates.{name}",
            **{shared: shared for shared in ("params:search", "params:seed")},
        },
    )


def _choice(candidates: list[str]) -> list[Node]:
    return [
        Node(
            nodes.compare,
            {"settings": "params:choice", **{name: f"{name}_cv_predictions" for name in candidates}},
            ["leaderboard", "choice"],
            name="compare",
        ),
        Node(
            nodes.fit,
            {
                "features": "train_features",
                "label": "train_label",
                "groups": "train_groups",
                "contract": "contract",
                "seed": "params:seed",
                "choice": "choice",
                **{name: f"{name}_tuned" for name in candidates},
            },
            "chosen_model",
            name="fit",
        ),
        Node(
            nodes.convert_chosen,
            ["chosen_model", "choice", "contract"],
            ["onnx_model", "model_report", "model_tags"],
            name="convert_to_onnx",
        ),
    ]
