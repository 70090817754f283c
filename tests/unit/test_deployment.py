"""What docs/server.md and the Containerfile have people run: the flags exist, and the promises are kept."""

from __future__ import annotations

import configparser
import re
import shlex
from pathlib import Path

import pytest

from stapes.cli.flags import join_spellings

ROOT = Path(__file__).parents[2]
SERVER = (ROOT / "docs" / "server.md").read_text("utf-8")
CONTAINER = (ROOT / "Containerfile").read_text("utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", SERVER, re.DOTALL)


def check_flags(words: list[str]) -> None:
    """Parse the words after `stapes serve`; a flag that is not there ends with SystemExit."""
    pytest.importorskip("starlette")
    from stapes.cli.serve import config_of, parser  # noqa: PLC0415 (needs the extra `server`)

    config_of(parser().parse_args(join_spellings(words)))


def test_every_command_of_the_page_has_flags_that_exist() -> None:
    lines = [line for block in blocks("sh") for line in block.splitlines() if line.startswith("stapes serve")]
    assert len(lines) >= 4
    for line in lines:
        words = shlex.split(line)[2:]
        check_flags([word for word in words if word != "--check"])


def test_the_systemd_unit_is_complete_and_bounded() -> None:
    (text,) = blocks("ini")
    unit = configparser.ConfigParser(interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read_string(text)
    service = unit["Service"]
    program, command, *words = shlex.split(service["ExecStart"])
    assert (Path(program).name, command) == ("stapes", "serve")
    check_flags(words)
    folder = words[words.index("--state_dir") + 1]
    assert folder == f"/var/lib/{service['StateDirectory']}"
    assert (service["StateDirectoryMode"], service["UMask"]) == ("0700", "0077")
    assert {name: service[name] for name in ("DynamicUser", "NoNewPrivileges", "ProtectHome", "PrivateTmp")} == {
        "DynamicUser": "yes", "NoNewPrivileges": "yes", "ProtectHome": "yes", "PrivateTmp": "yes",
    }  # fmt: skip
    assert unit["Install"]["WantedBy"] == "multi-user.target"


def test_the_container_runs_as_a_user_of_its_own_with_flags_that_exist() -> None:
    instructions = [
        line.split(maxsplit=1) for line in CONTAINER.replace("\\\n", " ").splitlines() if line[:1].isupper()
    ]
    names = [name for name, _ in instructions]
    assert names[0] == "FROM"
    users = [value for name, value in instructions if name == "USER"]
    assert users
    assert users[-1] not in ("root", "0")
    (entry,) = [value for name, value in instructions if name == "ENTRYPOINT"]
    words = re.findall(r'"([^"]+)"', entry)
    words += [word for name, value in instructions if name == "CMD" for word in re.findall(r'"([^"]+)"', value)]
    assert (Path(words[0]).name, words[1]) == ("stapes", "serve")
    check_flags(words[2:])


def test_the_proxys_longest_body_is_the_servers() -> None:
    pytest.importorskip("starlette")
    from stapes.server.config import Bounds  # noqa: PLC0415 (needs the extra `server`)

    (nginx,) = blocks("nginx")
    found = re.search(r"client_max_body_size (\d+)m;", nginx)
    assert found
    assert int(found[1]) << 20 == Bounds().max_body_bytes
