"""The builder against a real server of the chat protocol, and against a tiny random model: retries, refusals, the log, resuming."""

from __future__ import annotations

import http.server
import json
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from data.build_shots import ASKS, Log, load_bases, parse_answer, strays
from data.chat import Endpoint, text_of
from data.story import PLACES, Story, scenes_of
from echo.files import ROOT
from echo.scene import Transition, load_prompts
from jobs import cli
from tests.data.test_stories import ACTS, SAMPLES, SUBJECT
from tests.data.test_stories import PLACES as WHERE
from tests.helpers.command import ECHO_HARNESS

KEY = "sk-secret-key"
Reply = tuple[int, dict[str, str], Any]
"""Status, extra headers, body."""


def parts(task: str, kind: str = "ferry") -> dict[str, Any]:
    """A good answer of a model, about another subject each time."""
    subject = SUBJECT.replace("ferry", kind)
    if task == "long":
        return {"text": SAMPLES["long"].text.replace("ferry", kind)}
    places = [{"at": "inside", "what": what} for what in WHERE[: PLACES[task]]]
    if task == "smooth":
        return {"subject": subject, "place": places[0], "light": "a soft red glow", "actions": list(ACTS)}
    return {"subject": subject, "places": places, "actions": list(ACTS)}


def said(content: Any, stopped: str = "stop") -> Reply:
    """A chat completion that says `content`, as JSON unless it is a text."""
    text = content if isinstance(content, str) else json.dumps(content)
    choice = {"message": {"role": "assistant", "content": text}, "finish_reason": stopped}
    return 200, {}, {"id": "x", "choices": [choice], "usage": {"n": 1}}


