"""OpenAI's own client, unchanged, against the server: every format, option and stream."""

from __future__ import annotations

import asyncio
import io
import wave
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from openai.types.audio import TranscriptionVerbose, TranslationVerbose

from stapes import Engine
from stapes.server.keys import new_key
from stapes.testing import LoudnessVad, scripted_engine, tone
from tests.server.running import HELLO, Running, running

TEXT = "Hello, world. How are you?"


def sound(duration_s: float = 40.0) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(2)
        writer.setframerate(16_000)
        writer.writeframes((tone(duration_s) * 32_000).astype("<i2").tobytes())
    return file.getvalue()


SOUND = sound()


def engine() -> Engine:
    return scripted_engine(HELLO, open_vad=LoudnessVad)


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with running(engine) as one:
        yield one


@pytest.fixture(scope="module")
def client(server: Running) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as one:
        yield one


def test_json_is_the_default(client: OpenAI) -> None:
    found = client.audio.transcriptions.create(model="base", file=SOUND)
    assert found.text == TEXT
    assert found.usage is not None
    assert found.usage.type == "duration"
    assert found.usage.seconds == 40


@pytest.mark.parametrize("model", ["base", "whisper-1", "gpt-4o-transcribe", "gpt-transcribe"])
def test_the_names_that_programs_have_built_in_lead_to_the_default_model(client: OpenAI, model: str) -> None:
    assert client.audio.transcriptions.create(model=model, file=("a.wav", SOUND, "audio/wav")).text == TEXT


@pytest.mark.parametrize(("name", "begin"), [("text", TEXT), ("srt", "1\n00:00:00,000 --> "), ("vtt", "WEBVTT\n")])
def test_texts(client: OpenAI, name: Any, begin: str) -> None:
    found: Any = client.audio.transcriptions.create(model="base", file=SOUND, response_format=name)
    assert isinstance(found, str)
    assert found.startswith(begin)


def test_verbose_json_with_words(client: OpenAI) -> None:
    found = client.audio.transcriptions.create(
        model="base", file=SOUND, response_format="verbose_json", timestamp_granularities=["word", "segment"]
    )
    assert isinstance(found, TranscriptionVerbose)
    assert (found.language, found.duration) == ("english", 40.0)
    assert " ".join(one.text.strip() for one in found.segments or ()) == found.text
    assert [one.word for one in found.words or ()] == found.text.split()
    words = client.audio.transcriptions.create(
        model="base", file=SOUND, response_format="verbose_json", timestamp_granularities=["word"]
    )
    assert words.segments is None
    assert [one.word for one in words.words or ()] == words.text.split()


def test_log_probabilities(client: OpenAI) -> None:
    found = client.audio.transcriptions.create(model="base", file=SOUND, include=["logprobs"])
    assert "".join(one.token or "" for one in found.logprobs or ()).strip() == TEXT


def test_a_stream_gives_the_text_in_deltas(client: OpenAI) -> None:
    events = list(client.audio.transcriptions.create(model="base", file=SOUND, stream=True))
    kinds = [one.type for one in events]
    assert kinds == ["transcript.text.delta", "transcript.text.delta", "transcript.text.done"]
    assert "".join(getattr(one, "delta", "") for one in events) == getattr(events[-1], "text", "") == TEXT


@pytest.mark.filterwarnings("ignore:.*:DeprecationWarning")
def test_translations(client: OpenAI) -> None:
    assert client.audio.translations.create(model="base", file=SOUND).text == TEXT
    found = client.audio.translations.create(model="base", file=SOUND, response_format="verbose_json")
    assert isinstance(found, TranslationVerbose)
    assert found.language == "english"


def test_options_of_ours_and_nested_ones_are_taken(client: OpenAI) -> None:
    found = client.audio.transcriptions.create(
        model="base", file=SOUND, language="en", prompt="Ossicles.", temperature=0.2,
        chunking_strategy={"type": "server_vad", "threshold": 0.4}, extra_body={"beam_size": 2, "hotwords": "incus"},
    )  # fmt: skip
    assert found.text == TEXT


def test_models(client: OpenAI) -> None:
    names = [one.id for one in client.models.list()]
    assert names[0] == "base"
    assert "whisper-1" in names
    assert client.models.retrieve("base").owned_by == "stapes"
    with pytest.raises(openai.NotFoundError, match="does not exist"):
        client.models.retrieve("gone")


@pytest.mark.parametrize(
    ("keywords", "kind", "param", "code"),
    [
        ({"model": "gone"}, openai.NotFoundError, "model", "model_not_found"),
        ({"file": b"no sound"}, openai.BadRequestError, "file", "invalid_audio"),
        ({"file": b""}, openai.BadRequestError, "file", "empty_file"),
        ({"language": "xx"}, openai.BadRequestError, "language", "invalid_value"),
        ({"response_format": "xml"}, openai.BadRequestError, "response_format", "invalid_value"),
        ({"extra_body": {"vad_filter": True}}, openai.BadRequestError, "vad_filter", "unknown_parameter"),
    ],
)
@pytest.mark.filterwarnings("ignore:The 'warn' method is deprecated:DeprecationWarning")  # in the client's version 2
def test_errors_are_those_that_the_client_knows(
    client: OpenAI, keywords: dict[str, Any], kind: type[openai.APIStatusError], param: str, code: str
) -> None:
    with pytest.raises(kind) as caught:
        client.audio.transcriptions.create(**{"model": "base", "file": SOUND, **keywords})
    assert (caught.value.param, caught.value.code) == (param, code)
    assert caught.value.request_id


def test_the_asynchronous_client(server: Running) -> None:
    async def work() -> None:
        async with AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
            call = client.audio.transcriptions.create
            found = await asyncio.gather(*(call(model="base", file=sound(3.0 + n)) for n in range(5)))
            assert {one.text for one in found} <= {"Hello, world.", "How are you?"}
            stream = await call(model="base", file=SOUND, stream=True)
            assert [one.type async for one in stream][-1] == "transcript.text.done"

    asyncio.run(work())


def test_a_key_is_needed_where_there_are_keys(tmp_path: Any) -> None:
    token = new_key(tmp_path / "keys.txt", "anna", "audio_s_per_hour=50")
    with running(engine, key_file=tmp_path / "keys.txt") as server:
        for key in ("none", "sk-stapes-wrong"):
            with (
                OpenAI(base_url=f"{server.url}/v1", api_key=key, max_retries=0) as client,
                pytest.raises(openai.AuthenticationError, match="not known"),
            ):
                client.audio.transcriptions.create(model="base", file=SOUND)
        with OpenAI(base_url=f"{server.url}/v1", api_key=token, max_retries=0) as client:
            assert client.audio.transcriptions.create(model="base", file=SOUND).text == TEXT
            with pytest.raises(openai.RateLimitError, match="50 s of audio an hour"):
                client.audio.transcriptions.create(model="base", file=SOUND)
