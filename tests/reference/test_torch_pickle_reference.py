"""What a `.pt` may hold, compared with torch.load(weights_only=True)."""

from __future__ import annotations

from collections import Counter, OrderedDict
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stapes.checkpoint.formats import torch_pickle
from stapes.checkpoint.open import open_checkpoint
from stapes.errors import CheckpointError
from tests import writers_of_checkpoints as write

torch: Any = pytest.importorskip("torch")
pytestmark = pytest.mark.reference

TENSORS = write.random_tensors()


def state() -> dict[str, Any]:
    return {name: torch.from_numpy(tensor.copy()) for name, tensor in TENSORS.items()}


def trained() -> dict[str, Any]:
    """An optimiser's and a schedule's state after one step, as training programs save them."""
    network = torch.nn.Linear(3, 2)
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-5)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, 10)
    network(torch.ones(1, 3)).sum().backward()
    optimiser.step()
    schedule.step()
    return {"optimizer": optimiser.state_dict(), "scheduler": schedule.state_dict(), "net": network.state_dict()}


def tagged() -> Any:
    tensor = torch.ones(2)
    tensor.tag = "mine"
    return tensor


BESIDE = {
    "numbers": [0.5, 2**70, -1, True, None, 1 + 2j, float("nan")],
    "texts": ["ü", "\udc80", b"bytes", bytearray(b"x"), ""],
    "containers": [(1, (2, [3])), {1: 2, (1, 2): 3, None: 4}, {1, 2}, set(), OrderedDict(a=1), Counter("aab")],
    "types": [torch.float16, torch.float8_e4m3fn, torch.device("cuda:0"), torch.Size([1, 2]), torch.strided],
    "training": trained(),
    "tensors": [
        torch.nn.Parameter(torch.ones(2)), torch.ones(2, dtype=torch.float64), torch.zeros(0), torch.tensor(1.5),
        torch.ones(3, dtype=torch.uint16), torch.ones(2, 2).to_sparse(), torch.ones(2, device="meta"),
        torch.ones(4).untyped_storage(), torch.ones(3, requires_grad=True), torch.ones(3, dtype=torch.int8), tagged(),
        torch.ones(2) + 1j,
    ],
}  # fmt: skip


def test_every_name_that_torch_allows_is_allowed_here() -> None:
    unpickler = pytest.importorskip("torch._weights_only_unpickler")
    names = set(unpickler._get_allowed_globals())  # without those that other parts of torch add when they are imported
    assert len(names) > 100
    assert sorted(name for name in names if not torch_pickle._GLOBALS.fullmatch(name)) == []


@pytest.mark.parametrize("beside", BESIDE.values(), ids=BESIDE.keys())
def test_what_torch_takes_is_read(tmp_path: Path, beside: object) -> None:
    path = tmp_path / "model.pt"
    torch.save({"before": beside, "dims": asdict(write.TINY), "model_state_dict": state(), "after": beside}, path)
    assert torch.load(path, weights_only=True)["before"] is not None
    read = open_checkpoint(path).tensors
    assert all(np.array_equal(read[name], tensor) for name, tensor in TENSORS.items())


@pytest.mark.filterwarnings("ignore::UserWarning")  # both are prototypes, or deprecated
def test_rare_tensors_are_passed_over(tmp_path: Path) -> None:
    rare = [
        torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.quint8),
        torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]),
    ]
    test_what_torch_takes_is_read(tmp_path, rare)


@pytest.mark.parametrize("kind", ["float16", "float32", "float64", "bfloat16"])
def test_weights_are_read_as_torch_reads_them(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "model.pt"
    weights = {name: torch.nn.Parameter(tensor.to(getattr(torch, kind))) for name, tensor in state().items()}
    torch.save({"dims": asdict(write.TINY), "model_state_dict": OrderedDict(weights)}, path)
    theirs = torch.load(path, weights_only=True)["model_state_dict"]
    ours = open_checkpoint(path)
    assert ours.storage == kind
    for name in TENSORS:
        np.testing.assert_array_equal(ours.tensors[name], theirs[name].detach().to(torch.float32).numpy())


class Unknown:
    """A class of some training program."""


@pytest.mark.parametrize("value", [np.float64(0.5), np.ones(2), Unknown(), Path("x"), print], ids=repr)
def test_what_torch_refuses_is_refused_by_name(tmp_path: Path, value: object) -> None:
    path = tmp_path / "model.pt"
    torch.save({"dims": asdict(write.TINY), "model_state_dict": state(), "more": value}, path)
    with pytest.raises(Exception, match=r"(?i)weights"):
        torch.load(path, weights_only=True)
    with pytest.raises(CheckpointError, match="names the global"):
        open_checkpoint(path)


def test_the_format_before_1_6_is_named(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    value = {"dims": asdict(write.TINY), "model_state_dict": state()}
    torch.save(value, path, _use_new_zipfile_serialization=False)
    with pytest.raises(CheckpointError, match=r"from before version 1\.6; if you trust it, load it in PyTorch"):
        open_checkpoint(path)