class Server(http.server.ThreadingHTTPServer):
    """Answers /v1/chat/completions with what `reply` makes of the request, and remembers requests and headers."""

    reply: Callable[[int, dict[str, Any]], Reply]

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests: list[dict[str, Any]] = []
        self.keys: list[str | None] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.requests.append(request)
        self.server.keys.append(self.headers.get("Authorization"))
        status, headers, body = self.server.reply(len(self.server.requests) - 1, request)
        if self.path != "/v1/chat/completions":
            status, body = 404, {"error": f"no {self.path}"}
        raw = body.encode() if isinstance(body, str) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(raw)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(raw)

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    one = Server()
    thread = threading.Thread(target=one.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield one
    one.shutdown()
    one.server_close()
    thread.join()


@pytest.fixture(autouse=True)
def no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setattr("data.chat.LONGEST_WAIT_S", 0.01)


@pytest.fixture
def base(tmp_path: Path) -> Path:
    file = tmp_path / "base.txt"
    file.write_text("A ferry mechanic at work\nA tram mechanic at work\nA crane mechanic at work\n")
    return file


def run(server: Server, base: Path, task: str, *words: str) -> tuple[int, Path]:
    output = base.with_name("out.jsonl")
    return cli.main(
        ["data", "shots", str(base), f"task={task}", "--output", str(output), f"endpoint={server.url}", "model=tiny", *words]
    ), output


def log_of(output: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in output.with_suffix(".log.jsonl").read_text().splitlines()]


def kind_of(request: dict[str, Any]) -> str:
    return request["messages"][1]["content"].split()[3]


@pytest.mark.parametrize("task", ASKS)
def test_a_set_of_each_task(server: Server, base: Path, task: str):
    server.reply = lambda count, request: said(parts(task, kind_of(request)))
    assert run(server, base, task, "seed=7") == (0, base.with_name("out.jsonl"))
    prompts = load_prompts(base.with_name("out.jsonl"))
    samples = [Story(**{**vars(SAMPLES[task]), "subject": SAMPLES[task].subject.replace("ferry", kind),
                        "text": SAMPLES[task].text.replace("ferry", kind)}) for kind in ("ferry", "tram", "crane")]  # fmt: skip
    assert [one.scenes for one in prompts] == [scenes_of(task, story, index) for index, story in enumerate(samples)]
    assert [one.id for one in prompts] == ["out-000", "out-001", "out-002"]
    assert {one.durations_s for one in prompts} == ({(60.0,)} if task == "long" else {(10.0,) * 6})
    if task == "recall":
        assert prompts[0].transitions(prompts[0].tag_meaning)[3:] == (Transition.recall,) * 3
    assert [request["seed"] for request in server.requests] == [7, 8, 9]
    assert all(request["messages"][0] == {"role": "system", "content": ASKS[task]} for request in server.requests)
    assert all((request["model"], request["temperature"]) == ("tiny", 0.0) for request in server.requests)


def test_a_wrong_answer_is_told_and_mended(server: Server, base: Path):
    """Each fault goes back to the model in words; the log has every request and the whole answer."""
    wrong = parts("recall") | {"subject": "a mechanic", "places": [{"at": "inside", "what": WHERE[0]}] * 3}
    replies = [said("I am sorry"), said(wrong), said(f"Sure:\n```json\n{json.dumps(parts('recall'))}\n```")]
    server.reply = lambda count, request: replies[count]
    status, output = run(server, base, "recall", "first=1")
    assert status == 0 and len(load_prompts(output)) == 1
    told = [request["messages"][-1]["content"] for request in server.requests]
    assert "holds no JSON object" in told[1]
    assert "subject 'a mechanic' has 2 words" in told[2] and "the background changes" in told[2]
    assert [len(request["messages"]) for request in server.requests] == [2, 4, 6]
    settings, *entries = log_of(output)
    assert settings["settings"]["task"] == "recall" and settings["settings"]["system"] == ASKS["recall"]
    assert [entry["request"] for entry in entries] == server.requests
    assert [entry["answer"] for entry in entries] == [reply[2] for reply in replies]
    assert [bool(entry["faults"]) for entry in entries] == [True, True, False]


@pytest.mark.parametrize(
    ("content", "stopped", "fault"),
    [
        ("{'subject': 1}", "stop", "not valid JSON"),
        ({"subject": SUBJECT}, "stop", "key 'places' is missing"),
        ('{"subject"', "length", "cut off"),
        (parts("hard") | {"actions": list(ACTS[:5])}, "stop", "actions is a list of exactly 6, not 5"),
        (parts("hard") | {"actions": [f"{ACTS[0]}; rests", *ACTS[1:]]}, "stop", "holds ';'"),
        (parts("hard", "lorry") | {"actions": [act.replace("valve", "tap") for act in ACTS]}, "stop", "nothing of the base prompt"),
    ],
)
def test_what_is_refused(server: Server, base: Path, capsys, content: Any, stopped: str, fault: str):
    base.write_text("Penguins waddle\n")
    server.reply = lambda count, request: said(content, stopped)
    status, output = run(server, base, "hard", "tries=2")
    assert status == 1 and len(server.requests) == 2
    assert any(fault in one for one in log_of(output)[1]["faults"]), log_of(output)[1]["faults"]
    assert "1 of 1 base prompts have no story (000)" in capsys.readouterr().err


def test_the_same_subject_twice_in_a_set_is_refused(server: Server, base: Path):
    server.reply = lambda count, request: said(parts("hard"))
    status, output = run(server, base, "hard", "tries=1")
    assert status == 1 and len(load_prompts(output)) == 1
    assert "story 0 of this set has the same subject; make another" in log_of(output)[2]["faults"]


def test_a_busy_server_is_asked_again_and_as_it_says(server: Server, monkeypatch: pytest.MonkeyPatch):
    """429 with a wait, 500, a broken line, then an answer; waits double where the server names none."""
    waits: list[float] = []
    monkeypatch.setattr("data.chat.LONGEST_WAIT_S", 60)
    monkeypatch.setattr("time.sleep", waits.append)
    busy: list[Reply] = [(429, {"Retry-After": "9"}, "slow down"), (500, {}, "oops"), (200, {"Content-Length": "9999"}, "{")]
    replies = [*busy, said("hello")]
    server.reply = lambda count, request: replies[count]
    chat = Endpoint(server.url, "tiny", {"temperature": 0, "max_tokens": None})
    request = chat.request([{"role": "user", "content": "hi"}], 3)
    assert request == {"model": "tiny", "messages": [{"role": "user", "content": "hi"}], "seed": 3, "temperature": 0}
    assert text_of(chat.answer(request)) == ("hello", "stop")
    assert server.requests == [request] * 4 and waits == [9, 2, 4], waits


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        ((401, {}, f"bad key {KEY}"), "answers 401 bad key (key); the key is read from OPENAI_API_KEY"),
        ((400, {}, "no such model"), "answers 400 no such model"),
        ((302, {"Location": "http://127.0.0.1:9/"}, ""), "answers 302"),
        ((200, {}, "<html>"), "answers no JSON but '<html>'"),
        ((200, {}, {"error": "x"}), "no chat completion"),
        ((503, {"Retry-After": "0"}, "loading"), "no answer after 7 tries, at last: 503 loading"),
    ],
)
def test_a_refusal_of_the_server_is_one_line(server: Server, base: Path, capsys, monkeypatch, reply: Reply, said: str):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    server.reply = lambda count, request: reply
    status, output = run(server, base, "hard")
    err = capsys.readouterr().err
    assert status == 1 and said in err and err.count("\n") == 1, err


