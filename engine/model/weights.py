"""A model as one safetensors file: its tensors, its shape, and the ids that its vocabulary numbers stand for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from pydantic import ValidationError
from safetensors.torch import save

from engine.model.recommender import ModelShape, Recommender
from engine.model.tensor_file import TensorFileError, read_tensors

FORMAT = "ousel-1"
_IDS, _ENDS = "vocabulary.ids", "vocabulary.ends"


class WeightsError(ValueError):
    """A weights file that can't be used; the message names what differs."""


@dataclass(frozen=True)
class Weights:
    """A model ready to run, and its vocabulary: item id `vocabulary[i]` has number i + 1."""

    model: Recommender
    vocabulary: Sequence[str]


def encode_weights(weights: Weights) -> bytes:
    """The whole file."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.model.state_dict().items()}
    encoded = [name.encode() for name in weights.vocabulary]
    tensors[_IDS] = torch.frombuffer(bytearray(b"".join(encoded) or b"\0"), dtype=torch.uint8)
    tensors[_ENDS] = torch.tensor([len(name) for name in encoded], dtype=torch.int64).cumsum(0)
    metadata = {"format": FORMAT, "shape": weights.model.shape.model_dump_json()}
    return bytes(save(tensors, metadata))


def decode_weights(data: bytes | bytearray) -> Weights:
    """Reads a file that `encode_weights` wrote, here or elsewhere.

    Args:
        data: a bytearray is read where it is; bytes are copied, which keeps other threads from running meanwhile.

    Raises:
        WeightsError: not such a file, a tensor missing or of the wrong shape or type, or a value that is not finite.
    """
    try:
        tensors, metadata = read_tensors(data if isinstance(data, bytearray) else bytearray(data))
    except TensorFileError as error:
        raise WeightsError(f"weights must be a safetensors file, got {error}") from None
    if metadata.get("format") != FORMAT:
        raise WeightsError(f"weights format must be {FORMAT!r}, got {metadata.get('format')!r}")
    try:
        shape = ModelShape.model_validate_json(metadata.get("shape", ""))
        with torch.device("meta"):
            expected = Recommender(shape).state_dict()
    except (ValidationError, ValueError) as error:
        raise WeightsError(f"weights shape is not usable: {error}") from None
    vocabulary = _vocabulary(tensors.pop(_IDS, None), tensors.pop(_ENDS, None), shape.vocabulary)
    for name, want in expected.items():
        got = tensors.get(name)
        if got is None:
            raise WeightsError(f"weights lack tensor {name}")
        if got.shape != want.shape or got.dtype != want.dtype:
            raise WeightsError(
                f"tensor {name} must be {tuple(want.shape)} {want.dtype}, got {tuple(got.shape)} {got.dtype}"
            )
        if not bool(torch.isfinite(got).all()):
            raise WeightsError(f"tensor {name} holds values that are not finite")
    if unknown := sorted(set(tensors) - set(expected)):
        raise WeightsError(f"weights hold unknown tensors {unknown[:5]}")
    model = Recommender(shape)
    model.load_state_dict(tensors)
    return Weights(model.eval().requires_grad_(False), vocabulary)


def _vocabulary(ids: torch.Tensor | None, ends: torch.Tensor | None, size: int) -> list[str]:
    if ids is None or ends is None or ends.dtype != torch.int64 or ids.dtype != torch.uint8 or ends.shape != (size,):
        raise WeightsError(f"weights must name the {size} items of their vocabulary")
    text, stops = ids.numpy().tobytes(), ends.tolist()
    starts = [0, *stops][: len(stops)]
    if any(a > b for a, b in zip(starts, stops, strict=True)) or (stops and stops[-1] > len(text)):
        raise WeightsError("vocabulary.ends must rise and stay within vocabulary.ids")
    try:
        return [text[a:b].decode() for a, b in zip(starts, stops, strict=True)]
    except UnicodeDecodeError:
        raise WeightsError("vocabulary.ids must be UTF-8") from None
