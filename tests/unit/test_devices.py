"""Names of devices, and whether PyTorch and a GPU can be used: each thing that may be missing has its own sentence."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import stapes
from stapes.backends import REGISTRY, select
from stapes.backends.torch import devices
from stapes.backends.torch.devices import auto_device, check_device, has_kernels
from stapes.errors import BackendError, OptionError, StapesWarning
from stapes.options.devices import device_names
from stapes.testing import random_checkpoint

SOURCE = Path(stapes.__file__).parents[1]
VARIABLES = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES")

# Names.


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("auto", ("auto",)), ("cpu", ("cpu",)), ("mps", ("mps",)), ("cuda", ("cuda:0",)), ("cuda:0", ("cuda:0",)),
        ("cuda:12", ("cuda:12",)), ("cuda:01", ("cuda:1",)), ("cuda:1,cuda:0", ("cuda:1", "cuda:0")),
        ("cuda, cuda:1", ("cuda:0", "cuda:1")),
    ],
)  # fmt: skip
def test_names_of_devices(text: str, names: tuple[str, ...]) -> None:
    assert device_names(text) == names
    assert device_names(",".join(names)) == names


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("tpu", "device 'tpu' is not in this version; there are: cpu, cuda, mps, auto"),
        ("CUDA", "'CUDA' is not in this version"),
        ("", "device '' is not in this version"),
        ("cuda:0,", "device 'cuda:0,' is not in this version"),
        ("cuda:0,auto", "device 'auto' is not in this version"),
        ("cuda:", "'' is not the number of a GPU; the first one is cuda:0"),
        ("cuda:-1", "'-1' is not the number of a GPU"),
        ("cuda:one", "'one' is not the number of a GPU"),
        ("cuda:99999", "'99999' is not the number of a GPU"),
        ("cuda:¹", "'¹' is not the number of a GPU"),
        ("cpu:0", "only cuda takes a number; give 'cpu'"),
        ("cuda,cuda:0", "names cuda:0 twice"),
        ("cpu,cpu", "names cpu twice"),
        ("cuda:0,cpu", "several devices must all be cuda, and cpu is not"),
        (None, "device must be a name such as cpu or cuda:0, got None"),
        (0, "device must be a name such as cpu or cuda:0, got 0"),
    ],
)
def test_what_names_no_device_is_refused(text: Any, said: str) -> None:
    with pytest.raises(OptionError, match=re.escape(said)):
        device_names(text)


# A PyTorch that is not there, or lacks something.


class FakeCuda:
    """What `check_device` asks `torch.cuda`: a machine with two GPUs of one kind."""

    def __init__(self, **changed: Any) -> None:
        self.error: Exception | None = None
        self.count = 2
        self.capability = (9, 0)
        self.archs = ["sm_80", "sm_90"]
        self.forked = False
        vars(self).update(changed)

    def _is_in_bad_fork(self) -> bool:
        return self.forked

    def init(self) -> None:
        if self.error is not None:
            raise self.error

    def device_count(self) -> int:
        return self.count

    def get_arch_list(self) -> list[str]:
        return self.archs

    def get_device_capability(self, _number: int) -> tuple[int, int]:
        return self.capability

    def get_device_properties(self, _number: int) -> Any:
        return SimpleNamespace(gcnArchName="gfx942:sramecc+:xnack-")

    def get_device_name(self, _number: int) -> str:
        return "H200"


def fake_torch(
    *, version: str = "2.13.0+cu130", cuda: str | None = "13.0", hip: str | None = None, mps: bool = False, **gpus: Any
) -> Any:
    return SimpleNamespace(
        __version__=version,
        version=SimpleNamespace(cuda=cuda, hip=hip),
        cuda=FakeCuda(**gpus),
        backends=SimpleNamespace(mps=SimpleNamespace(is_available=lambda: mps)),
    )


@pytest.fixture(autouse=True)
def nothing_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def put(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Put a fake PyTorch in the place of the real one, if there is one."""
    return lambda **changed: monkeypatch.setitem(sys.modules, "torch", fake_torch(**changed))


