"""A second device for tests: tensors that say they lie on it, and keep their values in this one's memory.

As on a GPU, an operation on tensors of both devices fails, but for what torch lets pass: a number in a tensor of no
dimension, and indices. So code that runs here to the same result puts its tensors where they belong. It says nothing of
the kernels of a real device.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map_only

FAR = torch.device("lazy")  # a type that this build of torch knows and has no kernels for


class FarTensor(Tensor):
    """Says that it lies on `FAR`; its values are those of `near`."""

    near: Tensor

    @staticmethod
    def __new__(cls, near: Tensor) -> FarTensor:
        made: FarTensor = Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls, near.shape, strides=near.stride(), storage_offset=near.storage_offset(), dtype=near.dtype, device=FAR
        )
        made.near = near
        return made

    def __repr__(self, **_: Any) -> str:  # type: ignore[override]
        return f"FarTensor({self.near!r})"

    @classmethod
    def __torch_dispatch__(
        cls, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        return _run(func, args, dict(kwargs or {}))


class _Factories(TorchDispatchMode):
    """Tensors that are asked for on `FAR` with nothing of it to be made from."""

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        return _run(func, args, dict(kwargs or {}))


@contextmanager
def far_device() -> Iterator[None]:
    """Within it there is `FAR`."""
    with _Factories(), torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        yield


def _run(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    if func is torch.ops.aten._has_compatible_shallow_copy_type.default:
        return False  # a module that is moved gets parameters of the other kind
    tensors = [leaf for leaf in tree_flatten((args, kwargs))[0] if isinstance(leaf, Tensor)]
    far = any(isinstance(tensor, FarTensor) for tensor in tensors)
    if "device" in kwargs and kwargs["device"] is not None:
        far = torch.device(kwargs["device"]) == FAR
        kwargs["device"] = torch.device("cpu")
    elif far and func is not torch.ops.aten.copy_.default:
        _check(func, args, tensors)
    kwargs.pop("pin_memory", None)
    result = func(*tree_map_only(FarTensor, _near, args), **tree_map_only(FarTensor, _near, kwargs))
    if func._schema.is_mutable:
        if not func._schema.returns:
            return None
        return args[0] if "out" not in kwargs else kwargs["out"]
    return tree_map_only(Tensor, FarTensor, result) if far else result


def _check(func: Any, args: tuple[Any, ...], tensors: Sequence[Tensor]) -> None:
    if func.overloadpacket in (torch.ops.aten.index, torch.ops.aten.index_put_, torch.ops.aten._index_put_impl_):
        tensors = [args[0], *(leaf for leaf in args[2:] if isinstance(leaf, Tensor))]
    here = [tensor for tensor in tensors if not isinstance(tensor, FarTensor) and tensor.ndim]
    if here:
        raise RuntimeError(f"{func} got tensors of two devices, here {[tuple(tensor.shape) for tensor in here]}")


def _near(tensor: FarTensor) -> Tensor:
    return tensor.near
