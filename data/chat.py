"""Language models that answer a chat: any OpenAI-compatible endpoint, or a transformers model on this machine.

Both take a request as plain JSON and give the whole answer back as plain JSON in the same form, so that a log of the two
says everything that was asked and answered. No key is ever part of either.
"""

from __future__ import annotations

import email.utils
import http.client
import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from echo.backbone.extras import need

Message = dict[str, str]
Body = dict[str, Any]
"""A request or an answer as plain JSON."""
ASKED = "a local language model"
BUSY = frozenset({408, 409, 425, 429})
"""Statuses, beside 5xx, after which the same request may be answered later."""
LONGEST_WAIT_S = 60.0


class Chat(Protocol):
    """A model that answers messages."""

    def request(self, messages: Sequence[Message], seed: int) -> Body:
        """The whole request, which a log can hold."""

    def answer(self, request: Mapping[str, Any]) -> Body:
        """The whole answer. Raises ValueError in one line where none can be had."""


def text_of(answer: Mapping[str, Any]) -> tuple[str, str]:
    """What a model said and why it stopped. Raises ValueError for an answer of another form."""
    try:
        choice = answer["choices"][0]
        return str(choice["message"]["content"] or ""), str(choice.get("finish_reason") or "")
    except (KeyError, IndexError, TypeError):
        raise ValueError(f"no chat completion but {str(answer)[:120]!r}; nearest is an endpoint that ends in /v1") from None


class _Stay(urllib.request.HTTPRedirectHandler):
    """Follow no redirect: it would turn the question into a plain fetch, and take the key elsewhere."""

    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        """Refuse."""


class _Later(Exception):
    """The same request may be answered later, after `wait_s` seconds if the server said so."""

    def __init__(self, reason: str, wait_s: float | None = None) -> None:
        super().__init__(reason)
        self.wait_s = wait_s


class Endpoint:
    """Any server that speaks the chat-completions protocol.

    Python's own client asks: huggingface_hub's rewrites a request's `response_format` and, without a key, sends a saved hub
    token to whatever server is named; a log could then not say what was asked, and the token would leak.

    Args:
        url: base address, up to and with /v1.
        model: name that the server knows.
        settings: entries of every request beside messages, model and seed; None removes one.
        key_variable: environment variable with the key; without it no key is sent.
        retries: how often a busy or silent server is asked again.
        timeout_s: longest silence while it answers.
        wait: sleeps that many seconds.
    """

    def __init__(
        self, url: str, model: str, settings: Mapping[str, Any], *, key_variable: str = "OPENAI_API_KEY",
        retries: int = 6, timeout_s: float = 300.0, wait: Callable[[float], None] = time.sleep,
    ) -> None:  # fmt: skip
        if not url.startswith(("http://", "https://")):
            raise ValueError(f"endpoint={url}: no address; nearest is http://{url or 'localhost:8000/v1'}")
        self._url = url.rstrip("/").removesuffix("/chat/completions") + "/chat/completions"
        self._model, self._settings = model, dict(settings)
        self._key_variable, self._key = key_variable, os.environ.get(key_variable, "").strip()
        self._retries, self._timeout_s, self._wait = retries, timeout_s, wait
        self._opener = urllib.request.build_opener(_Stay)

    def request(self, messages: Sequence[Message], seed: int) -> Body:
        """Body of the request."""
        body = {"model": self._model, "messages": [dict(one) for one in messages], "seed": seed, **self._settings}
        return {key: value for key, value in body.items() if value is not None}

    def answer(self, request: Mapping[str, Any]) -> Body:
        """The server's answer, asked for again while it is busy, the waits doubling from one second or as the server says.

        Raises:
            ValueError: in one line, for a refusal or a server that stays busy.
        """
        attempt, reason = 0, ""
        while attempt <= self._retries:
            try:
                return self._post(request)
            except _Later as later:
                reason = str(later)
                if attempt < self._retries:
                    self._wait(min(LONGEST_WAIT_S, 2.0**attempt if later.wait_s is None else later.wait_s))
            attempt += 1
        raise ValueError(f"{self._url}: no answer after {self._retries + 1} tries, at last: {reason}")

    def _post(self, request: Mapping[str, Any]) -> Body:
        body = json.dumps(request).encode()
        asked = urllib.request.Request(self._url, body, {"Content-Type": "application/json", "Accept": "application/json"})
        if self._key:
            asked.add_unredirected_header("Authorization", f"Bearer {self._key}")
        try:
            with self._opener.open(asked, timeout=self._timeout_s) as response:
                raw = response.read()
        except urllib.error.HTTPError as error:
            with error:
                said = self._shown(error.read(4096).decode("utf-8", "replace"))
            if error.code in BUSY or error.code >= 500:
                raise _Later(f"{error.code} {said}", _retry_after(error.headers.get("Retry-After"))) from None
            hint = f"; the key is read from {self._key_variable}" if error.code in (401, 403) else ""
            raise ValueError(f"{self._url}: answers {error.code} {said}{hint}") from None
        except (OSError, http.client.HTTPException) as error:
            raise _Later(self._shown(str(error)) or type(error).__name__) from None
        try:
            answer = json.loads(raw)
        except ValueError:
            raise ValueError(f"{self._url}: answers no JSON but {self._shown(raw[:120].decode('utf-8', 'replace'))!r}") from None
        if not isinstance(answer, dict):
            raise ValueError(f"{self._url}: answers no chat completion but {str(answer)[:120]!r}")
        return answer

    def _shown(self, text: str) -> str:
        """A server's words in one line, without the key should it have said it."""
        hidden = text.replace(self._key, "(key)") if self._key else text
        return " ".join(hidden.split())[:240]