TOO_OLD = (
    "The NVIDIA driver on your system is too old (found version 11040). Please update your GPU driver by downloading "
    "and installing a new version from the URL: http://www.nvidia.com/Download/index.aspx"
)
NO_DRIVER = "Found no NVIDIA driver on your system. Please check that you have an NVIDIA GPU and installed a driver"
NO_GPU = "No CUDA GPUs are available"

MISSING: list[tuple[str, dict[str, Any], str]] = [
    ("cuda:0", {"version": "2.8.1"}, "device 'cuda:0' needs PyTorch 2.9 or newer, and 2.8.1 is installed: pip install"),
    ("cpu", {"version": "1.13.0"}, "backend 'torch' needs PyTorch 2.9 or newer, and 1.13.0 is installed"),
    (
        "cuda:0",
        {"version": "2.13.0+cpu", "cuda": None},
        "device 'cuda:0': the installed PyTorch 2.13.0+cpu was built for CPUs alone; builds for NVIDIA GPUs are at "
        "download.pytorch.org/whl/cu130 (pytorch.org/get-started has the command)",
    ),
    (
        "cuda:0",
        {"error": RuntimeError(TOO_OLD)},
        "the NVIDIA driver (it knows CUDA 11.4) is too old for PyTorch 2.13.0+cu130, which needs CUDA 13.0: install a "
        "newer driver, or a PyTorch for an older CUDA",
    ),
    ("cuda:0", {"error": AssertionError(NO_DRIVER)}, "no NVIDIA driver was found: install it, or, in a container, "),
    ("cuda:0", {"error": RuntimeError(NO_GPU)}, "the driver finds no GPU; nvidia-smi lists those that there are"),
    ("cuda:0", {"error": RuntimeError("No HIP GPUs are available"), "cuda": None, "hip": "7.1"}, "GPU; rocm-smi lists"),
    ("cuda:0", {"error": RuntimeError("CUDA unknown error\nmore")}, "'cuda:0': CUDA cannot be started: CUDA unknown"),
    ("cuda:0", {"error": RuntimeError("odd"), "cuda": None, "hip": "7.1"}, "ROCm cannot be started: odd"),
    ("cuda:0", {"count": 0}, "device 'cuda:0': there is no GPU"),
    ("cuda:2", {}, "device 'cuda:2': there are 2 GPUs, cuda:0 to cuda:1"),
    ("cuda:9", {"count": 1}, "device 'cuda:9': there is 1 GPU, cuda:0"),
    (
        "cuda:1",
        {"capability": (6, 1)},
        "device 'cuda:1': H200 has compute capability 6.1, for which PyTorch 2.13.0+cu130 has no kernels "
        "(sm_80, sm_90): install a PyTorch that has",
    ),
    ("cuda:0", {"cuda": None, "hip": "7.1", "archs": ["gfx90a"]}, "H200 has architecture gfx942, for which PyTorch"),
    ("cuda:0", {"forked": True}, "device 'cuda:0': CUDA was in use when this process was forked, and does not work in"),
    ("cuda:0", {"forked": True, "cuda": None, "hip": "7.1"}, "device 'cuda:0': ROCm was in use when this process"),
    ("mps", {}, "device 'mps': PyTorch 2.13.0+cu130 finds no GPU of Apple on this machine"),
]


@pytest.mark.parametrize(("name", "changed", "said"), MISSING)
def test_each_thing_that_is_missing_has_its_sentence(
    name: str, changed: dict[str, Any], said: str, put: Callable[..., None]
) -> None:
    put(**changed)
    with pytest.raises(BackendError) as caught:
        check_device(name)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_sentences_differ(put: Callable[..., None]) -> None:
    said = set()
    for name, changed, _ in MISSING:
        put(**changed)
        with pytest.raises(BackendError) as caught:
            check_device(name)
        said.add(str(caught.value))
    assert len(said) == len(MISSING)


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("cpu", {"cuda": None}),
        ("cuda:0", {}),
        ("cuda:1", {"version": "2.9.0"}),
        ("cuda:1", {"version": "3.0.0a0+git12"}),
        ("cuda:0", {"archs": []}),
        ("cuda:0", {"cuda": None, "hip": "7.1", "archs": ["gfx942"]}),
        ("mps", {"cuda": None, "mps": True}),
    ],
)
def test_what_is_there_is_taken(name: str, changed: dict[str, Any], put: Callable[..., None]) -> None:
    put(**changed)
    check_device(name)


