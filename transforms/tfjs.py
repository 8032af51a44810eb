"""Reads a TensorFlow.js graph model: a GraphDef written as JSON, with its weights in files beside it."""

import json
import zipfile
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Convolutions fused for TensorFlow.js, split here into the operations that TensorFlow has; it fuses them anew.
SPLIT = {"_FusedConv2D": "Conv2D", "FusedDepthwiseConv2dNative": "DepthwiseConv2dNative"}
CONVOLUTION_ATTRIBUTES = ("T", "strides", "padding", "data_format", "dilations", "explicit_paddings")
ACTIVATIONS = ("Relu", "Relu6", "Elu")


def read_graph(archive: zipfile.ZipFile) -> Any:
    """The GraphDef, weights inside, of the one graph model in the archive.

    Raises:
        ValueError: there is no such model, or its weights do not add up.
    """
    import tensorflow as tf
    from google.protobuf import json_format

    (name,) = [name for name in archive.namelist() if name.endswith(".json")] or ["no .json file"]
    content = json.loads(archive.read(name))
    weights = read_weights(archive, content["weightsManifest"])
    try:
        parsed = json_format.ParseDict({"node": content["modelTopology"]["node"]}, tf.compat.v1.GraphDef())
    except json_format.ParseError as error:
        raise ValueError(f"its graph cannot be read: {error}") from error
    graph_def = tf.compat.v1.GraphDef()
    graph_def.versions.producer = int(content["modelTopology"]["versions"]["producer"])
    for node in parsed.node:
        if node.op == "Const":
            node.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(weights[node.name]))
        if node.op in SPLIT:
            split_convolution(node, graph_def)
        else:
            graph_def.node.append(node)
    return graph_def


def read_weights(archive: zipfile.ZipFile, manifest: list[dict[str, Any]]) -> dict[str, NDArray[Any]]:
    """Weights by name, in the type that the graph uses; stored ones may be float16.

    Raises:
        ValueError: the files are shorter or longer than the manifest says, or quantised to integers.
    """
    weights = {}
    for group in manifest:
        content = b"".join(archive.read(name) for name in group["paths"])
        start = 0
        for weight in group["weights"]:
            stored = np.dtype(weight.get("quantization", weight)["dtype"])
            if "scale" in weight.get("quantization", {}):
                raise ValueError(f"weight {weight['name']} is quantised to {stored}, which is not supported")
            count = int(np.prod(weight["shape"], dtype=np.int64))
            values = np.frombuffer(content, stored, count, start).reshape(weight["shape"])
            weights[weight["name"]] = values.astype(weight["dtype"])
            start += values.nbytes
        if start != len(content):
            raise ValueError(f"its weights have {len(content)} bytes, the manifest says {start}")
    return weights


def split_convolution(node: Any, graph_def: Any) -> None:
    """Appends a fused convolution to the graph as convolution, bias and activation; the last keeps the name.

    Raises:
        ValueError: something else than those is fused.
    """
    fused = [name.decode() for name in node.attr["fused_ops"].list.s]
    if fused[:1] != ["BiasAdd"] or len(fused) > 2 or not set(fused[1:]) <= set(ACTIVATIONS):
        raise ValueError(f"{node.name} fuses {', '.join(fused)}, which is not supported")
    convolution = graph_def.node.add(op=SPLIT[node.op], name=f"{node.name}/convolution", input=node.input[:2])
    for attribute in CONVOLUTION_ATTRIBUTES:
        convolution.attr[attribute].CopyFrom(node.attr[attribute])
    bias_name = node.name if len(fused) == 1 else f"{node.name}/bias"
    bias = graph_def.node.add(op="BiasAdd", name=bias_name, input=[convolution.name, node.input[2]])
    bias.attr["T"].CopyFrom(node.attr["T"])
    bias.attr["data_format"].CopyFrom(node.attr["data_format"])
    for activation in fused[1:]:
        last = graph_def.node.add(op=activation, name=node.name, input=[bias.name])
        last.attr["T"].CopyFrom(node.attr["T"])
