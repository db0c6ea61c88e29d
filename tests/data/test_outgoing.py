"""What goes out: secrets that are planted in the environment, in addresses and in words are in nothing that is written or sent."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from data import download
from data.outgoing import may_have_token, said, without_secrets
from jobs import cli
from jobs.store import provenance
from tests.data.test_download import ENCODER, NETWORK, SMALL, command, quiet, table

__all__ = ["quiet", "table"]
PLANTED = {
    "HF_TOKEN": "hf_PlantedPlantedPlanted", "WANDB_API_KEY": "0123456789abcdef0123", "AWS_SECRET_ACCESS_KEY": "aws/secret+planted/key",
    "AWS_SESSION_TOKEN": "session-planted", "MY_DB_PASSWORD": "correct horse battery",
}  # fmt: skip
WORDS = (
    "https://ann:planted-pass@host/x", "https://host/f?a=1&access_token=planted-query&b=2", "https://s3/f?X-Amz-Signature=planted-sig",
    "Authorization: Bearer planted.bearer.planted", "a line with hf_AnotherOneThatNobodySetHere",
)  # fmt: skip
FORBIDDEN = (*PLANTED.values(), "planted-pass", "planted-query", "planted-sig", "planted.bearer", "hf_Another")


@pytest.fixture
def planted(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in PLANTED.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("HF_TOKEN_PATH", "/home/somebody")
    monkeypatch.setenv("NO_TOKEN", "short")


def test_secrets_are_blotted_and_nothing_else_is(planted: None) -> None:
    words = [*WORDS, *(f"x={value}" for value in PLANTED.values())]
    kept = without_secrets({"argv": words, "deep": {"tuple": tuple(words), "number": 3, "none": None}})
    assert not [word for word in FORBIDDEN if word in str(kept)], kept
    assert kept["argv"][:2] == ["https://***@host/x", "https://host/f?a=1&access_token=***&b=2"] and kept["deep"]["number"] == 3
    plain = [
        "/home/somebody/short.pt",
        "python run.py method=echo seed=0 task=recall",
        "https://host/f?frame=3&keys",
        "a@b.example",
        "hf_hub",
    ]
    assert without_secrets(plain) == plain


def test_provenance_holds_none(planted: None) -> None:
    kept = provenance.describe(["run.py", *WORDS, PLANTED["HF_TOKEN"]], {"weights": WORDS[0], "list": [PLANTED["WANDB_API_KEY"]]})
    assert not [word for word in FORBIDDEN if word in repr(kept)], kept


def test_error_lines_hold_none_and_move_no_cursor(planted: None, table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    address = "http://ann:planted-pass@127.0.0.1:9/?token=planted-query"
    assert command(table, "backbone=net", f"mirror={address}") == 1
    assert cli.main(["score", f"/nowhere/{PLANTED['HF_TOKEN']}/\x1b[2Jx\x9b3m"]) == 2
    told = capsys.readouterr()
    lines = told.out + told.err
    assert "***@127.0.0.1:9" in lines and "\\x1b[2Jx\\x9b3m" in lines, lines
    assert not [word for word in FORBIDDEN if word in lines] and "\x1b" not in lines, lines
    assert said("\x1b[1m76.00\x1b[0m\ta\nb") == "\x1b[1m76.00\x1b[0m\ta\nb", "a table's best value stays bold"
    assert said("half an emoji \ud83d, \u202eevil") == "half an emoji \\ud83d, \\u202eevil"


def test_what_the_hubs_client_logs_holds_none(planted: None, capsys: pytest.CaptureFixture[str]) -> None:
    import logging

    download.client()
    record = logging.LogRecord("huggingface_hub.file_download", logging.WARNING, "", 1, "from %s: %s", (WORDS[0], WORDS[1]), None)
    (handler,) = logging.getLogger("huggingface_hub").handlers
    assert handler.filter(record)
    assert "from https://***@host/x: https://host/f?a=1&access_token=***" in handler.format(record)


class Foreign(http.server.BaseHTTPRequestHandler):
    """A hub, or a store that it sends clients to; it writes down who came with a token."""

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        self.server.came.append((self.command, self.headers["Authorization"]))
        name = self.path.rsplit("/", 1)[-1]
        content = {"net.pt": NETWORK, "text.pth": ENCODER, "spiece.model": SMALL}[name]
        if self.server.elsewhere and self.command in self.server.sends:
            self.send_response(302)
            self.send_header("Location", f"{self.server.elsewhere}/{name}")
            self.send_header("X-Linked-Size", str(len(content)))
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)


@pytest.fixture
def servers() -> Iterator[list[http.server.ThreadingHTTPServer]]:
    """A hub and another host. elsewhere: whither the first sends requests of the kinds `sends`."""
    made = [http.server.ThreadingHTTPServer(("127.0.0.1", 0), Foreign) for _ in range(2)]
    for server in made:
        server.came, server.elsewhere, server.sends = [], "", ()
        server.url = f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    yield made
    for server in made:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize("sends", [(), ("HEAD",), ("GET",), ("HEAD", "GET")])
def test_a_token_goes_to_its_hub_and_no_further(planted, table, servers, monkeypatch, capsys, sends) -> None:
    import huggingface_hub.constants

    hub, other = servers
    hub.elsewhere, hub.sends = other.url if sends else "", sends
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", hub.url)
    template = huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE.replace("https://huggingface.co", hub.url)
    monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    assert command(table, "backbone=net") == 0, capsys.readouterr().err
    own = [token for _, token in hub.came]
    assert own and set(own) == {f"Bearer {PLANTED['HF_TOKEN']}"}, "on the loopback the hub gets it"
    assert {token for _, token in other.came} <= {None} and bool(other.came) is bool(sends)
    assert "Planted" not in "".join(capsys.readouterr())


def test_a_mirror_gets_none(planted, table, servers, monkeypatch, capsys) -> None:
    hub, other = servers
    assert command(table, "backbone=net", f"mirror={other.url}") == 0, capsys.readouterr().err
    assert {token for _, token in other.came} == {None} and not hub.came


@pytest.mark.parametrize(
    ("address", "hub", "goes"),
    [
        ("https://huggingface.co/a/resolve/main/x", "https://huggingface.co", True),
        ("https://HuggingFace.co/x", "https://huggingface.co", True),
        ("http://huggingface.co/x", "https://huggingface.co", False),
        ("https://huggingface.co.evil.example/x", "https://huggingface.co", False),
        ("https://huggingface.co@evil.example/x", "https://huggingface.co", False),
        ("https://huggingface.co:8443/x", "https://huggingface.co", False),
        ("http://hub.corp/x", "http://hub.corp", False),
        ("http://localhost:8000/x", "http://localhost:8000", True),
        ("http://[::1]:8000/x", "http://[::1]:8000", True),
        ("https://hub.corp/x", "https://hub.corp", True),
        ("https://huggingface.co/x", "https://hub.corp", False),
    ],
)
def test_where_a_token_may_go(address: str, hub: str, goes: bool) -> None:
    assert may_have_token(address, hub) is goes
