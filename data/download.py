"""Download of weights and prompts in `data/hub.yaml`, with a manifest of what was checked."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

import msgspec

from data.hub import TABLE, Checkpoints, HubFile, Table, check
from data.importers import import_prompts
from data.outgoing import may_have_token, said
from echo.backbone.extras import need
from echo.files import ROOT
from echo.refusals import Unfinished, nearest

PARTIAL = ".partial"
"""Folder below the checkpoints with unfinished files."""
LOCK = ".download.lock"
"""Lock file among the checkpoints: only one download runs at a time."""
CHECKPOINTS = Path("checkpoints")
"""Default folder, below the project; another one is relative to the current folder."""
REDIRECTS = 5
SILENCE_S = 10.0
UNITS = {"GB": 1e9, "MB": 1e6}


@dataclass(frozen=True)
class Order:
    """A download's arguments.

    names: kind -> names of the table's groups. mirror: a folder, the address of another hub, or None for the hub. dry: nothing
    is fetched. verify: existing files are checked again.
    """

    names: Mapping[str, Sequence[str]]
    checkpoints: Path
    mirror: Path | str | None
    dry: bool = False
    verify: bool = False


def download(
    backbone: Sequence[str] = (),
    decoder: Sequence[str] = (),
    eval: Sequence[str] = (),
    prompts: Sequence[str] = (),
    checkpoints: Path = CHECKPOINTS,
    mirror: str = "",
    *,
    list: bool = False,
    dry_run: bool = False,
    verify: bool = False,
) -> Iterator[str]:
    """Download weights and prompts, each file checked by size and sha256 before it takes its place; a stopped command resumes.

        echo-harness data download backbone=self_forcing eval=vbench
        echo-harness data download backbone=longlive checkpoints=/data/checkpoints mirror=/mnt/hub --dry-run
        echo-harness data download prompts=echo_forcing
        echo-harness data download --list

    Args:
        backbone: backbones, with all that they need.
        decoder: decoders of latents.
        eval: networks of a scorer.
        prompts: prompt files of others, and the prompt sets made of them.
        checkpoints: the folder to download to; run.py takes the same setting.
        mirror: a folder that has the files, or the address of another hub, which never gets the hub's token.
        list: only list all files with source and licence.
        dry_run: only show what is missing.
        verify: check existing files again.
    """
    table = Table(TABLE)
    asked = {"backbone": backbone, "decoder": decoder, "eval": eval, "prompts": prompts}
    names = {kind: chosen for kind, chosen in asked.items() if chosen}
    if list:
        yield from listing(table)
        return
    if not names:
        first = next(f"{kind}={name}" for kind, group in table.groups.items() for name in group)
        raise ValueError(f"nothing to fetch is named; nearest is {first}, --list shows all")
    folder = checkpoints.expanduser()
    order = Order(names, ROOT / folder if folder == CHECKPOINTS else Path.cwd() / folder, _mirror(mirror), dry_run, verify)
    with nullcontext() if dry_run else _alone(order.checkpoints):
        yield from _carry_out(order, table)


def _mirror(value: str) -> Path | str | None:
    if not value:
        return None
    if value.startswith(("http://", "https://")):
        return value.rstrip("/")
    folder = Path(value).expanduser().absolute()
    if not folder.is_dir():
        raise ValueError(
            f"mirror={value}: neither a folder nor an address that begins with http:// or https://; nearest is {folder.parent}"
        )
    return folder


def _alone(folder: Path) -> AbstractContextManager[Any]:
    """Lock a folder of checkpoints. Raises ValueError if another download holds the lock, since both would write the same files."""
    filelock = need("filelock", asked="a download")
    folder.mkdir(parents=True, exist_ok=True)
    try:
        held: AbstractContextManager[Any] = filelock.FileLock(folder / LOCK).acquire(timeout=0)
    except filelock.Timeout:
        raise ValueError(f"{folder}: another download fetches into it; wait for its end, or nearest is checkpoints=DIR elsewhere") from None
    return held


def _carry_out(order: Order, table: Table) -> Iterator[str]:
    """Fetch, or say what would be fetched; raises like `download`."""
    kept = Checkpoints(order.checkpoints)
    files = [kept.pinned(wanted) for kind, names in order.names.items() for wanted in table.files(kind, names)]
    files = list({wanted.target: wanted for wanted in files}.values())
    if not order.dry and not isinstance(order.mirror, Path):
        files = [_resolved(wanted, order.mirror) if not (kept.folder / wanted.target).is_file() else wanted for wanted in files]
    there = {wanted.target for wanted in files if (kept.folder / wanted.target).is_file()}
    yield from _announce(files, there, order)
    if order.dry:
        return
    for wanted in files:
        try:
            fetched = not kept.there(wanted, again=order.verify)
            if fetched:
                path = _fetch(wanted, order)
                kept.keep(wanted, _checked(path, wanted), path)
        except ValueError as error:
            raise Unfinished(str(error)) from error
        row = kept.rows[wanted.target]
        yield f"{'fetched' if fetched else 'there'}  {wanted.target}  {_size(row.size_bytes)}  sha256 {row.sha256[:12]}"
    _tidied(order.checkpoints / PARTIAL, files)
    yield from _prompt_sets(order, table)


def _prompt_sets(order: Order, table: Table) -> Iterator[str]:
    """Make the prompt sets of the existing prompt files, with ids of task and line; yields a line for each."""
    for name in order.names.get("prompts", ()):
        for task, wanted in table.prompt_sets[name].items():
            settings = msgspec.structs.asdict(wanted) | {"output": order.checkpoints / "prompts" / name / f"{task}.jsonl"}
            yield from import_prompts(order.checkpoints / settings.pop("file"), **settings)


def _tidied(partial: Path, files: Sequence[HubFile]) -> None:
    """Remove partial files of completed downloads, and empty folders; partial files of other commands stay."""
    for wanted in files:
        (partial / wanted.target).unlink(missing_ok=True)
    below = sorted((folder for folder in partial.rglob("*") if folder.is_dir()), reverse=True)  # the inner ones first
    for folder in (*below, partial):
        with suppress(OSError):  # not empty, or never made
            folder.rmdir()


def _checked(path: Path, wanted: HubFile) -> str:
    """The sha256 of a fetched file. Raises ValueError for a wrong one and deletes the file, so that the next command starts again."""
    try:
        return check(path, wanted)
    except ValueError:
        path.unlink()
        raise


def listing(table: Table) -> list[str]:
    """Lines that show every name with its files."""
    lines = []
    for kind, group in table.groups.items():
        for name in group:
            files = table.files(kind, [name])
            lines += [f"{kind}={name}  {_total(files)}", *(f"  {_shown(wanted)}" for wanted in files)]
    return lines


def _shown(wanted: HubFile) -> str:
    return f"{wanted.target}  {_size(wanted.size_bytes)}  {wanted.origin}  ({wanted.license or 'license not stated'})"


def _size(count: int | None) -> str:
    if count is None:
        return "size unknown"
    unit = next((unit for unit in ("GB", "MB") if count >= UNITS[unit]), None)
    return f"{count / UNITS[unit]:.2f} {unit}" if unit else f"{count} bytes"


def _total(files: Sequence[HubFile]) -> str:
    unknown = sum(wanted.size_bytes is None for wanted in files)
    known = sum(wanted.size_bytes or 0 for wanted in files)
    return f"{len(files)} file{'' if len(files) == 1 else 's'}, {_size(known)}" + (f" and {unknown} of unknown size" if unknown else "")


def _announce(files: Sequence[HubFile], there: set[str], order: Order) -> Iterator[str]:
    """The total, before anything is fetched. Raises ValueError if the disk is too small."""
    absent = [wanted for wanted in files if wanted.target not in there]
    parts = (order.checkpoints / PARTIAL / wanted.target for wanted in absent)
    begun = sum(part.stat().st_size for part in parts if part.is_file())
    disk = next(folder for folder in (order.checkpoints, *order.checkpoints.parents) if folder.exists())
    free = shutil.disk_usage(disk).free
    elsewhere = absent and not any(wanted.repo for wanted in absent)
    hub = "the addresses that follow" if elsewhere else os.environ.get("HF_ENDPOINT", "huggingface.co")
    source = f"mirror {order.mirror}" if order.mirror else hub
    line = f"{_total(files)} in all; {len(there)} files there already, to fetch {_total(absent)}"
    line += f" ({_size(begun)} of it begun)" if begun else ""
    yield f"{line}, from {source} to {order.checkpoints} with {_size(free)} free"
    yield from (f"to fetch  {_shown(wanted)}" for wanted in absent)
    needed = sum(wanted.size_bytes or 0 for wanted in absent) - begun
    if needed > free and not isinstance(order.mirror, Path):
        raise ValueError(f"{_size(needed)} are needed, {disk} has {_size(free)} free; nearest is checkpoints=DIR on a larger disk")


def client() -> Any:
    """The hub's client, with secrets removed from its log."""
    hub = need("huggingface_hub", asked="a download")
    for handler in logging.getLogger("huggingface_hub").handlers:
        handler.addFilter(_without_secrets)
    return hub