def test_the_key_is_sent_and_never_written(server: Server, base: Path, capsys, monkeypatch):
    monkeypatch.setenv("MY_KEY", KEY)
    server.reply = lambda count, request: said(parts("hard", kind_of(request))) if count else (429, {"Retry-After": "0"}, f"key {KEY}")
    assert run(server, base, "hard", "key_variable=MY_KEY")[0] == 0
    assert set(server.keys) == {f"Bearer {KEY}"}
    written = [file.read_text() for file in base.parent.iterdir()] + list(capsys.readouterr())
    assert not any(KEY in text for text in written)
    monkeypatch.setenv("HF_TOKEN", "hf_other")
    base.with_name("out.log.jsonl").unlink()
    assert run(server, base, "hard")[0] == 0 and server.keys[-1] is None, "a saved token of another service is not sent"


def test_a_kill_loses_one_story_at_most(server: Server, base: Path, capsys):
    """Killed while it waits for the second story; started again it asks for the second and third only, and the set is the same."""
    second, killed = threading.Event(), threading.Event()

    def reply(count: int, request: dict[str, Any]) -> Reply:
        if count == 1:
            second.set()
            killed.wait(300)
        return said(parts("hard", kind_of(request)))

    server.reply = reply
    output = base.with_name("out.jsonl")
    words = ["data", "shots", str(base), "task=hard", "--output", str(output), f"endpoint={server.url}", "model=tiny"]
    process = subprocess.Popen([*ECHO_HARNESS, *words], cwd=ROOT, stdout=subprocess.DEVNULL)
    begun = second.wait(300)
    process.kill()
    assert process.wait() != 0 and begun
    killed.set()
    assert len(load_prompts(output)) == 1
    log = output.with_suffix(".log.jsonl")
    log.write_bytes(log.read_bytes() + b'{"index": 1, "id": "001", "base": "A tr')  # as if killed while it wrote a line
    assert run(server, base, "hard")[0] == 0
    assert [kind_of(request) for request in server.requests] == ["ferry", "tram", "tram", "crane"]
    resumed = output.read_bytes()
    assert "[1/3] 000: kept" in capsys.readouterr().out
    assert run(server, base, "hard")[0] == 0 and len(server.requests) == 4 and output.read_bytes() == resumed
    log.unlink()
    assert run(server, base, "hard")[0] == 0 and len(server.requests) == 7 and output.read_bytes() == resumed


def test_a_log_of_other_settings_or_in_use_is_refused(server: Server, base: Path, capsys):
    server.reply = lambda count, request: said(parts("hard", kind_of(request)))
    assert run(server, base, "hard")[0] == 0
    assert run(server, base, "hard", "seed=1")[0] == 2
    assert "begun with another seed=1, was 0; nearest is another --output" in capsys.readouterr().err
    held = Log(base.with_name("other.log.jsonl"), {"task": "hard"})
    with pytest.raises(ValueError, match="another process writes it"):
        Log(held.path, {"task": "hard"})
    held.close()
    Log(held.path, {"task": "hard"}).close()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["endpoint=http://x/v1"], "model=NAME is missing"),
        ([], "exactly one of the two"),
        (["endpoint=http://x/v1", "model=m", "local=y"], "exactly one of the two"),
        (["endpoint=localhost:1", "model=m"], "nearest is http://localhost:1"),
        (["endpoint=http://x/v1", "model=m", "extra={"], "extra={: not JSON"),
        (["endpoint=http://x/v1", "model=m", 'extra={"stream": true}'], "other than messages"),
        (["endpoint=http://x/v1", "model=m", "tries=0"], "tries=0: at least 1"),
        (["endpoint=http://x/v1", "model=m", "first=9"], "nearest is 3"),
        (["endpoint=http://x/v1", "model=m", "duration=9"], "nearest is task=long"),
        (["endpoint=http://x/v1", "model=m", "duration=0"], "duration=0: seconds, half a block or more"),
        (["local=/nowhere/model"], "local=/nowhere/model: no such folder"),
    ],
)
def test_a_mistake_is_one_line_before_any_work(base: Path, capsys, words: list[str], said: str):
    assert cli.main(["data", "shots", str(base), "task=hard", "--output", str(base.with_name("out.jsonl")), *words]) == 2
    err = capsys.readouterr().err
    assert said in err and err.count("\n") == 1, err