@pytest.mark.parametrize(("name", "value"), [("CUDA_VISIBLE_DEVICES", "-1"), ("CUDA_VISIBLE_DEVICES", "7")])
def test_a_variable_that_hides_all_gpus_is_named(
    name: str, value: str, put: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    put(error=RuntimeError(NO_GPU))
    monkeypatch.setenv(name, value)
    with pytest.raises(BackendError, match=f"{name}='{value}' hides every GPU from this process: unset it, or name a"):
        check_device("cuda:0")


def test_a_variable_that_hides_some_is_named_where_one_is_missing(
    put: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    put(count=1)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    with pytest.raises(BackendError, match=re.escape("there is 1 GPU, cuda:0 (of CUDA_VISIBLE_DEVICES=3)")):
        check_device("cuda:1")


def test_without_pytorch_it_is_said_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    for name, said in (
        ("cuda:0", "device 'cuda:0' needs PyTorch, which is not installed: pip install 'stapes[torch]'; its build for "
                   "NVIDIA GPUs on Windows is at download.pytorch.org/whl/cu130"),
        ("mps", "device 'mps' needs PyTorch, which is not installed: pip install 'stapes[torch]'"),
        ("cpu", "backend 'torch' needs PyTorch, which is not installed: pip install 'stapes[torch]'"),
    ):  # fmt: skip
        with pytest.raises(BackendError) as caught:
            check_device(name)
        assert str(caught.value) == said


@pytest.mark.parametrize("error", ["ImportError('libcudart.so: not found\\nmore')", "OSError('libcudart.so: gone')"])
def test_a_pytorch_that_cannot_be_imported_is_named(
    error: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    installed(tmp_path, f"raise {error}")
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(BackendError, match=r"PyTorch is installed and cannot be imported: libcudart.so: \w+( found)?$"):
        check_device("cuda:0")


@pytest.mark.parametrize(
    ("built_for", "capability", "runs"),
    [
        (["sm_80"], (8, 0), True),
        (["sm_80"], (8, 9), True),
        (["sm_86"], (8, 0), False),
        (["sm_80"], (9, 0), False),
        (["sm_80", "compute_80"], (9, 0), True),
        (["compute_90"], (8, 9), False),
        (["sm_90a"], (9, 0), True),
        (["sm_90a", "compute_90a"], (10, 0), False),
        (["sm_100f"], (10, 3), True),
        (["compute_100f"], (12, 0), False),
        (["sm_120"], (12, 1), True),
        (["odd", "sm_x"], (9, 0), False),
        ([], (9, 0), False),
    ],
)
def test_which_gpus_run_which_code(built_for: list[str], capability: tuple[int, int], runs: bool) -> None:
    assert has_kernels(built_for, *capability) is runs


def test_a_pytorch_for_cpus_is_known_without_importing_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    installed(tmp_path, "raise AssertionError('imported')", cuda=None)
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(BackendError, match=r"the installed PyTorch 2.13.0 was built for CPUs alone"):
        check_device("cuda:0")


# Without being asked.


def installed(folder: Path, init: str, *, cuda: str | None = "13.0", hip: str | None = None) -> Path:
    """Write a package `torch` whose file of versions is PyTorch's, and return the driver's file."""
    (folder / "torch").mkdir()
    (folder / "torch" / "__init__.py").write_text(init)
    text = f"__version__ = '2.13.0'\ncuda: Optional[str] = {cuda!r}\nhip: Optional[str] = {hip!r}\nrocm = None\n"
    (folder / "torch" / "version.py").write_text(text)
    driver = folder / "nvidiactl"
    driver.touch()
    return driver


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """Install the driver of an NVIDIA GPU, and a PyTorch for CUDA that fails the test where it is imported."""
    file = installed(tmp_path, "raise AssertionError('imported')")
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(devices, "_DRIVER_FILES", {"cuda": (file,), "hip": (tmp_path / "kfd",)})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield file


def test_a_gpu_is_found_by_itself(driver: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "import_module", lambda _: fake_torch())
    assert auto_device() == "cuda:0"
    assert stapes.check_device() == stapes.check_device("auto", precision="bfloat16") == "cuda:0"
    assert stapes.check_device("auto", precision="int8") == stapes.check_device("auto", backend="numpy") == "cpu"
    assert stapes.check_device("cpu") == "cpu"
    with pytest.raises(OptionError, match="is for GPUs"):
        stapes.check_device("cpu", precision="float16")


def test_a_gpu_that_cannot_be_used_is_a_warning(driver: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "import_module", lambda _: fake_torch(error=RuntimeError(TOO_OLD)))
    with pytest.warns(StapesWarning, match=r"^device 'cuda:0': the NVIDIA driver .* older CUDA; running on the CPU$"):
        assert stapes.check_device() == "cpu"


def test_nothing_is_imported_without_a_driver(driver: Path) -> None:
    driver.unlink()
    assert auto_device() == "cpu"


@pytest.mark.parametrize("value", ["", "-1", " -1,0"])
def test_nothing_is_imported_where_all_gpus_are_hidden(
    driver: Path, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", value)
    assert auto_device() == "cpu"


@pytest.mark.parametrize("builds", [{"cuda": None}, {"cuda": None, "hip": "7.1"}])
def test_nothing_is_imported_where_pytorch_is_for_another_device(
    driver: Path, builds: dict[str, str | None], tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    installed(tmp_path / "other", "", **builds)
    (tmp_path / "other" / "torch" / "version.py").replace(tmp_path / "torch" / "version.py")
    assert auto_device() == "cpu"


def test_nothing_is_imported_where_pytorch_is_for_rocm_alone_and_so_is_the_driver(
    driver: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "torch" / "version.py").write_text(
        "__version__ = '2.13.0'\ncuda = None\nhip: Optional[str] = '7.1.0'\n"
    )
    (tmp_path / "kfd").touch()
    monkeypatch.setattr(devices, "import_module", lambda _: fake_torch(cuda=None, hip="7.1.0", archs=["gfx942"]))
    assert auto_device() == "cuda:0"
    monkeypatch.setenv("HIP_VISIBLE_DEVICES", "-1")
    assert auto_device() == "cpu"


@pytest.mark.parametrize("present", [None, SimpleNamespace()])
def test_what_stands_in_for_pytorch_is_no_pytorch(driver: Path, present: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", present)
    assert auto_device() == "cpu"


def test_a_folder_of_that_name_is_no_pytorch(driver: Path, tmp_path: Path) -> None:
    (tmp_path / "torch" / "__init__.py").unlink()
    assert auto_device() == "cpu"


def test_loading_and_transcribing_without_a_driver_imports_no_pytorch(tmp_path: Path) -> None:
    """In a process of its own, with a PyTorch for CUDA installed."""
    installed(tmp_path, "raise AssertionError('imported')")
    program = (
        "import sys, stapes\n"
        "from pathlib import Path\n"
        "from stapes.backends import select\n"
        "from stapes.backends.torch import devices\n"
        "devices._DRIVER_FILES = {'cuda': (Path('nowhere'),), 'hip': ()}\n"
        "backend = select.open_backend(stapes.testing.random_checkpoint(), name='auto', precision='auto', threads=1)\n"
        "print(stapes.check_device(), backend.info.device, 'torch' in sys.modules)\n"
    )
    path = os.pathsep.join([str(tmp_path), str(SOURCE)])
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program],
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONPATH": path, "PATH": "", "XDG_CACHE_HOME": str(tmp_path)},
    )
    assert done.stdout == "cpu cpu False\n", done.stderr


def test_looking_for_a_gpu_takes_no_time_where_there_is_none(driver: Path) -> None:
    driver.unlink()
    took = []
    for _ in range(20):
        started = time.perf_counter()
        auto_device()
        took.append(time.perf_counter() - started)
    assert min(took) < 0.002  # some 20 microseconds


# What is opened.


class OpenedBackend:
    """Stands for TorchBackend."""

    opened: list[OpenedBackend]
    failing: str | None = None

    def __init__(self, checkpoint: Any, device: str, **keywords: Any) -> None:
        if device == self.failing:
            raise BackendError("out of memory")
        self.device, self.keywords, self.is_shut = device, keywords, False
        self.opened.append(self)

    def shut_down(self) -> None:
        self.is_shut = True


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[OpenedBackend]:
    """Have TorchBackend be a stand-in, two GPUs be here, and return what is opened."""
    monkeypatch.setattr(OpenedBackend, "opened", [], raising=False)
    monkeypatch.setitem(REGISTRY, "torch", (__name__, "OpenedBackend"))
    monkeypatch.setattr(select, "check_device", lambda _: None)
    monkeypatch.setattr(select, "auto_device", lambda: "cuda:0")
    return OpenedBackend.opened


def open_on(**keywords: Any) -> Any:
    return select.open_backend(
        random_checkpoint(), **{"name": "auto", "precision": "auto", "threads": None, **keywords}
    )


def test_a_gpu_that_is_found_computes_in_float16(opened: list[OpenedBackend]) -> None:
    open_on()
    (one,) = opened
    chosen = one.keywords.pop("chosen")
    assert (one.device, one.keywords) == (
        "cuda:0", {"precision": "float16", "threads": None, "device_memory": None}
    )  # fmt: skip
    assert (chosen.precision, chosen.isa, chosen.measured) == ("float16", None, False)
    assert chosen.reason == "the reference's own on GPUs; word errors were not measured there"


@pytest.mark.parametrize("precision", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("device", ["cuda:1", "cpu"])
def test_pytorch_computes_in_what_is_asked_for(opened: list[OpenedBackend], device: str, precision: str) -> None:
    open_on(name="torch", device=device, precision=precision, device_memory=8e9)
    (one,) = opened
    assert (one.device, one.keywords["precision"], one.keywords["device_memory"]) == (device, precision, 8_000_000_000)
    assert one.keywords["chosen"].reason is None


@pytest.mark.parametrize(("device", "name"), [("cpu", "torch"), ("mps", "auto")])
def test_pytorch_computes_in_float32_elsewhere(opened: list[OpenedBackend], device: str, name: str) -> None:
    open_on(name=name, device=device)
    (one,) = opened
    chosen = one.keywords["chosen"]
    assert (one.device, one.keywords["precision"], chosen.measured) == (device, "float32", True)
    assert chosen.reason.startswith("exact")


@pytest.mark.parametrize("keywords", [{"precision": "int8"}, {"name": "numpy"}, {"device": "cpu"}])
def test_what_is_for_cpus_runs_there(opened: list[OpenedBackend], keywords: dict[str, str]) -> None:
    if keywords.get("name") != "numpy":
        pytest.importorskip("stapes._native", reason="the native library was not built", exc_type=ImportError)
    backend = open_on(**keywords)
    assert (backend.info.device, opened) == ("cpu", [])
    backend.shut_down()


def test_int8_on_pytorch_is_refused(opened: list[OpenedBackend]) -> None:
    with pytest.raises(OptionError, match=r"not for backend 'torch'; there are: float32, float16, bfloat16, auto"):
        open_on(name="torch", device="cpu", precision="int8")
    assert not opened


def test_of_several_devices_none_stays_open_where_one_fails(
    opened: list[OpenedBackend], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(OpenedBackend, "failing", "cuda:1")
    with pytest.raises(BackendError, match="out of memory"):
        open_on(device="cuda:0,cuda:1")
    assert [(one.device, one.is_shut) for one in opened] == [("cuda:0", True)]


def test_a_device_is_looked_for_before_a_model(monkeypatch: pytest.MonkeyPatch, put: Callable[..., None]) -> None:
    monkeypatch.setattr("stapes.checkpoint.sources.find.find_checkpoint", lambda *_, **__: pytest.fail("looked for"))
    put(count=1)
    with pytest.raises(BackendError, match="there is 1 GPU, cuda:0"):
        stapes.load("base", device="cuda:9")


@pytest.mark.reference
def test_pytorch_on_the_cpu_is_opened_where_it_is_asked_for() -> None:
    """With the real one."""
    pytest.importorskip("torch", reason="needs PyTorch")
    assert stapes.check_device("cpu", backend="torch") == "cpu"
    for precision, used in (("auto", "float32"), ("bfloat16", "bfloat16")):
        backend = open_on(name="torch", device="cpu", precision=precision, device_memory=10**9)
        info = backend.info
        backend.shut_down()
        assert (info.name, info.device, info.precision, info.precision_measured) == ("torch", "cpu", used, True)
