"""Boxes: groups of nodes that the graph draws as one until a click expands them."""

from collections.abc import Iterable

from kedro.pipeline import Node, Pipeline


def box(name: str, nodes: Iterable[Node]) -> Pipeline:
    """Put nodes into a namespace; datasets and parameters keep their names, because other nodes use them too.

    Examples
    --------
    >>> boxed = box("report", [Node(len, "customers", "rows", name="count")])
    >>> [node.name for node in boxed.nodes], boxed.all_outputs()
    (['report.count'], {'rows'})
    """
    return Pipeline(nodes, namespace=name, prefix_datasets_with_namespace=False)
