"""A small builder of ONNX graphs, with names that depend on nothing but the order of the calls."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

# Pinned, not "the newest": what onnxruntime reads decides, and a pinned number keeps a model's bytes the same when a
# library moves. StringConcat came with opset 20, trees in double with 5 of ai.onnx.ml.
OPSET = 20
ML_OPSET = 5
IR_VERSION = 9
ML_DOMAIN = "ai.onnx.ml"


class CompilationError(Exception):
    """A fitted model cannot be expressed in ONNX. The message names the step, and what to do about it."""


class Graph:
    """Nodes and constants of an ONNX graph in the making.

    Values are referred to by name. Every method that adds something returns the name of what it adds.
    """

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.opsets: dict[str, int] = {"": OPSET}

    def constant(self, value: npt.ArrayLike, dtype: npt.DTypeLike = np.float64) -> str:
        """Add a constant.

        Parameters
        ----------
        value : array-like
            The value, of any shape.
        dtype : dtype, default=float64
            Its type; str makes a tensor of strings.

        Returns
        -------
        str
            Its name.
        """
        name = f"constant_{len(self.constants)}"
        array = np.asarray(value, dtype=object if dtype is str else dtype)
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(array).reshape(array.shape), name))
        return name

    def node(self, operator: str, *inputs: str, domain: str = "", **attributes: Any) -> str:
        """Add a node of one output.

        Parameters
        ----------
        operator : str
            The ONNX operator.
        *inputs : str
            Names of its inputs.
        domain : str, default=""
            The operator's domain.
        **attributes
            Its attributes.

        Returns
        -------
        str
            The name of its output.
        """
        if domain == ML_DOMAIN:
            self.opsets.setdefault(domain, ML_OPSET)
        name = f"{operator}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, list(inputs), [name], name=name, domain=domain, **attributes))
        return name

    def cast(self, value: str, to: TensorProto.DataType) -> str:
        """Add a cast.

        Parameters
        ----------
        value : str
            What to cast.
        to : TensorProto.DataType
            The type to cast to.

        Returns
        -------
        str
            The name of the result.
        """
        return self.node("Cast", value, to=to)
