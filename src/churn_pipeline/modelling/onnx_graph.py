"""A small builder of ONNX graphs, with names that depend on nothing but the order of the calls."""

from __future__ import annotations

import hashlib
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


class OnnxConversionError(Exception):
    """A fitted model cannot be expressed in ONNX. The message names the step, and what to do about it."""


class Graph:
    """Nodes and constants of an ONNX graph in the making.

    Values are referred to by name. Every method that adds something returns the name of what it adds; what is there
    already is not added again, so that the members of a blend share the work they have in common.
    """

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.opsets: dict[str, int] = {"": OPSET}
        self._known: dict[bytes, str] = {}

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
        array = np.asarray(value, dtype=object if dtype is str else dtype)
        return self.adopt(numpy_helper.from_array(np.ascontiguousarray(array).reshape(array.shape)))

    def adopt(self, constant: onnx.TensorProto) -> str:
        """Add a copy of a constant under a name of the graph's own.

        Parameters
        ----------
        constant : TensorProto
            The constant.

        Returns
        -------
        str
            Its name.
        """
        copy = onnx.TensorProto()
        copy.CopyFrom(constant)
        copy.name = ""
        key, name = _identity(copy), f"constant_{len(self.constants)}"
        if key not in self._known:
            copy.name = self._known[key] = name
            self.constants.append(copy)
        return self._known[key]

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
        node = helper.make_node(operator, list(inputs), [], domain=domain, **attributes)
        key, name = _identity(node), f"{operator}_{len(self.nodes)}"
        if key not in self._known:
            node.name = self._known[key] = name
            node.output.append(name)
            self.nodes.append(node)
        return self._known[key]

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


def _identity(part: onnx.TensorProto | onnx.NodeProto) -> bytes:
    """What tells a nameless constant or node from any other."""
    return hashlib.sha256(type(part).__name__.encode() + part.SerializeToString(deterministic=True)).digest()