def _without_secrets(record: logging.LogRecord) -> bool:
    record.msg, record.args = said(record.getMessage()), ()
    return True


def _resolved(wanted: HubFile, endpoint: str | None) -> HubFile:
    """A file of a branch with the branch's present commit, and the hub's size and sha256."""
    if wanted.pinned:
        return wanted
    hub = client()
    try:
        info = hub.HfApi(endpoint=endpoint, token=_token(endpoint or hub.constants.ENDPOINT)).model_info(
            wanted.repo, revision=wanted.revision, files_metadata=True
        )
    except Exception as error:  # any error of the client becomes one line
        raise _unreachable(wanted, endpoint, error) from error
    siblings = {entry.rfilename: entry for entry in info.siblings or ()}
    if wanted.file not in siblings:
        near = nearest(wanted.file, siblings) if siblings else "none, it is empty"
        raise ValueError(f"{wanted.origin}: the repository has no such file; nearest is {near}")
    entry = siblings[wanted.file]
    lfs = entry.lfs.sha256 if entry.lfs else None
    if wanted.sha256 and lfs and wanted.sha256 != lfs:
        raise ValueError(
            f"{wanted.origin}: its sha256 is now {lfs}, at the first download it was {wanted.sha256}; fetch that from a mirror"
        )
    known_by = "hub" if lfs and not wanted.sha256 else wanted.known_by
    size = entry.size if wanted.size_bytes is None else wanted.size_bytes
    return replace(wanted, revision=info.sha, size_bytes=size, sha256=wanted.sha256 or lfs, known_by=known_by)