def _retry_after(said: str | None) -> float | None:
    """Seconds that a Retry-After header asks to wait, as a number or a date; None where it says neither."""
    if said is None:
        return None
    try:
        return max(0.0, float(said))
    except ValueError:
        pass
    try:
        return max(0.0, email.utils.parsedate_to_datetime(said).timestamp() - time.time())
    except ValueError:
        return None


class Local:
    """A transformers model on this machine, on its GPU if there is one; greedy at temperature 0, else drawn with the seed."""

    def __init__(self, model: str, settings: Mapping[str, Any]) -> None:
        if model.startswith(("/", ".", "~")) and not Path(model).is_dir():
            raise ValueError(f"local={model}: no such folder; nearest is a folder with a downloaded model, or a name on the hub")
        transformers, self._torch = need("transformers", asked=ASKED), need("torch", asked=ASKED)
        self._name, self._settings = model, dict(settings)
        self._device = "cuda" if self._torch.cuda.is_available() else "cpu"
        try:
            self._tokenizer = transformers.AutoTokenizer.from_pretrained(model)
            self._model = transformers.AutoModelForCausalLM.from_pretrained(model, dtype="auto").to(self._device).eval()
        except (OSError, ValueError) as error:
            raise ValueError(f"local={model}: {str(error).splitlines()[0]}") from None
        if self._tokenizer.chat_template is None:
            raise ValueError(f"local={model}: has no chat template; nearest is its instruct version")

    def request(self, messages: Sequence[Message], seed: int) -> Body:
        """Messages and settings of one generation."""
        return {"model": model_name(self._name), "messages": [dict(one) for one in messages], "seed": seed, **self._settings}

    def answer(self, request: Mapping[str, Any]) -> Body:
        """A generated answer in the form of a chat completion. Raises ValueError where the messages leave no room for it."""
        torch, tokenizer = self._torch, self._tokenizer
        chat = tokenizer.apply_chat_template(request["messages"], add_generation_prompt=True, return_tensors="pt", return_dict=True)
        inputs = chat.to(self._device)
        asked, longest = inputs["input_ids"].shape[1], int(request.get("max_tokens", 1500))
        room = getattr(self._model.config, "max_position_embeddings", asked + longest)
        if asked + longest > room:
            raise ValueError(
                f"{self._name}: {asked} tokens asked and {longest} to come are more than its {room}; "
                f"nearest is --max-tokens {max(1, room - asked)}"
            )
        torch.manual_seed(int(request["seed"]))
        warm = float(request.get("temperature", 0))
        how = {"do_sample": True, "temperature": warm, "top_p": 1.0, "top_k": 0} if warm > 0 else {
            "do_sample": False, "temperature": None, "top_p": None, "top_k": None,
        }  # fmt: skip
        with torch.inference_mode():
            whole = self._model.generate(**inputs, max_new_tokens=longest, pad_token_id=tokenizer.eos_token_id, **how)
        new, ends = whole[0, asked:], self._model.generation_config.eos_token_id
        ended = int(new[-1]) in (ends if isinstance(ends, list) else [ends, tokenizer.eos_token_id])
        said = tokenizer.decode(new, skip_special_tokens=True)
        return {
            "model": self._name,
            "choices": [{"index": 0, "message": {"role": "assistant", "content": said}, "finish_reason": "stop" if ended else "length"}],
            "usage": {"prompt_tokens": asked, "completion_tokens": len(new)},
        }


def model_name(model: str) -> str:
    """A local model as a log names it: a folder by its last part, so that it may be moved."""
    return Path(model).name if Path(model).is_dir() else model
