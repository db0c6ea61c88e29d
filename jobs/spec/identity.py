"""Names by content: a run, a unit and a way of scoring are hashes of what can change them.

The fields of `jobs.spec.config` declare what they may change; raise an epoch here when the code of that path changes results
for an unchanged config. The commit is provenance, not identity: most commits change no pixel.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from echo.files import digest, file_digest
from echo.scene import Prompt
from jobs.spec import scoring
from jobs.spec.config import RANDOM, Key, MethodConfig, RunConfig, located

PIXEL_EPOCH = 2
SCORE_EPOCH = 2
KERNEL = "sdpa cpu"  # attention kernel and device of the embedded backbones; the others choose theirs
ENTERS = ("pixels", "pixels_file", "scores", "scores_file", "nothing")


def leaves(config: Any, where: str = "") -> Iterator[tuple[str, dataclasses.Field[Any], Any]]:
    """Every field of a config tree as (path, field, value). Raises ValueError if a field does not declare what it enters."""
    for field in dataclasses.fields(config):
        if field.metadata.get("enters") not in ENTERS:
            raise ValueError(f"{type(config).__name__}.{field.name} must declare one of {', '.join(ENTERS)}")
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            yield from leaves(value, f"{where}{field.name}.")
        else:
            yield f"{where}{field.name}", field, value


def _entering(config: RunConfig, kind: str) -> Key:
    entering: Key = {}
    for path, field, value in leaves(config):
        if field.metadata.get("silent") and value == field.default:
            continue
        if field.metadata["enters"] == kind:
            entering[path] = value
        elif field.metadata["enters"] == f"{kind}_file":
            entering[path] = value if value in (None, RANDOM) else file_digest(located(value))
    return entering


def mixes(config: RunConfig) -> bool:
    """Whether the prompts that share a batch change each other's pixels, in the last digits. Those of an embedded backbone in fp32
    do not (tests/echo/backbone/test_batches.py), so that they may be batched in any way."""
    return config.batch > 1 and (config.backbone.parts is not None or config.backbone.dtype != "float32")


def run_key(config: RunConfig, settings: Mapping[str, Any], source: Mapping[str, str | None] | None = None) -> Key:
    """What can change a pixel of a run, apart from the prompt.

    Args:
        config: the checked config.
        settings: every setting of the policy, defaults included, so that a changed default is another run.
        source: package, version and file of a policy of another package, so that its changed code is another run.
    """
    key = _entering(config, "pixels")
    assert MethodConfig.__dataclass_fields__["settings"].metadata["enters"] == "pixels"
    key["method.settings"] = json.loads(json.dumps(settings))
    if source is not None:
        key["method.source"] = dict(source)
    if not mixes(config):
        key["batch"] = 1
    parts = config.backbone.parts
    kernel = KERNEL if parts is None else f"{parts.kernel} {parts.device}"
    return {"epoch": PIXEL_EPOCH, "kernel": kernel, "pixels": key}


def unit_key(run_id: str, prompt: Prompt, group: Sequence[Prompt] | None, *, routed: bool = False) -> Key:
    """What can change a pixel of one video.

    Args:
        run_id: name of the run.
        prompt: the prompt.
        routed: whether its scenes are compared by their words. Older code only read the letters a to z, so that videos of other
            letters have new names.
        group: the whole prompt set if prompts change each other in a batch (`mixes`), since it decides which share one; else None.
    """
    members = None if group is None else digest([p.content() for p in group])
    texts = (text for one in group or (prompt,) for text in one.scenes if not text.isascii())
    letters = routed and any(sign.isalpha() and not sign.isascii() for text in texts for sign in text)
    return {"run": run_id, "prompt": prompt.content(), "group": members} | ({"words": "any script"} if letters else {})


def scores_key(config: RunConfig) -> Key | None:
    """What can change a score of a finished video; None when the config scores nothing."""
    if config.eval.scorer is None:
        return None
    if config.eval.scorer != scoring.SCORER:
        return {"epoch": SCORE_EPOCH, "scores": _entering(config, "scores")}
    plain = dataclasses.replace(config, eval=dataclasses.replace(config.eval, weights=None))
    networks = scoring.content(config)  # not a digest of the whole folder: only the networks that are used count
    read = {"eval.weights": networks, "video": dataclasses.asdict(config.video)}  # the file is what is scored
    return {"epoch": SCORE_EPOCH, "scores": _entering(plain, "scores") | read}


def shard_of(index: int, whole: int) -> int:
    """The shard (1..whole) of the prompt at an index of its set; any first n prompts are spread evenly."""
    return index % whole + 1