def _unreachable(wanted: HubFile, endpoint: str | None, error: Exception) -> Unfinished:
    """An error of the hub's client in one line."""
    reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    where = endpoint or os.environ.get("HF_ENDPOINT", "https://huggingface.co")
    if wanted.repo is None:  # at another address, whatever the hub
        where = "://".join(urlsplit(str(wanted.url))[:2])
    rest = "what is begun is kept; nearest without the network is mirror=FOLDER with the files, or mirror=URL of another hub"
    return Unfinished(f"{wanted.origin}: not fetched from {where} ({type(error).__name__}: {reason[:200]}); {rest}")


def _fetch(wanted: HubFile, order: Order) -> Path:
    """Download one file into the folder of unfinished files, resuming an earlier command."""
    part = order.checkpoints / PARTIAL / wanted.target
    part.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(order.mirror, Path):
        _copy(_in_folder(wanted, order.mirror), part)
        return part
    try:
        _read(wanted, part, order.mirror)
    except Exception as error:  # any error of the client becomes one line
        raise _unreachable(wanted, order.mirror, error) from error
    return part


def _read(wanted: HubFile, part: Path, endpoint: str | None) -> None:
    """Read a file of the hub or of another address, from where an earlier command stopped.

    It uses the hub's client with its retries, but not `hf_hub_download`, which since 2.0 discards partial files when a process
    ends; that is too costly for 11 GB.
    """
    hub, client_of_files = client(), need("huggingface_hub.file_download", asked="a download")
    address, size_bytes, headers = f"{wanted.url}/{wanted.file}", wanted.size_bytes, {}
    if wanted.repo is not None:
        page = hub.hf_hub_url(wanted.repo, wanted.file, revision=wanted.revision, endpoint=endpoint)
        address, size_bytes = _located(page)
        headers = _headers(address)
    begun = part.stat().st_size if part.exists() else 0
    if size_bytes is not None and begun > size_bytes:
        begun = 0
    with part.open("ab" if begun else "wb") as write:
        client_of_files.http_get(address, write, resume_size=begun, headers=headers, expected_size=size_bytes)


