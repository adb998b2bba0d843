"""A small builder of ONNX graphs. Names depend only on the order of the calls."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

# Pinned to what onnxruntime reads, so that a library update does not change a model's bytes. StringConcat needs opset 20,
# trees in float64 need version 5 of ai.onnx.ml.
OPSET = 20
ML_OPSET = 5
IR_VERSION = 9
ML_DOMAIN = "ai.onnx.ml"


class OnnxConversionError(Exception):
    """A fitted model cannot be converted to ONNX. The message names the step and how to fix it."""


class Graph:
    """Nodes and constants of an ONNX graph that is being built.

    Values are referred to by name, and each method returns the name of the value that it adds. An identical node or
    constant is not added twice, so that the members of a blend share common work.
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
            Data type; str for a tensor of strings.

        Returns
        -------
        str
            Name of the constant.
        """
        array = np.asarray(value, dtype=object if dtype is str else dtype)
        return self.adopt(numpy_helper.from_array(np.ascontiguousarray(array).reshape(array.shape)))

    def adopt(self, constant: onnx.TensorProto) -> str:
        """Add a copy of a constant, under a name of this graph.

        Parameters
        ----------
        constant : TensorProto
            The constant.

        Returns
        -------
        str
            Name of the constant.
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
        """Add a node with one output.

        Parameters
        ----------
        operator : str
            The ONNX operator.
        *inputs : str
            Names of the inputs.
        domain : str, default=""
            Domain of the operator.
        **attributes
            Attributes of the operator.

        Returns
        -------
        str
            Name of the output.
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
            Name of the value to cast.
        to : TensorProto.DataType
            Target type.

        Returns
        -------
        str
            Name of the result.
        """
        return self.node("Cast", value, to=to)


def _identity(part: onnx.TensorProto | onnx.NodeProto) -> bytes:
    """Hash a constant or node without a name, to detect duplicates."""
    return hashlib.sha256(type(part).__name__.encode() + part.SerializeToString(deterministic=True)).digest()
