"""Boxes: nodes that belong together, drawn as one in the graph until a click opens it."""

from collections.abc import Iterable

from kedro.pipeline import Node, Pipeline


def box(name: str, nodes: Iterable[Node]) -> Pipeline:
    """Nodes in a namespace of their own; datasets and parameters keep their names, as others read them too.

    Examples
    --------
    >>> boxed = box("report", [Node(len, "customers", "rows", name="count")])
    >>> [node.name for node in boxed.nodes], boxed.all_outputs()
    (['report.count'], {'rows'})
    """
    return Pipeline(nodes, namespace=name, prefix_datasets_with_namespace=False)
