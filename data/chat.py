"""Language models that answer a chat: any OpenAI-compatible endpoint, or a transformers model on this machine.

Both take a request as plain JSON and return the whole answer as plain JSON, so that a log of the two
is complete. No key is ever part of either.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import urllib3

from echo.backbone.extras import need

Message = dict[str, str]
Body = dict[str, Any]
"""A request or an answer as plain JSON."""
ASKED = "a local language model"
BUSY = frozenset({408, 409, 425, 429, *range(500, 600)})
"""Statuses after which the same request may be answered later."""
TRIES = 7
LONGEST_WAIT_S = 60
"""Longest wait between two tries."""
LONGEST_SILENCE_S = 300.0
"""Timeout of a server's answer."""


class Chat(Protocol):
    """A chat model."""

    def request(self, messages: Sequence[Message], seed: int) -> Body:
        """The whole request, for the log."""

    def answer(self, request: Mapping[str, Any]) -> Body:
        """The whole answer. Raises ValueError in one line if there is none."""


def text_of(answer: Mapping[str, Any]) -> tuple[str, str]:
    """A model's text and its finish reason. Raises ValueError for an answer of another form."""
    try:
        choice = answer["choices"][0]
        return str(choice["message"]["content"] or ""), str(choice.get("finish_reason") or "")
    except (KeyError, IndexError, TypeError):
        raise ValueError(f"no chat completion but {str(answer)[:120]!r}; nearest is an endpoint that ends in /v1") from None


class Endpoint:
    """Any server that speaks the chat-completions protocol.

    It uses urllib3, with retries. The hub's client would rewrite a request's `response_format` and, without a
    key, send a saved hub token to the named server: the log would be incomplete, and the token would leak. No
    redirect is followed, since it would send the key elsewhere.

    Args:
        url: base address, up to and with /v1.
        model: the server's name of the model.
        settings: entries of every request besides messages, model and seed; None removes one.
        key_variable: environment variable with the key; if it is not set, no key is sent.
    """

    def __init__(self, url: str, model: str, settings: Mapping[str, Any], *, key_variable: str = "OPENAI_API_KEY") -> None:
        if not url.startswith(("http://", "https://")):
            raise ValueError(f"endpoint={url}: no address; nearest is http://{url or 'localhost:8000/v1'}")
        self._url = url.rstrip("/").removesuffix("/chat/completions") + "/chat/completions"
        self._model, self._settings = model, dict(settings)
        self._key_variable, self._key = key_variable, os.environ.get(key_variable, "").strip()
        again = urllib3.Retry(
            TRIES - 1, allowed_methods=None, status_forcelist=BUSY, raise_on_status=False,
            backoff_factor=1, backoff_max=LONGEST_WAIT_S, retry_after_max=LONGEST_WAIT_S,
        )  # fmt: skip
        proxies = {} if proxy_bypass(urlsplit(url).netloc) else getproxies()
        proxy = proxies.get(urlsplit(url).scheme)
        pool = urllib3.ProxyManager(proxy) if proxy else urllib3.PoolManager()
        headers = {"Accept": "application/json"} | ({"Authorization": f"Bearer {self._key}"} if self._key else {})
        self._post = partial(pool.request, "POST", self._url, headers=headers, timeout=LONGEST_SILENCE_S, retries=again, redirect=False)

    def request(self, messages: Sequence[Message], seed: int) -> Body:
        """Body of the request."""
        body = {"model": self._model, "messages": [dict(one) for one in messages], "seed": seed, **self._settings}
        return {key: value for key, value in body.items() if value is not None}

    def answer(self, request: Mapping[str, Any]) -> Body:
        """The server's answer, with retries while it is busy; waits double or follow the server's `Retry-After`.

        Raises:
            ValueError: in one line, for an error status or a server that stays busy.
        """
        try:
            response = self._post(json=request)
        except urllib3.exceptions.HTTPError as error:
            reason = self._shown(str(getattr(error, "reason", error)))
            raise ValueError(f"{self._url}: no answer after {TRIES} tries, at last: {reason}") from None
        text = self._shown(response.data.decode("utf-8", "replace"))
        if response.status in BUSY:
            raise ValueError(f"{self._url}: no answer after {TRIES} tries, at last: {response.status} {text}")
        if response.status >= 300:
            hint = f"; the key is read from {self._key_variable}" if response.status in (401, 403) else ""
            raise ValueError(f"{self._url}: answers {response.status} {text}{hint}")
        try:
            answer = response.json()
        except ValueError:
            raise ValueError(f"{self._url}: answers no JSON but {text[:120]!r}") from None
        if not isinstance(answer, dict):
            raise ValueError(f"{self._url}: answers no chat completion but {str(answer)[:120]!r}")
        return answer

    def _shown(self, text: str) -> str:
        """A server's message in one line, without the key if it repeats it."""
        hidden = text.replace(self._key, "(key)") if self._key else text
        return " ".join(hidden.split())[:240]


class Local:
    """A transformers model on this machine, on its GPU if there is one; greedy at temperature 0, else sampled with the seed."""

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
        """A generated answer in the form of a chat completion. Raises ValueError if the messages leave no room for it."""
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
        how = {"temperature": warm, "top_p": 1.0, "top_k": 0} if warm > 0 else dict.fromkeys(("temperature", "top_p", "top_k"))
        with torch.inference_mode():
            whole = self._model.generate(**inputs, max_new_tokens=longest, do_sample=warm > 0, pad_token_id=tokenizer.eos_token_id, **how)
        new, ends = whole[0, asked:], self._model.generation_config.eos_token_id
        ended = int(new[-1]) in (ends if isinstance(ends, list) else [ends, tokenizer.eos_token_id])
        said = tokenizer.decode(new, skip_special_tokens=True)
        return {
            "model": self._name,
            "choices": [{"index": 0, "message": {"role": "assistant", "content": said}, "finish_reason": "stop" if ended else "length"}],
            "usage": {"prompt_tokens": asked, "completion_tokens": len(new)},
        }


def model_name(model: str) -> str:
    """A local model's name in a log: the last part of a folder, so that it may be moved."""
    return Path(model).name if Path(model).is_dir() else model
