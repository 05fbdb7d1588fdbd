"""ONNX policy -> a chain of steps: what it computes, with float weights and the file's scales beside them.

One chain from the observation to the logits is understood: centring, average pools, convolutions (stride 1), linear
layers, one GRU cell (state in, state out), a mean over the head's positions. Anything else is named and refused.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from envs.errors import UserError
from export.integer.graph import Graph, Quant, Weights, describe
from export.integer.gru import GruStep, read_gru


@dataclass(frozen=True)
class PoolStep:
    """Mean of ``window`` neighbouring positions."""

    name: str
    channels: int
    positions: int
    window: int
    quant: Quant | None = None


@dataclass(frozen=True)
class DenseStep:
    """A convolution over positions, weight (rows, channels, kernel), or a linear layer, weight (rows, inputs).

    A linear layer that follows a convolution sees its inputs channel by channel: (channels, positions) flattened.
    """

    name: str
    channels: int
    positions: int
    kernel: int
    pad: int
    weight: Weights
    bias: Weights | None
    relu: bool = False
    quant: Quant | None = None
    linear: bool = False

    @property
    def rows(self) -> int:
        """Outputs a position."""
        return int(self.weight.value.shape[0])


Step = PoolStep | DenseStep | GruStep


@dataclass
class Chain:
    """A policy: observation -> (x - centre) / scale -> steps -> mean over ``mean`` rows each -> logits."""

    n_obs: int
    slots: int
    centre: float = 0.0
    scale: float = 1.0
    input_quant: Quant | None = None
    steps: list[Step] = field(default_factory=list)
    mean: int = 1
    metadata: dict[str, str] = field(default_factory=dict)


def read_chain(data: bytes) -> Chain:
    """Read a policy's ONNX file, FP32 or INT8 QDQ.

    Raises:
        UserError: not a valid ONNX file, or a node that is not understood (its name and operator are given).
    """
    graph = Graph(data)
    _check(graph)
    return _Walk(graph).run()


def _check(graph: Graph) -> None:
    import onnx

    try:
        onnx.checker.check_model(graph.model)
    except onnx.checker.ValidationError as error:
        raise UserError(f"the ONNX file is not valid: {str(error).strip().splitlines()[0]}") from error


class _Walk:
    """Follows the one chain of nodes from the observation to the logits."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.tensor, axes = next(iter(graph.inputs.items()))
        self.target, out = next(iter(graph.outputs.items()))
        if len(axes) != 2 or axes[1] < 1:
            raise UserError(
                f"the ONNX input '{self.tensor}' has the axes {axes}: (batch, values of an observation) needed"
            )
        if len(out) != 3 or out[1] < 1 or out[2] != 2:
            raise UserError(f"the ONNX output '{self.target}' has the axes {out}: (batch, slots, 2) needed")
        self.chain = Chain(n_obs=axes[1], slots=out[1], metadata=graph.metadata)
        self.channels, self.positions = 1, axes[1]
        self.gain, self.offset = 1.0, 0.0  # of the centring: gain * observation + offset
        self.rows: int | None = None  # a mean over the last axis of (slots, 2, rows) is under way

    def run(self) -> Chain:
        while True:
            self.tensor, quant = self.graph.look_through(self.tensor)
            if quant is not None:
                self._note(quant)
            if self.tensor == self.target:
                break
            readers = self.graph.readers(self.tensor)
            steps = self.chain.steps
            is_state = bool(steps) and isinstance(steps[-1], GruStep)
            if len(readers) != 1 or (self.tensor in self.graph.outputs and not is_state):
                what = ", ".join(describe(node) for node in readers) or "nothing"
                raise UserError(
                    f"the tensor '{self.tensor}' is read by {what}: one chain from observation to logits needed"
                )
            self._step(readers[0])
        return self._finish()

    def _note(self, quant: Quant) -> None:
        steps = self.chain.steps
        if not steps:
            self.chain.input_quant = quant
        elif isinstance(steps[-1], DenseStep) or (isinstance(steps[-1], PoolStep) and steps[-1].quant is None):
            steps[-1] = replace(steps[-1], quant=quant)

    def _step(self, node: Any) -> None:
        known = {
            "Sub": self._centre, "Add": self._centre, "Mul": self._centre, "Div": self._centre,
            "Unsqueeze": self._move, "Reshape": self._move, "Flatten": self._move, "Squeeze": self._move,
            "Identity": self._move, "Cast": self._move,
            "AveragePool": self._pool, "Conv": self._conv, "Gemm": self._linear, "Relu": self._relu,
            "ReduceMean": self._mean,
        }  # fmt: skip
        if node.op_type not in known:
            raise UserError(
                f"{describe(node)} is not understood: the policy in C knows {', '.join(sorted(known))} and GRU cells"
            )
        known[node.op_type](node)
        if not isinstance(self.chain.steps[-1] if self.chain.steps else None, GruStep) or node.op_type != "Gemm":
            self.tensor = node.output[0]

    def _centre(self, node: Any) -> None:
        constant = self.graph.constant(node.input[1])
        swapped = constant is None and node.op_type in ("Add", "Mul")
        if swapped:
            constant = self.graph.constant(node.input[0])
        if self.chain.steps or constant is None or constant.size != 1:
            raise UserError(f"{describe(node)} is understood only before the first layer, with one constant number")
        value = float(constant.reshape(()))
        if node.op_type in ("Sub", "Add"):
            self.offset += value if node.op_type == "Add" else -value
            return
        factor = value if node.op_type == "Mul" else 1.0 / value if value else 0.0
        if not (np.isfinite(factor) and factor > 0):
            raise UserError(f"{describe(node)} scales the observation by {factor:g}: it must be above 0")
        self.gain, self.offset = self.gain * factor, self.offset * factor

    def _move(self, node: Any) -> None:
        """Reshapes change no value; only the split of the head's rows for a mean matters."""
        if node.op_type != "Reshape":
            return
        shape = self.graph.constant(node.input[1])
        if shape is None or shape[0] not in (-1, 0, 1):
            raise UserError(f"{describe(node)} reshapes to {shape}: the batch axis must stay")
        sizes = [int(size) for size in shape[1:]]
        if len(sizes) == 3 and sizes[:2] == [self.chain.slots, 2]:
            self.rows = sizes[2] if sizes[2] > 0 else self.channels * self.positions // (2 * self.chain.slots)
        elif any(size == -1 for size in sizes) or np.prod(sizes) != self.channels * self.positions:
            raise UserError(f"{describe(node)} reshapes {self.channels * self.positions} values to {sizes}")

    def _pool(self, node: Any) -> None:
        a = self.graph.attributes(node)
        window = a["kernel_shape"][0]
        plain = a.get("strides", [1]) == [window] and not any(a.get("pads", [])) and not a.get("ceil_mode", 0)
        if len(a["kernel_shape"]) != 1 or not plain or self.positions < window:
            raise UserError(f"{describe(node)} must be a 1-D pool whose stride is its window, without padding")
        self.chain.steps.append(PoolStep(node.name, self.channels, self.positions, window))
        self.positions //= window

    def _conv(self, node: Any) -> None:
        a, weight, bias = self.graph.attributes(node), *self._parameters(node)
        shape = weight.value.shape
        pads = a.get("pads", [0, 0])
        one = a.get("strides", [1]) == [1] and a.get("dilations", [1]) == [1] and a.get("group", 1) == 1
        if len(shape) != 3 or shape[1] != self.channels or not one or pads[0] != pads[1] or 2 * pads[0] >= shape[2] + 1:
            raise UserError(
                f"{describe(node)} must be a 1-D convolution of {self.channels} channels, stride 1, one group, equal "
                f"pads of at most half its kernel; its weights are {shape}, its pads {pads}"
            )
        step = DenseStep(node.name, self.channels, self.positions, shape[2], pads[0], weight, bias)
        self.chain.steps.append(step)
        self.channels, self.positions = shape[0], self.positions + 2 * pads[0] - shape[2] + 1
        if self.positions < 1:
            raise UserError(f"{describe(node)} leaves no position")

    def _linear(self, node: Any) -> None:
        read_by = self.graph.readers(self.graph.look_through(node.output[0])[0])
        if [reader.op_type for reader in read_by] == ["Split"]:
            step = read_gru(self.graph, node, self.channels * self.positions)
            self.chain.steps.append(step)
            self.channels, self.positions, self.tensor = step.hidden, 1, step.output
            return
        a = {"alpha": 1.0, "beta": 1.0, "transA": 0, "transB": 0} | self.graph.attributes(node)
        if (a["alpha"], a["beta"], a["transA"], a["transB"]) != (1.0, 1.0, 0, 1):
            raise UserError(
                f"{describe(node)} must have alpha 1, beta 1, transA 0 and transB 1: it has {a['alpha']:g}, "
                f"{a['beta']:g}, {a['transA']} and {a['transB']}"
            )
        weight, bias = self._parameters(node)
        shape = weight.value.shape
        if len(shape) != 2 or shape[1] != self.channels * self.positions:
            raise UserError(
                f"{describe(node)} must be y = W x + b with {self.channels * self.positions} inputs; W is {shape}"
            )
        self.chain.steps.append(
            DenseStep(node.name, self.channels, self.positions, self.positions, 0, weight, bias, linear=True)
        )
        self.channels, self.positions = shape[0], 1

    def _parameters(self, node: Any) -> tuple[Weights, Weights | None]:
        weight = self.graph.weights(node.input[1], node)
        bias = self.graph.weights(node.input[2], node) if len(node.input) > 2 and node.input[2] else None
        if bias is not None and bias.value.shape != (weight.value.shape[0],):
            raise UserError(f"{describe(node)} has {bias.value.shape} biases for {weight.value.shape[0]} outputs")
        return weight, bias

    def _relu(self, node: Any) -> None:
        last = self.chain.steps[-1] if self.chain.steps else None
        if not isinstance(last, DenseStep):
            raise UserError(f"{describe(node)} is understood only after a convolution or a linear layer")
        self.chain.steps[-1] = replace(last, relu=True)

    def _mean(self, node: Any) -> None:
        a = self.graph.attributes(node)
        axes = a.get("axes") or (self.graph.constant(node.input[1]).tolist() if len(node.input) > 1 else None)  # type: ignore[union-attr]
        if self.rows is None or axes not in ([3], [-1]) or a.get("keepdims", 1):
            raise UserError(
                f"{describe(node)} is understood only as the mean of (slots, 2, positions) over its last axis"
            )
        self.chain.mean = self.rows

    def _finish(self) -> Chain:
        chain = self.chain
        last = chain.steps[-1] if chain.steps else None
        if not isinstance(last, DenseStep) or last.relu or not last.linear:
            raise UserError("the policy must end in a linear layer without ReLU")
        if last.rows != 2 * chain.slots * chain.mean:
            raise UserError(f"{last.name} has {last.rows} rows: {chain.slots} slots × 2 × {chain.mean} needed")
        if sum(isinstance(step, GruStep) for step in chain.steps) != len(self.graph.inputs) - 1:
            raise UserError(
                f"the graph has the inputs {list(self.graph.inputs)}: an observation, and a state of a GRU cell"
            )
        chain.centre, chain.scale = -self.offset / self.gain, 1.0 / self.gain
        return chain