def test_bases(tmp_path: Path):
    lines, records = tmp_path / "a.txt", tmp_path / "b.jsonl"
    lines.write_text("\ufeffA fox\r\n\r\n A crow \n", encoding="utf-8")
    records.write_text(json.dumps({"id": "x", "scenes": ["A fox", "A crow"], "durations": [10, 10]}) + "\n")
    assert [(one.index, one.id, one.text) for one in load_bases(lines)] == [(0, "000", "A fox"), (1, "001", "A crow")]
    assert [(one.index, one.id, one.text) for one in load_bases(records)] == [(0, "x", "A fox")]
    lines.write_text("A fox[10s]\n")
    with pytest.raises(ValueError, match=":1: '.10s.' is no tag"):
        load_bases(lines)


def test_straying_is_seen_by_word_starts():
    story = SAMPLES["hard"]
    strayed = [strays("hard", story, base) for base in ("Mechanics on a boat", "Penguins waddle", "渡し船")]
    assert strayed == [False, True, False]


def test_every_system_prompt_describes_an_answer_that_passes():
    """The keys that a prompt asks for are those that are read, and the good samples are of that form."""
    for task, text in ASKS.items():
        assert all(f'"{key}"' in text for key in parts(task))
        assert parse_answer(task, json.dumps(parts(task)), "stop") == SAMPLES[task]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Qwen2 of a few thousand weights with a byte tokenizer and a chat template, in a folder."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(0)
    signs = ["<|im_start|>", "<|im_end|>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    plain = Tokenizer(models.BPE(vocab={sign: number for number, sign in enumerate(signs)}, merges=[]))
    plain.pre_tokenizer, plain.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=plain, eos_token="<|im_end|>", additional_special_tokens=["<|im_start|>"])
    tokenizer.chat_template = (
        "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    config = Qwen2Config(vocab_size=len(signs), hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
                         num_key_value_heads=1, max_position_embeddings=8192, eos_token_id=1, bos_token_id=None)  # fmt: skip
    folder = tmp_path_factory.mktemp("models") / "tiny-qwen2"
    Qwen2ForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_a_local_model_is_asked_in_its_own_template(tiny: Path, base: Path, capsys):
    """A random model says nothing of use: every answer is refused, kept, and told; greedy, it says the same again."""
    output = base.with_name("local.jsonl")
    words = ["data", "shots", str(base), "task=long", "--output", str(output), f"local={tiny}"]
    words += ["max_tokens=12", "tries=2", "first=1"]
    assert cli.main(words) == 1
    assert "1 of 1 base prompts have no story" in capsys.readouterr().err
    entries = log_of(output)[1:]
    assert [len(entry["request"]["messages"]) for entry in entries] == [2, 4]
    assert entries[0]["request"]["model"] == "tiny-qwen2"
    first = entries[0]["answer"]
    assert first["choices"][0]["finish_reason"] == "length" and first["usage"]["completion_tokens"] == 12
    shape = "<|im_start|>system\n{}<|im_end|>\n<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"
    text = shape.format(ASKS["long"], "Base prompt: A ferry mechanic at work")
    marks = 5 * (len("<|im_start|>") - 1) - 2 * (len("<|im_start|>") - len("<|im_end|>"))
    assert first["usage"]["prompt_tokens"] == len(text.encode()) - marks
    output.with_suffix(".log.jsonl").unlink()
    assert cli.main(words) == 1 and log_of(output)[1]["answer"] == first


def test_a_local_answer_that_passes_becomes_a_prompt(tiny: Path, base: Path, monkeypatch: pytest.MonkeyPatch):
    """The same way for a model that can write: every sign ends its answer, and what it decodes to is put there."""
    from transformers import PreTrainedTokenizerFast

    generation = tiny / "generation_config.json"
    generation.write_text(json.dumps({"eos_token_id": list(range(300))}))
    monkeypatch.setattr(PreTrainedTokenizerFast, "decode", lambda self, tokens, **how: json.dumps(parts("hard")))
    output = base.with_name("local.jsonl")
    assert cli.main(["data", "shots", str(base), "task=hard", "--output", str(output), f"local={tiny}", "first=1", "temperature=0.7"]) == 0
    assert load_prompts(output)[0].scenes == scenes_of("hard", SAMPLES["hard"], 0)