def _located(page: str) -> tuple[str, int | None]:
    """Address and size of a file of the hub, without following a redirect to another host, because the token is only for the hub."""
    utils = need("huggingface_hub.utils")
    for _ in range(REDIRECTS):
        answer = utils.http_backoff(
            "HEAD", page, headers=_headers(page) | {"Accept-Encoding": "identity"}, timeout=SILENCE_S, follow_redirects=False,
            retry_on_exceptions=(), retry_on_status_codes=(),
        )  # fmt: skip
        utils.hf_raise_for_status(answer)
        target, size = urljoin(page, answer.headers.get("Location", page)), answer.headers.get("X-Linked-Size")
        if not answer.is_redirect or urlsplit(target)[:2] != urlsplit(page)[:2]:
            size = size or (None if answer.is_redirect else answer.headers.get("Content-Length"))
            return target, None if size is None else int(size)
        page = target
    raise ValueError(f"over {REDIRECTS} redirects")


def _headers(address: str) -> dict[str, str]:
    """Headers of a request, with the user's token if the address may have it."""
    headers: dict[str, str] = need("huggingface_hub.utils").build_hf_headers(token=_token(address))
    return headers


def _token(address: str) -> bool | None:
    """The hub client's `token` argument: None for the token that it finds, False for none."""
    return None if may_have_token(address, need("huggingface_hub.constants").ENDPOINT) else False


def _in_folder(wanted: HubFile, mirror: Path) -> Path:
    """The file in a folder: laid out as here, as `hf download --local-dir` does, or as the hub's cache. Raises ValueError."""
    tail = Path(wanted.file)
    places = [mirror / wanted.source / tail, mirror / tail, mirror / tail.name]
    if wanted.repo is not None:
        cache = mirror / f"models--{wanted.repo.replace('/', '--')}" / "snapshots"
        places += [mirror / wanted.repo / tail, mirror / wanted.repo.split("/")[1] / tail]
        places += [cache / wanted.revision / tail, *sorted(cache.glob(f"*/{wanted.file}"))]
    sized = (path for path in places if path.is_file() and wanted.size_bytes in (None, path.stat().st_size))
    path = next(sized, None) or next((path for path in places if path.is_file()), None)
    if path is None:
        looked = ", ".join(str(place.relative_to(mirror)) for place in places[:5])
        raise ValueError(f"mirror {mirror}: no {wanted.file} of {wanted.repo or wanted.url}; looked for {looked}")
    return path


def _copy(source: Path, part: Path) -> None:
    """A hard link on the same disk; else a copy that can be resumed."""
    if not part.exists():
        try:
            os.link(source.resolve(), part)
            return
        except OSError:
            part.touch()
    begun = part.stat().st_size
    with source.open("rb") as read, part.open("r+b") as write:
        read.seek(begun)
        write.seek(begun)
        shutil.copyfileobj(read, write, 2**24)
